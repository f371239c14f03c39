"""Who calls: sign-in, tokens, and what the caller may do."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from proctor.domain.permission import Permission, Role, permissions_of
from proctor.domain.text import storable
from proctor.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidInput,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from proctor.services.context import Context
from proctor.store import accounts
from proctor.store.accounts import PersonalToken, TokenOwner
from proctor.store.engine import Tx

# 19 MiB, two passes: OWASP's first choice for Argon2id; the default takes 64 MiB for each sign-in.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# A password that nobody has: a sign-in as nobody takes as long as one as somebody.
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))
# Each takes a core; not asyncio's own threads, which everything else waits for.
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="hashing")

FAILURE_WINDOW = timedelta(minutes=15)
FAILURES_OF_ONE = 10
FAILURES_OF_ADDRESS = 50
PASSWORD_LIMIT = 1024
SESSION_LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class Caller:
    """Who calls. `company_id` is the one he selected; without one he acts in all of his."""

    user_id: int
    username: str
    admin: bool
    roles: dict[int, list[str]]
    company_id: int | None = None

    @property
    def scope(self) -> list[int] | None:
        """The companies whose things he sees; None for all."""
        if self.company_id is not None:
            return [self.company_id]
        return None if self.admin else list(self.roles)

    def belongs_to(self, company_id: int) -> bool:
        return self.admin or company_id in self.roles

    def may(self, permission: Permission, company_id: int) -> bool:
        roles = [Role.ADMIN.value] if self.admin else self.roles.get(company_id, [])
        return permission in permissions_of(roles)

    def within(self, company_id: int) -> "Caller":
        """The same caller with this company selected."""
        return replace(self, company_id=company_id)


@dataclass(frozen=True)
class Grant:
    """A request for a token (contract §1)."""

    client_id: str
    client_secret: str
    grant_type: str
    username: str
    password: str
    refresh_token: str
    scope: str
    address: str


@dataclass(frozen=True)
class TokenPair:
    """What a sign-in gives; lifetimes are the settings'."""

    access_token: str
    refresh_token: str
    expires_in: int
    scope: str
    jti: str


async def grant(context: Context, asked: Grant) -> TokenPair:
    """Answers a token request; the errors are those of the contract."""
    _check_client(context, asked)
    _check_sane(asked.username, asked.password, asked.refresh_token, asked.scope)
    if asked.grant_type == "password":
        return await _grant_password(context, asked)
    if asked.grant_type == "refresh_token":
        return await _grant_refresh(context, asked)
    if asked.grant_type == "client_credentials":
        return await _grant_client(context, asked)
    known = "password, refresh_token, client_credentials"
    raise InvalidRequest(
        f"grant_type must be one of {known}." if asked.grant_type else f"grant_type is missing: {known}."
    )


async def identify(context: Context, token: str, *, kinds: Sequence[str] = ("access", "personal")) -> Caller:
    """Whom a token stands for; raises Unauthorized."""
    async with context.store.begin() as tx:
        owner = await accounts.find_token_owner(tx, digest(token), kinds)
    if owner is None:
        raise Unauthorized("The token is unknown, expired or revoked: sign in again.")
    return caller_of(owner)


async def create_personal_token(context: Context, caller: Caller, label: str, lifetime: timedelta | None) -> str:
    """A token that its owner keeps, until it is revoked or its lifetime ends."""
    if not storable(label):
        raise InvalidInput("The label contains a character that cannot be stored.")
    token = new_token()
    async with context.store.begin() as tx:
        await accounts.add_token(
            tx,
            digest=digest(token),
            kind="personal",
            user_id=caller.user_id,
            family=secrets.token_hex(16),
            lifetime=lifetime,
            label=label,
        )
    return token


async def list_personal_tokens(context: Context, caller: Caller) -> list[PersonalToken]:
    async with context.store.begin() as tx:
        return await accounts.list_personal_tokens(tx, caller.user_id)


async def revoke_personal_token(context: Context, caller: Caller, token_id: int) -> None:
    """Raises NotFound when the caller has no such token."""
    async with context.store.begin() as tx:
        if not await accounts.revoke_personal_token(tx, caller.user_id, token_id):
            raise NotFound(f"You have no token {token_id}: GET /api/v1/tokens lists yours.")


async def open_session(context: Context, username: str, password: str, address: str) -> str:
    """A browser's sign-in; gives the session's token for a cookie."""
    user_id = await _check_password(context, username, password, address)
    token = new_token()
    async with context.store.begin() as tx:
        await accounts.add_token(
            tx,
            digest=digest(token),
            kind="session",
            user_id=user_id,
            family=secrets.token_hex(16),
            lifetime=SESSION_LIFETIME,
        )
    return token


async def close_session(context: Context, token: str) -> None:
    async with context.store.begin() as tx:
        owner = await accounts.find_token_owner(tx, digest(token), ["session"])
        if owner is not None:
            await accounts.revoke_family(tx, owner.family)


async def ensure_admin(context: Context, password: str) -> bool:
    """Makes the administrator `admin` when there is none; False when there is one."""
    hashed = await hash_password(password)
    async with context.store.begin() as tx:
        found = await accounts.find_user(tx, "admin")
        if found is not None:
            return False
        user_id, _ = await accounts.put_user(tx, "admin", admin=True)
        await accounts.set_password(tx, user_id, hashed)
        return True


async def create_local_token(context: Context) -> str:
    """A token of the administrator for the client commands on this machine."""
    async with context.store.begin() as tx:
        user = await accounts.find_user(tx, "admin")
    if user is None:
        raise Unauthorized("There is no user admin.")
    return await create_personal_token(context, Caller(user.id, user.username, True, {}), "proctor up", None)


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_HASHING, _HASHER.hash, password)


async def verify(hashed: str, password: str) -> bool:
    try:
        return await asyncio.get_running_loop().run_in_executor(_HASHING, _HASHER.verify, hashed, password)
    except VerificationError:
        return False


def new_token() -> str:
    """256 bits, as text."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def caller_of(owner: TokenOwner) -> Caller:
    return Caller(owner.user_id, owner.username, owner.admin, owner.roles)


def _check_client(context: Context, asked: Grant) -> None:
    settings = context.settings
    right = hmac.compare_digest(asked.client_id.encode(), settings.client_id.encode())
    right &= hmac.compare_digest(asked.client_secret.encode(), settings.client_secret.encode())
    if not right:
        raise InvalidClient("The client pair in the Basic Authorization header is wrong.")


def _check_sane(*texts: str) -> None:
    """Nobody's name or secret is so long, or cannot be stored."""
    if any(len(text) > PASSWORD_LIMIT or not storable(text) for text in texts):
        raise InvalidGrant("Wrong user name or password.")


async def _grant_password(context: Context, asked: Grant) -> TokenPair:
    if not asked.username or not asked.password:
        raise InvalidRequest("username and password are required for grant_type password.")
    user_id = await _check_password(context, asked.username, asked.password, asked.address)
    async with context.store.begin() as tx:
        return await _issue(context, tx, user_id, asked.scope)


async def _grant_refresh(context: Context, asked: Grant) -> TokenPair:
    if not asked.refresh_token:
        raise InvalidRequest("refresh_token is required for grant_type refresh_token.")
    async with context.store.begin() as tx:
        owner = await accounts.spend_refresh_token(tx, digest(asked.refresh_token))
        if owner is not None:
            # In the transaction that spends it: a second use at the same moment must find this pair to revoke it.
            return await _issue(context, tx, owner.user_id, asked.scope, family=owner.family)
    raise InvalidGrant("The refresh token is unknown, expired, or was used before: sign in again.")


async def _grant_client(context: Context, asked: Grant) -> TokenPair:
    """Only with an access key (a personal token) in `password`: the client pair is public and proves nothing."""
    if not asked.password:
        raise InvalidRequest("client_credentials needs an access key in the field password.")
    async with context.store.begin() as tx:
        owner = await accounts.find_token_owner(tx, digest(asked.password), ["personal"])
    if owner is None:
        # Not counted: nobody guesses 256 bits, and others behind the same address must not pay for a stale key.
        raise InvalidGrant("The access key is unknown, expired or revoked.")
    async with context.store.begin() as tx:
        return await _issue(context, tx, owner.user_id, asked.scope)


async def _check_password(context: Context, username: str, password: str, address: str) -> int:
    """The user's id; an access key (a personal token) of the user does as well as his password."""
    _check_sane(username, password)
    # From the count of failures to the next failure: else a thousand guesses at once would all pass the count.
    async with context.sign_ins:
        return await _check_in_turn(context, username, password, address)


async def _check_in_turn(context: Context, username: str, password: str, address: str) -> int:
    async with context.store.begin() as tx:
        await _throttle(tx, username, address)
        user = await accounts.find_user(tx, username)
        key_owner = await accounts.find_token_owner(tx, digest(password), ["personal"])
    if user is not None and key_owner is not None and key_owner.user_id == user.id:
        return user.id
    hashed = user.password_hash if user is not None and user.password_hash else _NOBODY
    right = await verify(hashed, password)
    if user is None or not user.enabled or not right:
        await _note_failure(context, username, address)
        raise InvalidGrant("Wrong user name or password.")
    return user.id


async def _throttle(tx: Tx, username: str, address: str) -> None:
    own, everyone = await accounts.count_sign_in_failures(tx, username, address, FAILURE_WINDOW)
    if own >= FAILURES_OF_ONE or everyone >= FAILURES_OF_ADDRESS:
        minutes = int(FAILURE_WINDOW.total_seconds() // 60)
        raise TooManyRequests(
            f"Too many failed sign-ins from {address}: wait {minutes} minutes.",
            retry_after=int(FAILURE_WINDOW.total_seconds()),
        )


async def _note_failure(context: Context, username: str, address: str) -> None:
    async with context.store.begin() as tx:
        await accounts.add_sign_in_failure(tx, username[:200], address)


async def _issue(context: Context, tx: Tx, user_id: int, scope: str, *, family: str | None = None) -> TokenPair:
    settings = context.settings
    family = family or secrets.token_hex(16)
    pair = {"access": new_token(), "refresh": new_token()}
    lifetimes = {"access": settings.access_token_lifetime, "refresh": settings.refresh_token_lifetime}
    for kind, token in pair.items():
        await accounts.add_token(
            tx, digest=digest(token), kind=kind, user_id=user_id, family=family, lifetime=lifetimes[kind]
        )
    seconds = int(settings.access_token_lifetime.total_seconds())
    return TokenPair(pair["access"], pair["refresh"], seconds, scope or "read write", secrets.token_hex(16))
