"""Proctor's API as the commands call it, and where they find its address and token."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from proctor.errors import ProctorError, UsageError
from proctor.settings import Settings

API: Final = "/Testinium.RestApi/api"
ANSWER_TIMEOUT: Final = timedelta(seconds=30)
# The document of an execution with 20,000 jobs has some tens of MB.
MAX_ANSWER: Final = 256 * 1024 * 1024  # bytes


class ExitCode(IntEnum):
    """What a pipeline branches on."""

    PASSED = 0
    TESTS_FAILED = 1
    CANCELLED = 2
    MACHINERY_FAILED = 3
    USAGE = 4
    NOTHING_TO_RUN = 5
    TIMED_OUT = 124
    INTERRUPTED = 130


class Unreachable(ProctorError):
    """No server answers"""

    code = "unreachable"
    exit_code = ExitCode.USAGE


class ServerBroken(ProctorError):
    """The server cannot answer"""

    code = "server_broken"
    exit_code = ExitCode.MACHINERY_FAILED


class Refused(UsageError):
    """The server refused the request"""

    code = "refused"

    def __init__(self, detail: str, status: int, problem: Mapping[str, Any]) -> None:
        """`problem` is the answer's body (contract §2), empty when it was none."""
        super().__init__(detail)
        self.http_status = status
        self.problem = problem


# --- where the server is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Access:
    """A server's address, without a slash at its end, and the token to show there."""

    url: str
    token: str


@dataclass(frozen=True)
class Given:
    """The options of a client command; None for what was left out."""

    url: str | None = None
    token: str | None = None
    data: Path | None = None

    def find(self, environment: Mapping[str, str] = os.environ) -> Access:
        """Options first, then the environment, then what `proctor up` left in its data folder.

        A data folder that was named on the command line goes before the environment: it is the nearer wish.
        """
        local = _read_local(self.data or Settings().data)
        url = self.url or (local.url if self.data else "") or environment.get("PROCTOR_URL") or local.url
        if not url:
            raise UsageError(
                f"No Proctor runs on the data folder {self.data or Settings().data}. Start one with `proctor up`, or "
                "say where it is with --url or PROCTOR_URL, or with the --data folder that `proctor up` was given."
            )
        url = _check_url(url)
        # The administrator's token goes to the server of its own data folder and to nobody else.
        own = local.token if url == local.url else ""
        token = self.token or (own if self.data else "") or environment.get("PROCTOR_TOKEN") or own
        return Access(url, token)


def _read_local(data: Path) -> Access:
    settings = Settings(data=data)
    return Access(_read(settings.address_file), _read(settings.token_file))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError:
        # Another user's Proctor: whoever has a token of his own may still use it.
        return ""


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{text!r} is no address of a server: write it as in http://127.0.0.1:8080.")
    return text.rstrip("/")


# --- calling it ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_client(access: Access) -> AsyncIterator["Client"]:
    headers = {"Accept": "application/json"}
    if access.token:
        headers["Authorization"] = f"Bearer {access.token}"
    async with aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Client(access.url, session)


class Client:
    """One server. Every method raises Unreachable, ServerBroken or Refused, with what to do in the message."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self._ask("POST", "/api/v1/apply", body=manifest)

    async def run(self, plan: str, *, key: str, force: bool = False, callback_url: str | None = None) -> dict[str, Any]:
        """Starts the plan (contract §3); the same `key` starts it once, however often it is sent."""
        path = f"{API}/plans/{quote(plan, safe='')}/run" + ("/true" if force else "")
        query = {"callbackUrl": callback_url} if callback_url else {}
        return await self._ask("GET", path, query=query, headers={"Idempotency-Key": key})

    async def stop(self, plan: str) -> dict[str, Any]:
        return await self._ask("GET", f"{API}/plans/{quote(plan, safe='')}/stop")

    async def execution(self, id_: int) -> dict[str, Any]:
        """The execution with jobs, attempts and cases."""
        return await self._ask("GET", f"/api/v1/executions/{id_}")

    async def summary(self, id_: int, *, wait: timedelta = timedelta(0), after: int = 0) -> dict[str, Any]:
        """The execution's counts, and its events after that number; waits for one to come."""
        query = {"wait": f"{wait.total_seconds():g}", "after": str(after)}
        return await self._ask("GET", f"/api/v1/executions/{id_}/summary", query=query, timeout=wait + ANSWER_TIMEOUT)

    async def create_token(self, label: str, days: int | None) -> str:
        answer = await self._ask("POST", "/api/v1/tokens", body={"label": label, "days": days})
        return str(answer["token"])

    async def sign_in(self, username: str, password: str, client: tuple[str, str]) -> str:
        """The access token for a user's password; `client` is the client's id and secret (contract §1)."""
        form = {"grant_type": "password", "username": username, "password": password}
        headers = {"Authorization": aiohttp.encode_basic_auth(*client)}
        answer = await self._ask("POST", "/Testinium.RestApi/oauth/token", form=form, headers=headers)
        return str(answer["access_token"])

    async def readiness(self) -> dict[str, Any]:
        """What `/readyz` says; raises ServerBroken while the server is not ready."""
        return await self._ask("GET", "/readyz")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = ANSWER_TIMEOUT,
    ) -> dict[str, Any]:
        # Encoded already: a plan's name may hold what yarl would read as part of the path.
        url = URL(self.url + path, encoded=True).extend_query(query or {})
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                data=form,
                headers=headers,
                # A redirect would be followed with the token.
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout.total_seconds()),
            ) as response:
                raw = await _read_answer(response)
        except TimeoutError:
            raise Unreachable(f"{self.url} did not answer within {timeout.total_seconds():g} s.") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise Unreachable(_say_unreachable(self.url, error)) from None
        return _judge(self.url, response, _parse(raw))


async def _read_answer(response: aiohttp.ClientResponse) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_ANSWER:
            raise ServerBroken(f"{response.url.origin()} answers with more than {MAX_ANSWER:,} bytes; is it Proctor?")
        pieces.append(piece)
    return b"".join(pieces)


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(raw)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _judge(url: str, response: aiohttp.ClientResponse, answer: dict[str, Any] | None) -> dict[str, Any]:
    """The answer's object, or the error that it stands for."""
    status = response.status
    if status == 200 and answer is not None:
        return answer
    if status >= 500:
        raise ServerBroken(f"{url} cannot answer now (HTTP {status}): {_reason(answer)}")
    if 300 <= status < 400:
        raise UsageError(f"{url} sends on to {response.headers.get('Location', '?')}: use that address as --url.")
    if answer is None or not isinstance(answer.get("detail"), str):
        raise UsageError(f"{url} answers (HTTP {status}), but not as Proctor does. Check --url or PROCTOR_URL.")
    raise Refused(answer["detail"] + _advice(status), status, answer)


def _reason(answer: Mapping[str, Any] | None) -> str:
    if answer is None:
        return "it says no more. Look into its log."
    if isinstance(answer.get("detail"), str):
        return str(answer["detail"])
    # `/readyz` names what is down.
    down = [name for name, state in answer.items() if state == "down"]
    return f"{', '.join(down)} not ready." if down else "it says no more. Look into its log."


def _advice(status: int) -> str:
    if status == 401:
        return " Give a token with --token or PROCTOR_TOKEN; `proctor token create` makes one."
    if status == 403:
        return " Use the token of a user who may, or ask the administrator for the role."
    return ""


def _say_unreachable(url: str, error: aiohttp.ClientError) -> str:
    reason = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        # aiohttp's own texts name its internals.
        reason = os.strerror(number) if number and number > 0 else error.os_error.strerror or reason
    return f"No server answers at {url}: {reason}. Start it with `proctor up`, or correct --url or PROCTOR_URL."
