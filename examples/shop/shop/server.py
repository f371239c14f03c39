"""Serves the shop: `python -m shop.server --port 8000`. Standard library only; everything is in memory."""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qsl, urlsplit

from shop import card, catalog, pages
from shop.visit import Order, Taste, Visit, Visits

LARGEST_FORM = 16 * 1024  # bytes
REPORT_TAKES = 5.0  # seconds
PASSWORDS = {"ada@example.com": "darjeeling"}
CUPS = {"January": 4120, "February": 3890, "March": 3560, "April": 3010, "May": 2480, "June": 2210}
STYLE = Path(__file__).with_name("style.css").read_text()

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    body: str = ""
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    location: str | None = None


def see(location: str) -> Answer:
    """Sends the browser on, so that reloading the page repeats no form."""
    return Answer(status=303, location=location)


class Shop:
    """The shop behind HTTP: `answer` takes one request and returns what to send. One request at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taste = Taste()
        self._visits = Visits()
        self._turn = Lock()
        self._pages: dict[str, Callable[[Visit, Fields], Answer]] = {
            "/": self._home,
            "/style.css": lambda visit, query: Answer(STYLE, content_type="text/css; charset=utf-8"),
            "/cart": lambda visit, query: Answer(pages.cart(visit)),
            "/checkout": lambda visit, query: Answer(pages.checkout(visit)) if visit.cart else see("/cart"),
            "/sign-in": lambda visit, query: Answer(pages.sign_in(visit)),
            "/orders": lambda visit, query: Answer(pages.orders(visit)) if visit.user else see("/sign-in"),
            "/for-you": self._for_you,
            "/report": lambda visit, query: Answer(pages.report(visit)),
            "/report/rows": self._report_rows,
        }
        self._forms: dict[str, Callable[[Visit, Fields], Answer]] = {
            "/cart/add": self._add,
            "/cart/quantity": self._set_quantity,
            "/cart/remove": self._remove,
            "/cart/code": self._use_code,
            "/checkout": self._pay,
            "/sign-in": self._sign_in,
            "/sign-out": self._sign_out,
        }

    def answer(self, method: str, path: str, fields: Fields, cookie: str | None) -> tuple[Answer, str]:
        """The answer, and the cookie that names the visit from now on."""
        with self._turn:
            cookie, visit = self._visits.find_or_begin(cookie)
            act = (self._forms if method == "POST" else self._pages).get(path)
            if act is not None:
                return act(visit, fields), cookie
            return self._one_thing(visit, path) or Answer(pages.missing(visit), 404), cookie

    def _one_thing(self, visit: Visit, path: str) -> Answer | None:
        _, kind, name, *rest = [*path.split("/"), "", ""]
        if kind == "products" and name in catalog.PRODUCTS and not any(rest):
            return Answer(pages.product(visit, catalog.PRODUCTS[name]))
        if kind == "orders":
            return next((Answer(pages.thanks(visit, o)) for o in visit.orders if str(o.number) == name), None)
        return None

    def _home(self, visit: Visit, query: Fields) -> Answer:
        words = query.get("q", "")
        return Answer(pages.home(visit, words, catalog.search(words)))

    def _for_you(self, visit: Visit, query: Fields) -> Answer:
        shopper = query.get("shopper") or visit.user or "you"
        return Answer(pages.for_you(visit, shopper, self._taste.picks(shopper)))

    def _report_rows(self, visit: Visit, query: Fields) -> Answer:
        visit.report_asked_at = visit.report_asked_at or self._clock()
        if self._clock() - visit.report_asked_at < REPORT_TAKES:
            return Answer(status=202)
        return Answer(json.dumps(list(CUPS.items())), content_type="application/json")

    def _add(self, visit: Visit, form: Fields) -> Answer:
        slug = form.get("slug", "")
        if slug in catalog.PRODUCTS:
            visit.cart[slug] = min(visit.cart.get(slug, 0) + 1, catalog.MOST_OF_ONE_PRODUCT)
        return see("/cart")

    def _set_quantity(self, visit: Visit, form: Fields) -> Answer:
        slug, quantity = form.get("slug", ""), form.get("quantity", "")
        if slug in visit.cart and quantity in map(str, range(1, catalog.MOST_OF_ONE_PRODUCT + 1)):
            visit.cart[slug] = int(quantity)
        return see("/cart")

    def _remove(self, visit: Visit, form: Fields) -> Answer:
        visit.cart.pop(form.get("slug", ""), None)
        return see("/cart")

    def _use_code(self, visit: Visit, form: Fields) -> Answer:
        code = form.get("code", "").strip().upper()
        if code not in catalog.DISCOUNTS:
            return Answer(pages.cart(visit, "We do not know this code."))
        visit.code = code
        return see("/cart")

    def _pay(self, visit: Visit, form: Fields) -> Answer:
        if not visit.cart:
            return see("/cart")
        name, address = form.get("name", "").strip(), form.get("address", "").strip()
        if not name or not address:
            return Answer(pages.checkout(visit, name, address, "Please tell us your name and your address."))
        try:
            paid_by = card.charge(form.get("card", ""))
        except card.PaymentRefused as refused:
            return Answer(pages.checkout(visit, name, address, str(refused)))
        order = Order(1001 + len(visit.orders), visit.cart, catalog.bill(visit.cart, visit.code).total, paid_by, name)
        visit.orders.append(order)
        visit.cart, visit.code = {}, None
        return see(f"/orders/{order.number}")

    def _sign_in(self, visit: Visit, form: Fields) -> Answer:
        email = form.get("email", "").strip().lower()
        if email not in PASSWORDS or PASSWORDS[email] != form.get("password"):
            return Answer(pages.sign_in(visit, email, "The e-mail or the password is wrong."))
        visit.user = email
        return see("/orders")

    def _sign_out(self, visit: Visit, form: Fields) -> Answer:
        visit.user = None
        return see("/")


class ShopServer(ThreadingHTTPServer):
    """Listens for one Shop; `server_port` says where, which matters for port 0."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.shop = Shop()
        self.host = host
        super().__init__((host, port), Request)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    """One HTTP request, read and answered. HTTP/1.0, so that no idle browser keeps a thread."""

    server: ShopServer
    timeout = 30  # seconds

    def do_GET(self) -> None:
        self._send(*self._ask("GET", parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= LARGEST_FORM):
            self.send_error(413, f"A form has at most {LARGEST_FORM} bytes")
            return
        form = self.rfile.read(int(length)).decode("utf-8", "replace")
        self._send(*self._ask("POST", parse_qsl(form, keep_blank_values=True)))

    def _ask(self, method: str, fields: list[tuple[str, str]]) -> tuple[Answer, str]:
        return self.server.shop.answer(method, urlsplit(self.path).path, dict(fields), self._cookie())

    def _cookie(self) -> str | None:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return None
        return cookies["visit"].value if "visit" in cookies else None

    def _send(self, answer: Answer, cookie: str) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Set-Cookie", f"visit={cookie}; Path=/; HttpOnly; SameSite=Lax")
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests' output is what one wants to read."""


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Serve until interrupted; port 0 takes a free one. Prints the address once it answers."""
    with ShopServer(port, host) as server:
        print(f"The shop is open at {server.url}", flush=True)
        server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m shop.server", description="Serve the shop until interrupted.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        serve(arguments.port, arguments.host)


if __name__ == "__main__":
    main()
