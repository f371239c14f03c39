"""`proctor run` and `proctor stop`."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import click

from proctor.cli.client import Access, Client, ExitCode, Refused, open_client
from proctor.cli.execution import clean
from proctor.cli.watch import Report, follow


@dataclass(frozen=True)
class Wish:
    """What to start: a plan by id or name; `key` makes sure that it is started once."""

    plan: str
    force: bool = False
    callback_url: str | None = None
    key: str = field(default_factory=lambda: str(uuid4()))


def run_plan(access: Access, wish: Wish, report: Report, *, wait: bool) -> ExitCode:
    return asyncio.run(_run(access, wish, report, wait=wait))


def stop_plan(access: Access, plan: str) -> None:
    async def stop() -> str:
        async with open_client(access) as client:
            return str((await client.stop(plan))["message"])

    click.echo(asyncio.run(stop()))


async def _run(access: Access, wish: Wish, report: Report, *, wait: bool) -> ExitCode:
    async with open_client(access) as client:
        answer = await start(client, wish)
        code = judge_start(answer)
        if code is not ExitCode.PASSED or not wait:
            _tell_start(client, answer, code, report)
            return code
        click.echo(answer["message"], err=True)
        _warn_of_missing(answer)
        return await follow(client, int(answer["execution_id"]), report)


async def start(client: Client, wish: Wish) -> dict[str, Any]:
    """Starts the plan, or joins the execution that runs."""
    try:
        return await client.run(wish.plan, key=wish.key, force=wish.force, callback_url=wish.callback_url)
    except Refused as refused:
        if refused.problem.get("error") != "already_running":
            raise
    # The route of --force only refuses then; this one names the execution that runs.
    return await client.run(wish.plan, key=f"{wish.key}-join", callback_url=wish.callback_url)


def judge_start(answer: dict[str, Any]) -> ExitCode:
    """PASSED when something runs now, by this request or by an earlier one."""
    if answer.get("execution_id") is not None:
        return ExitCode.PASSED
    return ExitCode.MACHINERY_FAILED if answer.get("unavailable_env_list") else ExitCode.NOTHING_TO_RUN


def _tell_start(client: Client, answer: dict[str, Any], code: ExitCode, report: Report) -> None:
    execution_id = answer.get("execution_id")
    url = f"{client.url}/executions/{execution_id}"
    if report.as_json:
        click.echo(json.dumps({**answer, **({"url": url} if execution_id else {}), "exit_code": int(code)}))
        return
    click.echo(clean(str(answer["message"])), err=True)
    _warn_of_missing(answer)
    if execution_id is not None:
        click.echo(f"{execution_id} {url}")
    elif answer.get("unavailable_env_list"):
        click.echo("proctor: `--force` starts with the environments that are there.", err=True)


def _warn_of_missing(answer: dict[str, Any]) -> None:
    for missing in answer.get("unavailable_env_list", []):
        click.echo(f"  {clean(missing['name'])} ({missing['reason']}): {clean(missing['detail'])}", err=True)
