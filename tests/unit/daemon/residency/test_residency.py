from __future__ import annotations

from dataclasses import replace

from orchestrator.core.config import Config, GatewayConfig
from orchestrator.core.fleet.demand import DemandPolicy
from orchestrator.core.fleet.fleet_states import ProfileRules, ResidencyRules, RulesChanged
from orchestrator.core.profile.profile import Profile
from orchestrator.core.profile.settings import Value
from orchestrator.core.residency.table import ResidencyConfig
from orchestrator.daemon.residency.residency import ResidencyKeeper

CONFIG = Config(
    gateway=GatewayConfig(switch_min_stay_s=2.0, switch_patience_s=9.0),
    residency=ResidencyConfig("one", 3, 60.0, ("a",), (("a", "b"),)),
)


def profile(name: str, **residency: Value) -> Profile:
    return Profile(name, f"{name}.toml", "/m.gguf", "upstream", residency=residency)


def keeper(config: Config = CONFIG) -> tuple[ResidencyKeeper, list[ResidencyRules], list[Config]]:
    """A keeper, what it posted, and the configuration that is on the disk."""
    posted: list[ResidencyRules] = []
    disk = [config]

    def post(event: RulesChanged) -> None:
        posted.append(event.rules)

    return ResidencyKeeper(config, lambda: disk[0], post), posted, disk


def test_the_owner_is_told_all_that_people_wrote() -> None:
    kept, posted, _ = keeper()
    kept.profiles_read(
        [profile("a", pinned=True, idle_unload_s=5.0), profile("b", priority=2.0, max_in_flight=4)], "ab"
    )
    assert posted == [
        ResidencyRules(
            policy="one",
            max=3,
            idle_unload_s=60.0,
            exclusive=(frozenset("ab"),),
            preload=("a",),
            stay=DemandPolicy(2.0, 9.0),
            profiles={"a": ProfileRules(5.0, pinned=True), "b": ProfileRules(None, False, 2.0, 4)},
        )
    ]


def test_the_owner_is_told_again_only_of_other_rules() -> None:
    kept, posted, _ = keeper()
    kept.profiles_read([profile("a")], ["a"])
    kept.profiles_read([profile("a")], ["a"])
    assert len(posted) == 1

    kept.profiles_read([profile("a", pinned=True)], ["a"])
    assert posted[-1].of("a").pinned


def test_a_profile_with_a_mistake_keeps_what_it_said_before_and_one_that_is_gone_does_not() -> None:
    kept, posted, _ = keeper()
    kept.profiles_read([profile("a", pinned=True), profile("b", pinned=True)], ["a", "b"])
    kept.profiles_read([], ["a"])
    assert posted[-1].profiles == {"a": ProfileRules(pinned=True)}


def test_a_changed_configuration_is_in_force_once_the_profiles_are_read_at_a_reload() -> None:
    kept, posted, disk = keeper()
    kept.profiles_read([], [])
    disk[0] = replace(CONFIG, residency=ResidencyConfig(idle_unload_s=7.0))
    kept.profiles_read([], [])  # a file has changed, and nobody reloaded
    assert len(posted) == 1

    kept.read_config()
    kept.profiles_read([], [])
    assert [each.idle_unload_s for each in posted] == [60.0, 7.0]
    assert posted[-1].stay == DemandPolicy(2.0, 9.0)
