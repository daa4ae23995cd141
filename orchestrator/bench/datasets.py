"""The prompts of a bench, by the name of a workload or from a file of the usual shapes.

A file is JSON Lines or one JSON list. An entry is a string, or has the prompt as `turns` (SPEED-Bench: the first
counts), `conversations` (ShareGPT: the first of the human), `messages` (the first of the user), `prompt`, `question` or
`text`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from orchestrator.core.bench.workloads import WORKLOADS, BenchPrompt, Workload, chosen_rows
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import did_you_mean

MOST_PROMPTS = 12
MAX_BYTES = 1 << 30
SHAPES = "a string, or an object with `turns`, `conversations`, `messages`, `prompt`, `question` or `text`"


def load_workload(name_or_file: str) -> Workload:
    """Return the workload of this name, or at most twelve prompts of a file, evenly spread over it.

    :raises UsageError: when there is none, or the file has another shape
    """
    known = WORKLOADS.get(name_or_file)
    if known is not None:
        return known

    if not os.path.isfile(name_or_file):
        raise UsageError(
            f"there are no prompts `{name_or_file}`, and no file of that name",
            details=(f"known: {', '.join(WORKLOADS)}",),
            hint=did_you_mean(name_or_file, WORKLOADS),
        )

    if os.path.getsize(name_or_file) > MAX_BYTES:
        raise UsageError(f"{name_or_file} is larger than 1 GiB", hint="take a part of it")

    with open(name_or_file, encoding="utf-8", errors="replace") as file:
        prompts = list(_prompts(name_or_file, file.read()))

    if not prompts:
        raise UsageError(f"{name_or_file} has no prompt", details=(f"an entry is {SHAPES}",))

    return Workload(os.path.basename(name_or_file), chosen_rows(prompts, MOST_PROMPTS))


def _prompts(path: str, text: str) -> Iterator[BenchPrompt]:
    for place, entry in _entries(path, text):
        found = _text_of(entry)
        if found is None:
            raise UsageError(f"{path}, {place}: no prompt is in it", details=(f"an entry is {SHAPES}",))

        if found.strip():
            yield BenchPrompt(place.replace(" ", "_"), found)


def _entries(path: str, text: str) -> Iterator[tuple[str, Any]]:
    try:
        if text.lstrip().startswith("["):
            for number, entry in enumerate(json.loads(text), 1):
                yield f"entry {number}", entry

            return

        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                place = f"line {number}"
                yield place, json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON Lines", details=(str(error),)) from None


def _text_of(entry: Any) -> str | None:
    if isinstance(entry, str):
        return entry

    if not isinstance(entry, dict):
        return None

    turns = entry.get("turns")
    if isinstance(turns, list) and turns:
        return _text_of(turns[0]) if isinstance(turns[0], dict) else str(turns[0])

    for key, who, words in (("conversations", "from", "value"), ("messages", "role", "content")):
        rows = entry.get(key)
        if isinstance(rows, list):
            of_user = [row[words] for row in rows if isinstance(row, dict) and row.get(who) in ("human", "user")]
            return of_user[0] if of_user and isinstance(of_user[0], str) else ""

    return next(
        (entry[key] for key in ("prompt", "question", "text", "content") if isinstance(entry.get(key), str)), None
    )
