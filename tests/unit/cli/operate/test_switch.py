from __future__ import annotations

import json

import pytest

from orchestrator.api import client
from orchestrator.api.types import SwitchResult, TargetName
from orchestrator.cli.operate.switch import report
from orchestrator.cli.waiting import until_switched
from orchestrator.core.errors import OrchError, TimedOutError

OLD = TargetName(profile="old", engine="upstream")
NEW = TargetName(profile="new", engine="ik-fork")
DONE: SwitchResult = {
    "ok": True, "from": OLD, "to": NEW, "rolled_back": False, "held_requests": 2, "gap_s": 0.31, "total_s": 2.0,
    "strategy": "replace", "cause": None,
}  # fmt: skip
FAILED: SwitchResult = {**DONE, "ok": False, "rolled_back": True, "cause": "the model file is not there"}


def test_a_switch_that_went_well_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(DONE, as_json=False) == 0
    assert capsys.readouterr().out == "switched to new@ik-fork: 2 requests held, gap 0.31 s (replace)\n"


def test_a_switch_that_failed_says_why_and_what_serves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OrchError) as caught:
        report(FAILED, as_json=False)

    assert caught.value.message == "the switch to new@ik-fork failed: the model file is not there"
    assert caught.value.details == ("rolled back: old@upstream serves",)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("result", [DONE, FAILED], ids=["done", "failed"])
def test_the_result_is_printed_as_json_whatever_it_is(result: SwitchResult, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        report(result, as_json=True)
    except OrchError:
        assert not result["ok"]

    assert json.loads(capsys.readouterr().out) == result


def test_a_switch_is_followed_to_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"result": None, "progress": "draining"}, {"result": DONE, "progress": ""}])
    asked: list[str] = []

    def request(path: str, target: str, body: bytes | None = None, *, timeout_s: float = 30.0) -> bytes:
        asked.append(target)
        return json.dumps(next(answers)).encode()

    monkeypatch.setattr(client, "request", request)
    assert until_switched("socket", "op-1", 60.0) == DONE
    assert asked == ["/v1/switch?operation=op-1&wait_s=0.5"] * 2


def test_a_switch_that_takes_too_long_goes_on_without_us(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"result": None, "progress": "loading"}).encode()
    monkeypatch.setattr(client, "request", lambda *_, **__: answer)
    with pytest.raises(TimedOutError, match="it goes on") as caught:
        until_switched("socket", "op-1", 0.0)

    assert caught.value.hint is not None and "--cancel" in caught.value.hint
