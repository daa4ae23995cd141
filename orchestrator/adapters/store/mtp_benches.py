"""What benches and tunings that are kept here measured of MTP for a start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from orchestrator.adapters.file_stamps import Stamp, stamp
from orchestrator.adapters.store.bench_runs import TUNE, BenchStore, KeptRun, read_or_none
from orchestrator.core.bench.blocks import progress_of
from orchestrator.core.bench.conditions import SIDES, BenchSide
from orchestrator.core.bench.mtp_gain import (
    MtpMeasurement,
    holds_for,
    measured_by_depth,
    measured_by_pair,
    mtp_and_none,
)
from orchestrator.core.bench.records import event_from_json, side_from_json, spec_from_json
from orchestrator.core.tune import records as tune_records
from orchestrator.core.tune.mtp_trials import measured_by_tuning

KINDS = ("pair", "depth", TUNE)


class MtpStart(NamedTuple):
    """What a measurement has to be of to hold for a start.

    :param build: as `engines/registry.engine_key` has it
    :param model: as `adapters/file_stamps.file_identity` has it
    :param settings: of the profile on the engine
    """

    build: str
    model: str
    settings: Mapping[str, Any]


def measured_mtp(path: str, starts: Sequence[MtpStart]) -> list[MtpMeasurement | None]:
    """Return what is kept of MTP for each start; None where nothing was measured of the same settings, build and model.

    A bench in pairs goes before one by depth, and that before a tuning; of each kind the newest.

    :param path: of the benches' file
    :raises OrchError: when the file cannot be read
    """
    if not starts or not os.path.exists(path):
        return [None for _ in starts]

    store = BenchStore(path, read_only=True)
    try:
        runs = sorted(store.done(*KINDS), key=lambda each: KINDS.index(each.kind))  # the newest first, of each kind
        sides = [(kept, side) for kept in runs if (side := read_or_none(kept, _mtp_side)) is not None]
        return [_newest(store, sides, start) for start in starts]
    finally:
        store.close()


def benches_stamp(path: str) -> tuple[Stamp, Stamp]:
    """Return what differs once something was kept in the benches' file, or in the log beside it.

    A log that is empty is none: whoever reads the file makes one, and whoever writes to it removes it at the end.
    """
    log = stamp(f"{path}-wal")
    return stamp(path), log if log is not None and log[0] else None


def _newest(store: BenchStore, sides: Sequence[tuple[KeptRun, BenchSide]], start: MtpStart) -> MtpMeasurement | None:
    for kept, side in sides:
        if holds_for(side, *start):
            found = read_or_none(kept, partial(_measured, store))
            if found is not None and found.ratios:
                return found

    return None


def _mtp_side(kept: KeptRun) -> BenchSide | None:
    """Return the side of a bench that drafted with MTP; None where it did not compare that with none."""
    if kept.kind == TUNE:
        return side_from_json(kept.spec["side"])

    if kept.kind == "pair":
        sides = [side_from_json(kept.spec["sides"][side]) for side in SIDES]
    else:
        result = kept.result or {}
        known = {key: result.get(key) for key in ("build", "sha256", "model", "model_bytes", "profile", "engine")}
        arms = [each.get("all_settings", {}) for each in result.get("series", ())]
        sides = [side_from_json({"name": "", "argv": (), **known, "all_settings": arm}) for arm in arms]

    indices = mtp_and_none([each.all_settings for each in sides])
    return None if indices is None else sides[indices[0]]


def _measured(store: BenchStore, kept: KeptRun) -> MtpMeasurement | None:
    result = kept.result or {}
    if kept.kind == TUNE:
        progress = tune_records.progress_of(store.events(kept.id))
        return measured_by_tuning(f"tuning {kept.id}", kept.started_s, tune_records.spec_from_json(kept.spec), progress)

    if kept.kind == "depth":
        return measured_by_depth(f"bench {kept.id} (by depth)", kept.started_s, result)

    source = f"bench {kept.id}{' (under conditions)' if result.get('conditional') else ''}"
    blocks = progress_of([event_from_json(each) for each in store.events(kept.id)])
    return measured_by_pair(source, kept.started_s, spec_from_json(kept.spec), blocks.measured)
