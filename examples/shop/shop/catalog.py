"""What the shop sells, and what a cart of it costs. All amounts are in cents."""

from collections.abc import Mapping
from dataclasses import dataclass

SHIPPING = 4_90
FREE_SHIPPING_FROM = 50_00
DISCOUNTS = {"WELCOME10": 10}  # code: percent off the goods
MOST_OF_ONE_PRODUCT = 9


@dataclass(frozen=True)
class Product:
    slug: str
    name: str
    kind: str
    price: int
    stock: int
    colour: str
    text: str


PRODUCTS = {
    product.slug: product
    for product in (
        Product(
            "sencha",
            "Sencha Asatsuyu",
            "leaf",
            12_50,
            34,
            "#7d9d5c",
            "Green, soft, a little sweet. 100 g from Kagoshima.",
        ),
        Product(
            "earl-grey", "Earl Grey Reserve", "leaf", 9_80, 51, "#8a6d5b", "Black tea and real bergamot oil. 125 g."
        ),
        Product("rooibos", "Rooibos Vanilla", "leaf", 7_40, 18, "#b5653a", "No caffeine, much comfort. 150 g."),
        Product("teapot", "Stoneware Teapot", "pot", 38_00, 6, "#5b7083", "Holds 0.9 litres and pours without a drip."),
        Product(
            "kettle",
            "Gooseneck Kettle",
            "kettle",
            64_00,
            9,
            "#3f4a4f",
            "Steel, 1 litre, with a thermometer in the lid.",
        ),
        Product(
            "cup",
            "Thumb Cup",
            "cup",
            14_00,
            27,
            "#c08a4e",
            "A dent for the thumb, 0.25 litres, fit for the dishwasher.",
        ),
        Product("whisk", "Bamboo Whisk", "whisk", 16_90, 12, "#a89058", "Eighty tines, cut from one piece of bamboo."),
        Product("strainer", "Fine Strainer", "strainer", 8_20, 40, "#8c959b", "Catches the smallest leaf. Steel."),
    )
}


@dataclass(frozen=True)
class Bill:
    """What is to be paid: `goods - discount + shipping = total`."""

    goods: int
    discount: int
    shipping: int
    total: int


def bill(cart: Mapping[str, int], code: str | None) -> Bill:
    """The bill for `{slug: quantity}`; an unknown code is worth nothing."""
    goods = sum(PRODUCTS[slug].price * quantity for slug, quantity in cart.items())
    shipping = 0 if goods >= FREE_SHIPPING_FROM or not cart else SHIPPING
    # The demonstration's failing scenario is about this line: the percentage is promised off the goods,
    # but is taken off the shipping too.
    discount = (goods + shipping) * DISCOUNTS.get(code or "", 0) // 100
    return Bill(goods, discount, shipping, goods - discount + shipping)


def search(words: str) -> list[Product]:
    """The products that have every word in their name or text; all of them for no words."""
    wanted = words.lower().split()
    return [p for p in PRODUCTS.values() if all(word in f"{p.name} {p.text}".lower() for word in wanted)]


def money(cents: int) -> str:
    return f"€ {cents // 100}.{cents % 100:02}"
