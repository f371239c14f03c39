"""Writes an execution as JUnit XML in Maven Surefire's form, which tells flaky tests from failed ones."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

from junitparser import Error, Failure, Skipped
from junitparser.xunit2 import FlakyError, FlakyFailure, JUnitXml, RerunError, RerunFailure, TestCase, TestSuite

from proctor.errors import UsageError

Outcome = Literal["passed", "failed", "broken", "infrastructure"]

# Terminal colours go as a whole, so that no `[31m` stays behind; then what XML 1.0 cannot hold.
_ILLEGAL: Final = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]",
)


@dataclass(frozen=True)
class JunitAttempt:
    """One try: `message` is one line, `detail` the traceback or log, `seconds` its duration."""

    outcome: Outcome
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class JunitJob:
    """One scenario in one environment (`classname`); `skipped` is why it was stopped or not executed."""

    name: str
    classname: str
    seconds: float
    attempts: Sequence[JunitAttempt] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class JunitExecution:
    """What one file tells of."""

    name: str
    jobs: Sequence[JunitJob]


def write_junit(execution: JunitExecution, file: Path) -> None:
    """Writes the file whole or not at all, with the folders that lead to it; UsageError when it cannot be written."""
    document = _make_document(execution)
    try:
        if file.exists() and not file.is_file():
            # A pipe or `/dev/stdout`: renaming a file to that name would destroy it.
            _write(document, file)
        else:
            _replace(document, file.resolve())
    except OSError as error:
        raise UsageError(
            f"The JUnit report could not be written to {file}: {error.strerror}. Name a file that you may write."
        ) from None


def _replace(document: JUnitXml, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename is atomic within one file system only.
    draft = file.with_name(f".{uuid4().hex}.tmp")
    try:
        _write(document, draft)
        draft.replace(file)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _write(document: JUnitXml, file: Path) -> None:
    with file.open("wb") as stream:
        document.write(stream)


def _make_document(execution: JunitExecution) -> JUnitXml:
    suite = TestSuite(_legal(execution.name))  # type: ignore[no-untyped-call]
    suite.add_testcases([_make_case(job) for job in execution.jobs])
    document = JUnitXml(_legal(execution.name))
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    return document


def _make_case(job: JunitJob) -> TestCase:
    case = TestCase(_legal(job.name), _legal(job.classname), round(job.seconds, 3))
    for element in _elements(job):
        case.append(element)  # type: ignore[no-untyped-call]
    return case


def _elements(job: JunitJob) -> Iterator[Any]:
    """What a test case contains; Surefire calls the first failure the failure, and those that follow reruns."""
    if job.skipped is not None:
        yield Skipped(_legal(job.skipped))
        return
    attempts = _attempts_of_the_test(job.attempts)
    if not attempts:
        yield Error("The job has no attempt that ended.", "broken")
    elif attempts[-1].outcome == "passed":
        for failed in attempts[:-1]:
            yield _interim(failed, FlakyFailure, FlakyError)
    else:
        yield _final(attempts[0])
        for failed in attempts[1:]:
            yield _interim(failed, RerunFailure, RerunError)


def _attempts_of_the_test(attempts: Sequence[JunitAttempt]) -> Sequence[JunitAttempt]:
    # A dead driver does not make a test flaky; it counts only when nothing else ever happened.
    return [attempt for attempt in attempts if attempt.outcome != "infrastructure"] or attempts


def _final(attempt: JunitAttempt) -> Failure | Error:
    kind = Failure if attempt.outcome == "failed" else Error
    element = kind(_legal(attempt.message), attempt.outcome)
    element.text = _legal(attempt.detail)
    return element


def _interim(attempt: JunitAttempt, failure: type[Any], error: type[Any]) -> Any:
    element = (failure if attempt.outcome == "failed" else error)(_legal(attempt.message), attempt.outcome)
    # Surefire's schema wants one, be it empty.
    element.stack_trace = _legal(attempt.detail)
    return element


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)
