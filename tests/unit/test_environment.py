import pytest

from proctor.domain.environment import (
    Environment,
    HubOffer,
    MissingReason,
    Stereotype,
    serves,
    version_matches,
    why_missing,
)

CHROME = Stereotype("LINUX", "chrome", "156.0.8078.79")


def environment(**fields: object) -> Environment:
    return Environment(**{"id": 1, "name": "chrome", "os": "LINUX", "browser": "chrome", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        ("", True),
        ("LATEST", True),
        ("latest", True),
        ("156", True),
        ("156.0", True),
        ("156.0.8078.79", True),
        ("15", False),
        ("1560", False),
        ("156.1", False),
        ("156.0.8078.7", False),
        ("156.0.8078.79.1", False),
        ("156.", False),
        ("any", False),
    ],
)
def test_a_version_matches_by_whole_parts_from_the_left(asked: str, matches: bool) -> None:
    assert version_matches(asked, "156.0.8078.79") is matches


@pytest.mark.parametrize(
    ("fields", "served"),
    [
        ({}, True),
        ({"os": "linux", "browser": "Chrome"}, True),
        ({"version": "156"}, True),
        ({"version": "155"}, False),
        ({"os": "WINDOWS"}, False),
        ({"browser": "firefox"}, False),
    ],
)
def test_a_slot_serves_an_environment_of_its_system_browser_and_version(
    fields: dict[str, object], served: bool
) -> None:
    assert serves(CHROME, environment(**fields)) is served


def test_a_stereotype_shows_its_major_version() -> None:
    assert CHROME.display_name == "LINUX / Chrome 156"


@pytest.mark.parametrize(
    ("fields", "offers", "reason"),
    [
        ({}, [HubOffer(1, CHROME, slots=1, online=True)], None),
        ({}, [HubOffer(1, CHROME, slots=1, online=False), HubOffer(2, CHROME, slots=1, online=True)], None),
        ({}, [HubOffer(1, CHROME, slots=1, online=False)], MissingReason.OFFLINE),
        ({"version": "99"}, [HubOffer(1, CHROME, slots=1, online=True)], MissingReason.UNKNOWN),
        ({}, [], MissingReason.UNKNOWN),
        ({"enabled": False}, [HubOffer(1, CHROME, slots=1, online=True)], MissingReason.DISABLED),
        ({"enabled": False}, [], MissingReason.DISABLED),
    ],
)
def test_what_is_missing_is_told_with_its_reason(
    fields: dict[str, object], offers: list[HubOffer], reason: MissingReason | None
) -> None:
    assert why_missing(environment(**fields), offers) == reason


@pytest.mark.parametrize(("os", "mobile"), [("ANDROID", True), ("IOS", True), ("LINUX", False)])
def test_phones_are_mobile(os: str, mobile: bool) -> None:
    assert environment(os=os).mobile is mobile
