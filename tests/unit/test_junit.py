"""JUnit XML in Surefire's form, judged by parsing back what was written."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.cli.junit import JunitAttempt, JunitExecution, JunitJob, write_junit
from proctor.errors import UsageError

PASSED = JunitAttempt("passed", seconds=1.0)
FAILED = JunitAttempt("failed", "expected 2, found 1", "Traceback …\nAssertionError", 2.0)
BROKEN = JunitAttempt("broken", "no such element", "NoSuchElementException", 0.5)
LOST = JunitAttempt("infrastructure", "the driver died", "", 0.1)


def parsed(file: Path | io.BytesIO) -> ElementTree.Element:
    return ElementTree.parse(file).getroot()  # noqa: S314 (our own)


def written(folder: Path, *jobs: JunitJob) -> ElementTree.Element:
    file = folder / "report.xml"
    write_junit(JunitExecution("smoke #7", jobs), file)
    return parsed(file)


def job(*attempts: JunitAttempt, skipped: str | None = None) -> JunitJob:
    return JunitJob("pays by card", "LINUX / Chrome 156", 3.5, attempts, skipped)


def children(root: ElementTree.Element) -> list[str]:
    [case] = root.iter("testcase")
    return [child.tag for child in case]


def test_a_job_that_passed_has_no_children(tmp_path: Path) -> None:
    root = written(tmp_path, job(PASSED))

    [case] = root.iter("testcase")
    assert case.attrib == {"name": "pays by card", "classname": "LINUX / Chrome 156", "time": "3.5"}
    assert children(root) == []


def test_a_job_that_failed_then_passed_is_a_passing_case_with_flaky_failures(tmp_path: Path) -> None:
    root = written(tmp_path, job(FAILED, BROKEN, PASSED))

    assert children(root) == ["flakyFailure", "flakyError"]
    [flaky] = root.iter("flakyFailure")
    assert flaky.attrib == {"message": "expected 2, found 1", "type": "failed"}
    assert flaky.findtext("stackTrace") == "Traceback …\nAssertionError"
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "0")


def test_a_job_that_failed_each_time_has_one_failure_and_reruns(tmp_path: Path) -> None:
    root = written(tmp_path, job(FAILED, FAILED, BROKEN))

    assert children(root) == ["failure", "rerunFailure", "rerunError"]
    [failure] = root.iter("failure")
    assert failure.attrib == {"message": "expected 2, found 1", "type": "failed"}
    assert failure.text == "Traceback …\nAssertionError"
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "1", "0")


def test_a_job_that_broke_is_an_error(tmp_path: Path) -> None:
    root = written(tmp_path, job(BROKEN, BROKEN))

    assert children(root) == ["error", "rerunError"]
    assert (root.get("failures"), root.get("errors")) == ("0", "1")


def test_every_rerun_has_the_stack_trace_that_the_schema_wants(tmp_path: Path) -> None:
    root = written(tmp_path, job(FAILED, JunitAttempt("failed", "again")))

    [rerun] = root.iter("rerunFailure")
    assert rerun.find("stackTrace") is not None


def test_machinery_that_failed_before_does_not_make_a_job_flaky(tmp_path: Path) -> None:
    assert children(written(tmp_path, job(LOST, PASSED))) == []
    assert children(written(tmp_path, job(LOST, FAILED))) == ["failure"]


def test_machinery_that_failed_each_time_is_an_error(tmp_path: Path) -> None:
    root = written(tmp_path, job(LOST, LOST))

    assert children(root) == ["error", "rerunError"]
    [error] = root.iter("error")
    assert error.get("type") == "infrastructure"


def test_a_job_that_was_stopped_or_not_executed_is_skipped_with_the_reason(tmp_path: Path) -> None:
    root = written(tmp_path, job(FAILED, skipped="STOPPED: ada stopped the execution"))

    assert children(root) == ["skipped"]
    [skipped] = root.iter("skipped")
    assert skipped.get("message") == "STOPPED: ada stopped the execution"
    [suite] = root.iter("testsuite")
    assert suite.get("skipped") == "1"


def test_a_job_without_any_attempt_is_an_error_and_never_a_pass(tmp_path: Path) -> None:
    assert children(written(tmp_path, job())) == ["error"]


def test_the_suite_counts_all_jobs(tmp_path: Path) -> None:
    root = written(tmp_path, job(PASSED), job(FAILED), job(BROKEN), job(FAILED, PASSED), job(skipped="UNEXECUTED"))

    [suite] = root.iter("testsuite")
    counted = {name: suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped", "time")}
    assert counted == {
        "name": "smoke #7",
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "17.5",
    }


def test_what_xml_cannot_hold_is_removed_and_the_rest_is_kept(tmp_path: Path) -> None:
    message = "\x1b[31mred\x1b[0m \x00\x0b\ufffe\ud800 <&>\"' ]]> Köln 😀"
    root = written(tmp_path, job(JunitAttempt("failed", message, message)))

    [failure] = root.iter("failure")
    assert failure.get("message") == failure.text == "red  <&>\"' ]]> Köln 😀"


@given(st.text(st.characters(), max_size=50))
def test_any_text_makes_a_report_that_can_be_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-text"
    execution = JunitExecution(text, [JunitJob(text, text, 0.1, [JunitAttempt("failed", text, text)])])
    write_junit(execution, folder / "report.xml")

    assert parsed(folder / "report.xml").tag == "testsuites"


def test_an_old_report_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "report.xml"
    for attempt in (FAILED, PASSED):
        write_junit(JunitExecution("smoke", [job(attempt)]), file)

    assert children(parsed(file)) == []
    assert [path.name for path in file.parent.iterdir()] == ["report.xml"]


def test_others_may_read_the_report_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        written(tmp_path, job(PASSED))
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "report.xml").stat().st_mode) == 0o644


def test_a_link_to_a_report_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target.xml"
    target.write_text("old")
    (tmp_path / "report.xml").symlink_to(target)
    written(tmp_path, job(PASSED))

    assert (tmp_path / "report.xml").is_symlink()
    assert parsed(target).tag == "testsuites"


def test_a_report_can_go_to_standard_output() -> None:
    program = (
        "from pathlib import Path; from proctor.cli.junit import *;"
        "write_junit(JunitExecution('smoke', [JunitJob('a', 'b', 1.0, [JunitAttempt('passed')])]), Path('/dev/stdout'))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert parsed(io.BytesIO(ended.stdout)).get("tests") == "1"


def test_a_place_that_cannot_be_written_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="File exists"):
        write_junit(JunitExecution("smoke", []), tmp_path / "file" / "report.xml")
    with pytest.raises(UsageError, match="Is a directory"):
        write_junit(JunitExecution("smoke", []), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
