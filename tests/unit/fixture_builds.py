"""Recorded builds: what real engines print for `--help` and `--version`, and what they accept besides.

`tests/fixtures/help/NAME.help.txt` is an engine's own output. The `upstream-*` ones were printed by upstream's own
argument parser, in llama-server (b11434) and in the library of the xllamacpp wheels of that build number (the others);
`ik-0.1.5-sdist` by the server in ik-llama-cpp-python's sdist. `ik-b4840` is an excerpt in the layout of the fork's
help of August 2026. `NAME.accepted.txt` holds one `flag[ value-hint]` a line: accepted by the parser, not in the help.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from orchestrator.core.capabilities import Capabilities, Flag
from orchestrator.core.help_text import capabilities
from orchestrator.core.profile import EngineProfile, Recovery
from orchestrator.core.settings import Value

FIXTURES = Path(__file__).parents[1] / "fixtures"

UPSTREAM_BARE_FLASH = "upstream-b6123"
UPSTREAM_BEFORE_RENAMING = "upstream-b8672"
UPSTREAM_BEFORE_MTP = "upstream-b9093"
UPSTREAM_BOTH_LOAD_FLAGS = "upstream-b10566"
UPSTREAM = "upstream-b11434"
FORK_SDIST = "ik-0.1.5-sdist"
FORK_STAGES = "ik-b4840"

BUILDS = (
    UPSTREAM,
    UPSTREAM_BOTH_LOAD_FLAGS,
    UPSTREAM_BEFORE_MTP,
    UPSTREAM_BEFORE_RENAMING,
    UPSTREAM_BARE_FLASH,
    FORK_STAGES,
    FORK_SDIST,
)


@cache
def build(name: str) -> Capabilities:
    """The capabilities of a recorded build, as a probe would report them."""
    accepted = FIXTURES / "help" / f"{name}.accepted.txt"
    lines = accepted.read_text().splitlines() if accepted.exists() else []
    words = [line.split() for line in lines]
    return capabilities(
        (FIXTURES / "help" / f"{name}.help.txt").read_text(),
        (FIXTURES / "help" / f"{name}.version.txt").read_text(),
        [Flag(name=flag, value=bool(hint), listed=False) for flag, *hint in words],
    )


def profile(
    settings: dict[str, Value] | None = None, *, aliases: tuple[str, ...] = (), extra_args: tuple[str, ...] = ()
) -> EngineProfile:
    """A profile `qwen` with these settings, its engine chosen."""
    return EngineProfile(
        name="qwen",
        engine="upstream",
        model="/models/qwen.gguf",
        aliases=aliases,
        settings=settings or {},
        recovery=Recovery(),
        extra_args=extra_args,
    )
