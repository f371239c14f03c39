import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proctor.recorder.commands import Command, CommandLog, Recorded, cut
from proctor.recorder.w3c_errors import Answer, W3CError, failure, success

AT = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)


def recorded(path: str = "/session/1f/url", body: bytes = b"{}", answer: Answer | None = None) -> Recorded:
    answer = answer or success(None)
    return Recorded(Command("POST", path, body), answer, "1f", AT, timedelta(milliseconds=12.34))


def test_a_line_tells_command_answer_and_times() -> None:
    assert json.loads(recorded(body=b'{"url": "x"}').line()) == {
        "method": "POST",
        "path": "/session/1f/url",
        "session_id": "1f",
        "request": '{"url": "x"}',
        "response": '{"value": null}',
        "status": 200,
        "level": "SUCCESS",
        "start_at": "2026-01-02T03:04:05.678Z",
        "end_at": "2026-01-02T03:04:05.691Z",
        "runtime_ms": 12.3,
    }


def test_a_failed_command_tells_its_error() -> None:
    line = json.loads(recorded(answer=failure(W3CError.INVALID_ARGUMENT, "no url")).line())
    assert (line["status"], line["level"], line["error"]) == (400, "ERROR", "invalid argument: no url")


@pytest.mark.parametrize("path", ["/session/1f/screenshot", "/session/1f/element/e/screenshot", "/session/1f/print"])
def test_pictures_are_not_kept_but_their_errors_are(path: str) -> None:
    assert json.loads(recorded(path, answer=success("QUJD")).line())["response"] == "[not kept: 17 bytes of base64]"
    failed = json.loads(recorded(path, answer=failure(W3CError.UNKNOWN_ERROR, "no tab")).line())
    assert "no tab" in failed["response"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"12345678", "12345678"),
        (b"123456789", "12345678… [cut: 9 bytes in all]"),
        ("1234567ü".encode(), "1234567\ufffd… [cut: 9 bytes in all]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_a_long_body_is_cut_with_a_mark(body: bytes, text: str) -> None:
    assert cut(body, 8) == text


def test_request_response_and_error_are_cut_at_4_kib() -> None:
    long = recorded(body=b"q" * 5000, answer=failure(W3CError.UNKNOWN_ERROR, "m" * 5000))
    line = json.loads(long.line())
    for part in ("request", "response", "error"):
        assert len(line[part]) < 4200
        assert "[cut: 50" in line[part]


@pytest.mark.parametrize("body", [b"line\nbreak", "\u2028\x00".encode(), b'"\\', b"\xed\xa0\x80"])
def test_a_line_is_one_line_whatever_the_body_holds(body: bytes) -> None:
    line = recorded(body=body).line()
    assert line.count(b"\n") == 1
    assert json.loads(line)["request"] == body.decode(errors="replace")


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = CommandLog(tmp_path / "commands.jsonl")
    for count in (1, 2):
        log.add(recorded())
        assert len((tmp_path / "commands.jsonl").read_bytes().splitlines()) == count
    log.close()


def test_a_full_log_says_so_once_and_grows_no_more(tmp_path: Path) -> None:
    limit = 3 * len(recorded().line()) + 10
    log = CommandLog(tmp_path / "commands.jsonl", limit=limit)
    for _ in range(10):
        log.add(recorded())
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "commands.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 4
    assert "size limit" in lines[-1]["error"]


def test_a_log_is_gone_on_with_and_its_limit_holds(tmp_path: Path) -> None:
    limit = 2 * len(recorded().line()) + 10
    for _ in range(5):
        log = CommandLog(tmp_path / "commands.jsonl", limit=limit)
        log.add(recorded())
        log.close()
    assert (tmp_path / "commands.jsonl").stat().st_size < limit + 200


def test_what_comes_after_closing_is_dropped(tmp_path: Path) -> None:
    log = CommandLog(tmp_path / "commands.jsonl")
    log.close()
    log.add(recorded())
    assert (tmp_path / "commands.jsonl").read_bytes() == b""


def test_a_full_disk_does_not_fail_the_command(caplog: pytest.LogCaptureFixture) -> None:
    log = CommandLog(Path("/dev/full"))
    log.add(recorded())
    log.add(recorded())
    log.close()
    assert [record.message for record in caplog.records if "cannot be written" in record.message] != []


def test_a_secret_is_kept_out(tmp_path: Path) -> None:
    log = CommandLog(tmp_path / "commands.jsonl", secret="0badcafe")
    log.add(recorded(body=b'{"se:remoteUrl": "http://127.0.0.1:1/0badcafe"}'))
    log.close()
    assert b"0badcafe" not in (tmp_path / "commands.jsonl").read_bytes()
