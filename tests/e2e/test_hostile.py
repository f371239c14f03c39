"""What test code may leave, and what may happen to the machinery: no result is lost and no worker is stuck."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from running import Proctor, make_repository, short_folder, until, up

PASS = 'echo \'<testsuite><testcase name="t" classname="c"/></testsuite>\' > $PROCTOR_REPORT_DIR/r.xml'
DEEP = 'python3 -c \'import os\nfor _ in range(4000): os.mkdir("d"); os.chdir("d")\''
LEFT = {
    "a NUL in its last line": ("printf 'a\\0b'; exit 1", "ERROR"),
    "a time beyond every integer": (
        'echo \'<testsuite><testcase name="t" time="1700000000000"/></testsuite>\' > $PROCTOR_REPORT_DIR/r.xml',
        "SUCCESS",
    ),
    "a report whose name is no text": ("touch \"$PROCTOR_REPORT_DIR/$(printf 'a\\377').xml\"", "ERROR"),
    "folders too deep for recursion": (f"{PASS}; cd $HOME; {DEEP}", "SUCCESS"),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture(scope="module")
def proctor(folder: Path) -> Iterator[Proctor]:
    with up(folder / "data") as running:
        scenarios: list[dict[str, Any]] = [{"name": name, "command": command} for name, (command, _) in LEFT.items()]
        running.apply(
            {
                "name": "hostile",
                "repository": str(make_repository(folder / "repository", {"README": "tests"})),
                "framework": "SERVICE",
                "runner": "command",
                "scenarios": [*scenarios, {"name": "passes", "command": PASS}],
                "plans": [
                    {"name": "left", "scenarios": list(LEFT), "parallel": 4},
                    {"name": "passes", "scenarios": ["passes"]},
                ],
            }
        )
        yield running


def test_whatever_a_test_leaves_its_result_is_taken_at_its_first_attempt(proctor: Proctor) -> None:
    jobs = proctor.run("left")["jobs"]
    assert {job["scenario_name"]: job["level"] for job in jobs} == {name: level for name, (_, level) in LEFT.items()}
    assert {len(job["attempts"]) for job in jobs} == {1}
    until(lambda: list((proctor.data / "work" / "attempts").glob("*/*")) == [], 10)


def test_a_worker_that_was_forgotten_starts_anew(proctor: Proctor) -> None:
    before = proctor.child("worker").pid
    with psycopg.connect(f"postgresql://postgres:@/proctor?host={proctor.data}/postgres") as connection:
        connection.execute("DELETE FROM workers")
    until(lambda: [one for one in [proctor.child("worker")] if one.pid != before], 30)
    until(proctor.ready, 30)
    assert proctor.run("passes")["level"] == "SUCCESS"


def test_a_server_whose_side_task_fails_starts_anew(proctor: Proctor) -> None:
    before = proctor.child("server").pid
    with psycopg.connect(f"postgresql://postgres:@/proctor?host={proctor.data}/postgres") as connection:
        connection.execute("ALTER TABLE sign_in_failures RENAME TO hidden")
    until(lambda: [one for one in [proctor.child("server")] if one.pid != before], 30)
    with psycopg.connect(f"postgresql://postgres:@/proctor?host={proctor.data}/postgres") as connection:
        connection.execute("ALTER TABLE hidden RENAME TO sign_in_failures")
    until(proctor.ready, 60)
    assert proctor.run("passes")["level"] == "SUCCESS"
