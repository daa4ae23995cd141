"""Flags that say several settings at once, or one in a form of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.core.importing.findings import ImportEntry, look, put
from orchestrator.core.importing.flags.flag_values import FlagValue, read_flag_value
from orchestrator.core.profile.settings import BY_PATH

Locate = Callable[[str], tuple[str, str]]
"""Returns a path as it is on this machine, and what to say about it where that was changed or is a guess."""


def read_load_mode(value: str | None, source: str, line: int, entry: ImportEntry) -> None:
    modes: dict[str, dict[str, bool]] = {
        "auto": {}, "none": {"mmap": False}, "mmap": {"mmap": True}, "mlock": {"mmap": False, "mlock": True},
        "mmap+mlock": {"mmap": True, "mlock": True}, "dio": {"direct_io": True},
    }  # fmt: skip
    found = modes.get((value or "").lower())
    if found is None:
        entry.add("lost", source, f"a load mode is one of {', '.join(modes)}", line)
        return

    for key, state in found.items():
        put(entry.document, f"memory.{key}", state)

    said = ", ".join(f"memory.{key}" for key in found) or "`auto` is what the build does by itself"
    entry.add("kept", source, said, line)


def read_indexed(value: str | None, source: str, line: int, entry: ImportEntry) -> None:
    numbers = [int(part) for part in re.findall(r"\d+", value or "")]
    margins = dict(zip(numbers[::2], numbers[1::2], strict=False))
    if margins and sorted(margins) == list(range(len(margins))):
        put(entry.document, "memory.fit_margin", [margins[index] for index in sorted(margins)])
        entry.add("kept", source, "memory.fit_margin", line)
    else:
        entry.add("lost", source, "`memory.fit_margin` has a number for each device, from the first on", line)


def read_metadata(value: str | None, source: str, line: int, entry: ImportEntry) -> None:
    for part in (value or "").split(","):
        found = re.fullmatch(r"\s*([^=]+)=(int|float|bool|str):(.*)", part)
        if found is None:
            entry.add("lost", source, "it is no `KEY=TYPE:VALUE`", line)
            continue

        texts: dict[str, Callable[[str], Any]] = {
            "int": int, "float": float, "bool": lambda text: text == "true", "str": str,
        }  # fmt: skip
        try:
            entry.document.setdefault("override_kv", {})[found[1]] = texts[found[2]](found[3])
        except ValueError:
            entry.add("lost", source, f"`{found[3]}` is no {found[2]}", line)
        else:
            entry.add("kept", source, f"override_kv.{found[1]}", line)


def read_scaled(value: str | None, source: str, line: int, entry: ImportEntry, locate: Locate) -> None:
    document = entry.document
    for part in (value or "").split(","):
        path, colon, scale = part.rpartition(":")
        number = read_flag_value(BY_PATH["lora.scales"], scale) if colon else FlagValue([1.0])
        files = [*(look(document, "lora.adapters") or []), locate(path if colon else part)[0]]
        scales = look(document, "lora.scales") or [1.0] * (len(files) - 1)
        put(document, "lora.adapters", files)
        put(document, "lora.scales", [*scales, *(number.value or [1.0])])

    entry.add("kept", source, "lora.adapters, lora.scales", line)
