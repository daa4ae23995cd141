"""Benches in lines: what was measured is said by rates."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.bench.blocks import BenchDevice, BenchPlan, MeasuredBlock, sides_of
from orchestrator.core.bench.conditions import BenchSide
from orchestrator.core.bench.estimator import Side
from orchestrator.core.bench.figures import BenchAnswer

PROMPTS = ("one", "two", "three", "four", "five", "six")
PLAN = BenchPlan(seed=42, metric="decode", prompts=PROMPTS, most_blocks=16)
TOKENS = 101


def answer(
    prompt: str, tok_s: float, *, tokens: int = TOKENS, cached: int = 0, wall_s: float | None = None
) -> BenchAnswer:
    output_ms = (tokens - 1) * 1000 / tok_s
    return BenchAnswer(
        prompt=prompt,
        prompt_tokens=50,
        prompt_ms=100.0,
        output_tokens=tokens,
        output_ms=output_ms,
        wall_s=wall_s if wall_s is not None else (output_ms + 105) / 1000,
        first_token_s=0.104,
        cached_tokens=cached,
    )


def block(
    pair: int, side: Side, tok_s: float, *, attempt: int = 0, devices: Sequence[BenchDevice] = (), **more: int
) -> MeasuredBlock:
    answers = tuple(answer(name, tok_s * (1 + 0.1 * k), **more) for k, name in enumerate(PROMPTS))
    return MeasuredBlock(pair, attempt, side, 1000.0, 20.0, answers, tuple(devices))


def pairs(count: int, a_tok_s: float, b_tok_s: float, shake: float = 0.0) -> list[MeasuredBlock]:
    """Whole pairs in their order; every other pair is slower by `shake`."""
    made = []
    for pair in range(count):
        for side in sides_of(PLAN.seed, pair):
            tok_s = (a_tok_s if side == "a" else b_tok_s) * (1 - shake * (pair % 2) * (side == "a"))
            made.append(block(pair, side, tok_s))

    return made


def sides(**of_b: object) -> dict[Side, BenchSide]:
    a = BenchSide(
        name="upstream", profile="p", engine="upstream", build="b1", sha256="aa", model="/m.gguf",
        model_bytes=1 << 30, model_type="q4_K", layers=16, verified="right",
    )  # fmt: skip
    values = {name: getattr(a, name) for name in a.__slots__} | {"name": "ik-fork", "engine": "ik-fork"} | of_b
    return {"a": a, "b": BenchSide(**values)}
