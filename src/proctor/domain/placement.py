"""Who goes next and where: pure, from a snapshot to a list of placements."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from proctor.domain.environment import Environment, HubOffer, serves


@dataclass(frozen=True)
class WaitingJob:
    """A job that could start. `environment` is None for one that needs no slot; lower `position` goes first."""

    id: int
    execution_id: int
    position: int
    environment: Environment | None


@dataclass(frozen=True)
class ExecutionRoom:
    """How many more jobs an execution may start at once under its plan's limit; older executions have lower ids."""

    id: int
    room: int


@dataclass(frozen=True)
class WorkerRoom:
    """How many more attempts a worker can take, and from which queues."""

    id: int
    queues: frozenset[str]
    room: int


@dataclass(frozen=True)
class HubRoom:
    """How many more sessions a hub has room for, and the queue whose workers can reach it."""

    id: int
    queue: str
    room: int
    offers: tuple[HubOffer, ...]


@dataclass(frozen=True)
class Snapshot:
    """All that placement looks at."""

    executions: Sequence[ExecutionRoom]
    waiting: Sequence[WaitingJob]
    workers: Sequence[WorkerRoom]
    hubs: Sequence[HubRoom] = ()


@dataclass(frozen=True)
class Placement:
    """This job starts now, in this queue, on this hub's slot (None: it needs none)."""

    job_id: int
    queue: str
    hub_id: int | None


JOBS_QUEUE = "jobs"


@dataclass
class _Room:
    """What is left while places are given out."""

    executions: dict[int, int]
    workers: dict[int, int]
    hubs: dict[int, int]
    queues: dict[int, frozenset[str]] = field(default_factory=dict)

    def worker_for(self, queue: str) -> int | None:
        """The worker with most room that takes from the queue."""
        fitting = [id_ for id_, room in self.workers.items() if room > 0 and queue in self.queues[id_]]
        return max(fitting, key=lambda id_: self.workers[id_], default=None)


def place(snapshot: Snapshot) -> list[Placement]:
    """Gives each execution in turn one place, so that a short plan does not wait for a long one."""
    room = _Room(
        executions={execution.id: execution.room for execution in snapshot.executions},
        workers={worker.id: worker.room for worker in snapshot.workers},
        hubs={hub.id: hub.room for hub in snapshot.hubs},
        queues={worker.id: worker.queues for worker in snapshot.workers},
    )
    placements: list[Placement] = []
    for job in _in_turn(snapshot.waiting):
        placement = _place_one(job, snapshot.hubs, room)
        if placement is not None:
            placements.append(placement)
    return placements


def _in_turn(waiting: Sequence[WaitingJob]) -> list[WaitingJob]:
    """First the first job of every execution, then every second, and so on."""
    by_execution: dict[int, list[WaitingJob]] = defaultdict(list)
    for job in sorted(waiting, key=lambda job: (job.position, job.id)):
        by_execution[job.execution_id].append(job)
    turns = [(turn, job) for jobs in by_execution.values() for turn, job in enumerate(jobs)]
    return [job for _, job in sorted(turns, key=lambda pair: (pair[0], pair[1].execution_id))]


def _place_one(job: WaitingJob, hubs: Sequence[HubRoom], room: _Room) -> Placement | None:
    if room.executions.get(job.execution_id, 0) <= 0:
        return None
    if job.environment is None:
        return _take(job, JOBS_QUEUE, None, room)
    for hub in sorted(hubs, key=lambda hub: -room.hubs[hub.id]):
        if room.hubs[hub.id] > 0 and _offers(hub, job.environment):
            placement = _take(job, hub.queue, hub.id, room)
            if placement is not None:
                return placement
    return None


def _offers(hub: HubRoom, environment: Environment) -> bool:
    return any(offer.online and serves(offer.stereotype, environment) for offer in hub.offers)


def _take(job: WaitingJob, queue: str, hub_id: int | None, room: _Room) -> Placement | None:
    worker = room.worker_for(queue)
    if worker is None:
        return None
    room.workers[worker] -= 1
    room.executions[job.execution_id] -= 1
    if hub_id is not None:
        room.hubs[hub_id] -= 1
    return Placement(job.id, queue, hub_id)
