import os
from pathlib import Path

import pytest

from proctor.domain.verdict import DETAIL_LIMIT, Case, CaseStatus
from proctor.errors import ReportBroken, ReportMissing
from proctor.worker.report import CASES_LIMIT, FILE_LIMIT, FILES_LIMIT, read_report

MINIMAL = '<testsuite><testcase name="a" classname="c" time="0.5"/></testsuite>'


def read(folder: Path) -> list[Case]:
    return read_report(folder, exit_code=1)


def one(folder: Path, case: str) -> Case:
    (folder / "junit.xml").write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    (only,) = read(folder)
    return only


def test_a_passed_case_has_name_class_and_seconds(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(MINIMAL)
    assert read(tmp_path) == [Case("a", "c", CaseStatus.PASSED, 0.5)]


def test_a_failure_has_its_message_and_its_stack_trace(tmp_path: Path) -> None:
    case = one(tmp_path, '<testcase name="a"><failure message="1 != 2">Trace&lt;b&gt;\nback</failure></testcase>')
    assert (case.status, case.message, case.detail) == (CaseStatus.FAILED, "1 != 2", "Trace<b>\nback")


def test_the_gravest_of_several_results_counts(tmp_path: Path) -> None:
    results = '<failure message="f">F</failure><error message="e">E</error><skipped message="s">S</skipped>'
    case = one(tmp_path, f'<testcase name="a">{results}</testcase>')
    assert (case.status, case.message, case.detail) == (CaseStatus.ERROR, "e", "E")


def test_what_a_flaky_test_did_before_it_passed_is_no_failure(tmp_path: Path) -> None:
    assert one(tmp_path, '<testcase name="a"><flakyFailure message="m"/></testcase>').status is CaseStatus.PASSED


def test_words_of_a_case_do_not_come_from_its_captured_output(tmp_path: Path) -> None:
    case = one(tmp_path, '<testcase name="a"><system-out>noise</system-out><failure>real</failure></testcase>')
    assert case.detail == "real"


def test_files_are_read_by_name_and_other_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text(MINIMAL.replace('"a"', '"second"'))
    (tmp_path / "a.XML").write_text(MINIMAL.replace('"a"', '"first"'))
    (tmp_path / "notes.txt").write_text("no XML")
    assert [case.name for case in read(tmp_path)] == ["first", "second"]


@pytest.mark.parametrize(("time", "seconds"), [("1,234.5", 1234.5), ("-1", 0), ("nan", 0), ("inf", 0), ("soon", 0)])
def test_a_strange_duration_is_read_or_counts_as_none(tmp_path: Path, time: str, seconds: float) -> None:
    assert one(tmp_path, f'<testcase name="a" time="{time}"/>').seconds == seconds


def test_a_long_stack_trace_is_cut(tmp_path: Path) -> None:
    case = one(tmp_path, f'<testcase name="a"><failure>{"x" * 2 * DETAIL_LIMIT}</failure></testcase>')
    assert len(case.detail or "") == DETAIL_LIMIT


def test_a_report_in_another_encoding_is_read(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><testsuite><testcase name="bé"/></testsuite>'
    (tmp_path / "junit.xml").write_bytes(text.encode("utf-16"))
    assert read(tmp_path)[0].name == "bé"


def test_a_missing_report_says_what_to_write_and_what_the_log_said_last(tmp_path: Path) -> None:
    with pytest.raises(ReportMissing) as caught:
        read_report(tmp_path, exit_code=7, last_line="segmentation fault")
    for part in ("exit code 7", "segmentation fault", "$PROCTOR_REPORT_DIR"):
        assert part in caught.value.detail


BROKEN = {
    "cut short": (MINIMAL[:-5].encode(), "not well-formed"),
    "empty": (b"", "not well-formed"),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><testsuite/>', "junit.xml"),
    "doctype": (b"<!DOCTYPE testsuite><testsuite/>", "DOCTYPE"),
    "external entity": (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "DOCTYPE"),
    "doctype in UTF-16": ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16"), "DOCTYPE"),
    "too large": (b"<a>" + b" " * FILE_LIMIT + b"</a>", "larger than 10 MiB"),
    "too many cases": (b"<a>" + b"<testcase/>" * (CASES_LIMIT + 1) + b"</a>", "more than 20000 cases"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_report_is_refused_with_its_name_and_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "junit.xml").write_bytes(content)
    with pytest.raises(ReportBroken) as caught:
        read(tmp_path)
    assert "junit.xml" in caught.value.detail
    assert reason in caught.value.detail


def test_deeply_nested_elements_are_no_trouble(tmp_path: Path) -> None:
    depth = 200_000
    (tmp_path / "junit.xml").write_text("<a>" * depth + '<testcase name="deep"/>' + "</a>" * depth)
    assert [case.name for case in read(tmp_path)] == ["deep"]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(MINIMAL)
    report = tmp_path / "report"
    report.mkdir()
    (report / "junit.xml").symlink_to(tmp_path / "secret")
    with pytest.raises(ReportBroken, match="symbolic link"):
        read(report)


def test_a_folder_that_was_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "junit.xml").write_text(MINIMAL)
    (tmp_path / "report").symlink_to(tmp_path / "real")
    with pytest.raises(ReportBroken, match="folder cannot be read"):
        read(tmp_path / "report")


def test_a_pipe_without_a_writer_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "junit.xml")
    with pytest.raises(ReportBroken, match="not a regular file"):
        read(tmp_path)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    for number in range(FILES_LIMIT + 1):
        (tmp_path / f"{number}.xml").write_text(MINIMAL)
    with pytest.raises(ReportBroken, match="more than 200 files"):
        read(tmp_path)
