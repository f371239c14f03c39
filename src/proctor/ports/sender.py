"""Sends callbacks to addresses that strangers name, without being led to addresses that they must not reach."""

import asyncio
import base64
import binascii
import errno
import secrets as randomness
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any, Final, Protocol, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks.webhooks import Webhook
from yarl import URL

from proctor.clock import Clock
from proctor.domain.addresses import AddressRules, check_url, parse_literal
from proctor.domain.delivery import read_retry_after
from proctor.errors import CallbackRefused

TRY_TIMEOUT: Final = timedelta(seconds=15)
LOOKUP_TIMEOUT: Final = timedelta(seconds=1)
MAX_ANSWER: Final = 64 * 1024
KEPT_ANSWER: Final = 2 * 1024
# A name server that answers slowly holds a thread; these are the sender's own, so it cannot hold up anything else.
LOOKUP_THREADS: Final = 16

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (says what follows it)
_USER_AGENT: Final = f"Proctor/{version('proctor')}"

# Resolves a name to address literals, blocking; OSError when it cannot.
Lookup = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class Answer:
    """What came of one try. `status` is None when no answer came; `error` says why, also when only the body broke off.

    `retry_after` in seconds, only when the status is 429 or 503; `body` the first 2 KiB as text, for the delivery log.
    """

    status: int | None
    retry_after: int | None
    body: str
    error: str | None
    runtime: timedelta


class Sender(Protocol):
    """Tells a caller's URL something, once for each call; what fails is in the answer and is not raised."""

    async def check(self, url: str) -> None:
        """Raises CallbackRefused with the reason when nothing may be sent there; a name that does not resolve may."""

    async def send(self, url: str, body: bytes, *, webhook_id: str, secrets: Sequence[str]) -> Answer:
        """Posts the JSON, signed with each of the secrets (`whsec_…`, at least one)."""


class AddressRefused(OSError):
    """The address must not be called. An OSError, because aiohttp passes only those through to the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


def look_up(host: str) -> list[str]:
    """Asks the system's resolver, as `curl` would."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


class GuardedResolver(AbstractResolver):
    """Resolves names to the addresses that the rules let through; AddressRefused when none is left."""

    def __init__(self, rules: AddressRules, lookup: Lookup, threads: ThreadPoolExecutor) -> None:
        self._rules = rules
        self._lookup = lookup
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
        addresses = [ip_address(text) for text in found]
        reasons = {ip: self._rules.why_refused(ip) for ip in addresses}
        callable_ones = [ip for ip, reason in reasons.items() if reason is None]
        if not callable_ones:
            raise AddressRefused(next((reason for reason in reasons.values() if reason), "no address"))
        return [
            ResolveResult(
                hostname=host,
                host=str(ip),
                port=port,
                family=socket.AF_INET6 if ip.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for ip in callable_ones
        ]

    async def close(self) -> None:
        """Nothing of its own to close: the threads belong to the sender."""


@dataclass
class _Exchange:
    """What is known of a try so far: when it breaks off, what came before still counts."""

    status: int | None = None
    retry_after: int | None = None
    body: bytearray = field(default_factory=bytearray)
    error: str | None = None


class HttpSender:
    """Sends over HTTP(S): each try on a connection of its own, no redirects, cookies, proxies or compression."""

    def __init__(
        self,
        rules: AddressRules,
        clock: Clock,
        *,
        timeout: timedelta = TRY_TIMEOUT,
        lookup: Lookup = look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Use it with `async with`. `timeout` is for a whole try; `tls` None: the system's authorities."""
        self._rules = rules
        self._clock = clock
        self._timeout = timeout
        self._lookup = lookup
        self._tls = tls
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="callback-lookup")
        self._stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        self._resolver = GuardedResolver(self._rules, self._lookup, threads)
        self._session = await self._stack.enter_async_context(self._open_session())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            socket_factory=self._make_socket,
            use_dns_cache=False,
            ssl=self._tls or True,
            # A receiver may close a kept connection just as the next post goes out, which would look like a failure.
            force_close=True,
            # Waiting for a free connection would count as the receiver's time; the queue limits how many are sent.
            limit=0,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            # A few KiB of gzip can unpack to gigabytes.
            auto_decompress=False,
            headers={"User-Agent": _USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )

    def _make_socket(self, target: tuple[Any, ...]) -> socket.socket:
        # The last gate: aiohttp connects to exactly this address, be it resolved or, past the resolver, a literal.
        family, kind, protocol, _, sockaddr = target
        reason = self._rules.why_refused(ip_address(sockaddr[0]))
        if reason is not None:
            raise AddressRefused(reason)
        return socket.socket(family, kind, protocol)

    async def check(self, url: str) -> None:
        host = _host_of(url)
        literal = parse_literal(host)
        if literal is not None:
            reason = self._rules.why_refused(literal)
        else:
            reason = await self._why_name_refused(host)
        if reason is not None:
            raise CallbackRefused(_refusal(host, reason))

    async def _why_name_refused(self, host: str) -> str | None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT.total_seconds()):
                await self._resolver.resolve(host)
        except AddressRefused as refused:
            return refused.strerror
        except OSError:
            # Does not resolve, or not at once: each try judges again what it is about to call. (A timeout is one too.)
            return None
        return None

    async def send(self, url: str, body: bytes, *, webhook_id: str, secrets: Sequence[str]) -> Answer:
        loop = asyncio.get_running_loop()
        started = loop.time()
        exchange = _Exchange()
        try:
            host = _host_of(url)
        except CallbackRefused as refused:
            exchange.error = refused.detail
        else:
            await self._exchange(exchange, host, url, body, self._sign(webhook_id, body, secrets))
        return Answer(
            status=exchange.status,
            retry_after=exchange.retry_after,
            body=_readable(exchange.body),
            error=exchange.error,
            runtime=timedelta(seconds=loop.time() - started),
        )

    async def _exchange(self, exchange: _Exchange, host: str, url: str, body: bytes, headers: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                await self._post(exchange, url, body, headers)
        except TimeoutError:
            what = "did not answer" if exchange.status is None else "did not finish its answer"
            exchange.error = (
                f"{host} {what} within {self._timeout.total_seconds():g} s. "
                "Answer callbacks at once, and do the work that they start afterwards."
            )
        except aiohttp.ClientError as error:
            exchange.error = _explain(error, host)

    async def _post(self, exchange: _Exchange, url: str, body: bytes, headers: dict[str, str]) -> None:
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            exchange.status = response.status
            asked = response.headers.get("Retry-After")
            exchange.retry_after = read_retry_after(response.status, asked, self._clock.now())
            while len(exchange.body) < MAX_ANSWER:
                chunk = await response.content.read(MAX_ANSWER - len(exchange.body))
                if not chunk:
                    break
                exchange.body += chunk
            # Hangs up on what is left of the answer instead of reading it.
            response.close()

    def _sign(self, webhook_id: str, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
        if not secrets:
            raise ValueError("a callback is signed with at least one secret")
        # The library signs the wall time of any other zone as if it were UTC.
        now = self._clock.now().astimezone(UTC)
        signatures = [Webhook(secret).sign(webhook_id, now, body.decode()) for secret in secrets]
        return {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def new_secret() -> str:
    """A signing secret of 256 bits, as in `whsec_…`."""
    return _SECRET_PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def valid_secret(text: str) -> bool:
    """True for `whsec_` and the base64 of 24 to 64 bytes, the form that Standard Webhooks asks for."""
    if not text.startswith(_SECRET_PREFIX):
        return False
    encoded = text.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return 24 <= len(key) <= 64


def _host_of(url: str) -> str:
    """The host as aiohttp will read it; CallbackRefused when the URL is none."""
    reason = check_url(url)
    if reason is not None:
        raise CallbackRefused(f"The callback URL {reason}.")
    try:
        host = URL(url).raw_host
    except ValueError as error:
        raise CallbackRefused(f"The callback URL is not a URL ({error}).") from None
    if not host:
        raise CallbackRefused("The callback URL names no host.")
    return host


def _refusal(host: str, reason: str) -> str:
    # The address itself stays unsaid: it would let a stranger read the names of the internal network.
    return (
        f"Callbacks to {host} are refused: it is {reason}. Name a public address, or ask the operator "
        "to allow this one with PROCTOR_CALLBACK_ALLOW (loopback: `proctor up --dev`)."
    )


def _explain(error: aiohttp.ClientError, host: str) -> str:
    """What went wrong and what to do, for the delivery log. The order matters: the first classes are special cases."""
    match error:
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refused):
            return _refusal(host, refused.strerror or "")
        case aiohttp.ClientConnectorDNSError():
            return f"The name {host} does not resolve ({error.os_error.strerror}). Correct the URL or the name server."
        case aiohttp.ClientConnectorCertificateError():
            return f"The certificate of {host} was not accepted ({error.certificate_error}). Install a valid one."
        case aiohttp.ClientSSLError():
            return f"TLS with {host} failed ({error.os_error}). Check that the port speaks HTTPS."
        case aiohttp.ClientConnectorError():
            cause = error.os_error.strerror or error.os_error
            return f"No connection to {host} ({cause}). Check that the receiver runs."
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return f"{host} closed the connection before it had answered. Look at the receiver's log."
        case aiohttp.ClientPayloadError():
            return f"{host} broke off its answer. Look at the receiver's log."
        case aiohttp.ClientResponseError():
            return f"What {host} answered is not HTTP ({error.message}). Check the port of the URL."
        case _:
            return f"The callback to {host} failed ({type(error).__name__}: {error})."


def _readable(body: bytearray) -> str:
    # PostgreSQL keeps no NUL in text.
    return bytes(body[:KEPT_ANSWER]).decode("utf-8", "replace").replace("\0", "\ufffd")
