"""The text behind a flag as the value of a setting, read as the engines' own parsers read it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from orchestrator.core.profile.settings import Setting

_INTEGER = re.compile(r"\s*([+-]?\d+)")
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")

ON = ("on", "true", "1", "enabled", "yes")
OFF = ("off", "false", "0", "disabled", "no")


class FlagValue(NamedTuple):
    """A value, or why there is none.

    :param note: what was changed on the way, for the report
    :param needless: it says what holds without it
    """

    value: Any = None
    note: str = ""
    fault: str = ""
    needless: str = ""


def read_switch(text: str) -> bool | None:
    """Return what a word says as a switch; None when it is no such word."""
    word = text.strip().lower()
    return True if word in ON else False if word in OFF else None


def read_flag_value(setting: Setting, text: str) -> FlagValue:
    """Return a value as the setting holds it."""
    types = setting.types
    word = text.strip()
    if "table" in types:
        return _read_table(word)

    if "strings" in types:
        separator = r"[;,]" if setting.path == "sampling.samplers" else ","
        parts = [part for part in re.split(separator, text) if part]
        if setting.choices is not None and setting.path != "speculative.type":
            return FlagValue(parts)

        return FlagValue(parts) if parts else FlagValue(fault="there is nothing in it")

    if "paths" in types:
        return FlagValue([part for part in text.split(",") if part])

    if "ints" in types and "," in word:
        return FlagValue([number for part in word.split(",") if (number := _integer(part)) is not None])

    if "floats" in types:
        numbers = [_NUMBER.match(part) for part in re.split(r"[,/]+", word) if part]
        if not numbers or not all(numbers):
            return FlagValue(fault=f"`{word}` is no list of numbers")

        return FlagValue([float(found[1]) for found in numbers if found])

    if "bool" in types and (switch := read_switch(word)) is not None:
        return FlagValue(switch)

    if setting.choices is not None and ("int" not in types or word in setting.choices):
        lower = word if word in setting.choices else word.lower()
        switch = read_switch(word)
        if switch is not None and "on" in setting.choices:
            lower = "on" if switch else "off"

        if lower in setting.choices:
            return FlagValue(lower)

        return FlagValue(fault=f"`{word}` is none of {', '.join(setting.choices)}")

    if "int" in types or "float" in types:
        return _read_number(setting, word)

    if "bool" in types:
        return FlagValue(fault=f"`{word}` is neither `on` nor `off`")

    return FlagValue(text) if text else FlagValue(fault="there is nothing in it")


def _integer(text: str) -> int | None:
    found = _INTEGER.match(text)
    return int(found[1]) if found else None


def _read_number(setting: Setting, word: str) -> FlagValue:
    whole = "int" in setting.types or "ints" in setting.types
    found = (_INTEGER if whole else _NUMBER).match(word)
    if found is None:
        return FlagValue(fault=f"`{word}` is no number")

    rest = word[found.end() :].strip()
    exact = not rest or (whole and re.fullmatch(r"\.0*", rest) is not None)
    value: int | float = int(found[1]) if whole else float(found[1])
    note = "" if exact else f"the engine reads the number {value} and forgets `{rest}`"
    special = _read_special(setting, value)
    if special is not None:
        return special

    if setting.minimum is not None and value < setting.minimum:
        return FlagValue(fault=f"{value} is below {setting.minimum:g}, the least that a profile takes")

    if setting.maximum is not None and value > setting.maximum:
        return FlagValue(fault=f"{value} is above {setting.maximum:g}, the most that a profile takes")

    return FlagValue(value, note)


def _read_special(setting: Setting, value: float) -> FlagValue | None:
    """Return what numbers below the least one stand for in the engines."""
    if setting.path in ("memory.gpu_layers", "speculative.draft_gpu_layers") and value < 0:
        return FlagValue("auto" if value == -1 else "all", f"{value:g} is written as a word")

    if setting.path in ("cpu.threads", "cpu.threads_batch") and value <= 0:
        return FlagValue(needless=f"{value:g} is what the engine does without it")

    if setting.path in ("context.parallel", "context.checkpoints", "context.checkpoint_min_step") and value < 0:
        return FlagValue(needless=f"{value:g} leaves it to the build")

    if setting.path == "sampling.max_tokens" and value < 0:
        return FlagValue(needless=f"{value:g} is no limit, which holds without it")

    if setting.path in ("context.size", "sampling.top_k", "cache.reuse") and value < 0:
        return FlagValue(0, f"{value:g} is written 0")

    if setting.path == "memory.fit_margin" and value == 0:
        return FlagValue(1, "0 is written 1 MiB, the least margin")

    if setting.path in ("attention.max_batch_mib", "speculative.draft_max") and value == 0:
        return FlagValue(needless="0 turns it off, as leaving it out does")

    return None


def _read_table(word: str) -> FlagValue:
    try:
        found = json.loads(word)
    except ValueError:
        return FlagValue(fault=f"`{word}` is not JSON, the engine refuses it, too")

    if not isinstance(found, dict):
        return FlagValue(fault=f"`{word}` is no JSON object")

    dropped = [key for key, value in found.items() if value is None]
    kept = {key: value for key, value in found.items() if value is not None}
    note = f"without {', '.join(dropped)}, which TOML cannot say (null)" if dropped else ""
    return FlagValue(kept, note) if kept else FlagValue(needless="an empty object says nothing")
