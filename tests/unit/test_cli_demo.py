"""The parts of `proctor demo`: its receiver of callbacks, and its stage."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from standardwebhooks.webhooks import Webhook

from proctor.cli import demo
from proctor.cli.receiver import Callback, Callbacks, open_receiver
from proctor.ports.sender import new_secret


def body(sequence: int, type_: str, **result: Any) -> bytes:
    data = {"sequence": sequence, "execution": {"plan_name": "smoke", "status": "RUNNING"}}
    return json.dumps({"type": type_, "data": {**data, **({"test_result": result} if result else {})}}).encode()


def signed(raw: bytes, secret: str) -> dict[str, str]:
    at = datetime.now(UTC)
    signature = Webhook(secret).sign("evt_1", at, raw.decode())
    return {"webhook-id": "evt_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


async def test_the_receiver_tells_a_right_signature_from_a_wrong_one(capsys: pytest.CaptureFixture[str]) -> None:
    secret = new_secret()
    first, second = body(1, "execution.started"), body(2, "test.finished", scenario_name="pays", level="SUCCESS")
    last = body(3, "execution.finished")
    async with open_receiver(secret) as receiver, aiohttp.ClientSession() as session:
        for raw, key in ((first, secret), (second, new_secret()), (last, secret)):
            async with session.post(receiver.url, data=raw, headers=signed(raw, key)) as answer:
                assert answer.status == 204
        async with session.post(receiver.url, data=last) as answer:
            assert answer.status == 204
        await receiver.wait_for_end(timedelta(seconds=1))
    assert [callback.signed for callback in receiver.callbacks.received] == [True, False, True, False]
    assert capsys.readouterr().out.splitlines()[:2] == [
        "callback   1  execution.started   signature ok  RUNNING     smoke",
        "callback   2  test.finished       SIGNATURE WRONG  SUCCESS     pays",
    ]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"type": "x", "data": 1}', b"\xff"])
async def test_the_receiver_refuses_what_is_no_callback(raw: bytes) -> None:
    async with open_receiver(new_secret()) as receiver, aiohttp.ClientSession() as session:
        answer = await session.post(receiver.url, data=raw)
        assert answer.status == 400
        answer.release()
    assert receiver.callbacks.received == []


def arrived(*sequence: int, signed: bool = True, ended: bool = True) -> Callbacks:
    found = [Callback(number, "test.finished", "", "", signed) for number in sequence]
    return Callbacks([*found, Callback(len(found) + 1, "execution.finished", "", "", signed)] if ended else found)


def test_callbacks_must_arrive_in_order_signed_and_to_the_end() -> None:
    assert arrived(1, 2, 3).find_wrong() == []
    assert arrived(1, 3, 2).find_wrong() == ["they arrived in the order 1, 3, 2, 4"]
    assert arrived(1, 2, ended=False).find_wrong() == ["execution.finished did not arrive"]
    assert arrived(1, signed=False).find_wrong() == ["the signature of 1, 2 is wrong"]


async def test_the_repository_is_the_same_each_time_whatever_the_callers_git_is_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[commit]\n\tgpgsign = true\n[init]\n\tdefaultBranch = trunk\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    made = [await demo.make_repository(demo.find_example(), tmp_path / name) for name in ("a", "b")]
    monkeypatch.delenv("GIT_DIR")
    heads = {(one / ".git" / "refs" / "heads" / "main").read_text() for one in made}
    assert len(heads) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_the_scenario_that_is_expected_to_fail_is_one_of_the_plans() -> None:
    project = yaml.safe_load((demo.find_example() / "proctor.yaml").read_text())["projects"][0]
    assert demo.EXPECTED_TO_FAIL in [scenario["name"] for scenario in project["scenarios"]]
    assert [plan["name"] for plan in project["plans"]] == [demo.PLAN]


def test_the_callers_database_and_data_folder_are_no_business_of_the_demo() -> None:
    assert not demo._passes_on("PROCTOR_DATABASE_URL")
    assert not demo._passes_on("PROCTOR_DATA")
    assert not demo._passes_on("PROCTOR_HOST")
    assert demo._passes_on("PROCTOR_SANDBOX")
    assert demo._passes_on("PATH")
