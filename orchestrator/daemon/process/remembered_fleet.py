"""What the state file says of all that is loaded, beside the one in focus: what to write, and what was read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api.types import LeaseStatus, TargetName
from orchestrator.core.fleet.fleet_states import Fleet, ResidencyRules
from orchestrator.core.fleet.lifecycle_states import Backoff, Target
from orchestrator.core.fleet.resident_states import Resident, state_is_active, target_of


def as_saved(target: Target) -> dict[str, str]:
    return {"profile": target.profile, "engine": target.engine}


def remembered_target(value: object) -> Target | None:
    """Return the target that the state file keeps; None for anything else, since anyone may have written there."""
    match value:
        case {"profile": str(profile), "engine": str(engine)}:
            return Target(profile, engine)
        case _:
            return None


def remembered_targets(value: object) -> list[Target]:
    """Return the targets that the state file keeps, without what is none."""
    found = map(remembered_target, value) if isinstance(value, list) else ()
    return list(dict.fromkeys(target for target in found if target is not None))


def remembered_lease(value: object) -> LeaseStatus | None:
    """Return the lease that the state file keeps; None for anything else."""
    match value:
        case {
            "title": str(title),
            "resume": str(resume),
            "since": str(since),
            "state": ("held" | "restoring" | "interrupted" | "failed") as state,
            "serves": serves,
            "cause": str() | None as cause,
        }:
            focus = remembered_target(serves)
            name = TargetName(profile=focus.profile, engine=focus.engine) if focus is not None else None
            return LeaseStatus(title=title, resume=resume, since=since, state=state, serves=name, cause=cause)
        case _:
            return None


def loaded_targets(fleet: Fleet, order: Sequence[str]) -> list[Target]:
    """Return what is loaded or on its way, the one that was used last first; what is unloaded is not among them.

    :param order: the profiles that were ever used, the one that was used last first
    """
    found = [target for resident in fleet.residents.values() if (target := _loaded(resident)) is not None]
    ranks = {profile: rank for rank, profile in enumerate(order)}
    return sorted(found, key=lambda target: ranks.get(target.profile, len(ranks)))


def _loaded(resident: Resident) -> Target | None:
    if resident.switch is not None:
        return resident.switch.operation.target

    return target_of(resident.state) if state_is_active(resident.state) or isinstance(resident.state, Backoff) else None


def within_rules(names: Sequence[str], rules: ResidencyRules) -> list[str]:
    """Return those of these profiles that may be loaded side by side, from the first on: one of each name."""
    most = 1 if rules.policy == "one" else rules.max
    taken: list[str] = []
    for name in names:
        fits = name not in taken and not any(rules.exclude(name, other) for other in taken)
        if fits and (not most or len(taken) < most):
            taken.append(name)

    return taken
