"""The command log of an attempt: one JSON object a line for each WebDriver command."""

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from proctor.ports.sandbox import never_through_links
from proctor.recorder.w3c_errors import Answer

_log = logging.getLogger(__name__)

BODY_LIMIT = 4 * 1024
LOG_LIMIT = 20 * 1024 * 1024

# Their answers are base64 of pictures or documents: no reader of a log wants it.
_PICTURES = ("/screenshot", "/print")


@dataclass(frozen=True)
class Command:
    """A request to the endpoint: `path` as in `/session/1f/url`, without the endpoint's key."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Recorded:
    """A command with its answer, the session it concerned, when it came and how long it took."""

    command: Command
    answer: Answer
    session_id: str | None
    start_at: datetime
    runtime: timedelta

    def line(self) -> bytes:
        """One line of JSON: bodies as text cut at 4 KiB, instants as ISO 8601 in UTC with ms, `runtime_ms` in ms."""
        error = self.answer.error()
        entry: dict[str, object] = {
            "method": self.command.method,
            "path": self.command.path,
            "session_id": self.session_id,
            "request": cut(self.command.body),
            "response": self._response(),
            "status": self.answer.status,
            "level": "ERROR" if error else "SUCCESS",
            "start_at": _iso(self.start_at),
            "end_at": _iso(self.start_at + self.runtime),
            "runtime_ms": round(self.runtime.total_seconds() * 1000, 1),
        }
        if error:
            entry["error"] = cut(": ".join(part for part in error if part).encode())
        return json.dumps(entry, ensure_ascii=False).encode() + b"\n"

    def _response(self) -> str:
        if self.answer.status < 400 and self.command.path.partition("?")[0].endswith(_PICTURES):
            return f"[not kept: {len(self.answer.body)} bytes of base64]"
        return cut(self.answer.body)


def cut(body: bytes, limit: int = BODY_LIMIT) -> str:
    """The body as text; of a longer one its first `limit` bytes and a mark that says how long it was."""
    if len(body) <= limit:
        return _text(body)
    return f"{_text(body[:limit])}… [cut: {len(body)} bytes in all]"


def _text(body: bytes) -> str:
    # Half a character at the cut becomes U+FFFD, and lone surrogates never arise.
    return body.decode("utf-8", errors="replace")


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CommandLog:
    """Appends to a file until it holds `limit` bytes; the last line then says that later commands are missing."""

    def __init__(self, path: Path, *, limit: int = LOG_LIMIT, secret: str = "") -> None:
        """`secret` is kept out of the file: clients repeat the endpoint's address, key included, in their requests."""
        self._file = open(path, "ab", opener=never_through_links)  # noqa: SIM115 (Path.open takes no opener)
        self._left = limit - self._file.tell()
        self._secret = secret.encode()

    def add(self, recorded: Recorded) -> None:
        """Each line goes to the system at once: that costs microseconds, and a crash of the worker loses none."""
        if self._file.closed or self._left <= 0:
            return
        line = recorded.line()
        if self._secret:
            line = line.replace(self._secret, b"[secret]")
        self._left -= len(line)
        if self._left <= 0:
            line = _FULL
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            # A full disk must not fail the test: it shows in the log of the worker.
            _log.error("The command log %s cannot be written any more: %s", self._file.name, error)
            self._left = 0

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            _log.error("The end of the command log %s is lost: %s", self._file.name, error)


_FULL = (
    json.dumps({"level": "WARNING", "error": "The log has reached its size limit; later commands are not in it."})
    + "\n"
).encode()
