import os
from urllib.parse import quote


def test_signs_in(visitor):
    visitor.sign_in()
    assert visitor.read("h1") == "Your orders"
    assert "Sign out ada@example.com" in visitor.read("nav")


def test_refuses_a_wrong_password(visitor):
    visitor.sign_in(password="oolong")
    assert "password is wrong" in visitor.read("[role=alert]")
    visitor.open("/orders")
    assert visitor.read("h1") == "Sign in"


def test_lists_a_new_order(visitor):
    visitor.sign_in()
    assert visitor.read("#no-orders") == "You have no orders yet."
    visitor.add("kettle")
    visitor.check_out("visa")
    visitor.open("/orders")
    assert len(visitor.all(".order")) == 1
    assert visitor.cents(".order .price") == 64_00


def test_recommends_something_to_a_new_shopper(visitor):
    # PROCTOR_KEY is the same in every attempt at this job and in no other job, so each run has a shopper of its own.
    visitor.open(f"/for-you?shopper={quote(os.environ.get('PROCTOR_KEY', 'by-hand'))}")
    picks = visitor.all("#picks .product")
    assert picks, f"a shopper's first visit brings no recommendation: {visitor.read('#picks')!r}"


def test_shows_the_years_report(visitor):
    visitor.open("/report")
    visitor.find("#report", within=15)
    assert len(visitor.all("#report tbody tr")) == 6
