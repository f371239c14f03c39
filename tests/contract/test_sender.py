"""The callback sender against real receivers on real sockets."""

import asyncio
import contextlib
import json
import shlex
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from proctor.clock import SystemClock
from proctor.domain.addresses import AddressRules, parse_allow
from proctor.domain.delivery import Judgement, judge_answer
from proctor.errors import CallbackRefused
from proctor.ports.sender import KEPT_ANSWER, MAX_ANSWER, HttpSender, look_up, new_secret, valid_secret

BODY = json.dumps({"type": "execution.finished", "data": {"name": "bezahlt über Köln"}}, ensure_ascii=False).encode()
LOOPBACK_ALLOWED = AddressRules(allow_loopback=True)
SECRET = new_secret()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """An HTTP server that keeps what it was sent."""

    port: int = 0
    scheme: str = "http"
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1", path: str = "/hook") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def receiving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(scheme="https" if tls else "http")

    async def keep(request: web.Request) -> web.StreamResponse:
        receiver.requests.append((request, await request.read()))
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", keep)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Listener:
    """A bare TCP server that counts who connects."""

    port: int = 0
    connections: int = 0


@asynccontextmanager
async def listening(handler: RawHandler | None = None) -> AsyncIterator[Listener]:
    listener = Listener()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        try:
            if handler is not None:
                await reader.readuntil(b"\r\n\r\n")
                await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        listener.port = server.sockets[0].getsockname()[1]
        yield listener


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(LOOPBACK_ALLOWED, SystemClock()) as made:
        yield made


@pytest.fixture
async def strict_sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(AddressRules(), SystemClock()) as made:
        yield made


async def say_ok(_: web.Request) -> web.Response:
    return web.Response(text="thanks")


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_the_receiver_can_verify_what_it_gets(sender: HttpSender) -> None:
    async with receiving(say_ok) as receiver:
        answer = await sender.send(receiver.url(path="/a%20b?c=d"), BODY, webhook_id="msg_1", secrets=[SECRET])

    [(request, body)] = receiver.requests
    assert Webhook(SECRET).verify(body, dict(request.headers)) == json.loads(BODY)
    assert request.method == "POST"
    assert request.raw_path == "/a%20b?c=d"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("Proctor/")
    assert (answer.status, answer.body, answer.error, answer.retry_after) == (200, "thanks", None, None)
    assert timedelta(0) < answer.runtime < timedelta(seconds=5)


async def test_while_a_secret_is_rotated_both_signatures_are_sent(sender: HttpSender) -> None:
    old, new = new_secret(), new_secret()
    async with receiving(say_ok) as receiver:
        await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[old, new])

    [(request, body)] = receiver.requests
    Webhook(old).verify(body, dict(request.headers))
    Webhook(new).verify(body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, dict(request.headers))


async def test_the_signature_holds_when_the_clock_tells_another_zone() -> None:
    class TokyoClock(SystemClock):
        def now(self) -> datetime:
            return datetime.now(timezone(timedelta(hours=9)))

    async with HttpSender(LOOPBACK_ALLOWED, TokyoClock()) as sender, receiving(say_ok) as receiver:
        await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    [(request, body)] = receiver.requests
    Webhook(SECRET).verify(body, dict(request.headers))


async def test_nothing_is_sent_unsigned(sender: HttpSender) -> None:
    async with receiving(say_ok) as receiver:
        with pytest.raises(ValueError, match="at least one secret"):
            await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[])

    assert receiver.requests == []


async def test_cookies_of_one_try_are_not_sent_with_the_next(sender: HttpSender) -> None:
    async def set_cookie(_: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("session", "1")
        return response

    async with receiving(set_cookie) as receiver:
        for _ in range(2):
            await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert len(receiver.requests) == 2
    assert all("Cookie" not in request.headers for request, _ in receiver.requests)


async def test_a_proxy_of_the_servers_environment_is_not_used(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(say_ok) as receiver, listening() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status == 200
    assert proxy.connections == 0


# --- what receivers do -----------------------------------------------------------------------------------------------


async def test_a_redirect_is_an_answer_and_is_not_followed(sender: HttpSender) -> None:
    async with listening() as elsewhere:

        async def redirect(_: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{elsewhere.port}/")

        async with receiving(redirect) as receiver:
            answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

        assert elsewhere.connections == 0
    assert answer.status == 307
    assert judge_answer(answer.status) is Judgement.RETRY


async def test_gone_ends_the_callback(sender: HttpSender) -> None:
    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=410)

    async with receiving(gone) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert judge_answer(answer.status) is Judgement.GONE


async def test_a_busy_receiver_can_ask_for_a_later_try(sender: HttpSender) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "77"})

    async with receiving(busy) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert (answer.status, answer.retry_after) == (429, 77)


async def test_a_slow_receiver_is_given_up_after_the_timeout() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    short = timedelta(seconds=0.3)
    async with HttpSender(LOOPBACK_ALLOWED, SystemClock(), timeout=short) as sender, receiving(never) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "did not answer within 0.3 s" in answer.error
    assert short <= answer.runtime < timedelta(seconds=3)


async def test_a_receiver_that_trickles_its_body_does_not_hold_the_try_longer_than_the_timeout() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.05)

    short = timedelta(seconds=0.5)
    async with HttpSender(LOOPBACK_ALLOWED, SystemClock(), timeout=short) as sender, receiving(trickle) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status == 200
    assert answer.body.startswith("..")
    assert answer.error is not None
    assert "did not finish its answer" in answer.error
    assert answer.runtime < timedelta(seconds=3)


async def test_of_an_endless_answer_64_kib_are_read_and_2_kib_kept(sender: HttpSender) -> None:
    written = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()
                written += 4096

    async with listening(pour) as listener:
        answer = await sender.send(f"http://127.0.0.1:{listener.port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert (answer.status, answer.body, answer.error) == (200, "x" * KEPT_ANSWER, None)
    # What lies in the two kernels' buffers was written too, and is a few MiB at most; the rest was never asked for.
    assert MAX_ANSWER <= written < 64 * 1024 * 1024


async def test_an_answer_is_not_unpacked(sender: HttpSender) -> None:
    async def packed(_: web.Request) -> web.Response:
        response = web.Response(body=b"x" * 10_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with receiving(packed) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    [(request, _)] = receiver.requests
    assert request.headers["Accept-Encoding"] == "identity"
    assert answer.status == 200
    assert answer.body != ""
    assert "xx" not in answer.body


async def test_an_answer_that_is_no_text_is_kept_as_text_that_a_database_takes(sender: HttpSender) -> None:
    async def binary(_: web.Request) -> web.Response:
        return web.Response(body=b"a\0b\xff")

    async with receiving(binary) as receiver:
        answer = await sender.send(receiver.url(), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.body == "a\ufffdb\ufffd"


async def test_a_receiver_that_hangs_up_is_an_error_not_an_exception(sender: HttpSender) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(hang_up) as listener:
        answer = await sender.send(f"http://127.0.0.1:{listener.port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "closed the connection" in answer.error
    # Trying again is the schedule's business: the client underneath must not do so by itself.
    assert listener.connections == 1


async def test_a_reset_is_an_error_not_an_exception(sender: HttpSender) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger_not = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        writer.transport.abort()

    async with listening(reset) as listener:
        answer = await sender.send(f"http://127.0.0.1:{listener.port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "closed the connection" in answer.error


async def test_an_answer_that_breaks_off_keeps_its_status(sender: HttpSender) -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async with listening(break_off) as listener:
        answer = await sender.send(f"http://127.0.0.1:{listener.port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert (answer.status, answer.body) == (200, "half")
    assert answer.error is not None
    assert "broke off" in answer.error


async def test_an_answer_that_is_not_http_is_an_error(sender: HttpSender) -> None:
    async def speak_smtp(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")

    async with listening(speak_smtp) as listener:
        answer = await sender.send(f"http://127.0.0.1:{listener.port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "not HTTP" in answer.error


async def test_nobody_listening_is_an_error(sender: HttpSender) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        answer = await sender.send(f"http://127.0.0.1:{port}/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "No connection to 127.0.0.1" in answer.error


async def test_a_name_that_does_not_resolve_is_an_error(sender: HttpSender) -> None:
    answer = await sender.send("http://nowhere.invalid/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "nowhere.invalid does not resolve" in answer.error


async def test_a_name_that_cannot_be_one_is_an_error(sender: HttpSender) -> None:
    answer = await sender.send(f"http://{'a' * 70}.example/", BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None


# --- TLS -------------------------------------------------------------------------------------------------------------


MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [*shlex.split(MAKE_CERTIFICATE), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(sender: HttpSender, server_tls: ssl.SSLContext) -> None:
    async with receiving(say_ok, server_tls) as receiver:
        answer = await sender.send(receiver.url("localhost"), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "certificate of localhost was not accepted" in answer.error
    assert receiver.requests == []


async def test_a_certificate_of_a_known_authority_is_accepted_for_its_own_name_only(
    certificate: tuple[Path, Path], server_tls: ssl.SSLContext
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    async with (
        HttpSender(LOOPBACK_ALLOWED, SystemClock(), tls=trusting) as sender,
        receiving(say_ok, server_tls) as receiver,
    ):
        right = await sender.send(receiver.url("localhost"), BODY, webhook_id="msg_1", secrets=[SECRET])
        wrong = await sender.send(receiver.url("127.0.0.1"), BODY, webhook_id="msg_2", secrets=[SECRET])

    assert right.status == 200
    assert wrong.status is None
    assert wrong.error is not None
    assert "certificate" in wrong.error


async def test_https_to_a_port_that_does_not_speak_it_is_an_error(sender: HttpSender) -> None:
    async with receiving(say_ok) as receiver:
        url = receiver.url().replace("http://", "https://")
        answer = await sender.send(url, BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status is None
    assert answer.error is not None
    assert "TLS" in answer.error


# --- the guard -------------------------------------------------------------------------------------------------------

DISGUISES = [
    "127.0.0.1",
    "localhost",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", DISGUISES)
async def test_loopback_is_refused_before_any_packet_however_it_is_written(
    strict_sender: HttpSender, host: str
) -> None:
    async with listening() as listener:
        url = f"http://{host}:{listener.port}/"
        answer = await strict_sender.send(url, BODY, webhook_id="msg_1", secrets=[SECRET])
        with pytest.raises(CallbackRefused) as caught:
            await strict_sender.check(url)

        assert listener.connections == 0
    assert answer.status is None
    assert answer.error is not None
    assert answer.error == caught.value.detail


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"])
async def test_allowing_loopback_does_not_allow_its_disguises(sender: HttpSender, host: str) -> None:
    async with listening() as listener:
        url = f"http://{host}:{listener.port}/"
        answer = await sender.send(url, BODY, webhook_id="msg_1", secrets=[SECRET])

        assert listener.connections == 0
    assert answer.error is not None
    assert "refused" in answer.error


async def test_a_refusal_says_what_the_address_is_and_what_to_do_but_not_the_address() -> None:
    rules = AddressRules()
    async with HttpSender(rules, SystemClock(), lookup=lambda _: ["10.1.2.3"]) as sender:
        with pytest.raises(CallbackRefused) as caught:
            await sender.check("http://intern.example/")

    assert caught.value.status == 400
    assert "intern.example" in caught.value.detail
    assert "a private address" in caught.value.detail
    assert "PROCTOR_CALLBACK_ALLOW" in caught.value.detail
    assert "10.1.2.3" not in caught.value.detail


async def test_a_name_that_is_bound_to_another_address_after_the_check_is_refused() -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])
    async with (
        HttpSender(AddressRules(), SystemClock(), lookup=lambda _: next(answers)) as sender,
        listening() as listener,
    ):
        url = f"http://rebinding.example:{listener.port}/"
        await sender.check(url)
        answer = await sender.send(url, BODY, webhook_id="msg_1", secrets=[SECRET])

        assert listener.connections == 0
    assert answer.error is not None
    assert "loopback" in answer.error


async def test_the_address_that_is_judged_is_the_one_that_is_called() -> None:
    lookups: list[str] = []

    def rebind(host: str) -> Iterable[str]:
        lookups.append(host)
        # Were the name looked up again for connecting, it would lead nowhere.
        return ["127.0.0.1"] if len(lookups) == 1 else ["192.0.2.1"]

    rules = AddressRules(allow_loopback=True)
    async with HttpSender(rules, SystemClock(), lookup=rebind) as sender, receiving(say_ok) as receiver:
        answer = await sender.send(receiver.url("rebinding.example"), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status == 200
    assert lookups == ["rebinding.example"]
    assert receiver.requests[0][0].host == f"rebinding.example:{receiver.port}"


async def test_of_several_addresses_only_those_that_may_be_called_are() -> None:
    rules = AddressRules(parse_allow("127.0.0.1"))
    both = ["::1", "127.0.0.1", "169.254.169.254"]
    async with HttpSender(rules, SystemClock(), lookup=lambda _: both) as sender, receiving(say_ok) as receiver:
        await sender.check(receiver.url("both.example"))
        answer = await sender.send(receiver.url("both.example"), BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.status == 200


async def test_a_name_that_does_not_resolve_now_is_accepted(strict_sender: HttpSender) -> None:
    await strict_sender.check("https://nowhere.invalid/hook")


async def test_a_name_server_that_is_slow_does_not_hold_up_the_run_request() -> None:
    loop = asyncio.get_running_loop()
    released = asyncio.Event()

    def slow(host: str) -> Iterable[str]:
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
        return look_up(host)

    async with HttpSender(AddressRules(), SystemClock(), lookup=slow) as sender:
        started = loop.time()
        await sender.check("http://localhost/")
        waited = loop.time() - started
        released.set()

    assert 0.9 < waited < 3


async def test_a_public_address_passes_the_check(strict_sender: HttpSender) -> None:
    await strict_sender.check("https://93.184.215.14/hook")
    await strict_sender.check("https://[2606:4700::1111]:8443/hook")


@pytest.mark.parametrize("url", ["", "ftp://host/", "http://user:secret@host/", "http://host:99999/", "http://[::g]/"])
async def test_what_is_no_callback_url_is_refused_by_check_and_send_alike(sender: HttpSender, url: str) -> None:
    with pytest.raises(CallbackRefused, match="The callback URL") as caught:
        await sender.check(url)
    answer = await sender.send(url, BODY, webhook_id="msg_1", secrets=[SECRET])

    assert answer.error == caught.value.detail
    assert "secret" not in caught.value.detail


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_new_secrets_are_valid_and_differ() -> None:
    one, other = new_secret(), new_secret()

    assert valid_secret(one)
    assert one != other
    Webhook(one).sign("msg_1", datetime.now(UTC), "{}")


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "whsec_c2hvcnQ=", "c2VjcmV0" * 5, "whsec_" + "!" * 40, "whsec_" + "_-" * 20, "whsec_" + "A" * 200],
)
def test_what_is_no_secret_is_recognized(text: str) -> None:
    assert not valid_secret(text)
