"""Sign-in (contract §1)."""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Request

from proctor.api.deps import ContextDep
from proctor.api.wire import PROBLEMS
from proctor.errors import InvalidClient
from proctor.services import accounts
from proctor.services.accounts import Grant

router = APIRouter(tags=["token"], responses=PROBLEMS)


@router.post("/Testinium.RestApi/oauth/token")
@router.post("/uaa/oauth/token", include_in_schema=False)
async def create_token(
    request: Request,
    context: ContextDep,
    authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    grant_type: Annotated[str, Form()] = "",
    username: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    scope: Annotated[str, Form()] = "",
    refresh_token: Annotated[str, Form()] = "",
) -> dict[str, Any]:
    """Gives an access token for a password, an access key, or a refresh token."""
    client_id, client_secret = read_basic(authorization)
    pair = await accounts.grant(
        context,
        Grant(
            client_id=client_id,
            client_secret=client_secret,
            grant_type=grant_type,
            username=username,
            password=password,
            refresh_token=refresh_token,
            scope=scope[:200],
            address=client_address(request),
        ),
    )
    return {
        "access_token": pair.access_token,
        "token_type": "bearer",
        "refresh_token": pair.refresh_token,
        "expires_in": pair.expires_in,
        "scope": pair.scope,
        "jti": pair.jti,
    }


def read_basic(authorization: str | None) -> tuple[str, str]:
    """The client pair of a Basic header; raises InvalidClient."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("Send the client pair as Authorization: Basic base64(client_id:client_secret).")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidClient("The Basic Authorization header is not base64 of client_id:client_secret.") from error
    client_id, _, client_secret = decoded.partition(":")
    return client_id, client_secret


def client_address(request: Request) -> str:
    """Whom throttling counts; behind a proxy uvicorn has put the forwarded address here."""
    return request.client.host if request.client else "unknown"
