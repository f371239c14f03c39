"""Who goes next and where, decided from a snapshot."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.domain.environment import Environment, HubOffer, Stereotype
from proctor.domain.placement import (
    JOBS_QUEUE,
    ExecutionRoom,
    HubRoom,
    Placement,
    Snapshot,
    WaitingJob,
    WorkerRoom,
    place,
)

CHROME = Environment(1, "chrome", "LINUX", "chrome")
FIREFOX = Environment(2, "firefox", "LINUX", "firefox")


def jobs(execution: int, number: int, environment: Environment | None = None) -> list[WaitingJob]:
    return [WaitingJob(execution * 100 + i, execution, i, environment) for i in range(number)]


def hub(id_: int, room: int, *browsers: str, online: bool = True) -> HubRoom:
    offers = tuple(HubOffer(id_, Stereotype("LINUX", browser, "1"), room, online) for browser in browsers)
    return HubRoom(id_, f"hub:{id_}", room, offers)


def worker(id_: int, room: int, *queues: str) -> WorkerRoom:
    return WorkerRoom(id_, frozenset(queues or {JOBS_QUEUE}), room)


def run(
    waiting: Sequence[WaitingJob],
    workers: Sequence[WorkerRoom],
    hubs: Sequence[HubRoom] = (),
    rooms: dict[int, int] | None = None,
) -> list[Placement]:
    executions = {job.execution_id for job in waiting}
    given_rooms = [ExecutionRoom(id_, (rooms or {}).get(id_, 1000)) for id_ in sorted(executions)]
    return place(Snapshot(given_rooms, waiting, workers, hubs))


def test_jobs_without_an_environment_go_to_the_common_queue() -> None:
    assert run(jobs(1, 2), [worker(1, 5)]) == [Placement(100, JOBS_QUEUE, None), Placement(101, JOBS_QUEUE, None)]


def test_a_job_goes_to_the_hub_that_offers_its_environment() -> None:
    hubs = [hub(1, 5, "chrome"), hub(2, 5, "firefox")]

    placed = run(jobs(1, 1, FIREFOX), [worker(1, 5, "hub:1", "hub:2")], hubs)

    assert placed == [Placement(100, "hub:2", 2)]


def test_the_hub_with_most_room_comes_first() -> None:
    hubs = [hub(1, 1, "chrome"), hub(2, 3, "chrome")]

    placed = run(jobs(1, 4, CHROME), [worker(1, 9, "hub:1", "hub:2")], hubs)

    assert Counter(one.hub_id for one in placed) == {1: 1, 2: 3}


def test_nothing_goes_to_a_hub_that_is_offline_full_or_without_a_worker() -> None:
    waiting = jobs(1, 1, CHROME)

    assert run(waiting, [worker(1, 5, "hub:1")], [hub(1, 5, "chrome", online=False)]) == []
    assert run(waiting, [worker(1, 5, "hub:1")], [hub(1, 0, "chrome")]) == []
    assert run(waiting, [worker(1, 5, "hub:2")], [hub(1, 5, "chrome")]) == []
    assert run(waiting, [worker(1, 0, "hub:1")], [hub(1, 5, "chrome")]) == []
    assert run(waiting, [], [hub(1, 5, "chrome")]) == []


def test_a_job_that_cannot_go_does_not_hold_up_those_behind_it() -> None:
    waiting = [*jobs(1, 1, FIREFOX), WaitingJob(150, 1, 1, CHROME)]

    assert [one.job_id for one in run(waiting, [worker(1, 5, "hub:1")], [hub(1, 5, "chrome")])] == [150]


def test_executions_take_turns_so_that_a_short_plan_does_not_wait_for_a_long_one() -> None:
    placed = run([*jobs(1, 50), *jobs(2, 2)], [worker(1, 4)])

    assert [one.job_id for one in placed] == [100, 200, 101, 201]


def test_an_executions_limit_holds() -> None:
    placed = run([*jobs(1, 5), *jobs(2, 5)], [worker(1, 100)], rooms={1: 2, 2: 0})

    assert [one.job_id for one in placed] == [100, 101]


def test_lower_positions_go_first() -> None:
    waiting = list(reversed(jobs(1, 5)))

    assert [one.job_id for one in run(waiting, [worker(1, 3)])] == [100, 101, 102]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    numbers = st.integers(-1, 5)
    environments = st.sampled_from([None, CHROME, FIREFOX])
    executions = [ExecutionRoom(id_, draw(numbers)) for id_ in range(1, draw(st.integers(1, 4)))]
    waiting = [
        WaitingJob(number, draw(st.sampled_from(executions)).id, number, draw(environments))
        for number in range(draw(st.integers(0, 20)) if executions else 0)
    ]
    queues = st.sets(st.sampled_from([JOBS_QUEUE, "hub:1", "hub:2"]), min_size=1)
    workers = [WorkerRoom(id_, frozenset(draw(queues)), draw(numbers)) for id_ in range(draw(st.integers(0, 3)))]
    hubs = [hub(1, draw(numbers), "chrome"), hub(2, draw(numbers), "chrome", "firefox", online=draw(st.booleans()))]
    return Snapshot(executions, waiting, workers, hubs)


@given(snapshots())
@settings(max_examples=300, deadline=None)
def test_no_limit_is_ever_exceeded_and_no_job_placed_twice(snapshot: Snapshot) -> None:
    placed = place(snapshot)

    by_id = {job.id: job for job in snapshot.waiting}
    assert len({one.job_id for one in placed}) == len(placed)
    for execution in snapshot.executions:
        used = sum(by_id[one.job_id].execution_id == execution.id for one in placed)
        assert used <= max(execution.room, 0)
    for one_hub in snapshot.hubs:
        assert sum(one.hub_id == one_hub.id for one in placed) <= max(one_hub.room, 0)
    assert len(placed) <= sum(max(one.room, 0) for one in snapshot.workers)
    for one in placed:
        assert any(one.queue in each.queues for each in snapshot.workers)
        assert (one.hub_id is None) == (by_id[one.job_id].environment is None)
    # Nothing that could go is left: each that waits lacks room somewhere.
    rooms = {one.id: one.room for one in snapshot.executions}
    if not placed and any(one.room > 0 and JOBS_QUEUE in one.queues for one in snapshot.workers):
        assert not any(job.environment is None and rooms[job.execution_id] > 0 for job in snapshot.waiting)
