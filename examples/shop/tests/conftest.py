"""A real browser for each test, and what a visitor does in it."""

import os
import shlex
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as expect
from selenium.webdriver.support.wait import WebDriverWait

CARDS = {"visa": "4242 4242 4242 4242", "mastercard": "5555 5555 5555 4444", "declined": "4000 0000 0000 0002"}


class Visitor:
    """Somebody in the shop. Elements are named by CSS selectors."""

    def __init__(self, browser: webdriver.Remote, shop_url: str) -> None:
        self.browser = browser
        self.shop_url = shop_url

    def open(self, path: str) -> None:
        self.browser.get(self.shop_url + path)

    def find(self, selector: str, within: float = 5) -> WebElement:
        """The element once it can be seen, waiting for it `within` seconds."""
        there = expect.visibility_of_element_located((By.CSS_SELECTOR, selector))
        return WebDriverWait(self.browser, within).until(there, f"Nothing to be seen for {selector!r}")

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def read(self, selector: str) -> str:
        return self.find(selector).text

    def cents(self, selector: str) -> int:
        """An amount such as `€ 12.50` as 1250."""
        return int("".join(c for c in self.read(selector) if c.isdigit()))

    def fill(self, name: str, value: str) -> None:
        field = self.find(f"input[name={name}]")
        field.clear()
        field.send_keys(value)

    def press(self, selector: str) -> None:
        """Press a button or link that leads to another page, and wait until it is there."""
        before = self.loaded_at()
        self.find(selector).click()
        # Not `staleness_of` an element: Chromium sometimes answers with an error of its own while a page goes.
        arrived = WebDriverWait(self.browser, 5)
        arrived.until(lambda _: self.loaded_at() not in (None, before), f"No new page after pressing {selector!r}")

    def loaded_at(self) -> float | None:
        """When the page began, which tells one page from the next; None while it is still loading."""
        return self.browser.execute_script("return document.readyState === 'complete' ? performance.timeOrigin : null")

    def add(self, slug: str) -> None:
        """Put one more of the product in the cart; ends on the cart's page."""
        self.open(f"/products/{slug}")
        self.press(".detail button")

    def check_out(self, card: str, name: str = "Ada", address: str = "1 Analytical Row, London") -> None:
        """Fill in the checkout form and pay; `card` is one of CARDS."""
        self.open("/checkout")
        self.fill("name", name)
        self.fill("address", address)
        self.fill("card", CARDS[card])
        self.press("#pay")

    def sign_in(self, password: str = "darjeeling") -> None:
        self.open("/sign-in")
        self.fill("email", "ada@example.com")
        self.fill("password", password)
        self.press("#sign-in")


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    options = webdriver.ChromeOptions()
    for argument in shlex.split(os.environ.get("SHOP_CHROME_ARGUMENTS", "")):
        options.add_argument(argument)
    browser = webdriver.Remote(os.environ["SELENIUM_REMOTE_URL"], options=options)
    try:
        yield Visitor(browser, os.environ["SHOP_URL"].rstrip("/"))
    finally:
        browser.quit()
