import json

import pytest

from proctor.recorder.w3c_errors import Answer, W3CError, failure, success, tells_lost_browser


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (W3CError.INVALID_ARGUMENT, 400),
        (W3CError.INVALID_SESSION_ID, 404),
        (W3CError.UNKNOWN_COMMAND, 404),
        (W3CError.SESSION_NOT_CREATED, 500),
        (W3CError.UNKNOWN_ERROR, 500),
    ],
)
def test_a_failure_has_the_form_and_the_status_of_the_standard(error: W3CError, status: int) -> None:
    answer = failure(error, "why")
    assert answer.status == status
    assert answer.content_type == "application/json; charset=utf-8"
    assert json.loads(answer.body) == {"value": {"error": error.value, "message": "why", "stacktrace": ""}}
    assert answer.error() == (error.value, "why")


def test_every_error_has_a_status() -> None:
    assert all(error.status >= 400 for error in W3CError)


def test_a_success_is_no_error() -> None:
    assert success([1]).error() is None
    assert success([1]).value() == [1]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 100_000, b'{"value": "text"}', b"\xff"])
def test_a_failure_that_is_not_of_the_standard_is_told_by_its_status(body: bytes) -> None:
    assert Answer(502, body).error() == ("", "HTTP status 502")


@pytest.mark.parametrize(
    ("error", "message", "lost"),
    [
        ("invalid session id", "invalid session id: session deleted as the browser has closed the connection", True),
        ("unknown error", "unknown error: Chrome not reachable", True),
        ("session not created", "session not created: Chrome instance exited. Examine the log", True),
        ("session not created", "session not created: This version supports only Chrome 150", False),
        ("invalid session id", "invalid session id", False),
        ("no such element", "no such element: chrome not reachable", False),
        ("javascript error", "javascript error: chrome not reachable", False),
        ("unknown error", "unknown error: something\nchrome not reachable", False),
        ("unknown error", "tab crashed", False),
    ],
)
def test_only_the_drivers_own_words_tell_of_a_lost_browser(error: str, message: str, lost: bool) -> None:
    assert tells_lost_browser(error, message) is lost
