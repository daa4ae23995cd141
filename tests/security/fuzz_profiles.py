"""Profiles and configurations that nobody meant: whatever stands in the file, it is read or it is refused by name."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.profile_files import ProfileStore, shipped_directory
from orchestrator.adapters.paths import find_paths
from orchestrator.core.config import CONFIG_SETTINGS
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.settings import SETTINGS

SLOW_S = 2.0

VALUES = (
    "true", "0", "-1", "1e400", "nan", "inf", "9" * 25, "0x7fffffffffffffff", "1_000", '""', '"--host"', '"a\\u0000b"',
    '"\\u001b]0;x\\u0007"', "'''\n'''", "[]", "[[]]", "[1, 'a']", "{}", "{a = {b = 1}}", "1979-05-27", "07:32:00",
    '"' + "x" * 70_000 + '"', "[" * 200 + "]" * 200, '"../../../etc/passwd"', '"~nobody/x"', '"q8_0"', '"demo"',
)  # fmt: skip
KEYS = (
    *(setting.path for setting in (*SETTINGS, *CONFIG_SETTINGS)),
    *("schema", "model", "aliases", "engine", "extends", "description", "extra_args", "recovery.margins"),
    *("recovery.then", "recovery.max_attempts", "engine.upstream.kv.k", "engine.'a b'.x", "''", "a.b.c.d", "engine"),
)
SCRAPS = (
    "\n", "[", "]", "[[", "=", "'", '"', '"""', "#", ".", ",", "{", "}", "\\", "\0", "\x1b", "\ud7ff",
    "\u202e", "é", "=" * 99,
)  # fmt: skip


def random_document(chance: random.Random) -> str:
    lines = [f"{chance.choice(KEYS)} = {chance.choice(VALUES)}" for _ in range(chance.randrange(12))]
    lines += [f"[{chance.choice(KEYS).rpartition('.')[0] or 'x'}]"] * chance.randrange(2)
    return "\n".join([*["schema = 1", 'model = "m.gguf"'][: chance.randrange(3)], *lines])


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(text) + 1)
        lines = text.split("\n")
        match chance.randrange(5):
            case 0:
                text = text[:at] + chance.choice(SCRAPS) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.choice((1, 2, 8, 40)) :]
            case 2:
                lines.insert(chance.randrange(len(lines)), f"{chance.choice(KEYS)} = {chance.choice(VALUES)}")
                text = "\n".join(lines)
            case 3:
                index = chance.randrange(len(lines))
                lines[index] = lines[index].partition("=")[0] + "= " + chance.choice(VALUES)
                text = "\n".join(lines)
            case _:
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                text = "\n".join(lines)

    return text


def fuzz(directory: str, cases: int, seed: int) -> tuple[int, list[tuple[str, str]]]:
    """How many of that many documents were refused, and what went wrong with the document that it went wrong with."""
    chance = random.Random(seed)
    paths = find_paths({"ORCH_HOME": directory})
    os.makedirs(paths.profiles, exist_ok=True)
    store = ProfileStore(paths)
    shipped = [path.read_text() for path in sorted(Path(shipped_directory()).glob("*.toml"))]
    profile = os.path.join(paths.profiles, "fuzzed.toml")
    Path(profile).write_text("")
    refused = 0
    problems: list[tuple[str, str]] = []
    for _ in range(cases):
        text = mutated(_base(chance, shipped), chance)
        began = time.monotonic()
        try:
            if chance.random() < 0.8:
                store.resolve("fuzzed", text)
            else:
                Path(paths.config_file).write_text(text, encoding="utf-8")
                load_config(paths, {})
        except UsageError as error:  # a ProblemsError is one
            refused += 1
            shown = "\n".join((error.message, *error.details, error.hint or ""))
            if "\x1b" in shown or "\0" in shown:
                problems.append((f"control characters in the message: {shown!r}", text))
        except Exception as error:  # noqa: BLE001 what else comes is what is looked for
            problems.append((repr(error), text))

        if time.monotonic() - began > SLOW_S:
            problems.append((f"it took {time.monotonic() - began:.1f} s", text))

    return refused, problems


def _base(chance: random.Random, shipped: Sequence[str]) -> str:
    return chance.choice(shipped) if chance.random() < 0.6 else random_document(chance)
