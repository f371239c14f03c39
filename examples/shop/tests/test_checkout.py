import os


def test_pays_by_card(visitor):
    card = os.environ.get("CARD", "visa")
    visitor.add("sencha")
    visitor.check_out(card)
    assert visitor.read("h1") == "Thank you, Ada!"
    assert visitor.cents("#paid") == 12_50 + 4_90
    assert visitor.read("#paid-by") == {"visa": "Visa ending in 4242", "mastercard": "Mastercard ending in 4444"}[card]
    assert visitor.read("#cart-count") == "0"


def test_refuses_a_declined_card(visitor):
    visitor.add("sencha")
    visitor.check_out("declined")
    assert "declined" in visitor.read("[role=alert]")
    assert visitor.read("#cart-count") == "1", "a declined card must not cost the visitor the cart"


def test_asks_for_the_address(visitor):
    visitor.add("sencha")
    visitor.check_out("visa", address="")
    assert "your address" in visitor.read("[role=alert]")
