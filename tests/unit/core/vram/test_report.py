"""The figures add up to what the device has in use, whoever tells what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.vram.process_kinds import ProcessFacts
from orchestrator.core.vram.report import DeviceFigures, VramDevice, report_lines, vram_report

AMOUNTS = st.integers(0, 1 << 20)


def only(figures: DeviceFigures, *facts: ProcessFacts, profiles: dict[int, str] | None = None) -> VramDevice:
    report = vram_report([figures], {each.pid: each for each in facts}, profiles or {})
    return report["devices"][0]


@given(AMOUNTS, st.none() | AMOUNTS, st.none() | st.dictionaries(st.integers(1, 1 << 22), AMOUNTS))
def test_the_lines_of_a_device_add_up_to_what_is_in_use(
    used: int, reserved: int | None, processes: dict[int, int] | None
) -> None:
    found = only(DeviceFigures(0, "x", used, 1 << 20, reserved, processes, "driver"))
    held = sum(each["mib"] for each in found["holders"])
    assert found["untold_mib"] is not None and found["untold_mib"] >= 0 and found["counted_twice_mib"] >= 0
    assert held + found["reserved_mib"] + found["untold_mib"] - found["counted_twice_mib"] == used
    assert not (found["untold_mib"] and found["counted_twice_mib"])
    assert len(found["holders"]) == len(processes or {})


def test_the_largest_comes_first_and_says_what_frees_it() -> None:
    found = only(
        DeviceFigures(0, "RTX 3060", 9000, 12288, 300, {10: 400, 20: 8000, 30: 120, 40: 60}, "driver"),
        ProcessFacts(10, "firefox", program="/usr/lib/firefox/firefox", user="guest"),
        ProcessFacts(30, "kwin_wayland"),
        ProcessFacts(40, "weird", container="docker"),
        profiles={20: "chat"},
    )
    rows = [(each["pid"], each["kind"], each["name"], each["frees_mib"]) for each in found["holders"]]
    assert rows == [
        (20, "orch", "chat", 8000),
        (10, "browser", "Firefox", 400),
        (30, "compositor", "KWin", None),
        (40, "other", "weird", None),
    ]
    assert report_lines({"version": 1, "devices": [found], "notes": []}) == [
        ("", "GPU 0  RTX 3060: 9000 of 12288 MiB in use, 3288 free", ""),
        ("8000 MiB", "orch: chat (pid 20)", "`orch unload chat`"),
        ("400 MiB", "browser: Firefox (pid 10, user guest)", "close it, or turn off its hardware acceleration"),
        ("120 MiB", "compositor: KWin (pid 30)", "`orch vram reclaim --plan`"),
        ("60 MiB", "weird (pid 40, in docker)", ""),
        ("300 MiB", "reserved by the driver", ""),
        ("120 MiB", "told of nobody", ""),
    ]


def test_a_process_that_proc_does_not_show_is_said_to_be_hidden() -> None:
    found = only(DeviceFigures(0, "x", 100, 200, None, {5: 100}, "driver"))
    assert [(each["kind"], each["release"]) for each in found["holders"]] == [("hidden", None)]


def test_a_driver_that_tells_no_processes_is_not_taken_for_one_without_any() -> None:
    silent = only(DeviceFigures(0, "x", 100, 200, 20, None, "driver"))
    assert (silent["told_by"], silent["untold_mib"]) == (None, 80)
    idle = only(DeviceFigures(0, "x", 100, 200, 20, {}, "driver"))
    assert (idle["told_by"], idle["untold_mib"]) == ("driver", 80)
    rows = [report_lines({"version": 1, "devices": [each], "notes": []})[-1][1] for each in (silent, idle)]
    assert rows == ["held by processes that the driver does not tell", "told of nobody"]


def test_without_the_devices_total_the_processes_are_shown_alone() -> None:
    found = only(DeviceFigures(1, "Intel 0x56a0 (xe)", None, None, None, {9: 70}, "fdinfo"))
    assert (found["untold_mib"], found["free_mib"], found["counted_twice_mib"]) == (None, None, 0)
    assert "does not tell how much is in use" in report_lines({"version": 1, "devices": [found], "notes": []})[0][1]


def test_buffers_that_two_processes_share_are_counted_once_in_the_sum() -> None:
    found = only(DeviceFigures(0, "x", 500, 8000, None, {1: 400, 2: 150}, "fdinfo"))
    assert (found["untold_mib"], found["counted_twice_mib"]) == (0, 50)
    assert ("-50 MiB", "shared buffers, counted in each process above", "") in report_lines(
        {"version": 1, "devices": [found], "notes": []}
    )
