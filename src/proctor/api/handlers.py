"""Every error as one JSON object that all clients can read (contract §2), and limits on what comes in."""

import http
import logging
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor.errors import InvalidInput, ProctorError, TooManyRequests
from proctor.services.yaml_source import ManifestInvalid

MEDIA_TYPE = "application/problem+json"

# As the standard has them now; Python's own differ from version to version.
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}

_logger = logging.getLogger(__name__)


def problem(
    status: int, message: str, error: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """The error body that every published client can read."""
    body = {
        "type": f"urn:proctor:error:{error}",
        "title": message,
        "status": status,
        "detail": detail,
        "message": message,
        "error": error,
        "error_description": detail,
        **more,
    }
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    if status == 401:
        all_headers["WWW-Authenticate"] = 'Bearer realm="proctor"'
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=all_headers)


def install_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ProctorError, _answer_error)  # type: ignore[arg-type]  # handlers are typed for Exception
    app.add_exception_handler(RequestValidationError, _answer_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _answer_http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _answer_unexpected)


async def _answer_error(_: Request, error: ProctorError) -> JSONResponse:
    if error.status >= 500:
        _logger.error("%s: %s", type(error).__name__, error.detail)
        return _internal()
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else None
    more = {"mistakes": [asdict(one) for one in error.mistakes]} if isinstance(error, ManifestInvalid) else {}
    return problem(error.status, error.message, error.code, error.detail, headers, **more)


async def _answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    # The input itself is not repeated: it may be a secret.
    reasons = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:10])
    wrong = InvalidInput(f"The request cannot be read: {reasons}.")
    return problem(wrong.status, wrong.message, wrong.code, wrong.detail)


async def _answer_http(request: Request, error: HTTPException) -> JSONResponse:
    phrase = _PHRASES.get(error.status_code) or http.HTTPStatus(error.status_code).phrase
    word = phrase.lower().replace(" ", "_").replace("-", "_")
    sentences = {
        404: "Nothing is served at this path: see /openapi.json for what is.",
        405: f"This path does not answer {request.method}: the header Allow says what it answers.",
    }
    detail = sentences.get(error.status_code, error.detail) if error.detail == phrase else error.detail
    return problem(error.status_code, phrase, word, str(detail), dict(error.headers or {}))


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _internal()


def _internal() -> JSONResponse:
    """Says nothing of what went wrong: that is in the server's log."""
    detail = "An unexpected error occurred on the server side: its log tells more."
    return problem(500, "Internal Server Error", "internal_server_error", detail)


class BodyLimit:
    """Refuses request bodies above a size, whether announced or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        """`limit` in bytes."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(scope, receive, send)
            return
        read = 0

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, f"The body is larger than {self._limit} bytes.")
            return message

        await self._app(scope, receive_limited, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"The body is larger than {self._limit} bytes."
        await problem(413, "Content Too Large", "content_too_large", detail)(scope, receive, send)


class SafeHeaders:
    """What every answer carries so that a browser does nothing clever with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = {
                    b"x-content-type-options": b"nosniff",
                    b"referrer-policy": b"same-origin",
                    b"x-frame-options": b"DENY",
                }
                if b"cache-control" not in names:
                    added[b"cache-control"] = b"no-store"
                message["headers"] = [*message["headers"], *((k, v) for k, v in added.items() if k not in names)]
            await send(message)

        await self._app(scope, receive, send_safely if scope["type"] == "http" else send)


class TrimSlash:
    """Takes a path with a slash at its end as the one without."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1:
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)
