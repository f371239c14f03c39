"""Following an execution: to its end, through outages, and no longer than asked."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import test_utils, web

from proctor.cli.client import Access, Client, ExitCode, open_client
from proctor.cli.execution import Execution
from proctor.cli.run import Wish, judge_start, start
from proctor.cli.watch import Report, ServerLost, Watch, follow
from proctor.errors import UsageError


def attempts_of(level: str) -> list[dict[str, Any]]:
    outcome = {"SUCCESS": "passed", "FAILURE": "failed"}.get(level)
    return [{"number": 1, "outcome": outcome}]


def document(*levels: str, ended: bool = False) -> dict[str, Any]:
    shown = [
        {"id": n, "level": level, "scenario_name": f"scenario {n}", "url": "", "attempts": attempts_of(level)}
        for n, level in enumerate(levels, 1)
    ]
    counts = {"total": len(levels), "waiting": 0, "running": 0, "ended": len(levels)}
    end = {"end_at": "2026-11-24T01:00:05+00:00", "level": levels[0]} if ended else {}
    return {
        "id": 12,
        "plan_id": 3,
        "plan_name": "smoke",
        "start_at": "2026-11-24T01:00:00+00:00",
        "url": "http://proctor.test/executions/12",
        "counts": counts,
        "jobs": shown,
        **end,
    }


@asynccontextmanager
async def client_of(application: web.Application) -> AsyncIterator[Client]:
    async with test_utils.TestServer(application) as server:
        access = Access(str(server.make_url("")).rstrip("/"), "")
        async with open_client(access) as client:
            yield client


@dataclass
class Server:
    """Answers as Proctor does for one execution; `script` says what each summary in turn does to it."""

    script: list[Callable[[], int]]
    document: dict[str, Any] = field(default_factory=lambda: document("PROCESSING"))
    asked_after: list[str] = field(default_factory=list)

    async def summary(self, request: web.Request) -> web.Response:
        self.asked_after.append(request.query["after"])
        status = self.script.pop(0)() if self.script else 200
        shown = {name: value for name, value in self.document.items() if name != "jobs"}
        return web.json_response({**shown, "events": [{"sequence": len(self.asked_after)}]}, status=status)

    async def execution(self, _: web.Request) -> web.Response:
        return web.json_response(self.document)

    def end(self, *levels: str) -> Callable[[], int]:
        def end() -> int:
            self.document = document(*levels, ended=True)
            return 200

        return end

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        application = web.Application()
        application.router.add_get("/api/v1/executions/12", self.execution)
        application.router.add_get("/api/v1/executions/12/summary", self.summary)
        async with client_of(application) as client:
            yield client


class Clock:
    """Its time passes only by sleeping."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    async def sleep(self, duration: timedelta) -> None:
        self.time += duration


class Notes:
    interval = timedelta(seconds=1)

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[list[str]] = []

    def show(self, execution: Execution) -> None:
        self.shown.append([job.level.value for job in execution.jobs])

    def say(self, text: str) -> None:
        self.said.append(text)


def running() -> int:
    return 200


def bad_gateway() -> int:
    return 502


async def test_an_execution_is_followed_to_its_end_by_asking_for_what_is_new() -> None:
    server = Server([running, running])
    server.script.append(server.end("SUCCESS"))
    notes = Notes()
    async with server.client() as client:
        last = await Watch(client, 12, notes).follow()
    assert last["level"] == "SUCCESS"
    assert server.asked_after == ["0", "1", "2"]
    assert notes.shown[0] == ["PROCESSING"]
    assert notes.shown[-1] == ["SUCCESS"]
    assert notes.said == []


async def test_a_short_outage_is_told_and_ridden_out() -> None:
    server = Server([bad_gateway] * 59)
    server.script.append(server.end("SUCCESS"))
    notes = Notes()
    async with server.client() as client:
        last = await Watch(client, 12, notes, Clock()).follow()
    assert last["level"] == "SUCCESS"
    gone, back = notes.said
    assert gone.endswith("Waiting up to 1m for it.")
    assert back == "The server is back after 59 s."


async def test_a_server_that_stays_away_is_given_up_after_a_minute() -> None:
    notes = Notes()
    server = Server([bad_gateway] * 70)
    async with server.client() as client:
        with pytest.raises(ServerLost, match=r"did not answer for 1m.*`proctor watch 12` follows it") as lost:
            await Watch(client, 12, notes, Clock()).follow()
    assert lost.value.exit_code is ExitCode.MACHINERY_FAILED
    assert len(server.script) == 70 - 61


async def test_what_is_refused_is_not_asked_for_again() -> None:
    server = Server([lambda: 403])
    async with server.client() as client:
        with pytest.raises(UsageError, match="HTTP 403"):
            await Watch(client, 12, Notes()).follow()
    assert len(server.asked_after) == 1


async def test_a_wait_that_timed_out_says_that_the_execution_goes_on_and_how_to_stop_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Server([]).client() as client:
        code = await follow(client, 12, Report(as_json=True, timeout=timedelta(seconds=0.2)))
    assert code is ExitCode.TIMED_OUT
    told = capsys.readouterr()
    shown = json.loads(told.out)
    assert (shown["id"], shown["exit_code"], shown["jobs"][0]["level"]) == (12, 124, "PROCESSING")
    assert "Execution 12 goes on" in told.err
    assert "`proctor stop 3` stops it" in told.err


async def test_the_end_is_told_on_stdout_and_as_junit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server = Server([])
    server.script.append(server.end("FAILURE", "SUCCESS"))
    async with server.client() as client:
        code = await follow(client, 12, Report(junit=tmp_path / "report.xml"))
    assert code is ExitCode.TESTS_FAILED
    told = capsys.readouterr()
    assert told.out.startswith("FAILURE  smoke · execution 12  2 jobs: 1 passed, 1 failed in 5.0 s\n")
    assert "\x1b" not in told.out
    assert "[2/2] FAILURE  scenario 1" in told.err
    assert 'tests="2" failures="1" errors="0"' in (tmp_path / "report.xml").read_text()


# --- starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"execution_id": 1, "already_running": False}, ExitCode.PASSED),
        ({"execution_id": 1, "already_running": True}, ExitCode.PASSED),
        ({"execution_id": 1, "unavailable_env_list": [{"id": 1}]}, ExitCode.PASSED),
        ({"unavailable_env_list": [{"id": 1}]}, ExitCode.MACHINERY_FAILED),
        ({"unavailable_env_list": []}, ExitCode.NOTHING_TO_RUN),
    ],
)
def test_what_the_run_route_answers_decides_on_the_exit_code(answer: dict[str, Any], code: ExitCode) -> None:
    assert judge_start(answer) is code


async def test_a_forced_run_of_a_plan_that_runs_joins_it() -> None:
    seen: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers["Idempotency-Key"]))
        if request.path.endswith("/true"):
            return web.json_response({"detail": "It runs.", "error": "already_running"}, status=409)
        return web.json_response({"execution_id": 12, "already_running": True})

    application = web.Application()
    application.router.add_get("/{path:.*}", take)
    async with client_of(application) as client:
        answer = await start(client, Wish("smoke", force=True, key="k"))
    assert answer["execution_id"] == 12
    base = "/Testinium.RestApi/api/plans/smoke/run"
    assert seen == [(f"{base}/true", "k"), (base, "k-join")]
