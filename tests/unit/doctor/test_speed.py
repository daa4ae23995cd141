"""What the doctor says of the speed of profiles."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.doctor.examine import DoctorContext
from orchestrator.doctor.speed import check_speed
from tests.unit.core.course.histories import NEW_DRIVER, days


def findings(root: Path) -> list[tuple[str, str]]:
    paths = Paths(*(str(root / name) for name in ("config", "state", "data", "cache", "run")))
    return [(each.level, each.text) for each in check_speed(DoctorContext(paths, {}, Tools()))]


def test_a_profile_that_became_slower_is_a_warning_and_the_others_are_well(tmp_path: Path) -> None:
    assert findings(tmp_path) == []
    store = SpeedMarkStore(str(tmp_path / "state" / "speed_marks.json"))
    store.record(days(6, 50.0))
    [(level, text)] = findings(tmp_path)
    assert (level, text.partition(":")[0]) == ("ok", "1 profile that was measured")
    store.record(days(3, 45.0, NEW_DRIVER, first=6))
    [(level, text)] = findings(tmp_path)
    assert level == "warning" and "p@upstream decodes 10 % slower" in text


def test_the_benches_are_read_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "state" / "bench.sqlite3"
    path.parent.mkdir()
    path.touch()  # as one who makes it has it for a moment
    assert findings(tmp_path) == []
    assert path.read_bytes() == b""
