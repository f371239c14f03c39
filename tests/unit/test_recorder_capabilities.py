from typing import Any

import pytest

from proctor.errors import InvalidInput
from proctor.recorder.capabilities import merge

OURS = {
    "browserName": "chrome",
    "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": ["--headless=new", "--window-size=1440,900"]},
}
OWN = {
    "acceptInsecureCerts": True,
    "goog:chromeOptions": {"args": ["--lang=tr"], "prefs": {"a": {"b": 1}}, "extensions": ["Q3I="]},
}
MERGED = {
    "browserName": "chrome",
    "acceptInsecureCerts": True,
    "goog:chromeOptions": {
        "binary": "/usr/bin/chromium",
        "args": ["--headless=new", "--window-size=1440,900", "--lang=tr"],
        "prefs": {"a": {"b": 1}},
        "extensions": ["Q3I="],
    },
}


def only(merged: dict[str, Any]) -> dict[str, Any]:
    """What the one candidate of a merged request asks for."""
    assert set(merged) == {"capabilities"}
    assert merged["capabilities"]["firstMatch"] == [{}]
    return merged["capabilities"]["alwaysMatch"]  # type: ignore[no-any-return]


def always(capabilities: dict[str, Any]) -> dict[str, Any]:
    return {"capabilities": {"alwaysMatch": capabilities}}


@pytest.mark.parametrize("always_has", [set(), {"acceptInsecureCerts"}, {"goog:chromeOptions"}, set(OWN)])
@pytest.mark.parametrize("legacy_too", [False, True])
def test_it_matters_not_whether_options_stand_in_always_or_first_match(always_has: set[str], legacy_too: bool) -> None:
    asked: dict[str, Any] = {
        "capabilities": {
            "alwaysMatch": {name: OWN[name] for name in always_has},
            "firstMatch": [{name: OWN[name] for name in OWN.keys() - always_has}],
        }
    }
    if legacy_too:
        asked["desiredCapabilities"] = {"browserName": "firefox"}
    assert only(merge(asked, OURS)) == MERGED


@pytest.mark.parametrize("asked", [{}, {"capabilities": {}}, always({}), {"desiredCapabilities": {}}])
def test_who_asks_for_nothing_gets_the_environment(asked: dict[str, Any]) -> None:
    assert only(merge(asked, OURS)) == OURS


def test_each_alternative_carries_the_environment() -> None:
    asked = {
        "capabilities": {
            "alwaysMatch": {"acceptInsecureCerts": True},
            "firstMatch": [{"browserName": "firefox"}, {"pageLoadStrategy": "eager"}],
        }
    }
    assert merge(asked, OURS)["capabilities"] == {
        "alwaysMatch": {},
        "firstMatch": [
            {"acceptInsecureCerts": True, **OURS},
            {"acceptInsecureCerts": True, "pageLoadStrategy": "eager", **OURS},
        ],
    }


def test_a_legacy_request_becomes_a_standard_one() -> None:
    desired = {
        "browserName": "firefox",
        "version": "1",
        "platform": "ANY",
        "javascriptEnabled": True,
        "chromeOptions": OWN["goog:chromeOptions"],
        "acceptSslCerts": True,
        "shop:flavour": "x",
    }
    assert only(merge({"desiredCapabilities": desired}, OURS)) == {**MERGED, "shop:flavour": "x"}


@pytest.mark.parametrize("names", [(), ("browserVersion",), ("platformName",), ("browserVersion", "platformName")])
def test_the_place_is_the_environments_whether_it_names_it_or_not(names: tuple[str, ...]) -> None:
    asked = always({"browserName": "safari", "browserVersion": "1", "platformName": "mac"})
    ours = {**OURS, **dict.fromkeys(names, "ours")}
    assert only(merge(asked, ours)) == ours


@pytest.mark.parametrize("option", ["binary", "debuggerAddress"])
@pytest.mark.parametrize("ours", [OURS, {"browserName": "chrome"}])
def test_a_test_cannot_choose_another_program_or_browser(option: str, ours: dict[str, Any]) -> None:
    merged = only(merge(always({"goog:chromeOptions": {option: "the test's"}}), ours))
    assert "the test's" not in merged["goog:chromeOptions"].values()


@pytest.mark.parametrize(
    ("switch", "kept"),
    [
        ("--window-size=1,1", False),
        ("window-size=1,1", False),
        ("--headless", False),
        ("--headless=old", False),
        ("--window-position=0,0", True),
        ("--incognito", True),
    ],
)
def test_a_switch_that_the_environment_sets_too_is_the_environments(switch: str, kept: bool) -> None:
    merged = only(merge(always({"goog:chromeOptions": {"args": [switch]}}), OURS))
    assert merged["goog:chromeOptions"]["args"] == [*OURS["goog:chromeOptions"]["args"], *([switch] * kept)]  # type: ignore[index]


def test_preferences_of_both_are_joined_and_the_environments_win() -> None:
    ours = {"goog:chromeOptions": {"prefs": {"a": 1, "deep": {"x": 1}}, "excludeSwitches": ["one"]}}
    own = {"goog:chromeOptions": {"prefs": {"a": 2, "b": 2, "deep": {"y": 2}}, "excludeSwitches": ["two", "one"]}}
    assert only(merge(always(own), ours))["goog:chromeOptions"] == {
        "prefs": {"a": 1, "b": 2, "deep": {"x": 1, "y": 2}},
        "excludeSwitches": ["one", "two"],
    }


def test_neither_side_is_changed() -> None:
    asked, ours = always({"goog:chromeOptions": {"args": ["--a"]}}), {"goog:chromeOptions": {"args": ["--b"]}}
    merge(asked, ours)
    assert asked == always({"goog:chromeOptions": {"args": ["--a"]}})
    assert ours == {"goog:chromeOptions": {"args": ["--b"]}}


@pytest.mark.parametrize(
    "asked",
    [
        {"capabilities": []},
        {"capabilities": None},
        {"capabilities": {"alwaysMatch": "x"}},
        {"capabilities": {"firstMatch": {}}},
        {"capabilities": {"firstMatch": []}},
        {"capabilities": {"firstMatch": ["x"]}},
        {"desiredCapabilities": 1},
        always({"goog:chromeOptions": "--headless"}),
        always({"goog:chromeOptions": {"args": "--headless"}}),
        always({"goog:chromeOptions": {"args": [1]}}),
        {"capabilities": {"alwaysMatch": {"timeouts": {}}, "firstMatch": [{"timeouts": {}}]}},
    ],
)
def test_a_request_of_another_form_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        merge(asked, OURS)
