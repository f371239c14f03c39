"""What pages answer with: HTML under a strict policy, files that no browser runs, errors that people can read."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from fastapi.routing import APIRoute

from proctor.errors import InvalidInput, ProctorError, TooManyRequests, Unauthorized
from proctor.web.rendering import render

# Pico draws its icons as data: images.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_FILE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=3600",
}
_MEDIA_TYPES = {"png": "image/png", "log": "text/plain; charset=utf-8", "jsonl": "application/x-ndjson"}


def page(
    template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: object
) -> HTMLResponse:
    all_headers = {
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
        **(headers or {}),
    }
    return HTMLResponse(render(template, **values), status_code=status, headers=all_headers)


def attachment(name: str, size: int, pieces: AsyncIterator[bytes]) -> StreamingResponse:
    """A file to save. Test code wrote it: no browser may show it as a page of ours."""
    headers = {**_FILE_HEADERS, "Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}
    ending = name.rpartition(".")[2]
    return StreamingResponse(pieces, media_type=_MEDIA_TYPES.get(ending, "application/octet-stream"), headers=headers)


def picture(size: int, pieces: AsyncIterator[bytes]) -> StreamingResponse:
    """A PNG for an <img>; `nosniff`, which every answer carries, keeps it from being anything else."""
    headers = {**_FILE_HEADERS, "Content-Disposition": "inline", "Content-Length": str(size)}
    return StreamingResponse(pieces, media_type="image/png", headers=headers)


class PageRoute(APIRoute):
    """Answers errors as pages, and sends who is not signed in to the sign-in page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                return _answer_error(request, InvalidInput("The address or the form has a value that cannot be read."))
            except ProctorError as error:
                if error.status >= 500:
                    raise
                return _answer_error(request, error)

        return answer


def _answer_error(request: Request, error: ProctorError) -> Response:
    if "text/event-stream" in request.headers.get("accept", ""):
        return PlainTextResponse(error.detail, status_code=error.status)
    if isinstance(error, Unauthorized):
        return _to_sign_in(request)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else None
    return page("error.html", status=error.status, headers=headers, error=error, caller=None)


def _to_sign_in(request: Request) -> RedirectResponse:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    # Only what can be seen again by reading it: a form that was sent is not sent anew.
    wanted: dict[str, Any] = {"next": here} if request.method == "GET" and here != "/" else {}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in wanted.items())
    return RedirectResponse(f"/sign-in?{query}" if query else "/sign-in", status_code=303)
