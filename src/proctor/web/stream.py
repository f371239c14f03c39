"""An execution's page as it changes: server-sent events with the HTML that is new."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import StreamingResponse
from starlette.types import Send

from proctor.errors import Forbidden, Unauthorized
from proctor.services import results
from proctor.services.context import Context
from proctor.store.listener import Listener
from proctor.web.board import Board, compare, lay_out
from proctor.web.rendering import render
from proctor.web.session import identify_session

# Seconds. Each look also tells the time that jobs under way have taken, and finds out that the reader has gone.
POLL_INTERVAL = 5.0
SHORTEST_INTERVAL = 0.5
# A stream may use this part of the server's time: with thousands of jobs it looks less often.
SHARE = 0.1

UPDATE, ENDED = "update", "ended"


@dataclass(frozen=True)
class Watch:
    """Who watches which execution; `show` as in Board."""

    session: str
    execution_ref: str
    show: str


class EventStream(StreamingResponse):
    """Server-sent events from a generator, which is closed with the connection."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        # A proxy that collects an answer before it passes it on would hold the events back.
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


async def read_board(context: Context, watch: Watch) -> Board:
    """The board as it is now; raises Unauthorized once the session is over."""
    caller = await identify_session(context, watch.session)
    execution, jobs = await results.read_execution(context, caller, watch.execution_ref)
    return lay_out(execution, jobs, watch.show, context.clock.now())


async def follow(context: Context, listener: Listener, watch: Watch) -> AsyncGenerator[str, None]:
    """Events until the execution has ended. The first has the whole board: it may have changed since the page."""
    before: Board | None = None
    loop = asyncio.get_running_loop()
    async with listener.changes(results.read_id(watch.execution_ref) or 0) as changes:
        while not changes.over and (before is None or not before.ended):
            began_at = loop.time()
            try:
                board = await read_board(context, watch)
            except (Unauthorized, Forbidden) as error:
                # Signed out elsewhere, or no longer allowed: nothing more is shown, from now on.
                yield write_event(UPDATE, render("notice.html", error=error))
                break
            yield write_event(UPDATE, render_update(before, board))
            before = board
            if not board.ended:
                took = loop.time() - began_at
                await context.clock.sleep(timedelta(seconds=max(SHORTEST_INTERVAL, took / SHARE)))
                await changes.wait(POLL_INTERVAL)
    # A server that stops says nothing: the browser connects again, to the next one.
    if not changes.over:
        yield write_event(ENDED, "")


def render_update(before: Board | None, after: Board) -> str:
    return render("update.html", board=after, update=compare(before, after))


def write_event(name: str, data: str) -> str:
    """One event. Test output may hold line ends of any kind, and each would end a field of the stream."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n"
