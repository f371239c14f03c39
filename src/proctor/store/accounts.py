"""Companies, users, memberships, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from proctor.store.engine import Tx


@dataclass(frozen=True)
class Company:
    id: int
    name: str
    short_name: str


@dataclass(frozen=True)
class User:
    """`password_hash` is None for one that signs in by token only."""

    id: int
    username: str
    password_hash: str | None
    admin: bool
    enabled: bool


@dataclass(frozen=True)
class TokenOwner:
    """Who a valid token stands for; `roles` by company."""

    token_id: int
    family: str
    user_id: int
    username: str
    admin: bool
    roles: dict[int, list[str]]


@dataclass(frozen=True)
class PersonalToken:
    """A token that its owner keeps; the token itself is nowhere."""

    id: int
    label: str
    created_at: datetime
    expires_at: datetime | None


async def find_user(tx: Tx, username: str) -> User | None:
    row = (
        await tx.execute(
            text("SELECT id, username, password_hash, admin, enabled FROM users WHERE username = :username"),
            {"username": username},
        )
    ).one_or_none()
    return User(**row._mapping) if row else None


async def put_user(tx: Tx, username: str, *, admin: bool | None = None, **names: str) -> tuple[int, bool]:
    """Makes or changes a user; gives its id and whether it was made. `names`: email, name, surname."""
    row = (
        await tx.execute(
            text(
                """INSERT INTO users (username, admin, email, name, surname)
                   VALUES (:username, coalesce(:admin, false), coalesce(:email, ''), coalesce(:name, ''),
                           coalesce(:surname, ''))
                   ON CONFLICT (username) DO UPDATE SET
                       admin = coalesce(:admin, users.admin), email = coalesce(:email, users.email),
                       name = coalesce(:name, users.name), surname = coalesce(:surname, users.surname)
                   RETURNING id, xmax = 0 AS made"""
            ),
            {"username": username, "admin": admin, "email": None, "name": None, "surname": None, **names},
        )
    ).one()
    return row.id, row.made


async def set_password(tx: Tx, user_id: int, password_hash: str) -> None:
    """Sets it, and revokes all that was given out for the old one."""
    await tx.execute(
        text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"hash": password_hash, "id": user_id}
    )
    await tx.execute(
        text("UPDATE tokens SET revoked_at = proctor_now() WHERE user_id = :id AND revoked_at IS NULL"),
        {"id": user_id},
    )


async def put_membership(tx: Tx, user_id: int, company_id: int, roles: Sequence[str]) -> None:
    await tx.execute(
        text(
            """INSERT INTO memberships (user_id, company_id, roles) VALUES (:user, :company, :roles)
               ON CONFLICT (user_id, company_id) DO UPDATE SET roles = excluded.roles"""
        ),
        {"user": user_id, "company": company_id, "roles": list(roles)},
    )


async def memberships_elsewhere(tx: Tx, user_id: int, company_id: int) -> bool:
    """Whether the user belongs to another company too, or administers the server."""
    row = await tx.execute(
        text(
            """SELECT 1 FROM users u WHERE u.id = :user AND (u.admin OR EXISTS (
                   SELECT 1 FROM memberships m WHERE m.user_id = u.id AND m.company_id <> :company))"""
        ),
        {"user": user_id, "company": company_id},
    )
    return row.first() is not None


async def find_company(tx: Tx, name: str) -> Company | None:
    row = (
        await tx.execute(text("SELECT id, name, short_name FROM companies WHERE name = :name"), {"name": name})
    ).one_or_none()
    return Company(**row._mapping) if row else None


async def put_company(tx: Tx, name: str, secret: str) -> int:
    """Makes a company; `secret` signs its callbacks. The name must be free."""
    row = await tx.execute(
        text("INSERT INTO companies (name, short_name, callback_secrets) VALUES (:name, :name, :secrets) RETURNING id"),
        {"name": name, "secrets": [secret]},
    )
    return int(row.scalar_one())


async def callback_secrets(tx: Tx, company_id: int) -> list[str]:
    row = await tx.execute(text("SELECT callback_secrets FROM companies WHERE id = :id"), {"id": company_id})
    return list(row.scalar_one())


async def set_callback_secret(tx: Tx, company_id: int, secret: str) -> None:
    await tx.execute(
        text("UPDATE companies SET callback_secrets = ARRAY[:secret]::text[] WHERE id = :id"),
        {"secret": secret, "id": company_id},
    )


async def list_companies(tx: Tx, ids: Sequence[int] | None) -> list[Company]:
    """The companies of these ids, or all (None)."""
    rows = await tx.execute(
        text(
            """SELECT id, name, short_name FROM companies
               WHERE CAST(:ids AS bigint[]) IS NULL OR id = ANY(:ids) ORDER BY id"""
        ),
        {"ids": None if ids is None else list(ids)},
    )
    return [Company(**row._mapping) for row in rows]


# --- tokens ----------------------------------------------------------------------------------------------------------


async def add_token(
    tx: Tx, *, digest: bytes, kind: str, user_id: int, family: str, lifetime: timedelta | None, label: str = ""
) -> int:
    row = await tx.execute(
        text(
            """INSERT INTO tokens (hash, kind, user_id, family, label, expires_at)
               VALUES (:hash, :kind, :user, :family, :label, proctor_now() + CAST(:lifetime AS interval))
               RETURNING id"""
        ),
        {"hash": digest, "kind": kind, "user": user_id, "family": family, "label": label, "lifetime": lifetime},
    )
    return int(row.scalar_one())


async def find_token_owner(tx: Tx, digest: bytes, kinds: Sequence[str]) -> TokenOwner | None:
    """Who the token stands for, or None when it is unknown, expired, revoked, or its user is disabled."""
    row = (
        await tx.execute(
            text(
                """SELECT t.id AS token_id, t.family, u.id AS user_id, u.username, u.admin,
                          (SELECT coalesce(jsonb_object_agg(m.company_id, to_jsonb(m.roles)), '{}')
                           FROM memberships m WHERE m.user_id = u.id) AS roles
                   FROM tokens t JOIN users u ON u.id = t.user_id
                   WHERE t.hash = :hash AND t.kind = ANY(:kinds) AND u.enabled AND t.revoked_at IS NULL
                     AND (t.expires_at IS NULL OR t.expires_at > proctor_now())"""
            ),
            {"hash": digest, "kinds": list(kinds)},
        )
    ).one_or_none()
    if row is None:
        return None
    roles = {int(company): list(names) for company, names in row.roles.items()}
    return TokenOwner(row.token_id, row.family, row.user_id, row.username, row.admin, roles)


async def spend_refresh_token(tx: Tx, digest: bytes) -> TokenOwner | None:
    """Uses a refresh token up; one that was used before revokes its whole family, for somebody has stolen it."""
    owner = await find_token_owner(tx, digest, ["refresh"])
    if owner is None:
        return None
    spent = await tx.execute(
        text("UPDATE tokens SET used_at = proctor_now() WHERE id = :id AND used_at IS NULL"), {"id": owner.token_id}
    )
    if spent.rowcount == 1:
        return owner
    await revoke_family(tx, owner.family)
    return None


async def revoke_family(tx: Tx, family: str) -> None:
    await tx.execute(
        text("UPDATE tokens SET revoked_at = proctor_now() WHERE family = :family AND revoked_at IS NULL"),
        {"family": family},
    )


async def list_personal_tokens(tx: Tx, user_id: int) -> list[PersonalToken]:
    """Those that are valid, the newest first."""
    rows = await tx.execute(
        text(
            """SELECT id, label, created_at, expires_at FROM tokens
               WHERE user_id = :user AND kind = 'personal' AND revoked_at IS NULL
                 AND (expires_at IS NULL OR expires_at > proctor_now()) ORDER BY id DESC"""
        ),
        {"user": user_id},
    )
    return [PersonalToken(**row._mapping) for row in rows]


async def revoke_personal_token(tx: Tx, user_id: int, token_id: int) -> bool:
    """False when the user has no such token."""
    result = await tx.execute(
        text(
            """UPDATE tokens SET revoked_at = proctor_now()
               WHERE id = :id AND user_id = :user AND kind = 'personal' AND revoked_at IS NULL"""
        ),
        {"id": token_id, "user": user_id},
    )
    return result.rowcount == 1


# --- throttling ------------------------------------------------------------------------------------------------------


async def count_sign_in_failures(tx: Tx, username: str, address: str, within: timedelta) -> tuple[int, int]:
    """How many sign-ins failed lately: for this user from this address, and for any user from this address."""
    row = (
        await tx.execute(
            text(
                """SELECT count(*) FILTER (WHERE username = :username) AS own, count(*) AS everyone
                   FROM sign_in_failures
                   WHERE address = :address AND failed_at > proctor_now() - CAST(:within AS interval)"""
            ),
            {"username": username, "address": address, "within": within},
        )
    ).one()
    return row.own, row.everyone


async def add_sign_in_failure(tx: Tx, username: str, address: str) -> None:
    await tx.execute(
        text("INSERT INTO sign_in_failures (username, address) VALUES (:username, :address)"),
        {"username": username, "address": address},
    )


async def forget_old(tx: Tx) -> None:
    """Deletes what no decision looks at any more."""
    await tx.execute(text("DELETE FROM sign_in_failures WHERE failed_at < proctor_now() - interval '1 day'"))
    await tx.execute(text("DELETE FROM tokens WHERE expires_at < proctor_now() - interval '7 days'"))
    await tx.execute(text("DELETE FROM idempotency_keys WHERE created_at < proctor_now() - interval '2 days'"))
