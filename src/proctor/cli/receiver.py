"""A receiver of callbacks on this machine: what `proctor demo` shows them with, and an example of how to check them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from proctor.cli.execution import clean

MAX_BODY = 1024 * 1024  # bytes
FINISHED = "execution.finished"


@dataclass(frozen=True)
class Callback:
    """One callback that arrived; `what` is the scenario that ended, or the plan."""

    sequence: int
    type: str
    what: str
    level: str
    signed: bool

    def __str__(self) -> str:
        signature = "signature ok" if self.signed else "SIGNATURE WRONG"
        return f"callback {self.sequence:>3}  {self.type:<18}  {signature}  {self.level:<10}  {self.what}"


@dataclass
class Callbacks:
    """All that arrived, in the order of their arrival."""

    received: list[Callback] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return any(callback.type == FINISHED for callback in self.received)

    def find_wrong(self) -> list[str]:
        """What is not as the contract says, in words; empty when all is well."""
        unsigned = [str(callback.sequence) for callback in self.received if not callback.signed]
        sequence = [callback.sequence for callback in self.received]
        wrong = []
        if not self.ended:
            wrong.append(f"{FINISHED} did not arrive")
        if sequence != list(range(1, len(sequence) + 1)):
            wrong.append(f"they arrived in the order {', '.join(map(str, sequence))}")
        if unsigned:
            wrong.append(f"the signature of {', '.join(unsigned)} is wrong")
        return wrong


class Receiver:
    """Takes callbacks that are signed with the secret, and prints each as it arrives."""

    def __init__(self, secret: str) -> None:
        self.url = ""
        self.callbacks = Callbacks()
        self._webhook = Webhook(secret)
        self._ended = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): text for name, text in request.headers.items()}
        try:
            callback = read_callback(json.loads(raw), signed=_is_signed(self._webhook, raw, headers))
        except (ValueError, TypeError, KeyError) as error:
            raise web.HTTPBadRequest(text=f"This is no callback of Proctor: {error!r}") from None
        self.callbacks.received.append(callback)
        # Not click.echo: a live display has put itself in the place of sys.stdout.
        sys.stdout.write(f"{callback}\n")
        sys.stdout.flush()
        if callback.type == FINISHED:
            self._ended.set()
        return web.Response(status=204)

    async def wait_for_end(self, timeout: timedelta) -> None:
        """Returns also when the last callback did not come in time; `callbacks.find_wrong` says so."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._ended.wait()
        except TimeoutError:
            return


@asynccontextmanager
async def open_receiver(secret: str) -> AsyncIterator[Receiver]:
    """Listens on a free port of the loopback address; `secret` as in `whsec_…`."""
    receiver = Receiver(secret)
    application = web.Application(client_max_size=MAX_BODY)
    application.router.add_post("/callbacks", receiver.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"
        yield receiver
    finally:
        await runner.cleanup()


def read_callback(body: Mapping[str, Any], *, signed: bool) -> Callback:
    """Reads the body of contract §7."""
    data = body["data"]
    execution = data["execution"]
    result = data.get("test_result")
    return Callback(
        sequence=int(data["sequence"]),
        type=clean(str(body["type"])),
        what=clean(_name(result) if result else str(execution["plan_name"])),
        level=clean(str(result["level"] if result else execution["status"])),
        signed=signed,
    )


def _name(result: Mapping[str, Any]) -> str:
    return " · ".join(str(result[key]) for key in ("scenario_name", "environment_name") if result.get(key))


def _is_signed(webhook: Webhook, raw: bytes, headers: dict[str, str]) -> bool:
    try:
        webhook.verify(raw, headers)
    except WebhookVerificationError:
        return False
    return True
