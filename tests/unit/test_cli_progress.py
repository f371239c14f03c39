"""Progress as a pipeline's log shows it, and on a terminal."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from proctor.cli.execution import Execution, read_execution
from proctor.cli.progress import LineProgress, LiveProgress, open_progress


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    async def sleep(self, duration: timedelta) -> None:
        self.time += duration


def job(id_: int, level: str, *outcomes: str | None) -> dict[str, Any]:
    attempts = [{"number": n, "outcome": o, "message": "1 is not 2"} for n, o in enumerate(outcomes, 1)]
    message = "1 is not 2" if level == "FAILURE" else ""
    return {
        "id": id_,
        "level": level,
        "scenario_name": f"scenario {id_}",
        "message": message,
        "runtime": 1200,
        "url": "",
        "attempts": attempts,
    }


def execution(*jobs: dict[str, Any]) -> Execution:
    levels = [one["level"] for one in jobs]
    waiting, running = levels.count("WAITING"), levels.count("PROCESSING")
    counts = {"total": len(jobs), "waiting": waiting, "running": running, "ended": len(jobs) - waiting - running}
    return read_execution(
        {
            "id": 12,
            "plan_id": 3,
            "plan_name": "smoke",
            "start_at": "2026-11-24T01:00:00+00:00",
            "url": "",
            "counts": counts,
            "jobs": list(jobs),
        }
    )


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to stderr, without the times of day."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [line.partition(" ")[2] for line in captured.err.splitlines()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_each_change_is_told_once(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    progress = LineProgress(tell_jobs=True, clock=clock)
    progress.show(execution(job(1, "PROCESSING", None), job(2, "WAITING")))
    assert told(capsys) == []
    progress.show(execution(job(1, "SUCCESS", "passed"), job(2, "WAITING", "failed")))
    assert told(capsys) == [
        "[1/2] SUCCESS  scenario 1  1.2 s",
        "[1/2] RETRY    scenario 2  attempt 1 failed: 1 is not 2",
    ]
    progress.show(execution(job(1, "SUCCESS", "passed"), job(2, "PROCESSING", "failed", None)))
    assert told(capsys) == []
    progress.show(execution(job(1, "SUCCESS", "passed"), job(2, "FAILURE", "failed", "failed")))
    assert told(capsys) == ["[2/2] FAILURE  scenario 2  1.2 s  at attempt 2  1 is not 2"]
    progress.show(execution(job(1, "SUCCESS", "passed"), job(2, "FAILURE", "failed", "failed")))
    assert told(capsys) == []


def test_half_a_minute_without_a_change_is_told_of(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    progress = LineProgress(tell_jobs=True, clock=clock)
    shown = execution(job(1, "PROCESSING", None), job(2, "WAITING"))
    for _ in range(7):
        progress.show(shown)
        clock.time += progress.interval
    assert told(capsys) == ["still running: 0 of 2 ended, 1 running, 1 waiting"] * 2


def test_without_a_terminal_there_are_lines_without_colours_whatever_force_color_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with open_progress() as progress:
        progress.show(execution(job(1, "FAILURE", "failed")))
        progress.say("done")
    written = capsys.readouterr().err
    assert "FAILURE  scenario 1" in written
    assert "\x1b" not in written


def test_a_terminal_shows_what_runs_and_keeps_what_ended_above_it(clock: Clock) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        progress = LiveProgress(live, tell_jobs=True, clock=clock)
        clock.time += timedelta(seconds=65)
        progress.show(execution(job(1, "SUCCESS", "passed"), *(job(n, "PROCESSING", None) for n in range(2, 13))))
        live.refresh()
    written = screen.getvalue()
    assert "SUCCESS  scenario 1  1.2 s\n" in written
    assert "smoke · execution 12" in written
    assert "1 of 12 ended, 11 running, 0 waiting  1:05 min" in written
    assert "scenario 9 " in written
    assert "scenario 10 " not in written
    assert "and 3 more" in written
