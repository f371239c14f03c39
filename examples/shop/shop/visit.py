"""What the shop remembers, all of it in memory: one visit for each browser, and the shoppers it has met."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

REMEMBERED = 1000


@dataclass(frozen=True)
class Order:
    number: int
    items: dict[str, int]
    total: int
    paid_by: str
    name: str


@dataclass
class Visit:
    """One browser's cart, sign-in and orders; no other browser sees them, so tests can run side by side."""

    cart: dict[str, int] = field(default_factory=dict)
    code: str | None = None
    user: str | None = None
    orders: list[Order] = field(default_factory=list)
    report_asked_at: float | None = None


class Visits:
    """Visits by cookie value; the longest unseen is forgotten when there are too many."""

    def __init__(self) -> None:
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def find_or_begin(self, cookie: str | None) -> tuple[str, Visit]:
        if cookie is None or cookie not in self._visits:
            cookie = secrets.token_urlsafe(16)
            self._visits[cookie] = Visit()
        self._visits.move_to_end(cookie)
        while len(self._visits) > REMEMBERED:
            self._visits.popitem(last=False)
        return cookie, self._visits[cookie]


class Taste:
    """Knows what to recommend to a shopper only from the second time they ask: choosing starts with the first."""

    def __init__(self) -> None:
        self._met: OrderedDict[str, None] = OrderedDict()

    def picks(self, shopper: str) -> list[str]:
        """Slugs of products; none on the first asking."""
        if shopper in self._met:
            return ["sencha", "cup", "strainer"]
        self._met[shopper] = None
        while len(self._met) > REMEMBERED:
            self._met.popitem(last=False)
        return []
