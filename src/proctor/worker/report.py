"""Reads the JUnit XML that a runner left. Untrusted code wrote the folder, so nothing in it is followed or believed."""

import errno
import math
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import XMLParser

from proctor.domain.verdict import DETAIL_LIMIT, MESSAGE_LIMIT, Case, CaseStatus
from proctor.errors import ReportBroken, ReportMissing

FILE_LIMIT = 10 * 1024 * 1024  # bytes
LONGEST = 2_000_000.0  # seconds; in milliseconds it fits PostgreSQL's integer
FILES_LIMIT = 200
CASES_LIMIT = 20_000
TEXT_LIMIT = 64 * 1024 * 1024  # characters of detail in all cases together
NAME_LIMIT = 1_000  # characters
CHUNK = 64 * 1024

_STATUSES = {"error": CaseStatus.ERROR, "failure": CaseStatus.FAILED, "skipped": CaseStatus.SKIPPED}
_GRAVITY = (CaseStatus.PASSED, CaseStatus.SKIPPED, CaseStatus.FAILED, CaseStatus.ERROR)


def read_report(folder: Path, *, exit_code: int, last_line: str = "") -> list[Case]:
    """The cases of all `*.xml` files directly in `folder`, by file name; at least one file.

    Blocking: call it in a thread. `exit_code` and `last_line` (of the log) only explain a ReportMissing.
    Raises ReportMissing when there is no file, ReportBroken when one cannot be read or is too large.
    """
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ReportBroken(
            f"The report's folder cannot be read: {_why(error)}. Write into it, do not replace it."
        ) from error
    try:
        return _read_folder(opened, _missing(exit_code, last_line))
    finally:
        os.close(opened)


def _read_folder(folder: int, missing: str) -> list[Case]:
    with os.scandir(folder) as entries:
        names = list(islice((entry.name for entry in entries if entry.name.lower().endswith(".xml")), FILES_LIMIT + 1))
    if not names:
        raise ReportMissing(missing)
    if len(names) > FILES_LIMIT:
        raise ReportBroken(
            f"The report has more than {FILES_LIMIT} files, which is the most that is read. Write fewer."
        )
    target = _Cases()
    for name in sorted(names):
        _read_file(folder, name, target)
    return target.cases


def _missing(exit_code: int, last_line: str) -> str:
    said = f' Its last line was "{last_line}".' if last_line else ""
    return (
        f"The runner ended with exit code {exit_code} and left no report.{said} "
        "It must write JUnit XML (any *.xml) into the folder that $PROCTOR_REPORT_DIR names; see the executor log."
    )


def _read_file(folder: int, name: str, target: "_Cases") -> None:
    # It only calls `target`, which refuses a DOCTYPE; no tree is built, so 10 MiB of tags do not become gigabytes.
    parser = XMLParser(target=target)  # noqa: S314
    try:
        for chunk in _chunks(folder, name):
            parser.feed(chunk)
        parser.close()
    except ElementTree.ParseError as error:
        raise ReportBroken(
            f"The report {_shown(name)} is not well-formed XML: {error}. Was its writer cut short?"
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know, or one of several bytes
        raise ReportBroken(f"The report {_shown(name)} cannot be decoded: {error}. Write it in UTF-8.") from error
    except _Refused as refusal:
        raise ReportBroken(f"The report {_shown(name)} was refused: {refusal}.") from refusal
    except OSError as error:
        raise ReportBroken(f"The report {_shown(name)} cannot be read: {_why(error)}.") from error


def _shown(name: str) -> str:
    """A file's name may have bytes that are no text."""
    return os.fsencode(name).decode(errors="replace")


def _why(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error))


def _chunks(folder: int, name: str) -> Iterator[bytes]:
    # O_NONBLOCK: opening a FIFO that nobody writes to must not hang the worker.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Refused("it is not a regular file")
        left = FILE_LIMIT
        while chunk := file.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _Refused(f"it is larger than {FILE_LIMIT // 1024 // 1024} MiB")
            yield chunk


class _Refused(Exception):
    """Why a report file is not read; ends a sentence that begins with its name."""


class _Cases:
    """An `XMLParser` target that keeps test cases only, however the suites around them are nested."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self._attributes: dict[str, str] | None = None  # of the open <testcase>
        self._status = CaseStatus.PASSED
        self._message: str | None = None
        self._text: list[str] | None = None  # of the open <error>, <failure> or <skipped>
        self._detail = ""
        self._room = DETAIL_LIMIT
        self._room_in_all = TEXT_LIMIT

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        # Entities, which JUnit XML has no use for, expand or name files only where a DOCTYPE declares them.
        raise _Refused("it has a DOCTYPE")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "testcase":
            self._open_case(attributes)
        elif self._attributes is not None and self._text is None and tag in _STATUSES:
            self._open_result(_STATUSES[tag], attributes.get("message"))

    def data(self, text: str) -> None:
        if self._text is not None and self._room > 0:
            self._text.append(text[: self._room])
            self._room -= len(text)

    def end(self, tag: str) -> None:
        if tag == "testcase" and self._attributes is not None:
            self._close_case(self._attributes)
        elif self._text is not None and tag in _STATUSES:
            self._detail = self._detail or "".join(self._text).strip()
            self._text = None

    def close(self) -> None:
        self._attributes = self._text = None

    def _open_case(self, attributes: dict[str, str]) -> None:
        if len(self.cases) >= CASES_LIMIT:
            raise _Refused(f"the report has more than {CASES_LIMIT} cases")
        self._attributes, self._text = attributes, None
        self._status, self._message, self._detail = CaseStatus.PASSED, None, ""

    def _open_result(self, status: CaseStatus, message: str | None) -> None:
        """A case may have several results, as a failed test with a broken teardown; the gravest counts."""
        if _GRAVITY.index(status) <= _GRAVITY.index(self._status):
            return
        self._status, self._message, self._detail = status, message, ""
        self._text, self._room = [], DETAIL_LIMIT

    def _close_case(self, attributes: dict[str, str]) -> None:
        self._room_in_all -= len(self._detail)
        if self._room_in_all < 0:
            raise _Refused(f"its stack traces are longer than {TEXT_LIMIT // 1024 // 1024} MiB in all")
        self.cases.append(
            Case(
                name=attributes.get("name", "")[:NAME_LIMIT],
                classname=attributes.get("classname", "")[:NAME_LIMIT],
                status=self._status,
                seconds=_seconds(attributes.get("time", "")),
                message=self._message[: 10 * MESSAGE_LIMIT] if self._message else None,
                detail=self._detail or None,
            )
        )
        self._attributes = None


def _seconds(text: str) -> float:
    """Some writers group thousands, as in `1,234.5`; what is no duration counts as 0."""
    try:
        seconds = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    # Some write milliseconds since 1970; nobody's test takes 20 days.
    return seconds if math.isfinite(seconds) and 0 <= seconds < LONGEST else 0.0
