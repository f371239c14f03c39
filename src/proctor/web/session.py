"""Who looks at a page: the cookie of a browser's session."""

import re
from typing import Annotated

from fastapi import Depends, Request, Response

from proctor.errors import Forbidden, Unauthorized
from proctor.services import accounts
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.settings import Settings
from proctor.store.listener import Listener

COOKIE = "proctor_session"
TOKEN_LIMIT = 512

# Printable ASCII that begins with one slash: browsers read `//host` and `/\host` as another site.
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def get_listener(request: Request) -> Listener:
    listener: Listener = request.app.state.listener
    return listener


def get_session(request: Request) -> str:
    """The session's token; raises Unauthorized without one."""
    token = request.cookies.get(COOKIE, "")
    if not 0 < len(token) <= TOKEN_LIMIT:
        raise Unauthorized("Sign in to see this page.")
    return token


async def get_caller(
    context: Annotated[Context, Depends(get_context)], session: Annotated[str, Depends(get_session)]
) -> Caller:
    return await identify_session(context, session)


async def identify_session(context: Context, session: str) -> Caller:
    """Whom the session stands for; raises Unauthorized once it is over."""
    return await accounts.identify(context, session, kinds=("session",))


def set_session(response: Response, request: Request, settings: Settings, token: str) -> None:
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(accounts.SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=_is_https(request, settings),
    )


def drop_session(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


def check_same_origin(request: Request, context: Annotated[Context, Depends(get_context)]) -> None:
    """Refuses a form that another site sends: it could sign a user in as somebody else, or out."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        own = site in {"same-origin", "none"}
    else:
        # Browsers tell Sec-Fetch-Site on https and loopback only. Without either header it is no browser.
        origin = request.headers.get("origin")
        own = origin is None or origin.partition("://")[2] in _own_hosts(request, context.settings)
    if not own:
        raise Forbidden("This form came from another site. Open Proctor's own page and send the form from there.")


def local_path(text: str) -> str:
    """The path to go to after signing in: one of this server, or the first page."""
    return text if _LOCAL_PATH.fullmatch(text) else "/"


def client_address(request: Request) -> str:
    """Whom throttling counts; behind a proxy uvicorn has put the forwarded address here."""
    return request.client.host if request.client else "unknown"


def _own_hosts(request: Request, settings: Settings) -> set[str]:
    hosts = {request.headers.get("host", ""), settings.public_url.partition("://")[2].partition("/")[0]}
    # The origin `null` has no host, and must not match a host that is not set.
    return hosts - {""}


def _is_https(request: Request, settings: Settings) -> bool:
    return request.url.scheme == "https" or settings.public_url.startswith("https://")


ContextDep = Annotated[Context, Depends(get_context)]
ListenerDep = Annotated[Listener, Depends(get_listener)]
SessionDep = Annotated[str, Depends(get_session)]
CallerDep = Annotated[Caller, Depends(get_caller)]
