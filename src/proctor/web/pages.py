"""The pages: executions as they run, and each job with what its attempts left."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from proctor.domain import wire
from proctor.domain.execution import AttemptRecord, CaseRecord, JobRecord
from proctor.errors import NotFound
from proctor.services import results
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.web import forms
from proctor.web.answers import PageRoute, attachment, page, picture
from proctor.web.board import read_show
from proctor.web.rendering import STATIC, asset_version
from proctor.web.session import CallerDep, ContextDep, ListenerDep, SessionDep
from proctor.web.stream import EventStream, Watch, follow, read_board

router = APIRouter(route_class=PageRoute, include_in_schema=False)
router.include_router(forms.router)

RECENT = 50
LOG_LIMIT = 64 * 1024
COMMANDS_SHOWN = 200

Show = Annotated[str, Query(max_length=20)]
Number = Annotated[int | None, Query(alias="attempt", ge=1, le=1_000_000)]
Token = Annotated[str, Path(max_length=512)]
# A link that somebody shared is for those who have it, not for search engines.
NO_INDEX = {"X-Robots-Tag": "noindex, nofollow"}


@dataclass(frozen=True)
class Evidence:
    """What one attempt of a job left: the end of its log, its last commands, and how many there were in all."""

    attempt: AttemptRecord
    log: str
    commands: Sequence[dict[str, Any]]
    commands_total: int

    @property
    def log_size(self) -> int:
        return self.attempt.artifacts.get(wire.EXECUTOR_LOG, 0)

    @property
    def has_screen(self) -> bool:
        return wire.SCREEN in self.attempt.artifacts


@router.get("/")
async def list_executions(context: ContextDep, caller: CallerDep) -> Response:
    recent = await results.list_recent(context, caller, RECENT)
    return page("executions.html", caller=caller, executions=recent, now=context.clock.now())


@router.get("/executions/{id}")
async def show_execution(
    id: str, context: ContextDep, caller: CallerDep, session: SessionDep, show: Show = ""
) -> Response:
    board = await read_board(context, Watch(session, id, read_show(show)))
    return page("execution.html", caller=caller, board=board)


@router.get("/executions/{id}/stream")
async def stream_execution(
    id: str, context: ContextDep, caller: CallerDep, session: SessionDep, listener: ListenerDep, show: Show = ""
) -> Response:
    # Here, and not in the stream: an error must have its status.
    await results.read_summary(context, caller, id)
    return EventStream(follow(context, listener, Watch(session, id, read_show(show))))


@router.get("/results/{id}")
async def show_job(id: str, context: ContextDep, caller: CallerDep, number: Number = None) -> Response:
    job = await results.read_job(context, caller, id)
    return await _job_page(context, job, number, caller=caller)


@router.get("/attempts/{id}/screen.png")
async def show_screen(id: str, context: ContextDep, caller: CallerDep) -> Response:
    attempt, pieces = await results.open_artifact(context, caller, id, wire.SCREEN)
    return picture(attempt.artifacts[wire.SCREEN], pieces)


@router.get("/attempts/{id}/files/{name}")
async def download_file(id: str, name: str, context: ContextDep, caller: CallerDep) -> Response:
    attempt, pieces = await results.open_artifact(context, caller, id, name)
    return attachment(name, attempt.artifacts[name], pieces)


@router.get("/shared/{token}")
async def show_shared_job(token: Token, context: ContextDep, number: Number = None) -> Response:
    """A job for whoever has the link."""
    job = await results.read_shared(context, token)
    return await _job_page(context, job, number, token=token)


@router.get("/shared/{token}/attempts/{id}/screen.png")
async def show_shared_screen(token: Token, id: str, context: ContextDep) -> Response:
    job = await results.read_shared(context, token)
    attempt = next((one for one in job.attempts if str(one.id) == id and wire.SCREEN in one.artifacts), None)
    if attempt is None:
        raise NotFound("The shared test result has no such screenshot.")
    try:
        pieces = await context.artifacts.get(job.execution_id, attempt.id, wire.SCREEN)
    except FileNotFoundError as error:
        raise NotFound("The screenshot is no longer on the disk.") from error
    return picture(attempt.artifacts[wire.SCREEN], pieces)


async def _job_page(
    context: Context, job: JobRecord, number: int | None, *, caller: Caller | None = None, token: str | None = None
) -> Response:
    attempt = _choose_attempt(job, number)
    cases: dict[int, list[CaseRecord]] = {}
    for case in await results.read_cases(context, [job]):
        cases.setdefault(case.attempt_id, []).append(case)
    return page(
        "result.html",
        headers=NO_INDEX if token is not None else None,
        caller=caller,
        token=token,
        job=job,
        cases=cases,
        evidence=await _read_evidence(context, job, attempt) if attempt is not None else None,
        log_limit=LOG_LIMIT,
        now=context.clock.now(),
    )


def _choose_attempt(job: JobRecord, number: int | None) -> AttemptRecord | None:
    if number is None:
        return job.last
    for attempt in job.attempts:
        if attempt.number == number:
            return attempt
    raise NotFound(f"The test result {job.id} has no attempt {number}.")


async def _read_evidence(context: Context, job: JobRecord, attempt: AttemptRecord) -> Evidence:
    log = await results.read_text(context, job, attempt, wire.EXECUTOR_LOG, LOG_LIMIT)
    commands = await results.read_commands(context, replace(job, attempts=(attempt,)))
    return Evidence(attempt, log, commands[-COMMANDS_SHOWN:], len(commands))


class _Static(StaticFiles):
    """Files that a browser may keep for good when it asked for this very version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        exact = response.status_code == 200 and scope["query_string"] == f"v={asset_version(path)}".encode()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if exact else "no-cache"
        return response


def mount_static(app: FastAPI) -> None:
    app.mount("/static", _Static(directory=STATIC), name="static")
