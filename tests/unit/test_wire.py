"""The shapes of the contract, from records."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from proctor.domain import wire
from proctor.domain.environment import Environment
from proctor.domain.execution import AttemptRecord, AttemptState, Counts, JobRecord
from proctor.domain.text import storable
from proctor.domain.verdict import Level

START = datetime(2026, 11, 23, 10, 43, 9, 250_000, tzinfo=UTC)
CHROME = Environment(7, "LINUX / Chrome 156", "LINUX", "chrome", "156")


def attempt(number: int, **artifacts: int) -> AttemptRecord:
    return AttemptRecord(
        id=100 + number,
        job_id=5,
        number=number,
        state=AttemptState.DONE,
        outcome="failed",
        level=Level.FAILURE,
        message="no",
        session_id=f"s{number}",
        artifacts=artifacts,
        start_at=START,
        end_at=START + timedelta(seconds=1),
    )


def job(**changes: Any) -> JobRecord:
    made = JobRecord(
        id=5,
        execution_id=4,
        company_id=1,
        project_id=2,
        plan_id=3,
        scenario_id=6,
        scenario_name="pays by card",
        environment=CHROME,
        level=Level.FAILURE,
        message="no",
        screenshots="ONLY_FAILURE",
        video=False,
        base_url="http://here",
        start_at=START,
        end_at=START + timedelta(milliseconds=1500),
        attempts=(),
    )
    return replace(made, **changes)


def test_dates_are_utc_in_both_forms_whatever_zone_they_come_in() -> None:
    kolkata = START.astimezone(timezone(timedelta(hours=5, minutes=30)))

    for at in (START, kolkata):
        assert wire.iso(at) == "2026-11-23T10:43:09Z"
        assert wire.milliseconds(at) == 1795430589250
    assert wire.iso(None) is None
    assert wire.milliseconds(None) is None


@pytest.mark.parametrize(
    ("environment", "ending"),
    [
        (None, ""),
        (CHROME, "-ENV:LINUX-Chrome-156"),
        (replace(CHROME, version=""), "-ENV:LINUX-Chrome-LATEST"),
    ],
)
def test_a_test_key_names_company_plan_execution_scenario_and_environment(
    environment: Environment | None, ending: str
) -> None:
    assert wire.test_key(job(environment=environment)) == f"TEST-C1-P3-E4-S6{ending}"


def test_the_last_attempt_decides_what_a_result_links_to() -> None:
    first, last = attempt(1, **{"executor.log": 3, "screen.png": 9}), attempt(2, **{"executor.log": 3})

    shown = wire.result_e(job(attempts=(first, last)), "http://here")

    assert shown["executor_log_path"] == "http://here/api/v1/attempts/102/artifacts/executor.log"
    assert shown["node_log_path"] == ""
    assert "screenshot_file_path" not in shown
    assert shown["session_id"] == "s2"
    assert [one["number"] for one in shown["attempts"]] == [1, 2]


def test_the_dialects_differ_in_dates_only() -> None:
    e = wire.result_e(job(attempts=(attempt(1),)), "http://here")
    c = wire.result_e(job(attempts=(attempt(1),)), "http://here", dates="iso")

    assert (e["start_date"], c["start_date"]) == (1795430589250, "2026-11-23T10:43:09Z")
    for shown in (e, c):
        for part in (shown, *shown["attempts"]):
            part.pop("start_date")
            part.pop("end_date")
    assert e == c


def test_a_result_that_has_not_begun_stands_where_its_execution_began() -> None:
    shown = wire.result_e(job(start_at=None, end_at=None, execution_start_at=START), "http://here")

    assert shown["start_date"] == 1795430589250
    assert shown["runtime"] == 0
    assert "end_date" not in shown


def test_a_summary_names_only_the_levels_that_are_there() -> None:
    counts = Counts.of({Level.ERROR: 1, Level.SUCCESS: 3, Level.WAITING: 0})

    assert wire.summary(counts) == {"SUCCESS": 3, "ERROR": 1}
    assert wire.status_counts(counts) == "[SUCCESS, 3], [ERROR, 1]"
    assert wire.status_counts(Counts.of({})) == ""


def test_a_recorded_command_without_times_or_bodies_is_still_one() -> None:
    shown = wire.command_e({"method": "GET", "path": "/status"}, None, None)

    assert shown["request_data"] == shown["response_data"] == shown["level"] == ""
    assert (shown["runtime"], shown["runtime_as_string"]) == (0, "0.000 s")


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfffb"])
def test_text_that_the_database_refuses_is_known(text: str) -> None:
    assert not storable(text)
    with pytest.raises(ValueError):  # noqa: PT012 (either is what makes it unfit)
        text.encode()
        raise ValueError("NUL")


@pytest.mark.parametrize("text", ["", "plain", "Ödeme \N{PILE OF POO}", "\ue000\ud7ff", "\x01\uffff"])
def test_text_that_the_database_keeps_is_let_through(text: str) -> None:
    assert storable(text)
