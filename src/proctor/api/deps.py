"""What routes ask for: the context, the caller, where he reached us."""

import ipaddress
import socket
from typing import Annotated

from fastapi import Depends, Header, Request

from proctor.errors import Forbidden, InvalidInput, Unauthorized
from proctor.services import accounts
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.store.listener import Listener

TOKEN_LIMIT = 512


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def get_caller(
    context: Annotated[Context, Depends(get_context)],
    authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    current_company_id: Annotated[str | None, Header(description="Selects one of the caller's companies.")] = None,
) -> Caller:
    """Whom the bearer token stands for; a cookie is nobody here, so that no other site can start a plan."""
    caller = await accounts.identify(context, read_bearer(authorization))
    return select_company(caller, current_company_id)


def read_bearer(authorization: str | None) -> str:
    """The token of the header; raises Unauthorized with what is wrong with it."""
    if not authorization:
        raise Unauthorized(
            "Send the header Authorization: Bearer <token>; POST /Testinium.RestApi/oauth/token gives one."
        )
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LIMIT:
        raise Unauthorized("The Authorization header must be Bearer <token>.")
    return token


def select_company(caller: Caller, company_id: str | None) -> Caller:
    """The caller with the company of the header selected; an empty header counts as absent."""
    text = (company_id or "").strip()
    if not text:
        return caller
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput("The header current-company-id must be a company's integer id.")
    if not caller.belongs_to(int(text)):
        raise Forbidden(f"You do not belong to company {text}.")
    return caller.within(int(text))


def get_base_url(request: Request, context: Annotated[Context, Depends(get_context)]) -> str:
    """The address that this caller sees, without a slash at its end."""
    return (context.settings.public_url or str(request.base_url)).rstrip("/")


def get_lasting_url(request: Request, context: Annotated[Context, Depends(get_context)]) -> str:
    """The address that callbacks carry to others, who send their bearers there: no caller's Host header chooses it."""
    settings = context.settings
    host = request.url.hostname or ""
    if settings.public_url or is_own_name(host):
        return get_base_url(request, context)
    return f"http://{settings.host}:{settings.port}"


def is_own_name(host: str) -> bool:
    """True for an IP address, `localhost`, and this machine's name."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return host.lower() in {"localhost", socket.gethostname().lower()}


def refuse_prefetch(
    sec_purpose: Annotated[str, Header(include_in_schema=False)] = "",
    purpose: Annotated[str, Header(include_in_schema=False)] = "",
) -> None:
    """A browser or proxy that guesses what a user may want next must not start a plan."""
    if "prefetch" in f"{sec_purpose} {purpose}".lower():
        raise InvalidInput("A prefetch starts nothing: send the request without the Purpose header.")


def get_listener(request: Request) -> Listener:
    listener: Listener = request.app.state.listener
    return listener


ListenerDep = Annotated[Listener, Depends(get_listener)]
ContextDep = Annotated[Context, Depends(get_context)]
CallerDep = Annotated[Caller, Depends(get_caller)]
BaseUrl = Annotated[str, Depends(get_base_url)]
LastingUrl = Annotated[str, Depends(get_lasting_url)]
