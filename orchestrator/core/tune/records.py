"""A tuning as it is kept: its axes and trials, to JSON and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any

from orchestrator.core.bench.records import known_fields
from orchestrator.core.tune.search import TuneTrial
from orchestrator.core.tune.space import Axis, AxisChoice, Point, Space
from orchestrator.core.tune.use import TuneUse


@dataclass(frozen=True, slots=True)
class TuneSpec:
    """All that a tuning is gone on with.

    :param budget_s: for search and confirmation together
    :param side: build and model that it is about, as a bench describes them
    :param devices: whether a device is filled, and a full context has to survive on it
    """

    profile: str
    engine: str
    use: TuneUse
    space: Space
    budget_s: float
    most_starts: int
    seed: int
    devices: bool
    context_tokens: int
    side: Mapping[str, Any]
    command: tuple[str, ...]
    machine: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TuneProgress:
    """Where a tuning is.

    :param barred: proposals that a full context has killed
    :param survived: proposals that a full context has not killed
    :param confirmation: number of the bench that confirms; None before it began
    """

    trials: tuple[TuneTrial, ...] = ()
    barred: tuple[Point, ...] = ()
    survived: tuple[Point, ...] = ()
    confirmation: int | None = None

    @property
    def took_s(self) -> float:
        return sum(trial.took_s for trial in self.trials)


def spec_to_json(spec: TuneSpec) -> dict[str, Any]:
    return asdict(spec)


def spec_from_json(found: Mapping[str, Any]) -> TuneSpec:
    axes = tuple(
        Axis(**{**known_fields(Axis, each), "choices": tuple(_choice(choice) for choice in each["choices"])})
        for each in found["space"]["axes"]
    )
    use, command = TuneUse(**known_fields(TuneUse, found["use"])), tuple(found["command"])
    return TuneSpec(**{**known_fields(TuneSpec, found), "use": use, "space": Space(axes), "command": command})


def _choice(found: Mapping[str, Any]) -> AxisChoice:
    settings = tuple((key, value) for key, value in found["settings"])
    return AxisChoice(found["label"], settings, tuple(found["mutes"]))


def trial_to_json(trial: TuneTrial) -> dict[str, Any]:
    return {"event": "trial", **asdict(trial)}


def add_event(progress: TuneProgress, event: Mapping[str, Any]) -> TuneProgress:
    """Return the progress after one more thing that happened, as it is kept."""
    match event["event"]:
        case "trial":
            found = {**known_fields(TuneTrial, event), "point": tuple(event["point"]), "logs": tuple(event["logs"])}
            return replace(progress, trials=(*progress.trials, TuneTrial(**found)))
        case "full_context" if event["survived"]:
            return replace(progress, survived=(*progress.survived, tuple(event["point"])))
        case "full_context":
            return replace(progress, barred=(*progress.barred, tuple(event["point"])))
        case "confirmation":
            return replace(progress, confirmation=event["run"])
        case _:
            return progress


def progress_of(events: Sequence[Mapping[str, Any]]) -> TuneProgress:
    """Return where a tuning is, from what happened to it."""
    return reduce(add_event, events, TuneProgress())
