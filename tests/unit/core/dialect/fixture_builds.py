"""Recorded builds: what real engines print for `--help` and `--version`, and what they accept besides.

`tests/fixtures/help/NAME.help.txt` is an engine's own output. The `upstream-*` ones were printed by upstream's own
argument parser, in llama-server (b11434) and in the library of the xllamacpp wheels of that build number (the others);
`ik-0.1.5-sdist` by the server in ik-llama-cpp-python's sdist. `ik-b4840` is an excerpt in the layout of the fork's
help of August 2026. `NAME.accepted.txt` holds one `flag[ value-hint]` a line: accepted by the parser, not in the help.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest

from orchestrator.core.dialect.capabilities import Capabilities, Flag
from orchestrator.core.dialect.help_text import read_capabilities
from orchestrator.core.dialect.render import Rendered, UnsupportedError, render
from orchestrator.core.dialect.speculative import ROWS as SPECULATIVE_ROWS
from orchestrator.core.dialect.speculative import STAGE_KEYS, TYPE
from orchestrator.core.dialect.tables import ADAPTERS, FITTING, LOAD_FLAGS, PLACEMENT, REST, Row
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from tests.support import FIXTURES

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


ROWS: Mapping[str, Row] = {
    row.setting: row for row in (*PLACEMENT, *LOAD_FLAGS, *FITTING, TYPE, *SPECULATIVE_ROWS, *REST, *ADAPTERS)
}


def flags_of(setting: str, on: Capabilities) -> frozenset[str]:
    """Every spelling that a setting may have on the command line of this build."""
    spellings = {flag for form in ROWS[setting].forms for flag in form.flags}
    if any(row.setting == setting for row in LOAD_FLAGS):
        spellings.add("--load-mode")

    if setting == "lora.adapters":
        spellings.add("--lora-scaled")

    if on.spec_stages and setting in STAGE_KEYS:
        spellings.add("--spec-type")

    return frozenset(spellings)


@cache
def build(name: str) -> Capabilities:
    """The capabilities of a recorded build, as a probe would report them."""
    accepted = FIXTURES / "help" / f"{name}.accepted.txt"
    lines = accepted.read_text().splitlines() if accepted.exists() else []
    words = [line.split() for line in lines]
    return read_capabilities(
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


def rendered(on: str, what: EngineProfile, *, host: str = "127.0.0.1", api_key_file: str | None = None) -> Rendered:
    return render(
        what, build(on), build=on, model="/models/qwen.gguf", host=host, port="18200", api_key_file=api_key_file
    )


def argv(on: str, **settings: Value) -> str:
    """The command line for these settings, `memory__fit=True` standing for `memory.fit`, padded by spaces."""
    return f" {' '.join(rendered(on, profile(dotted(settings))).argv)} "


def notes(on: str, **settings: Value) -> str:
    return "\n".join(rendered(on, profile(dotted(settings))).notes)


def refusal(on: str, **settings: Value) -> str:
    with pytest.raises(UnsupportedError) as caught:
        rendered(on, profile(dotted(settings)))

    return "\n".join(caught.value.details)


def dotted(settings: dict[str, Value]) -> dict[str, Value]:
    return {name.replace("__", "."): value for name, value in settings.items()}
