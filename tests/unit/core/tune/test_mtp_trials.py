from __future__ import annotations

from math import log

import pytest

from orchestrator.core.bench.mtp_gain import describe_gain, mtp_findings
from orchestrator.core.profile.settings import Value
from orchestrator.core.tune.axes import TuneFacts, space_of
from orchestrator.core.tune.mtp_trials import measured_by_tuning
from orchestrator.core.tune.records import TuneProgress, TuneSpec
from orchestrator.core.tune.search import Outcome, TuneTrial
from orchestrator.core.tune.use import USES

MTP: dict[str, Value] = {"speculative.type": "mtp", "speculative.draft_max": 3, "speculative.draft_p_min": 0.0}


def tuning(kind: str = "mtp") -> TuneSpec:
    settings = {**MTP, "speculative.type": kind}
    facts = TuneFacts(settings, "upstream", True, 0, 0, 4, 4, False, 4096)
    side = {"all_settings": {key: str(value) for key, value in settings.items()}}
    return TuneSpec("p", "upstream", USES["chat"], space_of(facts, ()), 900.0, 20, 42, False, 4096, side, (), {})


def progress(spec: TuneSpec, with_s: float, without_s: float, *, none: Outcome = "measured") -> TuneProgress:
    """The settings as they are, and the same without drafts: seconds a turn."""
    assert [axis.name for axis in spec.space.axes] == ["drafts", "ubatch", "p_min"]
    undrafted = (0, *spec.space.current[1:])
    logs = (-log(without_s),) * 5 if none == "measured" else ()
    return TuneProgress(
        (
            TuneTrial(spec.space.current, "measured", (-log(with_s),) * 5),
            TuneTrial(undrafted, none, logs),
        )
    )


@pytest.mark.parametrize(("with_s", "kinds"), [(2.5, ["mtp_slower"]), (2.1, []), (1.2, [])])
def test_mtp_with_which_turns_take_longer_is_slower(with_s: float, kinds: list[str]) -> None:
    spec = tuning()
    found = measured_by_tuning("tuning 4", 1.7e9, spec, progress(spec, with_s, 2.0))
    assert found is not None
    assert [each.kind for each in mtp_findings(found, "p")] == kinds
    assert describe_gain(found).startswith(f"chat turns of {with_s:.2f} against 2.00 s, ")


def test_a_tuning_that_did_not_measure_both_says_nothing() -> None:
    spec = tuning()
    assert measured_by_tuning("tuning 4", 1.7e9, spec, TuneProgress()) is None
    assert measured_by_tuning("tuning 4", 1.7e9, spec, progress(spec, 2.5, 2.0, none="died")) is None


def test_a_tuning_of_settings_that_draft_otherwise_says_nothing_of_mtp() -> None:
    spec = tuning("draft")
    assert measured_by_tuning("tuning 4", 1.7e9, spec, progress(spec, 2.5, 2.0)) is None
