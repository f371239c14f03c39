"""Hubs, the workers that reach them, and environments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text

from proctor.domain.environment import Environment, HubOffer, Offer, Stereotype
from proctor.domain.placement import HubRoom, WorkerRoom
from proctor.store.engine import Tx, json_value

# A worker beats every 10 s; three missed beats and its hub counts as offline.
WORKER_TIMEOUT = timedelta(seconds=35)


@dataclass(frozen=True)
class EnvironmentRow:
    """An environment and the company it belongs to, None for everybody's."""

    environment: Environment
    company_id: int | None


def hub_queue(name: str) -> str:
    """The queue whose workers run the local hub's browsers."""
    return f"hub:{name}"


def read_environment(row: Row[Any], prefix: str = "environment_") -> Environment | None:
    """The environment of a joined row, None where the join found none."""
    values = {name.removeprefix(prefix): value for name, value in row._mapping.items() if name.startswith(prefix)}
    return Environment(**values) if values["id"] is not None else None


ENVIRONMENT_COLUMNS = """env.id AS environment_id, env.name AS environment_name, env.os AS environment_os,
    env.browser AS environment_browser, env.version AS environment_version,
    env.resolution AS environment_resolution, env.enabled AS environment_enabled"""


async def put_hub(tx: Tx, name: str, kind: str, *, url: str = "") -> int:
    row = await tx.execute(
        text(
            """INSERT INTO hubs (name, kind, url) VALUES (:name, :kind, :url)
               ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, url = excluded.url RETURNING id"""
        ),
        {"name": name, "kind": kind, "url": url},
    )
    return int(row.scalar_one())


async def set_offers(tx: Tx, hub_id: int, offers: Sequence[Offer], slots: int) -> None:
    """Writes down what a hub offers, and makes an environment of each stereotype that is new."""
    listed = [
        {"os": o.stereotype.os, "browser": o.stereotype.browser, "version": o.stereotype.version, "slots": o.slots}
        for o in offers
    ]
    await tx.execute(
        text("UPDATE hubs SET offers = :offers, slots = :slots, seen_at = proctor_now() WHERE id = :id").bindparams(
            json_value("offers", listed)
        ),
        {"slots": slots, "id": hub_id},
    )
    for offer in offers:
        stereotype = offer.stereotype
        await tx.execute(
            text(
                """INSERT INTO environments (name, os, browser, version) VALUES (:name, :os, :browser, :version)
                   ON CONFLICT (company_id, name) DO NOTHING"""
            ),
            {
                "name": stereotype.display_name,
                "os": stereotype.os,
                "browser": stereotype.browser,
                "version": stereotype.version.split(".")[0],
            },
        )


async def beat(tx: Tx, *, name: str, queues: Sequence[str], concurrency: int, hub_id: int | None) -> int:
    """Writes down that the worker of that name is alive; gives its id."""
    row = await tx.execute(
        text(
            """INSERT INTO workers (name, queues, concurrency, hub_id) VALUES (:name, :queues, :concurrency, :hub)
               ON CONFLICT (name) DO UPDATE SET heartbeat_at = proctor_now(), queues = excluded.queues,
                   concurrency = excluded.concurrency, hub_id = excluded.hub_id
               RETURNING id"""
        ),
        {"name": name, "queues": list(queues), "concurrency": concurrency, "hub": hub_id},
    )
    return int(row.scalar_one())


async def remove_worker(tx: Tx, worker_id: int) -> None:
    await tx.execute(text("DELETE FROM workers WHERE id = :id"), {"id": worker_id})


async def list_workers(tx: Tx, prefix: str) -> list[str]:
    """The names of workers that begin so."""
    rows = await tx.execute(text("SELECT name FROM workers WHERE starts_with(name, :prefix)"), {"prefix": prefix})
    return [row.name for row in rows]


async def remove_dead_workers(tx: Tx) -> None:
    await tx.execute(text("DELETE FROM workers WHERE heartbeat_at < proctor_now() - interval '1 day'"))


async def has_live_worker(tx: Tx) -> bool:
    row = await tx.execute(
        text("SELECT 1 FROM workers WHERE heartbeat_at > proctor_now() - CAST(:timeout AS interval) LIMIT 1"),
        {"timeout": WORKER_TIMEOUT},
    )
    return row.first() is not None


async def list_offers(tx: Tx) -> list[HubOffer]:
    """What all enabled hubs offer; a local hub is online while a worker of it is alive."""
    rows = await tx.execute(
        text(
            """SELECT h.id, h.offers, EXISTS (SELECT 1 FROM workers w WHERE w.hub_id = h.id
                          AND w.heartbeat_at > proctor_now() - CAST(:timeout AS interval)) AS online
               FROM hubs h WHERE h.enabled"""
        ),
        {"timeout": WORKER_TIMEOUT},
    )
    return [_hub_offer(row.id, offer, row.online) for row in rows for offer in row.offers]


async def list_hub_rooms(tx: Tx) -> list[HubRoom]:
    """Each online hub with the slots that no live attempt holds."""
    rows = await tx.execute(
        text(
            """SELECT h.id, h.name, h.offers, h.slots - (
                          SELECT count(*) FROM attempts a WHERE a.hub_id = h.id
                          AND a.state IN ('leased', 'running', 'reporting')) AS room
               FROM hubs h
               WHERE h.enabled AND EXISTS (SELECT 1 FROM workers w WHERE w.hub_id = h.id
                     AND w.heartbeat_at > proctor_now() - CAST(:timeout AS interval))"""
        ),
        {"timeout": WORKER_TIMEOUT},
    )
    return [
        HubRoom(row.id, hub_queue(row.name), row.room, tuple(_hub_offer(row.id, offer, True) for offer in row.offers))
        for row in rows
    ]


async def list_worker_rooms(tx: Tx) -> list[WorkerRoom]:
    """Each live worker with the attempts it can still take; those that nobody took yet count against the first."""
    rows = await tx.execute(
        text(
            """SELECT w.id, w.queues, w.concurrency - (
                          SELECT count(*) FROM attempts a WHERE a.worker_id = w.id
                          AND a.state IN ('leased', 'running', 'reporting')) AS room,
                      (SELECT count(*) FROM attempts a WHERE a.worker_id IS NULL AND a.state = 'leased') AS untaken
               FROM workers w WHERE w.heartbeat_at > proctor_now() - CAST(:timeout AS interval) ORDER BY w.id"""
        ),
        {"timeout": WORKER_TIMEOUT},
    )
    rooms: list[WorkerRoom] = []
    untaken: int | None = None
    for row in rows:
        untaken = row.untaken if untaken is None else untaken
        given = min(untaken, max(row.room, 0))
        untaken -= given
        rooms.append(WorkerRoom(row.id, frozenset(row.queues), row.room - given))
    return rooms


async def list_environments(tx: Tx, company_ids: Sequence[int] | None) -> list[EnvironmentRow]:
    """Everybody's environments and those of these companies (None: of all)."""
    rows = await tx.execute(
        text(
            """SELECT id, name, os, browser, version, resolution, enabled, company_id FROM environments
               WHERE company_id IS NULL OR CAST(:companies AS bigint[]) IS NULL OR company_id = ANY(:companies)
               ORDER BY id"""
        ),
        {"companies": None if company_ids is None else list(company_ids)},
    )
    return [EnvironmentRow(Environment(*row[:7]), row.company_id) for row in rows]


async def put_environment(tx: Tx, company_id: int, environment: Environment) -> tuple[int, bool]:
    """Makes or changes a company's environment by its name (`id` is ignored); gives its id and whether it was made."""
    row = (
        await tx.execute(
            text(
                """INSERT INTO environments (company_id, name, os, browser, version, resolution, enabled)
                   VALUES (:company, :name, :os, :browser, :version, :resolution, :enabled)
                   ON CONFLICT (company_id, name) DO UPDATE SET os = excluded.os, browser = excluded.browser,
                       version = excluded.version, resolution = excluded.resolution, enabled = excluded.enabled
                   RETURNING id, xmax = 0 AS made"""
            ),
            {
                "company": company_id,
                "name": environment.name,
                "os": environment.os,
                "browser": environment.browser,
                "version": environment.version,
                "resolution": environment.resolution,
                "enabled": environment.enabled,
            },
        )
    ).one()
    return row.id, row.made


async def find_environment(tx: Tx, company_id: int, name: str) -> int | None:
    """The company's environment of that name, else everybody's."""
    row = await tx.execute(
        text(
            """SELECT id FROM environments WHERE name = :name AND (company_id = :company OR company_id IS NULL)
               ORDER BY company_id NULLS LAST LIMIT 1"""
        ),
        {"name": name, "company": company_id},
    )
    return row.scalar_one_or_none()


async def environments_of_plan(tx: Tx, plan_id: int) -> list[Environment]:
    rows = await tx.execute(
        text(
            """SELECT e.id, e.name, e.os, e.browser, e.version, e.resolution, e.enabled
               FROM plan_environments p JOIN environments e ON e.id = p.environment_id
               WHERE p.plan_id = :plan ORDER BY p.position, e.id"""
        ),
        {"plan": plan_id},
    )
    return [Environment(**row._mapping) for row in rows]


def _hub_offer(hub_id: int, offer: dict[str, Any], online: bool) -> HubOffer:
    stereotype = Stereotype(offer["os"], offer["browser"], offer["version"])
    return HubOffer(hub_id, stereotype, offer["slots"], online)
