"""A pretended card payment: the numbers are the test numbers that payment providers publish."""

BRANDS = {"4": "Visa", "5": "Mastercard"}
DECLINED = "4000000000000002"


class PaymentRefused(Exception):
    """The card was not charged; the message is for the buyer."""


def charge(number: str) -> str:
    """Charge the card and return how it was paid, as in `Visa ending in 4242`."""
    digits = number.replace(" ", "")
    if not (digits.isascii() and digits.isdigit() and 13 <= len(digits) <= 19 and _adds_up(digits)):
        raise PaymentRefused("This is not a card number. Please check the digits.")
    if digits == DECLINED:
        raise PaymentRefused("Your bank declined the card. Please pay with another one.")
    return f"{BRANDS.get(digits[0], 'Card')} ending in {digits[-4:]}"


def _adds_up(digits: str) -> bool:
    """Luhn's check: every second digit from the right counts twice, with its own digits summed."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
