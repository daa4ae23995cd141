"""The page of `/metrics`, its table in the docs and the dashboard that reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import orchestrator
from orchestrator.api.top_frames import GpuFigures, HostFigures
from orchestrator.core.energy.sharing import ModelEnergy
from orchestrator.core.measure.engine_metrics import read_families
from orchestrator.daemon.telemetry.metrics import RESIDENT_STATES, SPECS, ResidentGauges, Snapshot, render
from orchestrator.daemon.telemetry.totals import MAX_PAIRS, Totals
from tests.unit.daemon.telemetry.test_totals import finished

ROOT = Path(orchestrator.__file__).parent.parent
ODD = 'a "quoted"\nname \\ with {braces}, é'

GPU = GpuFigures(
    index=1, uuid="GPU-1", name="NVIDIA H200", vendor="nvidia", total_mib=1024, used_mib=512, engine_mib=256,
    others_mib=0, utilization=0.5, power_w=300.0, power_limit_w=700.0, temperature_c=60.0, sm_clock_mhz=1, throttle=[],
    memory_clock_mhz=1, pcie_rx_mib_s=None, pcie_tx_mib_s=None, energy_j=None,
)  # fmt: skip
HOST = HostFigures(
    memory_total_mib=64, memory_available_mib=32, swap_used_mib=0, pressure_some=None, pressure_full=None,
    model_mib=None, model_resident_mib=None, engine_rss_mib=16,
)  # fmt: skip
ENGINE = """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 74
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 72
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 20
"""
DEMO = ResidentGauges(("demo", "upstream"), "ready", focus=True, gpus_mib={("1", "GPU-1"): 200}, host_mib=12)
EMBED = ResidentGauges(
    ("embed", "ik-fork"), "ready", pinned=True, build="b2", in_flight=1, queued=3, decode_tok_s=7.0, prompt_tok_s=70.0,
    gpus_mib={("1", "GPU-1"): 56}, host_mib=4, engine=read_families(ENGINE), degraded=("flash_attention_off",),
)  # fmt: skip


def full_totals() -> Totals:
    totals = Totals()
    totals.finished(
        finished(prompt_tokens=10, prompt_ms=5.0, output_tokens=11, output_ms=1000.0, draft_tokens=8,
                 draft_accepted=4, client="laptop")
    )  # fmt: skip
    totals.pairs["demo", "upstream"].load_s.observe(4.0)
    return totals


def full_snapshot() -> Snapshot:
    return Snapshot(
        "ready", ("demo", "upstream"), "b1", 1, 2, 40.5, 900.0, (GPU,), HOST, read_families(ENGINE), history_dropped=3,
        degraded=("mlock_failed",), residents=(DEMO, EMBED),
        energy={("demo", "upstream"): ModelEnergy(120.5, 30.25, 10.0)},
    )  # fmt: skip


def parsed(page: bytes) -> dict[str, Metric]:
    """What Prometheus makes of it: families by the name that stands in the page's TYPE line."""
    families = list(text_string_to_metric_families(page.decode()))
    found = {family.name + "_total" * (family.type == "counter"): family for family in families}
    assert len(found) == len(families), "no family comes twice"
    samples = [(each.name, tuple(sorted(each.labels.items()))) for family in families for each in family.samples]
    assert len(set(samples)) == len(samples), "no sample comes twice"
    return found


@pytest.fixture(scope="module")
def page() -> dict[str, Metric]:
    return parsed(render(full_snapshot(), full_totals()))


def test_energy_with_requests_and_without_is_apart(page: dict[str, Metric]) -> None:
    samples = {each.labels["use"]: each.value for each in page["orch_energy_joules_total"].samples}
    assert samples == {"busy": 120.5, "idle": 30.25}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_metric_is_on_a_full_page_with_its_type_and_labels(spec: Any, page: dict[str, Metric]) -> None:
    family = page[spec.name]
    assert (family.type, family.documentation) == (spec.kind, spec.help)
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == set(spec.labels)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_names_follow_the_rules(spec: Any) -> None:
    assert re.fullmatch(r"orch(_[a-z]+)+", spec.name)
    assert spec.name.endswith("_total") == (spec.kind == "counter") or spec.name.endswith("_total_bytes")
    assert not re.search(r"_(ms|mib|mb|percent|milliseconds|minutes)(_|$)", spec.name)
    assert spec.help.endswith(".")


def test_a_page_of_a_daemon_that_has_done_nothing_is_valid() -> None:
    found = parsed(render(Snapshot("stopped"), Totals()))
    assert {name: each.samples[0].value for name, each in found.items() if len(each.samples) == 1} == {
        "orch_info": 1, "orch_ready": 0, "orch_requests_in_flight": 0, "orch_requests_queued": 0,
        "orch_requests_replayed_total": 0, "orch_out_of_memory_retries_total": 0, "orch_history_dropped_total": 0,
        "orch_keys_refused_total": 0, "orch_requests_limited_total": 0,
    }  # fmt: skip
    assert [each.labels["state"] for each in found["orch_state"].samples if each.value] == ["stopped"]
    assert found["orch_gpu_memory_used_bytes"].samples == []


def test_units_are_base_units(page: dict[str, Metric]) -> None:
    values = {each.name: each.value for family in page.values() for each in family.samples}
    assert values["orch_gpu_memory_used_bytes"] == 512 << 20
    assert values["orch_host_memory_total_bytes"] == 64 << 20
    assert values["orch_prompt_seconds_total"] == 0.005
    assert values["orch_gpu_utilization_ratio"] == 0.5


def test_the_buckets_of_a_histogram_add_up(page: dict[str, Metric]) -> None:
    samples = page["orch_load_duration_seconds"].samples
    buckets = [(float(each.labels["le"]), each.value) for each in samples if each.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == [0.0] * 9 + [1.0] * 7
    assert {each.name.rpartition("_")[2]: each.value for each in samples if not each.labels.get("le")} == {
        "count": 1.0,
        "sum": 4.0,
    }


def test_what_the_engine_says_is_passed_on_with_whose_it_is(page: dict[str, Metric]) -> None:
    ours, theirs = {"profile": "demo", "engine": "upstream"}, {"profile": "embed", "engine": "ik-fork"}
    count, other = page["llamacpp:tokens_predicted_total"].samples
    assert (other.labels, other.value) == (theirs, 74.0)
    assert (count.name, count.labels, count.value) == ("llamacpp:tokens_predicted_total", ours, 74.0)
    assert page["llamacpp:n_tokens_max"].type == "unknown", "a counter that is not named like one"
    accepted, _ = page["llamacpp:spec_decode_num_accepted_tokens_per_pos_total"].samples
    assert accepted.labels == {**ours, "position": "0"}


def test_names_of_any_kind_are_escaped() -> None:
    totals = Totals()
    totals.finished(finished(ODD, "upstream"))
    snapshot = Snapshot("ready", (ODD, "upstream"), ODD, gpus=({**GPU, "name": ODD},))
    found = parsed(render(snapshot, totals))
    assert found["orch_requests_total"].samples[0].labels["profile"] == ODD
    assert found["orch_gpu_info"].samples[0].labels["name"] == ODD


def test_the_page_is_bounded_however_many_profiles_there_are() -> None:
    totals = Totals()
    for number in range(1000):
        totals.finished(finished(f"profile-{number}", output_tokens=9, output_ms=9.0))

    assert render(full_snapshot(), totals).count(b"\n") < 120 * (MAX_PAIRS + 1) + 200


def test_the_docs_have_the_same_table() -> None:
    rows = re.findall(r"^\| `(orch_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    assert rows == [(each.name, each.kind, ", ".join(each.labels) or "–", each.help) for each in SPECS]


# The dashboard.

_NAME = re.compile(r"\b((?:orch_|llamacpp:)[a-z_]+)(?:\{([^}]*)\})?")


def dashboard() -> dict[str, Any]:
    found = json.loads((ROOT / "docs/grafana/orch.json").read_text())
    assert isinstance(found, dict)
    return found


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]

    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_whatever_the_dashboard_reads_is_exported(expression: str, page: dict[str, Metric]) -> None:
    exported = {each.name: set(each.labels) for family in page.values() for each in family.samples}
    named = _NAME.findall(expression)
    assert named
    for name, selector in named:
        assert name in exported
        assert set(re.findall(r"(\w+)=~?\"", selector)) <= exported[name]

    for labels in re.findall(r"\bby \(([\w, ]+)\)", expression):
        assert set(labels.split(", ")) <= exported[named[0][0]]

    for variable in re.findall(r"\$(\w+)", expression):
        assert variable in ("profile", "engine", "gpu", "__rate_interval")


def test_the_dashboard_is_of_the_classic_kind_and_names_no_data_source_of_its_own() -> None:
    found = dashboard()
    assert found["schemaVersion"] == 39
    assert "elements" not in found and "id" not in found
    source, *variables = found["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("DS_PROMETHEUS", "datasource", "prometheus")
    assert [each["name"] for each in variables] == ["profile", "engine", "gpu"]
    for each in (*variables, *found["panels"], *(target for panel in found["panels"] for target in panel["targets"])):
        assert each["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def test_the_top_row_shows_speed_requests_and_memory_and_no_panel_covers_another() -> None:
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    top = sorted((each["gridPos"]["x"], each["title"]) for each in panels if each["gridPos"]["y"] == 0)
    assert [title for _, title in top] == ["Decode", "Prompt", "In flight", "VRAM"]
    cells = [
        (x, y)
        for place in (each["gridPos"] for each in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def states_of(page: dict[str, Metric]) -> dict[str, str]:
    samples = page["orch_resident_state"].samples
    return {each.labels["profile"]: each.labels["state"] for each in samples if each.value}


def test_each_resident_has_series_of_its_own_beside_those_of_the_one_in_focus(page: dict[str, Metric]) -> None:
    def by_profile(name: str) -> dict[str, float]:
        return {each.labels["profile"]: each.value for each in page[name].samples}

    assert by_profile("orch_decode_tokens_per_second") == {"demo": 40.5, "embed": 7.0}
    assert by_profile("orch_resident_focus") == {"demo": 1, "embed": 0}
    assert by_profile("orch_resident_pinned") == {"demo": 0, "embed": 1}
    assert by_profile("orch_resident_requests_queued") == {"demo": 0, "embed": 3}
    assert by_profile("orch_resident_gpu_memory_bytes") == {"demo": 200 << 20, "embed": 56 << 20}
    assert {each.labels["build"] for each in page["orch_instance_info"].samples} == {"b1", "b2"}
    states = [
        (each.labels["profile"], each.labels["state"]) for each in page["orch_resident_state"].samples if each.value
    ]
    assert states == [("demo", "ready"), ("embed", "ready")]
    assert len(page["orch_resident_state"].samples) == 2 * len(RESIDENT_STATES)


def test_what_is_unloaded_is_a_state_and_no_instance() -> None:
    asleep = ResidentGauges(("embed", "ik-fork"), "unloaded", build="b2")
    found = parsed(render(Snapshot("ready", ("demo", "upstream"), "b1", residents=(DEMO, asleep)), Totals()))
    assert [each.labels["profile"] for each in found["orch_instance_info"].samples] == ["demo"]
    states = {
        each.labels["profile"]: each.labels["state"] for each in found["orch_resident_state"].samples if each.value
    }
    assert states == {"demo": "ready", "embed": "unloaded"}
