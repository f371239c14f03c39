"""Signing in and out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from proctor.errors import ProctorError, TooManyRequests, Unauthorized
from proctor.services import accounts
from proctor.web.answers import PageRoute, page
from proctor.web.session import (
    COOKIE,
    TOKEN_LIMIT,
    ContextDep,
    check_same_origin,
    client_address,
    drop_session,
    local_path,
    set_session,
)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/sign-in")
async def show_sign_in(next: str = "/") -> Response:
    return _sign_in_page(local_path(next))


@router.post("/sign-in", dependencies=[Depends(check_same_origin)])
async def sign_in(
    request: Request,
    context: ContextDep,
    username: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    target = local_path(next)
    try:
        token = await accounts.open_session(context, username, password, client_address(request))
    except (Unauthorized, TooManyRequests) as error:
        return _sign_in_page(target, username=username[:200], error=error)
    await _close_session(request, context)
    response = RedirectResponse(target, status_code=303)
    set_session(response, request, context.settings, token)
    return response


@router.post("/sign-out", dependencies=[Depends(check_same_origin)])
async def sign_out(request: Request, context: ContextDep) -> Response:
    await _close_session(request, context)
    response = RedirectResponse("/sign-in", status_code=303)
    drop_session(response)
    return response


async def _close_session(request: Request, context: ContextDep) -> None:
    token = request.cookies.get(COOKIE, "")
    if 0 < len(token) <= TOKEN_LIMIT:
        await accounts.close_session(context, token)


def _sign_in_page(target: str, *, username: str = "", error: ProctorError | None = None) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else None
    status = error.status if error is not None else 200
    return page(
        "sign_in.html", status=status, headers=headers, target=target, username=username, error=error, caller=None
    )
