"""What measured figures mean: alarms where something is amiss, none on machines that are as they should be."""

from __future__ import annotations

import pytest

from orchestrator.core.setup.machine_speed import (
    PcieLink,
    ReadSpeed,
    judge_disk,
    judge_link,
    judge_memory,
    judge_profile,
    read_speed,
)
from orchestrator.core.setup.memory_modules import MemoryModule


def module(channel: str, rated: int = 3600, configured: int = 3600) -> MemoryModule:
    return MemoryModule(f"DIMM_{channel}2", "", "DDR4", 16384, 64, rated, configured)


def test_speeds_are_of_all_readers_together_in_tenths_of_a_second() -> None:
    steady = [0.01 * number + 0.005 for number in range(100)]
    half = [at for at in steady if at >= 0.5]
    found = read_speed([steady, half, [5.0]], 10_000_000, 0.0, 1.0)
    assert found.best == pytest.approx(2.0)  # two readers, ten pieces of 10 MB each in a tenth of a second
    assert found.middle == pytest.approx(1.5, abs=0.1)
    assert found.readers == 3


def test_memory_that_is_as_its_modules_raises_no_alarm() -> None:
    found = list(judge_memory(ReadSpeed(47.3, 44.0, 8), [module("A"), module("B")]))
    assert [each.level for each in found] == ["ok", "ok"]
    assert found[0].text == "2 modules in 2 channels, set to DDR4-3600"
    assert found[1].text.endswith("with 8 threads; 2 channels as they are set give 58 at most")


def test_modules_below_what_they_are_made_for_are_told() -> None:
    [modules, memory] = judge_memory(ReadSpeed(31.0, 30.0, 8), [module("A", 3600, 2133), module("B", 3600, 2133)])
    assert (modules.level, memory.level) == ("warning", "ok")
    assert modules.text == "2 modules in 2 channels, set to DDR4-2133, rated 3600"
    assert "XMP" in (modules.fix or "")


def test_much_less_than_what_the_modules_are_set_to_asks_for_xmp_with_both_figures() -> None:
    [modules, memory] = judge_memory(ReadSpeed(31.0, 30.0, 8), [module("A"), module("B")])
    assert (modules.level, memory.level) == ("ok", "warning")
    assert memory.text.startswith("read at 31.0 GB/s at best")
    assert memory.text.endswith("2 channels as they are set give 58 at most: 54% of it")
    assert "is XMP (Intel) or EXPO/DOCP (AMD) on?" in (memory.fix or "")


def test_a_processor_of_one_chiplet_raises_no_alarm() -> None:
    sticks = [module(channel, 6000, 6000)._replace(kind="DDR5") for channel in "AB"]
    assert [each.level for each in judge_memory(ReadSpeed(61.5, 60.0, 8), sticks)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("kind", "rated", "now", "asked"),
    [
        ("DDR4", 2133, 2133, True),
        ("DDR4", None, 2400, True),
        ("DDR4", 2666, 2667, True),
        ("DDR5", 4800, 4800, True),
        ("DDR4", 3200, 3200, False),
        ("DDR5", 5600, 5600, False),
        ("LPDDR5", 4800, 4800, False),
    ],
)
def test_a_base_speed_that_the_firmware_also_tells_as_rated_asks_for_xmp(
    kind: str, rated: int | None, now: int, asked: bool
) -> None:
    sticks = [module(channel)._replace(kind=kind, rated_mt_s=rated, configured_mt_s=now) for channel in "AB"]
    [modules, memory] = judge_memory(ReadSpeed(0.85 * 2 * now * 8 / 1000, 0.8 * 2 * now * 8 / 1000, 8), sticks)
    assert (modules.level, memory.level) == ("note" if asked else "ok", "ok")
    assert ("XMP" in (modules.fix or "")) == asked


def test_a_disturbed_reading_is_said_to_be_one_and_blames_no_module() -> None:
    disturbed = ReadSpeed(20.0, 11.0, 8)
    for modules in ([module("A"), module("B")], None, []):
        [found] = [each for each in judge_memory(disturbed, modules) if each.what == "memory"]
        assert found.level == "note"
        assert "disturbed: something else used memory or processors" in found.text
        assert "measure again" in (found.fix or "")

    assert not ReadSpeed(20.0, 17.0, 8).disturbed


def test_one_channel_is_told() -> None:
    [modules, _] = judge_memory(ReadSpeed(22.0, 21.0, 8), [module("A")])
    assert (modules.level, modules.text) == ("warning", "1 module in 1 channel, set to DDR4-3600")


def test_much_less_than_the_modules_give_is_told_unless_too_few_threads_read() -> None:
    both = [module("A"), module("B")]
    assert [each.level for each in judge_memory(ReadSpeed(20.0, 18.0, 8), both)] == ["ok", "warning"]
    assert [each.level for each in judge_memory(ReadSpeed(20.0, 18.0, 2), both)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (None, "only root may read it"),
        ([], "the firmware tells of no memory module"),
        ([MemoryModule("DIMM_A1", "", "DDR4", 0, None, None, None)], "the firmware tells of no memory module"),
    ],
)
def test_modules_that_nobody_tells_of_are_unknown(modules: list[MemoryModule] | None, said: str) -> None:
    [memory, note] = judge_memory(ReadSpeed(31.0, 30.0, 1), modules)
    assert (memory.level, memory.text) == ("ok", "read at 31.0 GB/s at best, 30.0 in the middle, with 1 thread")
    assert note.level == "note"
    assert said in note.text


def test_modules_without_names_or_speeds_are_compared_with_nothing() -> None:
    unnamed = MemoryModule("A1", "Not Specified", "DDR4", 8192, 64, None, None)
    found = list(judge_memory(ReadSpeed(3.0, 3.0, 8), [unnamed]))
    assert [(each.level, each.text) for each in found] == [
        ("ok", "1 module, set to DDR4-?"),
        ("ok", "read at 3.0 GB/s at best, 3.0 in the middle, with 8 threads; what the modules give is not told"),
    ]


def test_a_link_as_wide_as_its_card_raises_no_alarm_while_it_sleeps() -> None:
    found = judge_link(PcieLink("RTX 3060", 1, 4, 4, 16, 16))
    assert found.level == "ok"
    assert found.text == (
        "RTX 3060: 16 of 16 lanes, generation 4 (at 1 now, as cards go while they have nothing to do)"
    )


def test_a_narrow_link_is_told_and_an_old_board_is_not_blamed() -> None:
    narrow = judge_link(PcieLink("RTX 3060", 3, 3, 4, 4, 16))
    assert (narrow.level, narrow.text) == ("warning", "RTX 3060: 4 of 16 lanes, generation 3 of 4")
    assert judge_link(PcieLink("RTX 3060", 3, 3, 4, 16, 16)).level == "ok"
    assert judge_link(PcieLink("H200", None, None, None, None, 16)).text == "H200: the width of its link is unknown"


def test_a_disk_is_told_by_what_a_cold_start_takes() -> None:
    found = judge_disk("/models/m.gguf", 0.5, 18_150_000_000)
    assert found.text == "/models/m.gguf: 0.50 GB/s past the page cache: a cold start reads 18.1 GB in 36 s"
    assert judge_disk("/m", 3.0, 100_000_000).text.endswith("0.1 GB in under 1 s")
    assert judge_disk("/m", None, 1, "it is too small").text == "/m: not measured: it is too small"


def test_a_profile_is_told_what_the_memory_allows() -> None:
    found = judge_profile("qwen", 1.24, 31.0, "as it would be placed now").text
    assert found == (
        "qwen: 1.24 GB of the host's memory for each token as it would be placed now:"
        " at most 25 tokens/s at 31 GB/s, without drafts"
    )
    assert "31 MB" in judge_profile("small", 0.031, 31.0, "").text
    assert "nothing of the host's memory" in judge_profile("card", 0.0, 31.0, "").text
