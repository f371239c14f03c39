"""The pages in a real Chromium, of the installed command with real workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

PASSWORD = "a long password"
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
WAIT = 30.0

# $1 is the scenario's source: what it shall do. The gate is a socket, because the sandbox hides files.
COMMAND = """
report() {
    echo "<testsuite><testcase name='t' classname='c'>$1</testcase></testsuite>" > "$PROCTOR_REPORT_DIR/r.xml"
}
case "$1" in
    gated)
        python3 -c "import os, socket; socket.create_connection(('127.0.0.1', int(os.environ['GATE']))).recv(1)"
        report "" ;;
    hostile)
        cat hostile.txt
        report "$(cat failure.xml)"
        exit 1 ;;
    *) report "" ;;
esac
"""
FAILURE = (
    '<failure message="&lt;script&gt;window.pwned = 1&lt;/script&gt;">'
    "&lt;img src=x onerror='window.pwned = 1'&gt;</failure>"
)


@dataclass(frozen=True)
class Proctor:
    """A running `proctor up`."""

    url: str
    token: str

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def run(self, plan: str) -> int:
        return int(self.call("GET", f"/Testinium.RestApi/api/plans/{plan}/run")["execution_id"])


@contextmanager
def up(data: Path) -> Iterator[Proctor]:
    """The installed command on a fresh data folder; on leaving, asserts that no process of it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proctor.cli", "up", "--data", str(data), "--port", "0"],
        env={**os.environ, "PROCTOR_ADMIN_PASSWORD": PASSWORD},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        try:
            greeting = said.readline()
            assert greeting.startswith("Proctor is ready at "), greeting
            family = psutil.Process(process.pid).children(recursive=True)
            yield Proctor(greeting.split()[-1], (data / "admin.token").read_text().strip())
        finally:
            code = end(process)
    assert code == 0
    assert [child for child in family if child.is_running()] == []


def end(process: subprocess.Popen[str]) -> int:
    """The exit code after Ctrl-C; one that does not end in time is killed, and fails the test."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A short path: PostgreSQL listens on a socket in it.
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def gate() -> Iterator[socket.socket]:
    """Tests of the plan that are `gated` wait until somebody accepts them here and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT)
        yield listener


@pytest.fixture(scope="module")
def proctor(folder: Path, gate: socket.socket) -> Iterator[Proctor]:
    repository = folder / "repository"
    repository.mkdir()
    (repository / "hostile.txt").write_text(f"{HOSTILE}\n")
    (repository / "failure.xml").write_text(FAILURE)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(repository)]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "tests"]):
        subprocess.run([*git, *arguments], check=True)
    sources = {"opens the gate": "gated", "writes <b>markup</b>": "hostile", "passes": "fine"}
    with up(folder / "data") as running:
        project = {
            "name": "shop",
            "repository": str(repository),
            "branch": "main",
            "framework": "SERVICE",
            "runner": "command",
            "command": COMMAND,
            "scenarios": [{"name": name, "source": source} for name, source in sources.items()],
            "plans": [{"name": "smoke", "parallel": 4, "parameters": {"GATE": str(gate.getsockname()[1])}}],
        }
        running.call("POST", "/api/v1/apply", {"company": "Acme", "projects": [project]})
        yield running


@pytest.fixture
def chromium(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[webdriver.Chrome]:
    """A browser; on leaving, asserts that its console says nothing: no error, and no violation of the policy."""
    monkeypatch.setenv("TMPDIR", str(folder))
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
        assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]  # upstream has no types here
    finally:
        driver.quit()


def sign_in(driver: webdriver.Chrome, proctor: Proctor, path: str = "/") -> None:
    driver.get(proctor.url + path)
    driver.find_element(By.ID, "username").send_keys("admin")
    driver.find_element(By.ID, "password").send_keys(PASSWORD)
    driver.find_element(By.CSS_SELECTOR, "main button").click()
    until(driver, lambda: driver.current_url == proctor.url + path)


def until(driver: webdriver.Chrome, holds: Callable[[], object]) -> None:
    # An update may replace an element between finding and reading it.
    wait = WebDriverWait(driver, WAIT, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: holds())


def row_text(driver: webdriver.Chrome, scenario: str) -> str:
    rows = driver.find_elements(By.CSS_SELECTOR, "#jobs tr")
    return next(text for text in (row.text for row in rows) if scenario in text)


def counts(driver: webdriver.Chrome) -> str:
    return driver.find_element(By.CSS_SELECTOR, ".counts").text.replace("\n", " ")


def release(gate: socket.socket) -> None:
    connection, _ = gate.accept()
    connection.close()


def is_untouched(driver: webdriver.Chrome) -> bool:
    """No script but ours has run."""
    return bool(driver.execute_script("return window.pwned === undefined"))


def test_an_execution_is_followed_without_a_reload(
    proctor: Proctor, gate: socket.socket, chromium: webdriver.Chrome
) -> None:
    execution_id = proctor.run("smoke")
    sign_in(chromium, proctor, f"/executions/{execution_id}")
    chromium.execute_script("window.mark = 'the page of the beginning'")

    until(chromium, lambda: "2 ended" in counts(chromium))
    assert "Failure" in row_text(chromium, "writes <b>markup</b>")
    assert "<script>window.pwned" in row_text(chromium, "writes <b>markup</b>")
    assert "Success" in row_text(chromium, "passes")
    assert "Processing" in row_text(chromium, "opens the gate")
    assert chromium.title == "2/3 · smoke · Proctor"

    release(gate)
    until(chromium, lambda: "Success" in row_text(chromium, "opens the gate"))
    until(chromium, lambda: chromium.title == "✗ Failure · smoke · Proctor")
    assert "3 ended" in counts(chromium)
    assert "finished" in chromium.find_element(By.ID, "summary").text
    assert chromium.execute_script("return window.mark") == "the page of the beginning"
    assert is_untouched(chromium)


def test_the_focus_stays_where_it_was_when_a_row_changes(
    proctor: Proctor, gate: socket.socket, chromium: webdriver.Chrome
) -> None:
    execution_id = proctor.run("smoke")
    sign_in(chromium, proctor, f"/executions/{execution_id}")
    until(chromium, lambda: "2 ended" in counts(chromium))
    # In one step: the row of a job under way is replaced at each look, and may be between finding it and using it.
    chromium.execute_script("[...document.links].find(link => link.innerText === 'opens the gate').focus()")
    focused = "return document.activeElement.innerText"
    assert chromium.execute_script(focused) == "opens the gate"

    release(gate)

    until(chromium, lambda: "Success" in row_text(chromium, "opens the gate"))
    assert chromium.execute_script(focused) == "opens the gate"


def test_without_scripts_a_reload_shows_how_it_goes(
    proctor: Proctor, gate: socket.socket, chromium: webdriver.Chrome
) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    execution_id = proctor.run("smoke")
    sign_in(chromium, proctor, f"/executions/{execution_id}")

    def reloaded() -> str:
        chromium.refresh()
        return counts(chromium)

    until(chromium, lambda: "1 running" in reloaded() and "2 ended" in counts(chromium))
    release(gate)
    until(chromium, lambda: "3 ended" in reloaded())


def test_a_failed_job_shows_its_error_and_log_as_text(
    proctor: Proctor, gate: socket.socket, chromium: webdriver.Chrome
) -> None:
    execution_id = proctor.run("smoke")
    release(gate)
    sign_in(chromium, proctor, f"/executions/{execution_id}")
    until(chromium, lambda: "3 ended" in counts(chromium))
    chromium.find_element(By.LINK_TEXT, "writes <b>markup</b>").click()

    until(chromium, lambda: "/results/" in chromium.current_url)
    assert chromium.find_element(By.TAG_NAME, "h1").text == "writes <b>markup</b>"
    assert chromium.find_element(By.CSS_SELECTOR, ".reason").text == "<script>window.pwned = 1</script>"
    assert "<img src=x" in chromium.find_element(By.CSS_SELECTOR, "details pre").text
    assert HOSTILE in chromium.find_element(By.CSS_SELECTOR, "pre.log").text
    assert is_untouched(chromium)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_fit_a_phone(proctor: Proctor, gate: socket.socket, chromium: webdriver.Chrome, theme: str) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    preferred = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
    execution_id = proctor.run("smoke")
    release(gate)
    sign_in(chromium, proctor, f"/executions/{execution_id}")
    until(chromium, lambda: "3 ended" in counts(chromium))
    job = chromium.find_element(By.LINK_TEXT, "writes <b>markup</b>").get_attribute("href") or ""

    for address in (chromium.current_url, job, proctor.url + "/"):
        chromium.get(address)
        assert chromium.execute_script("return document.documentElement.scrollWidth") == phone["width"], address
        assert lowest_contrast(chromium) >= 4.5, address


def lowest_contrast(driver: webdriver.Chrome) -> float:
    """Of all text that is seen, by WCAG's formula."""
    return float(driver.execute_script(_LOWEST_CONTRAST))


_LOWEST_CONTRAST = """
const channels = color => color.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const background = element => {
    for (let at = element; at; at = at.parentElement) {
        const found = channels(getComputedStyle(at).backgroundColor);
        if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
};
const texts = [...document.querySelectorAll('main *')].filter(element =>
    element.checkVisibility() && [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
return Math.min(...texts.map(element => {
    const [low, high] = [channels(getComputedStyle(element).color), background(element)].map(luminance)
        .sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}));
"""


def test_signing_out_leads_back_to_the_form(proctor: Proctor, chromium: webdriver.Chrome) -> None:
    sign_in(chromium, proctor)
    chromium.find_element(By.CSS_SELECTOR, "header button").click()
    until(chromium, lambda: chromium.current_url == proctor.url + "/sign-in")
    chromium.get(proctor.url + "/")
    assert chromium.current_url == proctor.url + "/sign-in"
