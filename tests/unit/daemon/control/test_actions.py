"""What may be started side by side, before anything moves."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.fleet.fleet_states import ResidencyRules
from orchestrator.daemon.control.actions import check_beside

PAIR = (frozenset({"a", "b"}),)


@pytest.mark.parametrize(
    ("profiles", "rules", "said"),
    [
        (["a", "b", "a"], ResidencyRules(), "`a` was named twice"),
        (["a", "b"], ResidencyRules(policy="one"), "2 profiles were named, and at most 1 may be loaded"),
        (["a", "b", "c"], ResidencyRules(max=2), "3 profiles were named, and at most 2 may be loaded"),
        (["c", "b", "a"], ResidencyRules(exclusive=PAIR), "`b` and `a` are never loaded at the same time"),
    ],
)
def test_what_is_never_loaded_side_by_side_is_refused(profiles: list[str], rules: ResidencyRules, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_beside(profiles, rules)


@pytest.mark.parametrize(
    ("profiles", "rules"),
    [
        (["a"], ResidencyRules(policy="one", max=1)),
        (["a", "b"], ResidencyRules(max=2)),
        (["a", "c"], ResidencyRules(exclusive=PAIR)),
    ],
)
def test_the_rest_is_tried(profiles: list[str], rules: ResidencyRules) -> None:
    check_beside(profiles, rules)
