from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.api.types import SwitchResult, TargetName
from orchestrator.api.wording import (
    STATE_SYMBOLS,
    agreeing,
    counted,
    duration_text,
    flag_texts,
    interruption_text,
    rollback_text,
    target_text,
)
from orchestrator.core.fleet.state_summary import StateName

OLD = TargetName(profile="old", engine="upstream")
NEW = TargetName(profile="new", engine="ik-fork")
DONE: SwitchResult = {
    "ok": True, "from": OLD, "to": NEW, "rolled_back": False, "held_requests": 0, "gap_s": 0.0, "total_s": 2.0,
    "strategy": "beside", "cause": None,
}  # fmt: skip


def test_a_target_is_its_profile_on_its_engine() -> None:
    assert target_text(OLD) == "old@upstream"
    assert target_text(None) == "nothing"


@pytest.mark.parametrize(("count", "text"), [(0, "0 requests"), (1, "1 request"), (2, "2 requests")])
def test_a_noun_agrees_with_its_count(count: int, text: str) -> None:
    assert counted(count, "request") == text
    assert agreeing(count, "waits", "wait") == ("waits" if count == 1 else "wait")


@pytest.mark.parametrize(
    ("held", "gap_s", "text"),
    [
        (0, 0.0, "no request held, gap 0.0 s"),
        (1, 0.31, "1 request held, gap 0.31 s"),
        (12, 4.2, "12 requests held, gap 4.2 s"),
    ],
)
def test_a_switch_says_whom_it_kept_waiting_and_how_long(held: int, gap_s: float, text: str) -> None:
    assert interruption_text({**DONE, "held_requests": held, "gap_s": gap_s}) == text


def test_a_rollback_says_what_serves_again() -> None:
    failed: SwitchResult = {**DONE, "ok": False, "rolled_back": True, "cause": "canary"}
    assert rollback_text(failed) == "rolled back: old@upstream serves"
    assert rollback_text({**failed, "from": None}) is None
    assert rollback_text({**failed, "rolled_back": False}) is None


def test_each_flag_stands_with_its_value() -> None:
    argv = ["/bin/llama-server", "-m", "/m.gguf", "--mlock", "--host", "127.0.0.1", "--port", "PORT", "left", "over"]
    assert flag_texts(argv) == [
        "/bin/llama-server", "-m /m.gguf", "--mlock", "--host 127.0.0.1", "--port PORT", "left", "over",
    ]  # fmt: skip
    assert flag_texts([]) == []


def test_every_state_has_a_symbol() -> None:
    assert set(STATE_SYMBOLS) == set(get_args(StateName))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (119.0, "119 s"), (1210.0, "20 min"), (7200.0, "2 h"), (200_000.0, "2 d"), (None, "0 s")],
)
def test_a_time_is_told_in_the_unit_that_fits_it(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text
