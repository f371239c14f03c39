"""`proctor demo` as it is installed: a real server, a real browser, real callbacks, and nothing left of it."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

import psutil
import pytest
import yaml

from proctor.cli.demo import EXPECTED_TO_FAIL, find_example
from running import short_folder

# Some ten times what it takes, for machines that do other things too.
DEMO_TIMEOUT = 300  # seconds

# Whatever a developer has set must not decide on what the tests see.
FOREIGN = ("PROCTOR_", "FORCE_COLOR", "NO_COLOR", "GIT_")
CALLBACK = re.compile(r"callback +(\d+)  (\S+) +signature ok  (\S+) +(.+)")


@dataclass(frozen=True)
class Place:
    """A temporary folder that the command takes for the machine's own."""

    folder: Path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Starts `proctor` as it is installed beside this Python, with pipes for its output."""
        environment = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("proctor")), *arguments],
            env={**environment, "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def find_left(self) -> list[str]:
        """What is still there: files, and processes that name the folder in their arguments or environment."""
        return [*map(str, self.folder.iterdir()), *(" ".join(words) for words in self._processes())]

    def _processes(self) -> Iterator[list[str]]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = [*process.cmdline(), *process.environ().values()]
                if any(str(self.folder) in word for word in words):
                    yield process.cmdline()


@dataclass(frozen=True)
class Shown:
    """What the demo printed, and how it ended."""

    stdout: str
    stderr: str
    code: int

    @property
    def callbacks(self) -> list[tuple[int, str, str, str]]:
        """Sequence, type, level and scenario of each callback with a right signature, as they arrived."""
        found = (CALLBACK.fullmatch(line) for line in self.stdout.splitlines())
        return [(int(one[1]), one[2], one[3], one[4]) for one in found if one]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with short_folder() as folder:
        yield Place(folder)


def scenarios() -> list[str]:
    [project] = yaml.safe_load((find_example() / "proctor.yaml").read_text())["projects"]
    return [scenario["name"] for scenario in project["scenarios"]]


@pytest.fixture(scope="module")
def shown(place: Place) -> Shown:
    with place.start("demo") as process:
        try:
            stdout, stderr = process.communicate(timeout=DEMO_TIMEOUT)
        finally:
            # It ends its children, which a kill would leave to themselves.
            process.terminate()
    return Shown(stdout, stderr, process.returncode)


def test_the_demo_ends_with_the_code_of_failed_tests_and_says_that_this_is_expected(shown: Shown) -> None:
    assert shown.code == 1, shown.stderr
    assert shown.stdout.splitlines()[-1].startswith("Exit code 1, as expected:"), shown.stdout


def test_every_scenario_is_told_by_a_callback_in_order_with_a_right_signature(shown: Shown) -> None:
    sequence = [callback[0] for callback in shown.callbacks]
    types = [callback[1] for callback in shown.callbacks]
    assert sequence == list(range(1, len(scenarios()) + 3))
    assert types == ["execution.started", *["test.finished"] * len(scenarios()), "execution.finished"]
    assert sorted(callback[3] for callback in shown.callbacks[1:-1]) == sorted(
        f"{name} · chrome" for name in scenarios()
    )
    assert shown.callbacks[-1][2:] == ("FAILURE", "smoke")
    assert "SIGNATURE WRONG" not in shown.stdout


def test_one_scenario_fails_for_its_reason_and_a_flaky_one_passes_when_tried_again(shown: Shown) -> None:
    levels = Counter(callback[2] for callback in shown.callbacks[1:-1])
    assert levels == {"SUCCESS": len(scenarios()) - 1, "FAILURE": 1}
    failed, flaky = shown.stdout.partition("Failed:")[2].split("Flaky, passed when tried again:")
    assert EXPECTED_TO_FAIL in failed
    assert "FAILURE after 2 attempts: AssertionError" in failed
    assert "recommends something to a new shopper · chrome: passed at attempt 2" in flaky
    assert f"{len(scenarios())} jobs: {len(scenarios()) - 1} passed (1 flaky), 1 failed" in shown.stdout


def test_the_demo_shows_its_steps_on_stderr_without_commanding_a_terminal(shown: Shown) -> None:
    assert "Signed in as the user ci" in shown.stderr
    assert "GET /Testinium.RestApi/api/plans/smoke/run?callbackUrl=http://127.0.0.1:" in shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr


@pytest.mark.usefixtures("shown")
def test_nothing_is_left_of_the_demo(place: Place) -> None:
    assert place.find_left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_demo_that_was_interrupted_while_tests_run(place: Place, number: signal.Signals) -> None:
    with place.start("demo") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if CALLBACK.match(line):
                break
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the demo was interrupted; it has ended all that it started" in stderr
    assert place.find_left() == []


def test_a_demo_whose_server_does_not_start_shows_why(place: Place) -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        process = place.start("demo", "--port", str(taken.getsockname()[1]))
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (3, "")
    assert "The last lines of the log of `proctor up`:\nproctor: Cannot listen on 127.0.0.1:" in stderr
    assert place.find_left() == []
