"""What is kept of the speed of a running engine, and how it was placed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample, decode_amounts, forecast_decode
from orchestrator.core.plan.speed.samples import LEAST_ANSWERS, AnswerSpeed, placed, samples_of
from tests.true_geometry import header

A3B = geometry_of([header("qwen36-35b-a3b")])
LLAMA = geometry_of([header("llama31-8b", "q4_k_m")])
SHAPE = PlanShape(context_tokens=32768)
BUILD = PlanBuild("upstream", 11434)
KEY = SpeedKey("upstream", "b11434", "NVIDIA GeForce RTX 3060", "llama", ("q4_K",))


def kept(answers: list[AnswerSpeed]) -> list[SpeedSample]:
    return samples_of(answers, KEY, LLAMA, SHAPE, BUILD, "2026-11-30T10:00:00Z")


def test_a_few_answers_are_not_kept() -> None:
    assert kept([AnswerSpeed(10.0, 100.0)] * (LEAST_ANSWERS - 1)) == []


def test_answers_alike_are_one_sample_that_spans_them() -> None:
    [sample] = kept([AnswerSpeed(10.0 + index / 10, 100.0) for index in range(8)])
    assert (sample.what, sample.width, sample.tokens_per_step) == ("decode", 1.0, 1.0)
    assert [sample.low_ms, sample.high_ms] == pytest.approx([10.0, 10.7])
    assert sample.amounts == decode_amounts(LLAMA, SHAPE, "upstream", depth=100)


def test_one_odd_answer_of_many_does_not_widen_it() -> None:
    [sample] = kept([*[AnswerSpeed(10.0, 100.0)] * 12, AnswerSpeed(50.0, 100.0)])
    assert sample.high_ms == 10.0


def test_depths_and_drafts_are_samples_of_their_own() -> None:
    shallow, deep = [AnswerSpeed(10.0, 100.0)] * 5, [AnswerSpeed(14.0, 30_000.0)] * 5
    drafted = [AnswerSpeed(20.0, 100.0, width=4.0, tokens_per_step=2.5)] * 5
    found = kept([*shallow, *deep, *drafted])
    assert [(each.width, each.tokens_per_step) for each in found] == [(1.0, 1.0), (1.0, 1.0), (4.0, 2.5)]
    assert found[0].amounts[1] < found[1].amounts[1]
    between = decode_amounts(LLAMA, SHAPE, "upstream", depth=15_000)
    forecast = forecast_decode(found, KEY, between)
    assert forecast.low is not None
    assert forecast.low < 1000 / 12 < (forecast.high or 0)


def test_long_prompts_are_kept_and_short_ones_are_not() -> None:
    short, long = (AnswerSpeed(10.0, 100.0, prompt_tokens=count, prompt_ms=count * 2.0) for count in (100, 1000))
    assert [each.what for each in kept([short] * 6)] == ["decode"]
    found = kept([long] * 6)
    assert [each.what for each in found] == ["decode", "prompt"]
    assert (found[1].low_ms, found[1].high_ms) == (2.0, 2.0)


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_experts_that_an_engine_put_on_the_host_are_found_from_its_lines(count: int) -> None:
    on_host = sum(A3B.trunk[index].expert_bytes for index in A3B.expert_layers[:count])
    assert placed(A3B, SHAPE, A3B.input_bytes + on_host).n_cpu_moe >= count
    found = decode_amounts(A3B, placed(A3B, SHAPE, A3B.input_bytes + on_host), "upstream")
    assert found == decode_amounts(A3B, replace(SHAPE, n_cpu_moe=count), "upstream")


@pytest.mark.parametrize("layers", [33, 32, 20, 1])
def test_layers_that_an_engine_put_on_the_host_are_found_from_its_lines(layers: int) -> None:
    on_host = sum(layer.weights_bytes for layer in LLAMA.layers[: 33 - layers])
    found = placed(LLAMA, SHAPE, LLAMA.input_bytes + on_host)
    wanted = replace(SHAPE, gpu_layers=layers)
    assert decode_amounts(LLAMA, found, "upstream") == decode_amounts(LLAMA, wanted, "upstream")
