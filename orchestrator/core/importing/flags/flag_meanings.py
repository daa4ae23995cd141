"""The dialect tables read backwards: what a flag of either engine, of any age, says as a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from orchestrator.core.dialect.known_flags import settings_of_flags
from orchestrator.core.dialect.speculative import ROWS as SPECULATIVE_ROWS
from orchestrator.core.dialect.tables import ADAPTERS, FITTING, LOAD_FLAGS, PLACEMENT, REST, Shape
from orchestrator.core.profile.settings import BY_PATH, Value


@dataclass(frozen=True, slots=True)
class FlagMeaning:
    """What a flag says.

    :param bare: the value that it says alone; None when it always has a value behind it
    :param valued: it can have a value behind it
    """

    setting: str
    bare: Value | None
    valued: bool


_NEGATIVE = frozenset({
    "-nkvo", "-no-kvu", "-nr", "-no-fmoe", "-no-gr", "-ndio", "--no-direct-io", "-nopo",
})  # fmt: skip
"""Short spellings that turn a setting off."""

_MORE = {
    "-nopo": "memory.op_offload", "--mmproj-no-offload": "multimodal.offload", "-dt": "sampling.temperature",
    "--draft-max": "speculative.draft_max", "--spec-draft-max": "speculative.draft_max",
}  # fmt: skip


@cache
def flag_meanings() -> Mapping[str, FlagMeaning]:
    """Return every known spelling with its meaning; `model`, `aliases` and types of speculation are read elsewhere."""
    bare: dict[str, tuple[str, Value]] = {}
    valued: dict[str, str] = {}
    for row in (*PLACEMENT, *LOAD_FLAGS, *FITTING, *SPECULATIVE_ROWS, *REST, *ADAPTERS):
        for form in row.forms:
            for flag in form.flags:
                if form.shape is Shape.BARE:
                    bare.setdefault(flag, (row.setting, (form.when or (True,))[0]))
                else:
                    valued.setdefault(flag, row.setting)

    for flag, setting in {**settings_of_flags(), **_MORE}.items():
        if setting not in BY_PATH or flag in bare or flag in valued:
            continue

        if "bool" in BY_PATH[setting].types:
            bare[flag] = (setting, not (flag in _NEGATIVE or flag.startswith(("--no-", "-no-"))))
        else:
            valued[flag] = setting

    # Flags that were bare in one age and take a word in another: `-fa`.
    for flag in ("-fa", "--flash-attn"):
        bare[flag], valued[flag] = ("attention.flash", True), "attention.flash"

    found = {}
    for flag in (*bare, *valued):
        alone = bare.get(flag)
        found[flag] = FlagMeaning(
            alone[0] if alone else valued[flag], alone[1] if alone else None, flag in valued or _is_switch(flag, alone)
        )

    return found


def _is_switch(flag: str, alone: tuple[str, Value] | None) -> bool:
    """Return whether a bare flag may have `on` or `off` behind it: in the fork, in the router's files."""
    return alone is not None and "bool" in BY_PATH[alone[0]].types
