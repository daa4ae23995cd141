"""What a tuning measured of MTP: the settings as they are against the same without drafts. Pure."""

from __future__ import annotations

from math import exp

from orchestrator.core.bench.estimator import trimmed_mean
from orchestrator.core.bench.mtp_gain import MtpMeasurement, MtpRatio
from orchestrator.core.bench.text import shown
from orchestrator.core.tune.records import TuneProgress, TuneSpec
from orchestrator.core.tune.space import Point, Space


def measured_by_tuning(source: str, when_s: float, spec: TuneSpec, progress: TuneProgress) -> MtpMeasurement | None:
    """Return how turns with MTP compare with turns without, each from one start; None where it did not start both."""
    rates = {
        trial.point: trimmed_mean(trial.logs) for trial in progress.trials if trial.outcome == "measured" and trial.logs
    }
    with_mtp, none = rates.get(spec.space.current), rates.get(_undrafted(spec.space) or ())
    if "mtp" not in spec.side.get("all_settings", {}).get("speculative.type", "") or with_mtp is None or none is None:
        return None

    figures = f"{spec.use.name} turns of {shown(exp(-with_mtp))} against {shown(exp(-none))} s"
    return MtpMeasurement(source, when_s, {"turn": MtpRatio(exp(with_mtp - none), None, None, figures)})


def _undrafted(space: Space) -> Point | None:
    """Return the settings as they are without drafts; None where that is no choice."""
    for index, axis in enumerate(space.axes):
        for at, choice in enumerate(axis.choices):
            if axis.kind == "drafts" and dict(choice.settings).get("speculative.type") == '"none"':
                return space.canonical((*space.current[:index], at, *space.current[index + 1 :]))

    return None
