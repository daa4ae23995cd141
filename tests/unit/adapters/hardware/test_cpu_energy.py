from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.hardware.cpu_energy import CpuEnergy, PackageEnergy


def zone(root: Path, directory: str, name: str, counter_uj: str, range_uj: str = "262143328850") -> Path:
    path = root / directory
    path.mkdir()
    for file, text in (("name", name), ("energy_uj", counter_uj), ("max_energy_range_uj", range_uj)):
        (path / file).write_text(f"{text}\n")

    return path


def test_each_package_is_read_and_its_parts_and_the_platform_are_not_counted_twice(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "123456789")
    zone(tmp_path, "intel-rapl:0:0", "core", "1")
    zone(tmp_path, "intel-rapl:1", "package-1", "5000000", "65712999613")
    zone(tmp_path, "intel-rapl:2", "psys", "999999999")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", "7")
    (tmp_path / "intel-rapl").mkdir()
    found = CpuEnergy(str(tmp_path))
    assert found.packages == ("package-0", "package-1")
    assert found.read() == (
        PackageEnergy("package-0", 123.456789, 262143.32885),
        PackageEnergy("package-1", 5.0, 65712.999613),
    )
    assert found.why_unknown() is None
    for directory in ("intel-rapl:0", "intel-rapl:1"):
        (tmp_path / directory / "max_energy_range_uj").unlink()

    assert [each.wraps_at_j for each in found.read()] == [262143.32885, 65712.999613], "a constant is read once"


def test_counters_that_may_not_be_read_are_unknown_and_it_is_said_how_to_allow_them(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "1")
    (zone(tmp_path, "intel-rapl:1", "package-1", "1") / "energy_uj").unlink()  # root reads what nobody else may
    found = CpuEnergy(str(tmp_path))
    assert found.packages == ("package-0", "package-1"), "a sum without one of them would be wrong"
    assert [each.name for each in found.read()] == ["package-0"]
    why = found.why_unknown()
    assert why is not None and f"sudo chmod o+r {tmp_path}/intel-rapl:*/energy_uj" in why


def test_a_machine_without_counters_is_no_error(tmp_path: Path) -> None:
    found = CpuEnergy(str(tmp_path / "nothing"))
    assert (found.packages, found.read()) == ((), ())
    assert "no intel-rapl" in (found.why_unknown() or "")
