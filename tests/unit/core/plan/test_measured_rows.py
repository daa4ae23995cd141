"""The plan beside what engines said and took: bounds contain every figure, and nothing that is said to fit does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.plan_error import FOLDER, OWN, Comparison, compare, compare_kept, quantile, rows_of, table

FIGURES = [each for row in rows_of(FOLDER / name for name in OWN) for each in compare(row)]
TOTALS = [each for each in FIGURES if each.component == "total"]


def errors(figures: Sequence[Comparison], case: str, role: str) -> list[float]:
    """The errors of what a card would take, not of a device over RPC."""
    return [
        each.error
        for each in figures
        if each.engine == "upstream" and each.case.startswith(case) and each.role.startswith(role)
        if "CUDA-like" in each.row["via"]
    ]


def test_the_bounds_contain_every_figure() -> None:
    outside = [(each.case, each.component, each.measured, each.planned, each.row) for each in FIGURES if each.outside]

    assert len(FIGURES) > 7000
    assert outside == []


def test_nothing_that_fits_takes_more() -> None:
    assert len(TOTALS) > 1000
    assert [each.row for each in TOTALS if each.falsely_fits] == []


@pytest.mark.parametrize(("role", "most_mib"), [("derive", 24.0), ("held-out", 15.0)])
def test_a_model_that_is_all_on_the_device_is_known_to_some_mib(role: str, most_mib: float) -> None:
    found = errors(TOTALS, "all on the device", role)

    assert len(found) > 100
    assert quantile(found, 0.5) < 0.2
    assert quantile(found, 0.95) <= most_mib


@pytest.mark.parametrize(
    ("case", "most_mib"),
    [("flash attention off", 18.0), ("KV cache on the host", 106.0), ("dense layers on the host", 928.0),
     ("experts on the host", 1550.0)],
)  # fmt: skip
def test_other_cases_are_known_as_well_as_anybody_knows_them(case: str, most_mib: float) -> None:
    for role in ("derive", "held-out"):
        assert max(errors(TOTALS, case, role)) <= most_mib


@pytest.mark.parametrize("component", ["model", "context", "MTP context", "host context"])
def test_weights_and_caches_are_exact(component: str) -> None:
    found = [each for each in FIGURES if each.component == component]

    assert found
    assert {each.planned.kind for each in found} == {"exact"}
    assert all(each.planned.low_bytes == each.planned.high_bytes for each in found)


def test_what_is_not_known_to_the_byte_does_not_say_so() -> None:
    found = [each for each in FIGURES if each.component in ("compute", "MTP compute", "host compute")]

    assert not [each for each in found if each.planned.kind == "exact"]
    host = [each for each in found if each.case in ("experts on the host", "dense layers on the host")]
    assert {each.planned.kind for each in host if each.component == "compute"} == {"interval"}


def test_a_start_that_was_kept_is_scored_by_what_had_been_planned_for_it() -> None:
    mib = 1 << 20
    sizes = {"weights": 100 * mib, "compute": 61 * mib}
    planned = {"weights": [100 * mib, 100 * mib, "exact"], "compute": [40 * mib, 60 * mib, "computed"]}
    entry = {
        "engine": "upstream", "profile": "p", "shape": {}, "host": {"compute": mib},
        "devices": [{"name": "CUDA0", "sizes": sizes}],
        "planned": {"CUDA0": planned, "host": {"compute": [mib, 2 * mib, "computed"], "output": [0, 0, "exact"]}},
    }  # fmt: skip
    found = compare_kept(entry)

    assert [(each.component, each.error, each.outside) for each in found] == [
        ("weights", 0.0, False), ("compute", 11.0, True), ("host compute", 0.5, False),
    ]  # fmt: skip
    assert len(table(found)) == 4
