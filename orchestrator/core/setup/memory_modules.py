"""The memory modules that the firmware tells of: SMBIOS structures of type 17. Pure.

Source: DMTF DSP0134, System Management BIOS Reference Specification 3.7, sections 6.1.2 (a structure: type, length and
handle, then its strings, ended by two zero bytes) and 7.18 (memory device).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MEMORY_DEVICE = 17
END_OF_TABLE = 127

_KINDS = {0x13: "DDR2", 0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3", 0x1E: "LPDDR4",
          0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3"}  # fmt: skip
_CHANNEL = re.compile(r"(?:CHANNEL|\bCH)[ _-]?([A-Z0-9]+)|DIMM[ _-]?([A-Z])\d?\b", re.IGNORECASE)
_ABOVE_CHANNEL = re.compile(r"(?:\bP|CPU|NODE|CONTROLLER)[ _-]?(\d+)", re.IGNORECASE)
"""Processors, nodes and controllers: each has channels of the same names."""


class MemoryModule(NamedTuple):
    """One slot for memory.

    :param size_mib: 0 for an empty slot, None where it is not told
    :param width_bits: of its data, 64 for a usual module
    :param rated_mt_s: million transfers per second that it is made for, as far as the firmware tells; None where not.
        A firmware with XMP off may tell the standard's speed here
    :param configured_mt_s: that it runs at
    """

    locator: str
    bank: str
    kind: str
    size_mib: int | None
    width_bits: int | None
    rated_mt_s: int | None
    configured_mt_s: int | None


def memory_modules(table: bytes) -> tuple[MemoryModule, ...]:
    """Return the memory modules of a table as `/sys/firmware/dmi/tables/DMI` has it.

    What is cut off is left out: the structures before it count.
    """
    return tuple(_module(body, strings) for kind, body, strings in _structures(table) if kind == MEMORY_DEVICE)


def _structures(table: bytes) -> Iterator[tuple[int, bytes, tuple[str, ...]]]:
    """Yield the type, the formatted part and the strings of each structure."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            return

        strings = table[at + length : end].split(b"\0")
        yield kind, table[at : at + length], tuple(each.decode("latin-1").strip() for each in strings)
        if kind == END_OF_TABLE:
            return

        at = end + 2


def _module(body: bytes, strings: Sequence[str]) -> MemoryModule:
    """Return the slot that a structure of type 17 describes."""

    def number(offset: int, width: int = 2) -> int:
        """Return a little-endian number; 0, which stands for unknown, where the structure is of an older version."""
        return int.from_bytes(body[offset : offset + width], "little") if offset + width <= len(body) else 0

    def text(offset: int) -> str:
        """Return the string whose number is at an offset; empty where there is none."""
        index = number(offset, 1)
        return strings[index - 1] if 0 < index <= len(strings) else ""

    def speed(offset: int, extended: int) -> int | None:
        """Return a speed; one that needs more than 16 bits is in a field of its own."""
        found = number(offset)
        return (number(extended, 4) & 0x7FFFFFFF if found == 0xFFFF else found) or None

    size = number(0x0C)
    if size == 0xFFFF:
        size_mib = None
    elif size == 0x7FFF:
        size_mib = number(0x1C, 4) & 0x7FFFFFFF
    else:
        size_mib = (size & 0x7FFF) >> 10 if size & 0x8000 else size  # the highest bit: in KiB

    width = number(0x0A)
    return MemoryModule(
        locator=text(0x10),
        bank=text(0x11),
        kind=_KINDS.get(number(0x12, 1), "memory"),
        size_mib=size_mib,
        width_bits=None if width in (0, 0xFFFF) else width,
        rated_mt_s=speed(0x15, 0x54),
        configured_mt_s=speed(0x20, 0x58),
    )


def channels_of(modules: Sequence[MemoryModule]) -> int | None:
    """Return how many channels have a module, by the names of the slots; None where those do not tell."""
    found = set()
    for module in modules:
        if not module.size_mib:
            continue

        channel = _CHANNEL.search(module.bank) or _CHANNEL.search(module.locator)
        if channel is None:
            return None

        above = tuple(_ABOVE_CHANNEL.findall(f"{module.bank} {module.locator}"))
        found.add((above, (channel[1] or channel[2]).upper()))

    return len(found) or None


def peak_gb_s(modules: Sequence[MemoryModule]) -> float | None:
    """Return what the channels transfer at most as they are set, GB/s; None where something of it is not told.

    A channel transfers its width at each transfer, whatever the number of modules in it.
    """
    channels = channels_of(modules)
    fitted = [module for module in modules if module.size_mib]
    speeds = [module.configured_mt_s for module in fitted if module.configured_mt_s]
    widths = [module.width_bits for module in fitted if module.width_bits]
    if channels is None or len(speeds) != len(fitted) or len(widths) != len(fitted):
        return None

    return channels * min(speeds) * min(widths) / 8 / 1000
