"""One HTTP server for a worker, one URL for each attempt: forwards commands to the hub's driver and records them."""

import asyncio
import io
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

from proctor.clock import Clock, SystemClock
from proctor.domain.environment import Environment
from proctor.errors import InfrastructureError, InvalidInput
from proctor.ports.hubs import Hub, carry_through
from proctor.recorder import screens
from proctor.recorder.capabilities import merge
from proctor.recorder.commands import Command, CommandLog, Recorded
from proctor.recorder.w3c_errors import JSON_TYPE, Answer, W3CError, failure, success, tells_lost_browser

_log = logging.getLogger(__name__)

REQUEST_LIMIT = 16 * 1024 * 1024
RESPONSE_LIMIT = 64 * 1024 * 1024
_LARGE = 1024 * 1024

_SCREENSHOT_TIMEOUT = 5.0
# Chromium closes in 50 ms. One that does not, as when a page hangs, is killed with its driver afterwards.
_CLOSE_TIMEOUT = 3.0


class Recorder:
    """Listens on a free port of 127.0.0.1 from entering to leaving."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._endpoints: dict[str, Endpoint] = {}

    async def __aenter__(self) -> Self:
        self._drivers = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            # A page may take as long to load as its test allows; the attempt's own timeout ends what hangs.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self._server = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
        await self._server.setup()
        await web.TCPSite(self._server, "127.0.0.1", 0).start()
        self._address = f"http://127.0.0.1:{self._server.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await carry_through(self._stop())

    async def _stop(self) -> None:
        await self._server.cleanup()
        await self._drivers.close()

    @asynccontextmanager
    async def endpoint(self, *, hub: Hub, environment: Environment, folder: Path) -> AsyncIterator["Endpoint"]:
        """A URL for one attempt, whose sessions run in the environment, one at a time.

        Writes `commands.jsonl` and `screen.png` (the last picture of the last session) to `folder`, beside what the
        hub writes there. On leaving, also when cancelled, sessions that the test left open are closed.
        """
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        key = secrets.token_hex(16)
        endpoint = Endpoint(f"{self._address}/{key}", hub, environment, folder, self._drivers, self._clock)
        self._endpoints[key] = endpoint
        try:
            yield endpoint
        finally:
            del self._endpoints[key]
            await carry_through(endpoint.close())

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        key, _, rest = request.rel_url.raw_path.removeprefix("/").partition("/")
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return _response(_no_such_endpoint(request))
        if "websocket" in request.headers.get("Upgrade", "").lower():
            return _response(failure(W3CError.UNKNOWN_COMMAND, _NO_WEBSOCKETS))
        body = await _read(request.content, REQUEST_LIMIT)
        if body is None:
            return _response(failure(W3CError.INVALID_ARGUMENT, _TOO_LARGE))
        path = "/" + rest.removeprefix("wd/hub/").rstrip("/")
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        return _response(await endpoint.answer(Command(request.method, path + query, body)))


_NO_WEBSOCKETS = (
    "The recorder carries no WebSockets (WebDriver BiDi, DevTools): it does not record them yet. "
    "Use WebDriver commands, or `execute_cdp_cmd` of the browser's driver."
)
_TOO_LARGE = (
    f"The command is larger than {REQUEST_LIMIT >> 20} MiB, the most that the recorder takes. Send less at once."
)


class Endpoint:
    """What one attempt's test talks to. It holds at most one session: the attempt's lease is one slot."""

    def __init__(
        self,
        url: str,
        hub: Hub,
        environment: Environment,
        folder: Path,
        drivers: aiohttp.ClientSession,
        clock: Clock,
    ) -> None:
        self.url = url
        self.session_ids: list[str] = []
        #: Why the attempt should count as infrastructure rather than as a failed test: what broke, in a sentence.
        self.machinery_failure: str | None = None
        self._hub = hub
        self._environment = environment
        self._folder = folder
        self._drivers = drivers
        self._clock = clock
        self._commands = CommandLog(folder / "commands.jsonl", secret=url.rpartition("/")[2])
        self._session: _Session | None = None
        self._opening: _RunningDriver | None = None
        self._closed = False
        # Opening and ending take turns; other commands do not wait for it.
        self._turn = asyncio.Lock()

    async def answer(self, command: Command) -> Answer:
        """Carries the command out and records it; what goes wrong is an answer in the form of the standard."""
        start_at = self._clock.now()
        started = asyncio.get_running_loop().time()
        session = self._session
        answer = await self._carry_out(command)
        runtime = timedelta(seconds=asyncio.get_running_loop().time() - started)
        # After opening it is the new one; after ending there is none any more.
        session = self._session or session
        self._commands.add(Recorded(command, answer, session.id if session else None, start_at, runtime))
        return answer

    async def _carry_out(self, command: Command) -> Answer:
        parts = command.path.partition("?")[0].split("/")[1:]
        if any(unquote(part) in {".", ".."} for part in parts):
            # Would leave the session's own paths on a hub that resolves them.
            return failure(W3CError.INVALID_ARGUMENT, "A command's path must not have `.` or `..` in it.")
        match (command.method, *parts):
            case ("GET" | "HEAD", "status"):
                return self._status()
            case ("POST", "session"):
                return await self._open(command)
            case ("DELETE", "session", session_id):
                return await self._end(session_id, command)
            case ("DELETE", "session", session_id, "window"):
                return await self._close_window(session_id, command)
            case (method, "session", session_id, *what):
                session = self._session_of(session_id)
                if session is None:
                    return _no_such_session(session_id)
                if (method, what) == ("POST", ["se", "file"]):
                    return await self._upload(session, command)
                return await self._forward(session, command)
        return failure(W3CError.UNKNOWN_COMMAND, f"{command.method} {command.path} is no WebDriver command.")

    def _status(self) -> Answer:
        ready = self._session is None and not self._turn.locked()
        return success({"ready": ready, "message": "ready for a session" if ready else "the session is in use"})

    def _session_of(self, session_id: str) -> "_Session | None":
        return self._session if self._session and self._session.id == session_id else None

    # --- opening -----------------------------------------------------------------------------------------------------

    async def _open(self, command: Command) -> Answer:
        async with self._turn:
            if self._session and self._session.lost:
                await self._leave(self._session)
            if self._session:
                return failure(W3CError.SESSION_NOT_CREATED, _ONE_SESSION)
            try:
                asked = _asked(command.body)
                ours = await asyncio.to_thread(self._hub.capabilities, self._environment)
                return await self._open_with(json.dumps(merge(asked, ours)).encode())
            except InvalidInput as error:
                return failure(W3CError.INVALID_ARGUMENT, error.detail)
            except InfrastructureError as error:
                self._blame_machinery(error.detail)
                return failure(W3CError.SESSION_NOT_CREATED, error.detail)

    async def _open_with(self, body: bytes) -> Answer:
        # No await between this look and `_opening`: close() either shows here or finds the driver to end.
        if self._closed:
            return failure(W3CError.SESSION_NOT_CREATED, _ATTEMPT_ENDED)
        self._opening = driver = _RunningDriver(self._hub, self._environment, self._folder)
        try:
            session = _Session(await driver.start(), driver)
            answer = await self._forward(session, Command("POST", "/session", body))
            session.id = _opened_id(answer)
            if session.id:
                self._session = session
                self.session_ids.append(session.id)
            return answer
        finally:
            self._opening = None
            if self._session is None:
                await driver.end()

    # --- forwarding --------------------------------------------------------------------------------------------------

    async def _forward(self, session: "_Session", command: Command) -> Answer:
        try:
            answer = await self._send(session, command)
        except aiohttp.ClientError as error:
            if session.ended:
                return failure(W3CError.INVALID_SESSION_ID, _ATTEMPT_ENDED)
            session.lost = True
            return self._driver_gone(error)
        told = answer.error()
        if told and tells_lost_browser(*told) and not session.ended:
            session.lost = True
            self._blame_machinery(f"The browser was lost: {told[1].splitlines()[0]}.")
        return answer

    async def _upload(self, session: "_Session", command: Command) -> Answer:
        """Selenium's way to hand a file to a remote browser; chromedriver has it under its older name only."""
        answer = await self._forward(session, command)
        told = answer.error()
        if told is None or told[0] != W3CError.UNKNOWN_COMMAND:
            return answer
        return await self._forward(session, replace(command, path=f"/session/{session.id}/file"))

    async def _send(self, session: "_Session", command: Command) -> Answer:
        async with self._drivers.request(
            command.method,
            URL(session.driver_url + command.path, encoded=True),
            # Of a large body aiohttp wants a file, which it sends in pieces, and warns of bytes.
            data=io.BytesIO(command.body) if len(command.body) > _LARGE else command.body,
            # In these letters: Selenium Grid refuses every other spelling.
            headers={"Content-Type": JSON_TYPE},
            allow_redirects=False,
        ) as response:
            body = await _read(response.content, RESPONSE_LIMIT)
            if body is None:
                return failure(W3CError.UNKNOWN_ERROR, _ANSWER_TOO_LARGE)
            return Answer(response.status, body, response.headers.get("Content-Type", JSON_TYPE))

    def _driver_gone(self, error: aiohttp.ClientError) -> Answer:
        message = (
            f"The browser's driver does not answer any more ({error or type(error).__name__}): it crashed or was "
            "killed. This is no fault of the test; see driver.log."
        )
        self._blame_machinery(message)
        return failure(W3CError.UNKNOWN_ERROR, message)

    def _blame_machinery(self, what: str) -> None:
        # What happens once the attempt is being closed is our own doing; and the first failure explains the later ones.
        if not self._closed and self.machinery_failure is None:
            self.machinery_failure = what

    # --- ending ------------------------------------------------------------------------------------------------------

    async def _end(self, session_id: str, command: Command) -> Answer:
        async with self._turn:
            session = self._session_of(session_id)
            if session is None:
                return _no_such_session(session_id)
            await self._keep_screen(session)
            try:
                return await self._forward_closing(session, command)
            finally:
                await self._leave(session)

    async def _close_window(self, session_id: str, command: Command) -> Answer:
        async with self._turn:
            session = self._session_of(session_id)
            if session is None:
                return _no_such_session(session_id)
            if await self._has_one_window(session):
                await self._keep_screen(session)
            answer = await self._forward_closing(session, command)
            if answer.status == 200 and answer.value() == []:
                # By the standard the session ends with its last window.
                await self._leave(session)
            return answer

    async def _forward_closing(self, session: "_Session", command: Command) -> Answer:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                return await self._forward(session, command)
        except TimeoutError:
            return failure(W3CError.UNKNOWN_ERROR, f"The browser did not close within {_CLOSE_TIMEOUT:.0f} s.")

    async def _has_one_window(self, session: "_Session") -> bool:
        handles = (await self._ask(session, "window/handles")).value()
        return isinstance(handles, list) and len(handles) == 1

    async def _keep_screen(self, session: "_Session") -> None:
        if session.lost:
            return
        try:
            await screens.keep(await self._ask(session, "screenshot"), self._folder / "screen.png")
        except OSError as error:
            _log.warning("The screenshot of session %s could not be kept: %s", session.id, error)

    async def _ask(self, session: "_Session", what: str) -> Answer:
        """A question of our own, in 5 s at most; whether and how it fails is nothing to the test."""
        try:
            async with asyncio.timeout(_SCREENSHOT_TIMEOUT):
                return await self._send(session, Command("GET", f"/session/{session.id}/{what}", b""))
        except (aiohttp.ClientError, TimeoutError) as error:
            return failure(W3CError.UNKNOWN_ERROR, str(error))

    async def _leave(self, session: "_Session") -> None:
        session.ended = True
        self._session = None
        await session.driver.end()

    async def close(self) -> None:
        """Ends what the test left open: picture, session, driver; then the command log."""
        self._closed = True
        if self._opening:
            # Nobody waits for that session any more, and a browser that hangs while it starts would keep the turn.
            await self._opening.end()
        async with self._turn:
            if self._session:
                await self._close_left_open(self._session)
        self._commands.close()

    async def _close_left_open(self, session: "_Session") -> None:
        try:
            await self._keep_screen(session)
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._send(session, Command("DELETE", f"/session/{session.id}", b""))
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.info("Session %s did not close and is killed: %s", session.id, error)
        finally:
            await self._leave(session)


_ATTEMPT_ENDED = "The attempt has ended, and its sessions with it."
_ONE_SESSION = (
    "The environment's lease is one session, and one is open. Quit the first (`driver.quit()`) before you open "
    "another, or run the scenarios as separate jobs."
)
_ANSWER_TOO_LARGE = (
    f"The driver's answer is larger than {RESPONSE_LIMIT >> 20} MiB, the most that the recorder passes on."
)


class _Session:
    """A session at a driver; `lost` once driver or browser have died, `ended` once we have let go of it."""

    def __init__(self, driver_url: str, driver: "_RunningDriver") -> None:
        self.id = ""
        self.driver_url = driver_url.rstrip("/")
        self.driver = driver
        self.lost = False
        self.ended = False


class _RunningDriver:
    """A hub's driver, entered and left in a task of its own: the request that opens it is not the one that ends it."""

    def __init__(self, hub: Hub, environment: Environment, folder: Path) -> None:
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._hold(hub, environment, folder))

    async def _hold(self, hub: Hub, environment: Environment, folder: Path) -> None:
        async with hub.driver(environment, folder) as url:
            self._url.set_result(url)
            await self._ending.wait()

    async def start(self) -> str:
        """The driver's URL; raises what `Hub.driver` raises."""
        awaited: set[asyncio.Future[Any]] = {self._task, self._url}
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not self._url.done():
            if self._task.cancelled():
                raise InfrastructureError(_ATTEMPT_ENDED)
            self._task.result()
        return self._url.result()

    async def end(self) -> None:
        """Leaves the driver, or stops its starting; returns when nothing of it is left, also when called twice."""
        self._ending.set()
        if not self._url.done():
            self._task.cancel()
        await carry_through(self._ended())

    async def _ended(self) -> None:
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) and self._url.done():
            _log.error("A driver was not left in order: %r", error)


# --- requests and answers --------------------------------------------------------------------------------------------


async def _read(stream: aiohttp.StreamReader, limit: int) -> bytes | None:
    """The whole body, or None when it is longer than `limit` bytes."""
    chunks = []
    length = 0
    async for chunk in stream.iter_any():
        length += len(chunk)
        if length > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _asked(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The new-session request is not JSON: {error}.") from error
    if not isinstance(asked, dict):
        raise InvalidInput("The new-session request must be a JSON object.")
    return asked


def _opened_id(answer: Answer) -> str:
    """The id of the session that an answer to `POST /session` tells of; empty when none was opened."""
    value = answer.value() if answer.status == 200 else None
    opened = value.get("sessionId") if isinstance(value, dict) else None
    return opened if isinstance(opened, str) else ""


def _no_such_endpoint(request: web.BaseRequest) -> Answer:
    error = W3CError.INVALID_SESSION_ID if "/session/" in request.path else W3CError.UNKNOWN_COMMAND
    return failure(
        error,
        "No attempt that runs now has this address. Use SELENIUM_REMOTE_URL as the test was given it, key included.",
    )


def _no_such_session(session_id: str) -> Answer:
    return failure(
        W3CError.INVALID_SESSION_ID,
        f"Session {session_id[:64]!r} is not open in this attempt: it was never opened, or has ended.",
    )


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-cache"}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
