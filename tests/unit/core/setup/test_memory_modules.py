"""The firmware's table of memory: built here by the specification's layout, as boards fill it in."""

from __future__ import annotations

import struct

import pytest

from orchestrator.core.setup.memory_modules import channels_of, memory_modules, peak_gb_s

BIOS = bytes([0, 4, 0, 0]) + b"American Megatrends\0F.40\0\0"
WITHOUT_STRINGS = bytes([32, 4, 1, 0]) + b"\0\0"
END = bytes([127, 4, 0xFF, 0xFE]) + b"\0\0"


def device(locator: str, bank: str, size: int, rated: int, configured: int, *, kind: int = 0x1A) -> bytes:
    """A structure of type 17, version 2.7: 0x22 bytes, and its strings."""
    body = struct.pack("<BBHHHHHHBBBBBHHBBBBBIH", 17, 0x22, 0x40, 0x10, 0xFFFE, 64, 64, size, 9, 0, 1, 2, kind, 0x80,
                       rated, 3, 0, 0, 0, 1, 0, configured)  # fmt: skip
    assert len(body) == 0x22
    return body + b"".join(text.encode() + b"\0" for text in (locator, bank, "maker")) + b"\0"


def table(*devices: bytes) -> bytes:
    return BIOS + WITHOUT_STRINGS + b"".join(devices) + END + device("after", "the end", 8192, 1, 1)


def test_modules_are_read_with_what_they_are_made_for_and_set_to() -> None:
    [one, empty, other] = memory_modules(
        table(
            device("DIMM_A2", "BANK 1", 16384, 3600, 2133),
            device("DIMM_B1", "BANK 2", 0, 0, 0, kind=2),
            device("DIMM_B2", "BANK 3", 0x8000 | 2048, 3600, 2133),
        )
    )
    assert (one.locator, one.bank, one.kind, one.width_bits) == ("DIMM_A2", "BANK 1", "DDR4", 64)
    assert (one.size_mib, one.rated_mt_s, one.configured_mt_s) == (16384, 3600, 2133)
    assert (empty.size_mib, empty.rated_mt_s, empty.configured_mt_s) == (0, None, None)
    assert other.size_mib == 2  # in KiB
    assert channels_of([one, empty, other]) == 2
    assert peak_gb_s([one, empty, other]) == pytest.approx(2 * 2133 * 8 / 1000)


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ([("DIMM 0", "P0 CHANNEL A"), ("DIMM 1", "P0 CHANNEL A"), ("DIMM 0", "P0 CHANNEL B")], 2),
        ([("Controller0-ChannelA-DIMM0", "BANK 0"), ("Controller1-ChannelA-DIMM0", "BANK 0")], 2),
        ([("P1-DIMMA1", "P0_Node0_Channel0_Dimm0"), ("P2-DIMMA1", "P1_Node0_Channel0_Dimm0")], 2),
        ([("ChannelA-DIMM1", "BANK 1"), ("ChannelB-DIMM1", "BANK 3")], 2),
        ([("A1", "Not Specified"), ("A2", "Not Specified")], None),
        ([("Bottom-Slot 1(left)", "BANK 0")], None),
    ],
)
def test_channels_are_told_by_the_names_of_slots(names: list[tuple[str, str]], channels: int | None) -> None:
    found = memory_modules(table(*(device(*each, 16384, 3200, 3200) for each in names)))
    assert channels_of(found) == channels
    assert peak_gb_s(found) == (None if channels is None else pytest.approx(channels * 25.6))


def test_large_modules_and_fast_ones_are_in_further_fields() -> None:
    head = device("DIMM_A1", "", 0x7FFF, 0xFFFF, 0xFFFF, kind=0x22)
    body, strings = bytearray(head[:0x22]), head[0x22:]
    body[1] = 0x5C
    struct.pack_into("<I", body, 0x1C, 65536)
    body += bytes(0x54 - 0x22) + struct.pack("<II", 70000, 66000)
    [found] = memory_modules(bytes(body) + strings)
    assert (found.size_mib, found.rated_mt_s, found.configured_mt_s, found.kind) == (65536, 70000, 66000, "DDR5")


def test_what_is_cut_off_or_no_table_is_left_out() -> None:
    whole = table(device("DIMM_A1", "", 8192, 3200, 3200))
    for length in range(len(whole)):
        assert len(memory_modules(whole[:length])) <= 1

    assert memory_modules(b"") == ()
    assert memory_modules(b"\0" * 64) == ()
