"""The rules that people write about what stays loaded: `[residency]` in `orch.toml` and in profiles. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.fleet.demand import DemandPolicy

Policy = Literal["fit", "one"]
"""`fit`: as many models as the memory holds. `one`: one at a time, each takes the place of the one before."""


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """What one profile says of itself.

    :param idle_unload_s: unloaded after so long without a request; 0 for never, None for what `orch.toml` says
    :param pinned: never unloaded to make room, and not for idleness
    :param priority: how much more it is worth to keep than another one
    :param max_in_flight: requests that it is given at a time; 0 for any number
    """

    idle_unload_s: float | None = None
    pinned: bool = False
    priority: float = 1.0
    max_in_flight: int = 0


_DEFAULT = ProfileRules()


@dataclass(frozen=True, slots=True)
class ResidencyRules:
    """What holds for all of them.

    :param max: the most that are loaded at a time; 0 for any number
    :param exclusive: groups of which one at a time is loaded
    :param preload: profiles that are loaded when the daemon starts
    :param stay: when one that is used makes room for another
    """

    policy: Policy = "fit"
    max: int = 0
    idle_unload_s: float = 0.0
    exclusive: tuple[frozenset[str], ...] = ()
    preload: tuple[str, ...] = ()
    stay: DemandPolicy = field(default_factory=DemandPolicy)
    profiles: Mapping[str, ProfileRules] = field(default_factory=dict)

    def of(self, profile: str) -> ProfileRules:
        """Return the rules of one profile."""
        return self.profiles.get(profile, _DEFAULT)

    def idle_limit_s(self, profile: str) -> float:
        """Return after how long without a request a profile is unloaded; 0 for never."""
        own = self.of(profile)
        if own.pinned:
            return 0.0

        return self.idle_unload_s if own.idle_unload_s is None else own.idle_unload_s

    def exclude(self, one: str, other: str) -> bool:
        """Return whether two profiles are never loaded at the same time."""
        return any(one in group and other in group for group in self.exclusive)
