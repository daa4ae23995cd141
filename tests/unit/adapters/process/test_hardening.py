from __future__ import annotations

import os

import pytest

from orchestrator.adapters.process.hardening import check_privilege
from orchestrator.core.errors import UsageError

SYSTEM, USER = ("orch.service", "system"), ("orch.service", "user")


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_a_system_service_as_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 0)
    with pytest.raises(UsageError, match="orch.service would run as root") as caught:
        check_privilege(SYSTEM, allow_root=False)

    assert caught.value.hint is not None and "daemon.allow_root" in caught.value.hint
    check_privilege(SYSTEM, allow_root=True)


@pytest.mark.parametrize("unit", [None, USER], ids=["a shell", "root's own manager"])
def test_root_by_hand_is_told_so_and_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unit: tuple[str, str] | None
) -> None:
    as_user(monkeypatch, 0)
    check_privilege(unit, allow_root=False)
    assert "run as root" in caplog.text


def test_any_other_user_hears_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    as_user(monkeypatch, 1000)
    check_privilege(SYSTEM, allow_root=False)
    assert not caplog.records
