"""From the answers of one running engine to what is kept of its speed: a sample for each kind of step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.health.slowdown import LEAST_PROMPT_TOKENS
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample, decode_amounts, prompt_amounts

LEAST_ANSWERS = 5
KEPT_ANSWERS = 16
"""The newest of each kind of step: an engine that has become slower is forecast by what it is now."""

DEPTH_FLOOR = 512
DRAFTED = 1.05
"""Tokens that a step evaluates, from which on it is one with drafts."""

_OUTSIDE = 0.1
"""Share of the answers that is left out at either end."""


@dataclass(frozen=True, slots=True)
class AnswerSpeed:
    """The speed of one answer that had the engine to itself.

    :param step_ms: the mean; `depth` tokens of context, the mean
    :param width: tokens that a step evaluated; `tokens_per_step` those that it yielded
    :param prompt_tokens: that were computed; `prompt_ms` what they took
    """

    step_ms: float
    depth: float
    width: float = 1.0
    tokens_per_step: float = 1.0
    prompt_tokens: int = 0
    prompt_ms: float = 0.0


def samples_of(
    answers: Sequence[AnswerSpeed], key: SpeedKey, geometry: Geometry, shape: PlanShape, build: PlanBuild, when: str
) -> list[SpeedSample]:
    """Return what is worth keeping: of each kind of step with enough answers, and of prompts.

    :param answers: of one start, oldest first
    :param shape: as the engine has placed the model
    """
    groups: dict[tuple[bool, int], list[AnswerSpeed]] = {}
    for answer in answers:
        kind = answer.width >= DRAFTED, round(math.log2(max(answer.depth, DEPTH_FLOOR)))
        groups.setdefault(kind, []).append(answer)

    found = []
    for (drafted, _), group in groups.items():
        newest = group[-KEPT_ANSWERS:]
        if len(newest) < LEAST_ANSWERS:
            continue

        width = _mean([each.width for each in newest]) if drafted else 1.0
        depth = _mean([each.depth for each in newest])
        amounts = decode_amounts(geometry, shape, build.kind, depth=depth, width=width)
        low, high = _spread([each.step_ms for each in newest])
        gained = _mean([each.tokens_per_step for each in newest])
        found.append(SpeedSample(key, "decode", amounts, low, high, gained if drafted else 1.0, width, when))

    prompts = [each for each in answers if each.prompt_tokens >= LEAST_PROMPT_TOKENS and each.prompt_ms][-KEPT_ANSWERS:]
    if len(prompts) >= LEAST_ANSWERS:
        low, high = _spread([each.prompt_ms / each.prompt_tokens for each in prompts])
        found.append(SpeedSample(key, "prompt", prompt_amounts(geometry, shape, build.kind), low, high, when=when))

    return found


def placed(geometry: Geometry, shape: PlanShape, host_weights_bytes: int) -> PlanShape:
    """Return the shape with as much on the host as an engine has put there that placed the layers itself.

    :param host_weights_bytes: by its own lines
    """
    over = host_weights_bytes - geometry.input_bytes
    if over <= 0 or not shape.devices:
        return shape

    of_experts = [(index, geometry.trunk[index].expert_bytes) for index in geometry.expert_layers]
    if of_experts:
        so_far = 0
        for index, size in of_experts:
            if so_far + size / 2 > over:
                return replace(shape, n_cpu_moe=index)

            so_far += size

        return replace(shape, n_cpu_moe=geometry.block_count)

    layers = geometry.block_count + 1
    for layer in geometry.layers:
        if over < layer.weights_bytes / 2:
            break

        over -= layer.weights_bytes
        layers -= 1

    return replace(shape, gpu_layers=layers)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Return between which values most lie."""
    ordered = sorted(values)
    out = int(len(ordered) * _OUTSIDE)
    return ordered[out], ordered[len(ordered) - 1 - out]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
