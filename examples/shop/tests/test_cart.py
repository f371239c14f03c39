def test_puts_a_product_in_the_cart(visitor):
    visitor.open("/")
    visitor.press("#sencha button")
    assert visitor.read("#cart-count") == "1"
    assert visitor.cents("#line-sencha .price") == 12_50
    assert visitor.cents("#total") == 12_50 + 4_90


def test_changes_a_quantity(visitor):
    visitor.add("rooibos")
    visitor.fill("quantity", "3")
    visitor.press("#line-rooibos td:nth-child(2) button")
    assert visitor.read("#cart-count") == "3"
    assert visitor.cents("#line-rooibos .price") == 3 * 7_40


def test_removes_a_product(visitor):
    visitor.add("cup")
    visitor.add("whisk")
    visitor.press("#line-cup .remove")
    assert not visitor.all("#line-cup")
    visitor.press("#line-whisk .remove")
    assert "Your cart is empty" in visitor.read("#empty-cart")


def test_ships_large_orders_for_nothing(visitor):
    visitor.add("teapot")
    assert visitor.cents("#shipping") == 4_90
    visitor.add("cup")
    assert visitor.read("#shipping") == "free"
    assert visitor.cents("#total") == 38_00 + 14_00


def test_takes_the_discount_off_the_goods_only(visitor):
    visitor.add("teapot")
    visitor.fill("code", "WELCOME10")
    visitor.press(".code button")
    goods, shipping = visitor.cents("#goods"), visitor.cents("#shipping")
    promised = goods - goods * 10 // 100 + shipping
    assert visitor.cents("#total") == promised, (
        f"the shop asks for {visitor.read('#total')}. Goods {visitor.read('#goods')} less 10 % "
        f"plus shipping {visitor.read('#shipping')} are € {promised / 100:.2f}. "
        f"Its discount ({visitor.read('#discount')}) is 10 % of goods and shipping together."
    )
