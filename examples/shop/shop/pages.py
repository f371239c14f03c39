"""The shop's pages as HTML text. Whatever a visitor typed goes through `escape`."""

from collections.abc import Iterable
from html import escape

from shop.catalog import DISCOUNTS, FREE_SHIPPING_FROM, MOST_OF_ONE_PRODUCT, PRODUCTS, Product, bill, money
from shop.visit import Order, Visit

# One drawing for each kind of product, on a canvas of 120 by 90, in the product's colour.
DRAWINGS = {
    "leaf": '<path d="M28 66C30 30 62 16 94 20 94 54 70 76 34 68"/><path d="M24 74C40 56 58 42 76 34" class="line"/>',
    "pot": (
        '<path d="M36 42h46c6 14 2 32-10 36H46C34 74 30 56 36 42z"/><path d="M82 50c16-4 18 20-2 18" class="line"/>'
        '<path d="M36 50L18 40" class="line"/><circle cx="59" cy="33" r="5"/>'
    ),
    "kettle": (
        '<path d="M44 44h36l8 34H36z"/><path d="M38 66C22 64 28 36 14 32" class="line"/>'
        '<path d="M80 46c18-6 24 16 10 28" class="line"/><path d="M52 36h20v8H52z"/>'
    ),
    "cup": '<path d="M36 30h48l-7 44H43z"/><path d="M50 20c-4-6 4-8 0-14M68 20c-4-6 4-8 0-14" class="line"/>',
    "whisk": '<path d="M52 10h16v34H52z"/><path d="M52 46l-12 34M57 46l-5 36M63 46l5 36M68 46l12 34" class="line"/>',
    "strainer": '<path d="M26 34h52c0 28-10 40-26 40S26 62 26 34z"/><path d="M78 36h30" class="line"/>',
}


def page(visit: Visit, title: str, content: str) -> str:
    """A whole page around `content`, which is HTML already."""
    count = sum(visit.cart.values())
    account = (
        '<a href="/orders">Orders</a><form method="post" action="/sign-out">'
        f'<button class="plain">Sign out {escape(visit.user)}</button></form>'
        if visit.user
        else '<a href="/sign-in">Sign in</a>'
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Kettle &amp; Leaf</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
<a class="brand" href="/">Kettle <span>&amp;</span> Leaf</a>
<nav>
<a href="/for-you">For you</a>
<a href="/report">Our year</a>
{account}
<a class="cart" href="/cart">Cart <b id="cart-count">{count}</b></a>
</nav>
</header>
<main>
{content}
</main>
<footer>A pretended shop. No tea is sold, no card is charged.</footer>
</body>
</html>
"""


def drawing(product: Product) -> str:
    return (
        f'<svg viewBox="0 0 120 90" style="--colour:{product.colour}" aria-hidden="true">{DRAWINGS[product.kind]}</svg>'
    )


def shelf(products: Iterable[Product]) -> str:
    cards = "".join(
        f"""<article class="product" id="{p.slug}">
<a href="/products/{p.slug}">{drawing(p)}<h2>{escape(p.name)}</h2></a>
<p>{escape(p.text)}</p>
<footer><span class="price">{money(p.price)}</span>{add_button(p)}</footer>
</article>"""
        for p in products
    )
    return f'<div class="shelf">{cards}</div>'


def add_button(product: Product) -> str:
    return (
        f'<form method="post" action="/cart/add"><input type="hidden" name="slug" value="{product.slug}">'
        f'<button aria-label="Add {escape(product.name)} to the cart">Add to cart</button></form>'
    )


def home(visit: Visit, words: str, found: list[Product]) -> str:
    shown = shelf(found) if found else f'<p id="nothing-found">Nothing found for “{escape(words)}”.</p>'
    return page(
        visit,
        "Tea, and what it takes",
        f"""<section class="hero">
<h1>Tea, and what it takes</h1>
<p>10 % off the goods of your first order with the code <b>WELCOME10</b>.
Free shipping from {money(FREE_SHIPPING_FROM)}.</p>
<form class="search" action="/" role="search">
<input name="q" value="{escape(words)}" placeholder="Search the shop" aria-label="Search">
<button>Search</button></form>
</section>
{shown}""",
    )


def product(visit: Visit, product: Product) -> str:
    return page(
        visit,
        product.name,
        f"""<section class="detail">{drawing(product)}
<div><h1>{escape(product.name)}</h1><p>{escape(product.text)}</p>
<p><span class="price">{money(product.price)}</span> <span class="stock">{product.stock} in stock</span></p>
{add_button(product)}</div>
</section>""",
    )


def cart(visit: Visit, error: str = "") -> str:
    if not visit.cart:
        return page(
            visit,
            "Cart",
            '<h1>Your cart</h1><p id="empty-cart">Your cart is empty. <a href="/">Have a look around.</a></p>',
        )
    rows = "".join(_cart_row(PRODUCTS[slug], quantity) for slug, quantity in visit.cart.items())
    return page(
        visit,
        "Cart",
        f"""<h1>Your cart</h1>
<div class="columns">
<table><thead><tr><th>Product<th>Quantity<th>Price<th></tr></thead><tbody>{rows}</tbody></table>
<aside>{bill_table(visit)}
<form method="post" action="/cart/code" class="code">
<input name="code" placeholder="Discount code" aria-label="Discount code" maxlength="20">
<button class="plain">Apply</button></form>{_alert(error)}
<a class="button" id="to-checkout" href="/checkout">Go to checkout</a></aside>
</div>""",
    )


def _cart_row(product: Product, quantity: int) -> str:
    slug = product.slug
    return f"""<tr id="line-{slug}"><td>{escape(product.name)}
<td><form method="post" action="/cart/quantity"><input type="hidden" name="slug" value="{slug}">
<input type="number" name="quantity" value="{quantity}" min="1" max="{MOST_OF_ONE_PRODUCT}" aria-label="Quantity">
<button class="plain">Update</button></form>
<td class="price">{money(product.price * quantity)}
<td><form method="post" action="/cart/remove"><input type="hidden" name="slug" value="{slug}">
<button class="plain remove">Remove</button></form></tr>"""


def bill_table(visit: Visit) -> str:
    due = bill(visit.cart, visit.code)
    discount = (
        f'<dt>{visit.code} ({DISCOUNTS[visit.code]} % off the goods)</dt><dd id="discount">− {money(due.discount)}</dd>'
        if visit.code
        else ""
    )
    shipping = money(due.shipping) if due.shipping else "free"
    return f"""<dl class="bill"><dt>Goods</dt><dd id="goods">{money(due.goods)}</dd>{discount}
<dt>Shipping</dt><dd id="shipping">{shipping}</dd>
<dt class="total">Total</dt><dd class="total" id="total">{money(due.total)}</dd></dl>"""


def checkout(visit: Visit, name: str = "", address: str = "", error: str = "") -> str:
    return page(
        visit,
        "Checkout",
        f"""<h1>Checkout</h1>
<div class="columns">
<form method="post" action="/checkout" class="stacked">
{_alert(error)}
<label>Name <input name="name" value="{escape(name)}" autocomplete="name"></label>
<label>Address <input name="address" value="{escape(address)}" autocomplete="street-address"></label>
<label>Card number <input name="card" inputmode="numeric" autocomplete="off" placeholder="4242 4242 4242 4242"></label>
<button id="pay">Pay {money(bill(visit.cart, visit.code).total)}</button>
</form>
<aside>{bill_table(visit)}</aside>
</div>""",
    )


def sign_in(visit: Visit, email: str = "", error: str = "") -> str:
    return page(
        visit,
        "Sign in",
        f"""<form method="post" action="/sign-in" class="stacked narrow">
<h1>Sign in</h1>
{_alert(error)}
<label>E-mail <input name="email" type="email" value="{escape(email)}"></label>
<label>Password <input name="password" type="password"></label>
<button id="sign-in">Sign in</button>
</form>""",
    )


def orders(visit: Visit) -> str:
    rows = "".join(
        f'<tr class="order"><td><a href="/orders/{o.number}">No. {o.number}</a><td>{sum(o.items.values())}'
        f'<td>{escape(o.paid_by)}<td class="price">{money(o.total)}</tr>'
        for o in reversed(visit.orders)
    )
    table = f"<table><thead><tr><th>Order<th>Items<th>Paid by<th>Total</tr></thead><tbody>{rows}</tbody></table>"
    return page(
        visit, "Orders", "<h1>Your orders</h1>" + (table if rows else '<p id="no-orders">You have no orders yet.</p>')
    )


def thanks(visit: Visit, order: Order) -> str:
    items = "".join(f"<li>{quantity} × {escape(PRODUCTS[slug].name)}</li>" for slug, quantity in order.items.items())
    return page(
        visit,
        f"Order {order.number}",
        f"""<section class="thanks"><h1>Thank you, {escape(order.name)}!</h1>
<p>Order <b id="order-number">No. {order.number}</b>, <span id="paid">{money(order.total)}</span>
paid by <span id="paid-by">{escape(order.paid_by)}</span>.</p>
<ul>{items}</ul><a class="button" href="/">Back to the shop</a></section>""",
    )


def for_you(visit: Visit, shopper: str, picks: list[str]) -> str:
    shown = (
        shelf(PRODUCTS[slug] for slug in picks)
        if picks
        else '<p id="no-picks">We are still choosing for you. Please look in again.</p>'
    )
    return page(visit, "For you", f'<h1>Picked for {escape(shopper)}</h1><section id="picks">{shown}</section>')


def report(visit: Visit) -> str:
    """The page asks `/report/rows` until the report is ready, and then fills itself in."""
    return page(
        visit,
        "Our year",
        """<h1>Our year in tea</h1>
<p id="progress" role="status">Preparing the report …</p>
<table id="report" hidden><thead><tr><th>Month<th>Cups<th></tr></thead><tbody></tbody></table>
<script>
async function show() {
  const answer = await fetch("/report/rows");
  if (answer.status !== 200) { setTimeout(show, 250); return; }
  const rows = await answer.json();
  const most = Math.max(...rows.map(([, cups]) => cups));
  for (const [month, cups] of rows) {
    const row = document.querySelector("#report tbody").insertRow();
    row.insertCell().textContent = month;
    row.insertCell().textContent = cups;
    const bar = row.insertCell().appendChild(document.createElement("meter"));
    bar.max = most; bar.value = cups;
  }
  document.getElementById("progress").hidden = true;
  document.getElementById("report").hidden = false;
}
show();
</script>""",
    )


def missing(visit: Visit) -> str:
    return page(visit, "Not found", '<h1>Not found</h1><p>There is nothing here. <a href="/">Back to the shop</a></p>')


def _alert(error: str) -> str:
    return f'<p class="alert" role="alert">{escape(error)}</p>' if error else ""
