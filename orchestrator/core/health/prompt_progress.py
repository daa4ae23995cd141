"""How far an engine is with a prompt, from its own log lines. Pure.

Upstream says so every few seconds while it reads a long prompt (`print_timings_pp`, tools/server/server-context.cpp;
`update_slots` before summer 2026). Its `/slots` no longer tells how long the prompt is. The fork says it to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIGN = "prompt processing"
_LINE = re.compile(
    r"slot +\w+: id +\d+ \| task (?P<task>\d+) \| prompt processing[^=]*, n_tokens = .* progress = (?P<share>[01]\.\d+)"
)


def told_progress(lines: Iterable[str]) -> dict[int, float]:
    """Task to how much of its prompt was read, 0 to 1, as the newest line about it says.

    :param lines: oldest first
    """
    found = (_LINE.search(line) for line in lines if _SIGN in line)
    return {int(each["task"]): float(each["share"]) for each in found if each}
