"""A run as its users see it: curl as in the seed, a real browser, a real receiver, and every way to break."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver import receiving
from running import PASSWORD, B, Proctor, alive, make_repository, short_folder, until, up

REQUIREMENTS = "pytest\nselenium\n"
BROWSER_TESTS = """
import os
from selenium import webdriver
from selenium.webdriver.common.by import By

PAGE = "data:text/html,<title>A shop</title><h1>Welcome</h1><p>Total: 41</p>"


def browser():
    driver = webdriver.Remote(os.environ["SELENIUM_REMOTE_URL"], options=webdriver.ChromeOptions())
    driver.get(PAGE)
    return driver


def test_shows_its_title():
    assert browser().title == "A shop"  # leaves its session open: the recorder closes it


def test_asks_for_the_right_total():
    driver = browser()
    try:
        assert driver.find_element(By.TAG_NAME, "p").text == "Total: 42"
    finally:
        driver.quit()
"""
SERVICE_TESTS = """
import os, subprocess, time

def test_passes():
    pass

def test_hangs():
    subprocess.Popen(["setsid", "sleep", "600"])
    time.sleep(600)

def test_sees_only_its_own():
    assert os.environ["OWN"] == "mine"
    secret = ("DATABASE", "TOKEN", "PASSWORD", "SECRET")
    assert not [name for name in os.environ if any(word in name for word in secret)]
    assert not os.path.exists(os.environ["DATA"] + "/admin.token")
"""
BROKEN_REPORT = "echo '<testsuite><testcase' > $PROCTOR_REPORT_DIR/r.xml"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture(scope="module")
def proctor(folder: Path) -> Iterator[Proctor]:
    with up(folder / "data", SECRET_OF_THE_SERVER="hush") as running:
        shop = {
            "name": "shop",
            "repository": str(
                make_repository(folder / "shop", {"requirements.txt": REQUIREMENTS, "test_shop.py": BROWSER_TESTS})
            ),
            "framework": "SELENIUM",
            "runner": "pytest",
            "setup": "uv pip install -r requirements.txt",
            "scenarios": [
                {"name": "shows its title", "source": "test_shop.py", "select": "test_shows_its_title"},
                {"name": "asks for the total", "source": "test_shop.py", "select": "test_asks_for_the_right_total"},
            ],
            "plans": [{"name": "browser", "environments": ["chrome"], "parallel": 2, "retries": 1}],
        }
        chrome = {"name": "chrome", "os": "LINUX", "browser": "chrome", "resolution": "1280x800"}
        user = {"username": "ci", "password": PASSWORD, "roles": ["ROLE_USER", "ROLE_RUN_TEST"]}
        manifest = {"company": "Acme", "users": [user], "environments": [chrome], "projects": [shop]}
        secret = running.call("POST", "/api/v1/apply", manifest)["callback_secret"]
        (folder / "secret").write_text(secret)
        yield running


def curl(*arguments: str) -> Any:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


def sign_in(proctor: Proctor) -> str:
    fields = ["-d", "grant_type=password", "-d", "username=ci", "--data-urlencode", f"password={PASSWORD}"]
    token: str = curl("-u", "client1:client1", *fields, f"{proctor.url}/Testinium.RestApi/oauth/token")["access_token"]
    return token


async def test_curl_starts_a_plan_whose_browser_tests_run_and_whose_caller_is_told(
    proctor: Proctor, folder: Path
) -> None:
    token = await asyncio.to_thread(sign_in, proctor)
    headers = ["-H", f"Authorization: Bearer {token}", "-H", "Accept: application/json"]
    async with receiving() as receiver:
        run = f"{proctor.url}{B}/plans/browser/run?callbackUrl={receiver.url}"
        answer = await asyncio.to_thread(curl, "-X", "GET", run, *headers)
        assert answer["successful"] is True
        assert answer["unavailable_env_list"] == []
        told = await receiver.wait(4, timeout=120)
    secret = (folder / "secret").read_text()
    for one in told:
        one.verify(secret)
    assert receiver.sequences == [1, 2, 3, 4]
    types = ["execution.started", "test.finished", "test.finished", "execution.finished"]
    assert [one.body["type"] for one in told] == types
    assert told[-1].body["data"]["execution"]["status"] == "FAILURE"

    execution = curl(*headers, f"{proctor.url}{B}/testExecutions/{answer['execution_id']}")
    assert execution["result_summary"] == {"SUCCESS": 1, "FAILURE": 1}
    failed = next(result for result in execution["test_results"] if result["level"] == "FAILURE")
    assert "Total: 41" in failed["message"]
    assert len(failed["attempts"]) == 2
    check_what_was_kept(headers, failed)


def check_what_was_kept(headers: list[str], failed: dict[str, Any]) -> None:
    """Log, screen and commands of each attempt, as the bearer downloads them."""
    for attempt in failed["attempts"]:
        kept = {
            name: subprocess.run(["curl", "-sS", *headers, url], capture_output=True, timeout=30, check=True).stdout
            for name, url in attempt["artifacts"].items()
        }
        assert b"1 failed" in kept["executor.log"]
        assert kept["screen.png"].startswith(b"\x89PNG")
        paths = [json.loads(line)["path"] for line in kept["commands.jsonl"].splitlines()]
        assert any(path.endswith("/url") for path in paths)


def service(proctor: Proctor, folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """A SERVICE project of one scenario and one plan, both of this name; runs it and gives its only job."""
    repository = folder / "service"
    if not repository.exists():
        make_repository(repository, {"test_service.py": SERVICE_TESTS, "requirements.txt": "pytest\n"})
    plan = {"name": name, "timeout": more.pop("timeout", "60s")}
    scenario = {"name": name, **{key: more.pop(key) for key in ("source", "select", "parameters") if key in more}}
    defaults = {"repository": str(repository), "framework": "SERVICE", "runner": "command"}
    proctor.apply({"name": name, **defaults, "scenarios": [scenario], "plans": [plan], **more})
    (job,) = proctor.run(name)["jobs"]
    return dict(job)


PYTEST = {"runner": "pytest", "setup": "uv pip install -r requirements.txt", "source": "test_service.py"}
BREAKS = {
    "set-up-fails": ({"runner": "pytest", "setup": "echo no such tool; exit 7", "source": "x.py"}, "no such tool"),
    "no-report": ({"command": "true"}, "$PROCTOR_REPORT_DIR"),
    "broken-report": ({"command": BROKEN_REPORT}, "r.xml"),
    "selects-nothing": ({**PYTEST, "select": "test_that_is_not_there"}, "test_that_is_not_there"),
    "no-repository": ({"repository": "https://127.0.0.1:1/nothing.git", "command": "true"}, "127.0.0.1:1/nothing.git"),
    "no-branch": ({"branch": "gone", "command": "true"}, "gone"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_ends_as_an_error_that_says_what_to_do(proctor: Proctor, folder: Path, name: str) -> None:
    more, said = BREAKS[name]
    job = service(proctor, folder, name, **more)
    assert job["level"] == "ERROR"
    assert said in job["message"]


def test_a_test_that_hangs_is_ended_with_all_that_it_started(proctor: Proctor, folder: Path) -> None:
    job = service(proctor, folder, "hangs", **PYTEST, select="test_hangs", timeout="3s")
    assert job["level"] == "ERROR"
    assert "timeout of 3 s" in job["message"]
    assert [one for one in proctor.child("worker").children(recursive=True) if one.name() == "sleep"] == []


def test_a_test_sees_its_parameters_and_nothing_of_the_server(proctor: Proctor, folder: Path) -> None:
    parameters = {"OWN": "mine", "DATA": str(proctor.data)}
    job = service(proctor, folder, "sees", **PYTEST, select="test_sees_only_its_own", parameters=parameters)
    assert job["level"] == "SUCCESS", job["message"]


def test_stop_ends_a_running_test_within_seconds_and_the_rest_never_starts(proctor: Proctor, folder: Path) -> None:
    repository = make_repository(folder / "stopped", {"README": "nothing"})
    proctor.apply(
        {
            "name": "stopped",
            "repository": str(repository),
            "framework": "SERVICE",
            "runner": "command",
            "command": "setsid sleep 600 & sleep 600",
            "scenarios": [{"name": "first"}, {"name": "second"}],
            "plans": [{"name": "stopped", "parallel": 1}],
        }
    )
    execution_id = proctor.start("stopped")
    worker = proctor.child("worker")
    until(lambda: [one for one in worker.children(recursive=True) if one.name() == "sleep"], 20)
    sleeping = worker.children(recursive=True)
    asked_at = time.monotonic()
    assert proctor.call("GET", f"{B}/plans/stopped/stop")["status"] == "SUCCESS"
    execution = proctor.finish(execution_id, timeout=15)
    assert time.monotonic() - asked_at < 15
    assert [job["level"] for job in execution["jobs"]] == ["STOPPED", "UNEXECUTED"]
    until(lambda: alive(sleeping) == [], 5)


def test_nothing_is_left_when_all_is_done(proctor: Proctor) -> None:
    worker = proctor.child("worker")
    until(lambda: worker.children(recursive=True) == [], 10)
    attempts = proctor.data / "work" / "attempts" / f"{os.uname().nodename}-{worker.pid}"
    assert list(attempts.iterdir()) == []
