"""Templates, and how they show times, levels and what tests wrote."""

import hashlib
import re
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from proctor.domain.execution import UNDER_WAY
from proctor.domain.verdict import Level

STATIC = Path(__file__).parent / "static"

# A level is never told by its colour alone.
SIGNS = {
    Level.SUCCESS: "✓",
    Level.FAILURE: "✗",
    Level.ERROR: "!",
    Level.WARNING: "⚠",
    Level.STOPPED: "■",
    Level.UNEXECUTED: "—",
    Level.WAITING: "○",
    Level.PROCESSING: "▶",
    Level.REPORTING: "▶",
    Level.TERMINATING: "■",
}
# The bad news first, and what is still to come last.
LEVEL_ORDER = (
    Level.ERROR,
    Level.FAILURE,
    Level.WARNING,
    Level.STOPPED,
    Level.UNEXECUTED,
    Level.SUCCESS,
    *UNDER_WAY,
    Level.WAITING,
)

_ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SESSION = re.compile(r"^/session/([^/]{6})[^/]{4,}")


def render(template: str, **values: object) -> str:
    """The template's text; every value in it is escaped."""
    return _ENVIRONMENT.get_template(template).render(**values)


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep the file for good."""
    return f"/static/{name}?v={asset_version(name)}"


@cache
def asset_version(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def show_duration(duration: timedelta | None) -> str:
    """As in `812 ms`, `12.3 s`, `3 min 04 s`, `2 h 05 min`; a dash for none."""
    if duration is None:
        return "—"
    milliseconds = max(0, round(duration.total_seconds() * 1000))
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def show_instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def show_size(size: int) -> str:
    """As in `812 B`, `64 KiB`, `3.2 MiB`."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.0f} KiB" if size < 1024**2 else f"{size / 1024**2:.1f} MiB"


def show_level(level: Level) -> str:
    return level.value.capitalize()


def show_text(text: str) -> str:
    """What a test wrote, without terminal colours; other control characters become U+FFFD."""
    return _CONTROLS.sub("\ufffd", _ESCAPE_SEQUENCES.sub("", text))


def cut(text: str | None, limit: int) -> str:
    """The first `limit` characters, with a mark where more followed."""
    text = show_text(text or "")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shorten_session(path: str) -> str:
    """`/session/1f3a9c…/url`: the whole id says nothing to a reader of the table."""
    return _SESSION.sub(r"/session/\1…", path)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("proctor.web"),
        # For every template, whatever its name: what is shown comes from tests, plans and repositories.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(asset=asset, SIGNS=SIGNS, LEVEL_ORDER=LEVEL_ORDER)
    environment.filters.update(
        duration=show_duration,
        instant=show_instant,
        size=show_size,
        level=show_level,
        text=show_text,
        cut=cut,
        path=shorten_session,
    )
    return environment


_ENVIRONMENT = _environment()
