"""Upstream's own projection of what a start would take, from the lines of its `--fit` (`common/fit.cpp`). Pure.

The first table of a fit is of the settings as they were given, the second, if there is one before the sum, of the
drafter's context: its column `model` is a drafter's own weights, or with MTP the model's once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.engine_log.loaded_memory import place_of
from orchestrator.core.quantities import MIB

PROJECTED = (
    b"projected to use",
    b"projected memory use with initial parameters",
    b"failed to fit params",
    b"encountered an error while trying to fit params",
    b"fitting params to free memory took",
)
"""One of these comes after the tables of the settings as they were given: the rest of a fit tries other settings."""

_TABLE = re.compile(r".*\| memory breakdown \[MiB\]")
_ROW = re.compile(
    r".*\|\s+- (?P<name>\S+)[^|]*\|.*?(?P<self>-?\d+) = +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)"
)
_EXTRA = "memory data for the extra model"
_ERROR = re.compile(
    r".*(?:encountered an error while trying to|failed to) fit params to free device memory: (?P<why>.*)"
)


@dataclass(frozen=True, slots=True)
class _BreakdownRow:
    model_mib: int
    context_mib: int
    compute_mib: int


@dataclass(frozen=True, slots=True)
class Projection:
    """Bytes by place (`host`, or the device as the engine names it), whole MiB as the engine prints them.

    :param context: KV cache and recurrent state of the model's context
    :param draft_context: KV cache of the drafter's
    :param compute: of both contexts
    :param error: what the engine could not do, in its words
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    context: Mapping[str, int] = field(default_factory=dict)
    draft_weights: Mapping[str, int] = field(default_factory=dict)
    draft_context: Mapping[str, int] = field(default_factory=dict)
    compute: Mapping[str, int] = field(default_factory=dict)
    error: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.weights, *self.context, *self.compute]))

    def total(self, place: str) -> int:
        """Return the bytes of all components in a place."""
        parts = (self.weights, self.context, self.draft_weights, self.draft_context, self.compute)
        return sum(part.get(place, 0) for part in parts)


def read_projection(lines: Iterable[str], *, mtp_in_model: bool) -> Projection | None:
    """Return the projection; None where no table was printed.

    :param mtp_in_model: the drafter is the model's own MTP block, whose weights are counted with the model's
    """
    tables: list[dict[str, _BreakdownRow]] = []
    error = ""
    extra_at: int | None = None
    for line in lines:
        if any(mark.decode() in line for mark in PROJECTED[:2]):
            break

        if failed := _ERROR.match(line):
            error = failed["why"].strip()
            break

        if _EXTRA in line:
            extra_at = len(tables)
        elif _TABLE.match(line):
            tables.append({})
        elif tables and (row := _ROW.match(line)):
            place = place_of(row["name"])
            tables[-1][place] = _BreakdownRow(int(row["model"]), int(row["context"]), int(row["compute"]))

    if not tables or not tables[0]:
        return Projection(error=error) if error else None

    main = tables[0]
    extra = tables[extra_at] if extra_at is not None and extra_at < len(tables) else {}
    compute = {
        place: (main[place].compute_mib if place in main else 0) + (extra[place].compute_mib if place in extra else 0)
        for place in dict.fromkeys([*main, *extra])
    }
    return Projection(
        weights={place: row.model_mib * MIB for place, row in main.items()},
        context={place: row.context_mib * MIB for place, row in main.items()},
        draft_weights={} if mtp_in_model else {place: row.model_mib * MIB for place, row in extra.items()},
        draft_context={place: row.context_mib * MIB for place, row in extra.items()},
        compute={place: mib * MIB for place, mib in compute.items()},
        error=error,
    )
