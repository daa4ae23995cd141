"""Forecasts of speed, on the true geometries of known models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import (
    Ceilings,
    SpeedForecast,
    SpeedKey,
    SpeedSample,
    break_even_tokens,
    decode_amounts,
    forecast_decode,
    forecast_drafted,
    forecast_prompt,
    prompt_amounts,
)
from orchestrator.core.quantities import GB
from tests.true_geometry import header

A3B = geometry_of([header("qwen36-35b-a3b")])
LLAMA = geometry_of([header("llama31-8b", "q4_k_m")])
GEMMA = geometry_of([header("gemma3-12b", "q4_k_m")])
SHAPE = PlanShape(context_tokens=32768)
KEY = SpeedKey("upstream", "b11434", "NVIDIA GeForce RTX 3060", "qwen35moe", ("iq4_xs",))


def sample(amounts: tuple[float, ...], ms: float, **more: object) -> SpeedSample:
    return replace(SpeedSample(KEY, "decode", amounts, ms, ms, when="2026-11-30T10:00:00Z"), **more)  # type: ignore[arg-type]


def known(forecast: SpeedForecast) -> tuple[float, float]:
    assert forecast.low is not None
    assert forecast.high is not None
    return forecast.low, forecast.high


def test_a_dense_model_reads_all_its_layers_and_its_output_in_each_step() -> None:
    _, device, host = decode_amounts(LLAMA, SHAPE, "upstream")
    weights = sum(layer.weights_bytes for layer in LLAMA.layers) + LLAMA.output_bytes
    assert device == pytest.approx(weights / GB)
    assert host == 0


def test_a_step_of_a_mixture_reads_the_experts_that_it_draws() -> None:
    """A published estimate has 1.8 GB for one token of 35B-A3B at 4.9 bits."""
    _, one, _ = decode_amounts(A3B, SHAPE, "upstream")
    assert 1.4 < one < 2.1
    _, four, _ = decode_amounts(A3B, SHAPE, "upstream", width=4)
    experts = sum(layer.expert_bytes for layer in A3B.trunk) / GB
    assert (four - one) / experts == pytest.approx(30.5 / 256 - 8 / 256, abs=0.001)


def test_experts_on_the_host_are_read_there() -> None:
    whole = decode_amounts(A3B, SHAPE, "upstream")
    split = decode_amounts(A3B, replace(SHAPE, n_cpu_moe=20), "upstream")
    assert split[2] > 0.2
    assert split[1] + split[2] == pytest.approx(whole[1])


def test_layers_on_the_host_are_read_there_with_their_caches() -> None:
    _, device, host = decode_amounts(LLAMA, replace(SHAPE, gpu_layers=0), "upstream", depth=1000)
    assert device == 0
    weights = sum(layer.weights_bytes for layer in LLAMA.layers) + LLAMA.output_bytes
    assert host == pytest.approx((weights + 1000 * 32 * 2 * 1024 * 2) / GB)


def test_depth_costs_the_cache_and_windows_bound_it() -> None:
    shallow, deep = (decode_amounts(LLAMA, SHAPE, "upstream", depth=each)[1] for each in (0, 10_000))
    assert (deep - shallow) * GB == pytest.approx(10_000 * 32 * 2 * 1024 * 2)
    quarter = decode_amounts(LLAMA, replace(SHAPE, kv_k="q4_0", kv_v="q4_0"), "upstream", depth=10_000)[1]
    assert (quarter - shallow) / (deep - shallow) == pytest.approx(18 / 32 / 2)
    upstream, fork = (decode_amounts(GEMMA, SHAPE, kind, depth=30_000)[1] for kind in ("upstream", "ik"))
    assert upstream < fork


def test_nothing_measured_is_unknown() -> None:
    forecast = forecast_decode([], KEY, decode_amounts(A3B, SHAPE, "upstream"))
    assert (forecast.low, forecast.high) == (None, None)
    assert "nothing" in forecast.basis


def test_a_card_s_bandwidth_is_a_ceiling_alone() -> None:
    amounts = decode_amounts(A3B, SHAPE, "upstream")
    forecast = forecast_decode([], KEY, amounts, Ceilings(device_gb_s=360.0))
    assert forecast.low is None
    assert forecast.high == pytest.approx(360.0 / amounts[1])
    assert "360 GB/s" in forecast.basis


def test_a_ceiling_of_the_host_says_when_it_was_measured() -> None:
    ceilings = Ceilings(host_gb_s=31.0, host_note="measured on 2026-11-30 with 8 threads")
    forecast = forecast_decode([], KEY, (1.0, 0.0, 1.24), ceilings)
    assert forecast.low is None
    assert forecast.high == pytest.approx(25.0)
    assert (
        forecast.basis == "at most: 31 GB/s of the host, measured on 2026-11-30 with 8 threads; no start was measured"
    )


def test_a_run_of_the_same_start_forecasts_itself_within_a_tenth() -> None:
    amounts = decode_amounts(A3B, SHAPE, "upstream")
    low, high = known(forecast_decode([sample(amounts, 10.0)], KEY, amounts))
    assert [low, high] == pytest.approx([100 / 1.1, 100 / 0.9], rel=0.01)


def test_runs_that_agree_closely_promise_no_more_than_a_tenth() -> None:
    amounts = decode_amounts(A3B, SHAPE, "upstream")
    runs = [sample(amounts, each) for each in (9.2, 10.0, 10.8)]
    low, high = known(forecast_decode(runs, KEY, amounts))
    assert high / low == pytest.approx(1.1 / 0.9)


def test_another_model_on_the_card_is_within_three_tenths() -> None:
    amounts = decode_amounts(A3B, SHAPE, "upstream")
    other = replace(KEY, architecture="llama")
    low, high = known(forecast_decode([sample(amounts, 10.0)], other, amounts))
    assert [low, high] == pytest.approx([100 / 1.3, 100 / 0.7], rel=0.05)


@pytest.mark.parametrize("changed", [{"device": "NVIDIA H200"}, {"engine": "ik"}])
def test_another_card_or_engine_says_nothing(changed: dict[str, str]) -> None:
    amounts = decode_amounts(A3B, SHAPE, "upstream")
    forecast = forecast_decode([sample(amounts, 10.0)], replace(KEY, **changed), amounts)  # type: ignore[arg-type]
    assert forecast.low is None


def test_host_bytes_are_unknown_until_they_were_measured() -> None:
    on_device = decode_amounts(A3B, SHAPE, "upstream")
    split = decode_amounts(A3B, replace(SHAPE, n_cpu_moe=20), "upstream")
    forecast = forecast_decode([sample(on_device, 10.0)], KEY, split)
    assert forecast.low is None
    assert forecast.high is not None
    low, high = known(forecast_decode([sample(on_device, 10.0), sample(split, 25.0)], KEY, split))
    assert low < 40 < high


def test_runs_at_two_depths_tell_what_depth_costs() -> None:
    """With 5 ms fixed and 3 ms a GB."""
    rows = []
    for depth in (0, 60_000):
        amounts = decode_amounts(LLAMA, SHAPE, "upstream", depth=depth)
        rows.append(sample(amounts, 5 + 3 * amounts[1]))

    between = decode_amounts(LLAMA, SHAPE, "upstream", depth=30_000)
    low, high = known(forecast_decode(rows, KEY, between))
    truth = 1000 / (5 + 3 * between[1])
    assert low < truth < high
    assert high / low < 1.35


def test_drafts_are_forecast_from_runs_with_drafts_alone() -> None:
    plain = sample(decode_amounts(A3B, SHAPE, "upstream"), 10.0)

    def amounts_at(width: float) -> tuple[float, ...]:
        return decode_amounts(A3B, SHAPE, "upstream", width=width)

    assert forecast_drafted([plain], KEY, amounts_at) is None
    drafted = sample(amounts_at(4.0), 15.0, width=4.0, tokens_per_step=2.5)
    forecast = forecast_drafted([plain, drafted], KEY, amounts_at)
    assert forecast is not None
    low, high = known(forecast)
    assert low < 2.5 * 1000 / 15.0 < high
    assert "2.50" in forecast.basis
    assert forecast_decode([drafted], KEY, plain.amounts).low is None, "its steps are others"


def test_a_larger_micro_batch_spares_the_bus() -> None:
    small, large = (prompt_amounts(A3B, replace(SHAPE, n_cpu_moe=20, ubatch=size), "upstream") for size in (512, 2048))
    assert small[1] == pytest.approx(4 * large[1])
    read = replace(sample(small, 2.0), what="prompt")
    low, high = known(forecast_prompt([read], KEY, large))
    assert low == pytest.approx(500 / 1.1, rel=0.01)
    assert high == pytest.approx(4 * 500 / 0.9, rel=0.01)
    assert forecast_prompt([read], replace(KEY, tensor_types=("q8_0",)), large).low is None


def test_a_switch_pays_after_so_many_tokens_or_never() -> None:
    slow, fast = SpeedForecast(9.5, 10.5, ""), SpeedForecast(19.0, 21.0, "")
    found = break_even_tokens(10_000, 500.0, slow, fast, switch_s=10.0)
    assert found is not None
    least, most = found
    assert least < 30.0 / (0.1 - 0.05) < most  # 20 s of reading and 10 s of switching, 50 ms a token
    assert break_even_tokens(10_000, 500.0, fast, slow, 10.0) is None
    assert break_even_tokens(10_000, 500.0, slow, SpeedForecast(None, 21.0, ""), 10.0) is None


def test_the_types_of_a_model_are_those_that_hold_its_weights() -> None:
    assert "iq4_xs" in A3B.tensor_types
    assert "f32" not in A3B.tensor_types
