"""Text from outside."""


def storable(text: str) -> bool:
    """True for what PostgreSQL keeps: no NUL, and no half of a surrogate pair, which JSON and UTF-7 can spell."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
