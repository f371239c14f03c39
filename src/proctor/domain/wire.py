"""The shapes of dialects E and C (contract §4), from records: the same in answers and in callbacks."""

from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from proctor.domain.environment import Environment
from proctor.domain.execution import AttemptRecord, Counts, ExecutionRecord, JobRecord
from proctor.domain.verdict import Level

EXECUTOR_LOG = "executor.log"
NODE_LOG = "driver.log"
COMMANDS = "commands.jsonl"
SCREEN = "screen.png"


def milliseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)


def iso(at: datetime | None) -> str | None:
    """As in `2026-11-23T10:43:09Z`."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """A field that has no value is absent on the wire."""
    return {name: value for name, value in values.items() if value is not None}


class Keyed(Protocol):
    """What a test key is made of: a job, or the task that a worker got of it."""

    @property
    def company_id(self) -> int: ...
    @property
    def plan_id(self) -> int: ...
    @property
    def execution_id(self) -> int: ...
    @property
    def scenario_id(self) -> int: ...
    @property
    def environment(self) -> Environment | None: ...


def test_key(job: Keyed) -> str:
    """`TEST-C{company}-P{plan}-E{execution}-S{scenario}`, and `-ENV:{OS}-{Browser}-{VERSION}` with an environment."""
    key = f"TEST-C{job.company_id}-P{job.plan_id}-E{job.execution_id}-S{job.scenario_id}"
    return key + environment_key(job.environment)


def environment_key(environment: Environment | None) -> str:
    if environment is None:
        return ""
    return f"-ENV:{environment.os}-{environment.browser.capitalize()}-{environment.version or 'LATEST'}"


def artifact_url(job: JobRecord, attempt: AttemptRecord, name: str, base_url: str) -> str:
    return f"{base_url}/api/v1/attempts/{attempt.id}/artifacts/{quote(name)}"


def execution_fields(execution: ExecutionRecord) -> dict[str, Any]:
    """Dialect E without `test_results`."""
    return without_none(
        {
            "id": execution.id,
            "plan": {"id": execution.plan_id},
            "plan_id": execution.plan_id,
            "start_date": milliseconds(execution.start_at),
            # Absent until the execution has ended: clients poll for it.
            "end_date": milliseconds(execution.end_at),
            "result_summary": summary(execution.counts),
            "test_result_status_counts": status_counts(execution.counts),
        }
    )


def execution_e(execution: ExecutionRecord, test_results: list[dict[str, Any]]) -> dict[str, Any]:
    return {**execution_fields(execution), "test_results": test_results}


def execution_c(execution: ExecutionRecord, job_ids: list[int]) -> dict[str, Any]:
    return without_none(
        {
            "id": execution.id,
            "user_id": execution.user_id,
            "username": execution.username,
            "company_id": execution.company_id,
            "project_id": execution.project_id,
            "project_name": execution.project_name,
            "plan_id": execution.plan_id,
            "plan_name": execution.plan_name,
            "test_results": job_ids,
            "runtime": _runtime(execution.start_at, execution.end_at),
            "result_summary": summary(execution.counts),
            "start_date": iso(execution.start_at),
            "end_date": iso(execution.end_at),
            "test_result_status_counts": status_counts(execution.counts),
        }
    )


def summary(counts: Counts) -> dict[str, int]:
    return {level.value: counts.levels[level] for level in Level if counts.levels.get(level)}


def status_counts(counts: Counts) -> str:
    """As in `[ERROR, 1]`; several follow each other, as in `[SUCCESS, 3], [ERROR, 1]`."""
    return ", ".join(f"[{level}, {number}]" for level, number in summary(counts).items())


def result_e(
    job: JobRecord, base_url: str, *, commands: list[dict[str, Any]] | None = None, dates: str = "ms"
) -> dict[str, Any]:
    """TestResult; `dates` is `ms` in dialect E and `iso` in dialect C."""
    show = milliseconds if dates == "ms" else iso
    return without_none(
        {
            "id": job.id,
            "level": job.level.value,
            # Clients read it without asking whether the test has begun.
            "start_date": show(job.start_at or job.execution_start_at),
            "end_date": show(job.end_at),
            "runtime": _runtime(job.start_at, job.end_at),
            "session_id": job.last.session_id if job.last and job.last.session_id else "",
            "message": job.message,
            "screen_shot_type": job.screenshots,
            "video_enabled": job.video,
            "performance_data_enabled": False,
            "test_key": test_key(job),
            "test_scenario": {"id": job.scenario_id},
            "scenario_id": job.scenario_id,
            "scenario_name": job.scenario_name,
            "test_plan": {"id": job.plan_id},
            "plan_id": job.plan_id,
            "project": {"id": job.project_id},
            "project_id": job.project_id,
            "environment": {"id": job.environment.id} if job.environment else None,
            "environment_id": job.environment.id if job.environment else None,
            "environment_name": job.environment.name if job.environment else None,
            "test_execution": {"id": job.execution_id},
            "execution_id": job.execution_id,
            "video_format": "mp4",
            "node_log_path": _path(job, NODE_LOG, base_url),
            "executor_log_path": _path(job, EXECUTOR_LOG, base_url),
            "screenshot_file_path": _kept_path(job, SCREEN, base_url),
            "attempts": [attempt_fields(job, attempt, base_url, dates) for attempt in job.attempts],
            "test_result_commands": commands,
        }
    )


def attempt_fields(job: JobRecord, attempt: AttemptRecord, base_url: str, dates: str = "ms") -> dict[str, Any]:
    """One attempt: ours, for the contract has only the last."""
    show = milliseconds if dates == "ms" else iso
    return without_none(
        {
            "id": attempt.id,
            "number": attempt.number,
            "state": attempt.state.value,
            "outcome": attempt.outcome,
            "level": attempt.level.value if attempt.level else None,
            "message": attempt.message,
            "session_id": attempt.session_id,
            "start_date": show(attempt.start_at),
            "end_date": show(attempt.end_at),
            "artifacts": {name: artifact_url(job, attempt, name, base_url) for name in attempt.artifacts},
        }
    )


def command_e(command: dict[str, Any], start: int | None, end: int | None) -> dict[str, Any]:
    """One line of the command log as the contract's Command."""
    runtime = command.get("runtime_ms", 0)
    return {
        "method_type": command.get("method", ""),
        "request_path": command.get("path", ""),
        "request_data": command.get("request") or "",
        "response_data": command.get("response") or "",
        "level": command.get("level", ""),
        "start_date": start,
        "end_date": end,
        "runtime": round(runtime),
        "runtime_as_string": f"{runtime / 1000:.3f} s",
    }


def _runtime(start_at: datetime | None, end_at: datetime | None) -> int:
    """Milliseconds; 0 until it has ended."""
    if start_at is None or end_at is None:
        return 0
    return round((end_at - start_at).total_seconds() * 1000)


def _path(job: JobRecord, name: str, base_url: str) -> str:
    """The URL of the last attempt's file; empty where there is none, for clients read the key without asking."""
    return _kept_path(job, name, base_url) or ""


def _kept_path(job: JobRecord, name: str, base_url: str) -> str | None:
    last = job.last
    return artifact_url(job, last, name, base_url) if last and name in last.artifacts else None
