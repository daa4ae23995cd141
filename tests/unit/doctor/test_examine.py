from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.core.setup.doctor import CheckResult, Requirement, judge_room, parse_requirement
from orchestrator.doctor.examine import Check, DoctorContext, examine

SUBJECT = DoctorContext(Paths("/c", "/s", "/d", "/k", "/r"), {}, Tools())


def good(_: DoctorContext) -> Iterator[CheckResult]:
    yield CheckResult("ok", "good", "fine")


def test_a_check_that_fails_says_so_and_the_others_go_on() -> None:
    def broken(_: DoctorContext) -> Iterator[CheckResult]:
        yield CheckResult("ok", "broken", "half of it")
        raise RuntimeError("the driver said something odd")

    checks: dict[str, Check] = {"broken": broken, "good": good}
    assert examine(SUBJECT, checks) == (
        CheckResult("warning", "broken", "this check failed: RuntimeError: the driver said something odd"),
        CheckResult("ok", "good", "fine"),
    )


def test_a_check_that_hangs_is_not_waited_for() -> None:
    end = threading.Event()

    def hangs(_: DoctorContext) -> Iterator[CheckResult]:
        end.wait()
        yield from ()

    try:
        checks: dict[str, Check] = {"hangs": hangs, "good": good}
        assert [each.what for each in examine(SUBJECT, checks, limit_s=0.05)] == ["hangs", "good"]
        assert examine(SUBJECT, checks, limit_s=0.05)[0].text.startswith("no answer within 0.05 s")
    finally:
        end.set()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("anyio<5,>=4.4", Requirement("anyio", (("<", "5"), (">=", "4.4")), "")),
        ("uvloop>=0.21; sys_platform != 'win32'", Requirement("uvloop", ((">=", "0.21"),), "sys_platform != 'win32'")),
        ("gguf", Requirement("gguf", (), "")),
        ("x[extra] (>=1.0)", Requirement("x", ((">=", "1.0"),), "")),
        ("not a requirement!", None),
    ],
)
def test_a_requirement_is_read(line: str, expected: Requirement | None) -> None:
    assert parse_requirement(line) == expected


@pytest.mark.parametrize(
    ("rule", "version", "allowed"),
    [
        (">=4.4,<5", "4.4", True),
        (">=4.4,<5", "4.12.1", True),
        (">=4.4,<5", "5.0.0", False),
        (">=4.4,<5", "4.3.9", False),
        (">=0.21", "0.9", False),
        ("<0.9.1", "0.9.0", True),
        ("==1.0", "1.0.0", True),
        ("!=1.0", "1.0.1", True),
        ("~=1.4.2", "1.4.9", True),
        ("~=1.4.2", "1.5.0", False),
        (">=6", "7.0.0rc1", True),
        ("", "anything", True),
    ],
)
def test_a_version_is_judged(rule: str, version: str, allowed: bool) -> None:
    wanted = parse_requirement(f"x{rule}")
    assert wanted is not None
    assert wanted.allows(version) is allowed


@pytest.mark.parametrize(("free_mib", "level"), [(99, "problem"), (100, "warning"), (2047, "warning"), (2048, "ok")])
def test_disk_space_is_judged(free_mib: int, level: str) -> None:
    assert judge_room("room", "/d", free_mib).level == level
