"""Answers in the form of the W3C WebDriver standard, and what a driver's errors tell about the machinery."""

import json
from dataclasses import dataclass
from enum import StrEnum

JSON_TYPE = "application/json; charset=utf-8"


class W3CError(StrEnum):
    """The standard's error codes that the recorder itself answers with."""

    INVALID_ARGUMENT = "invalid argument"
    INVALID_SESSION_ID = "invalid session id"
    SESSION_NOT_CREATED = "session not created"
    UNKNOWN_COMMAND = "unknown command"
    UNKNOWN_ERROR = "unknown error"

    @property
    def status(self) -> int:
        """The HTTP status that the standard gives it."""
        return _STATUS[self]


_STATUS = {
    W3CError.INVALID_ARGUMENT: 400,
    W3CError.INVALID_SESSION_ID: 404,
    W3CError.SESSION_NOT_CREATED: 500,
    W3CError.UNKNOWN_COMMAND: 404,
    W3CError.UNKNOWN_ERROR: 500,
}


@dataclass(frozen=True)
class Answer:
    """What goes back to the test: the HTTP status and the body's bytes as the driver gave them."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE

    def value(self) -> object:
        """The `value` of the JSON body; None when there is none or the body is not JSON."""
        try:
            answered = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return answered.get("value") if isinstance(answered, dict) else None

    def error(self) -> tuple[str, str] | None:
        """Error code and message when the command failed."""
        if self.status < 400:
            return None
        value = self.value()
        if not isinstance(value, dict):
            return "", f"HTTP status {self.status}"
        return str(value.get("error", "")), str(value.get("message", ""))


def success(value: object) -> Answer:
    return Answer(200, json.dumps({"value": value}).encode())


def failure(error: W3CError, message: str) -> Answer:
    body = {"value": {"error": error.value, "message": message, "stacktrace": ""}}
    return Answer(error.status, json.dumps(body).encode())


# What chromedriver says when the browser is gone or never came. Not `tab crashed`: that is the page's doing.
_BROWSER_LOST = (
    "browser has closed the connection",
    "chrome not reachable",
    "not connected to devtools",
    "devtoolsactiveport file doesn't exist",
    "chrome failed to start",
    "chrome instance exited",
    "cannot connect to chrome",
)
# A page can put any words into the message of a `javascript error`, and must not pass for broken machinery by it.
_CODES_OF_THE_DRIVER = frozenset({"invalid session id", "session not created", "unknown error"})


def tells_lost_browser(error: str, message: str) -> bool:
    """True when a driver's error means that its browser died, rather than that the command was wrong."""
    first_line = message.partition("\n")[0].lower()
    return error in _CODES_OF_THE_DRIVER and any(sign in first_line for sign in _BROWSER_LOST)
