"""The rules about what stays loaded, from `orch.toml` and the profiles to the owner, each time that one has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from orchestrator.core.config import Config
from orchestrator.core.fleet.demand import DemandPolicy
from orchestrator.core.fleet.fleet_states import ProfileRules, ResidencyRules, RulesChanged
from orchestrator.core.profile.profile import Profile
from orchestrator.core.residency.table import ResidencyConfig


def residency_rules(
    config: ResidencyConfig, stay: DemandPolicy, profiles: Mapping[str, ProfileRules]
) -> ResidencyRules:
    """Return the rules that the fleet goes by."""
    return ResidencyRules(
        policy=config.policy,
        max=config.max,
        idle_unload_s=config.idle_unload_s,
        exclusive=tuple(map(frozenset, config.exclusive)),
        preload=config.preload,
        stay=stay,
        profiles=profiles,
    )


def profile_rules(profile: Profile) -> ProfileRules:
    """Return what a profile says of itself."""
    return ProfileRules(**cast("dict[str, Any]", profile.residency))


class ResidencyKeeper:
    """Posts the rules to the owner. `gateway.switch_min_stay_s` and `switch_patience_s` are those of the start.

    :param post: hands them to the owner
    :param load: reads `orch.toml`; blocks
    """

    def __init__(self, config: Config, load: Callable[[], Config], post: Callable[[RulesChanged], None]) -> None:
        self._config = config.residency
        self._load = load
        self._post = post
        self._stay = DemandPolicy(config.gateway.switch_min_stay_s, config.gateway.switch_patience_s)
        self._profiles: Mapping[str, ProfileRules] = {}
        self._posted: ResidencyRules | None = None

    def read_config(self) -> None:
        """Read `orch.toml` anew, in a thread: in force once the profiles have been read, which follows.

        :raises OrchError: when something is wrong with it; what was read before stays
        """
        self._config = self._load().residency

    def profiles_read(self, profiles: Sequence[Profile], names: Sequence[str]) -> None:
        """Take what the profiles say, and tell the owner if the rules are others by it.

        :param profiles: those that could be read
        :param names: of all: what one said before holds as long as its text has a mistake
        """
        kept = {name: rules for name, rules in self._profiles.items() if name in names}
        self._profiles = {**kept, **{each.name: profile_rules(each) for each in profiles}}
        rules = residency_rules(self._config, self._stay, self._profiles)
        if rules != self._posted:
            self._posted = rules
            self._post(RulesChanged(rules))
