"""Idempotency-Keys: the same key within 24 hours gives the same answer."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from proctor.store.engine import Tx, json_value


@dataclass(frozen=True)
class StoredAnswer:
    fingerprint: str
    answer: dict[str, Any]


async def claim(tx: Tx, user_id: int, key: str, fingerprint: str) -> StoredAnswer | None:
    """None when the key is new and now the caller's; the other's answer when it was used.

    Two that come with the same key at once: the second waits here until the first has committed or rolled back.
    """
    await tx.execute(
        text(
            """DELETE FROM idempotency_keys WHERE user_id = :user AND key = :key
               AND created_at < proctor_now() - interval '24 hours'"""
        ),
        {"user": user_id, "key": key},
    )
    made = await tx.execute(
        text(
            """INSERT INTO idempotency_keys (user_id, key, fingerprint) VALUES (:user, :key, :fingerprint)
               ON CONFLICT DO NOTHING"""
        ),
        {"user": user_id, "key": key, "fingerprint": fingerprint},
    )
    if made.rowcount == 1:
        return None
    row = (
        await tx.execute(
            text("SELECT fingerprint, answer FROM idempotency_keys WHERE user_id = :user AND key = :key"),
            {"user": user_id, "key": key},
        )
    ).one()
    return StoredAnswer(row.fingerprint, row.answer)


async def set_answer(tx: Tx, user_id: int, key: str, answer: dict[str, Any]) -> None:
    await tx.execute(
        text("UPDATE idempotency_keys SET answer = :answer WHERE user_id = :user AND key = :key").bindparams(
            json_value("answer", answer)
        ),
        {"user": user_id, "key": key},
    )
