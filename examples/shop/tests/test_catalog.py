def test_shows_every_product(visitor):
    visitor.open("/")
    assert visitor.read("h1") == "Tea, and what it takes"
    assert len(visitor.all(".product")) == 8


def test_finds_a_product(visitor):
    visitor.open("/")
    visitor.fill("q", "bergamot")
    visitor.press(".search button")
    assert [name.text for name in visitor.all(".product h2")] == ["Earl Grey Reserve"]


def test_says_when_nothing_is_found(visitor):
    visitor.open("/")
    visitor.fill("q", "coffee <b>")
    visitor.press(".search button")
    assert visitor.read("#nothing-found") == "Nothing found for “coffee <b>”."
