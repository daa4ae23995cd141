"""How fast a start would be, from what was measured on this machine.

A decoding step takes a fixed time, and a time for each byte that it reads from a device and from the host; bytes are
known from the header (`decode_amounts`), the three costs only through steps that were measured. What a forecast says is
the interval of all costs that agree with the measurements (`bounds.py`): narrow where something alike was measured,
wide where it was not, nothing where nothing was. A bandwidth that is known, of a card by its data sheet or of the host
by `orch doctor --measure`, is a ceiling: it bounds a speed from above alone.

Sources: the form, and that bytes alone are wrong by a factor where a step is short (a fixed 3.5 to 6 ms for a mixture
of experts of 3 B active on a card of 2023): docs/plan.md. Distinct experts of a batch: MoESD, arXiv 2505.19645.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import row_bytes
from orchestrator.core.plan.memory.placement import HOST, place
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.bounds import MeasuredSum, interval
from orchestrator.core.quantities import GB

ALIKE = 0.1
"""Least half-width of what was measured with the same tensor types and architecture, as a share."""

ELSE = 0.3
"""The same with others, or with another build of the engine."""

MOST_SAMPLES = 6
"""The newest are used: each further one doubles the corners to visit, and tells little."""

What = Literal["decode", "prompt"]


@dataclass(frozen=True, slots=True)
class SpeedKey:
    """What speeds are compared within.

    :param build: as it tells itself; `engine` its kind
    :param device: its name, or `host`
    :param tensor_types: the model's main ones, sorted
    """

    engine: str
    build: str
    device: str
    architecture: str
    tensor_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpeedSample:
    """Steps of decoding, or tokens of prompts, that were measured in one run.

    :param amounts: what the costs are multiplied by: `decode_amounts` or `prompt_amounts`
    :param low_ms: of a step, or of a token of a prompt; `high_ms` likewise
    :param tokens_per_step: one, and the drafts that were right
    :param width: tokens that a step evaluated
    :param when: RFC 3339, UTC
    """

    key: SpeedKey
    what: What
    amounts: tuple[float, ...]
    low_ms: float
    high_ms: float
    tokens_per_step: float = 1.0
    width: float = 1.0
    when: str = ""


def device_key(names: Sequence[str]) -> str:
    """Return what a key calls the devices of a start: their names as the driver tells them, or `host`."""
    return " + ".join(names) or "host"


class Ceilings(NamedTuple):
    """Bandwidths that no step exceeds, GB/s; None where unknown.

    :param host_note: when and how the host's was measured, for people
    """

    device_gb_s: float | None = None
    host_gb_s: float | None = None
    host_note: str = ""


NO_CEILINGS = Ceilings()


class SpeedForecast(NamedTuple):
    """Tokens per second.

    :param low: None where it is not known; `high` likewise
    :param basis: what it comes from, for people
    """

    low: float | None
    high: float | None
    basis: str


def decode_amounts(
    geometry: Geometry, shape: PlanShape, kind: Literal["upstream", "ik"], *, depth: float = 0, width: float = 1.0
) -> tuple[float, float, float]:
    """Return what the costs of a step are multiplied by: one, and the GB that it reads of the device and of the host.

    :param depth: tokens of context before it
    :param width: tokens that it evaluates: each takes other experts, as if drawn at random
    """
    layers, output = place(geometry, shape, kind)
    read = [0.0, 0.0]
    share = _distinct(geometry.experts, geometry.experts_used, width)
    count = len(geometry.trunk)
    for index, layer in enumerate(geometry.trunk):
        where = int(layers[index] == HOST)
        experts = layer.expert_bytes * share
        read[int(where or index < shape.n_cpu_moe)] += experts
        ffn = layer.ffn_bytes
        read[int(where or index < shape.n_cpu_ffn)] += ffn
        read[where] += layer.weights_bytes - layer.expert_bytes - ffn
        cache = int(where or not shape.kv_offload)
        if layer.recurrent:
            read[where] += 8.0 * geometry.state_values  # read and written, 4 bytes each
        elif layer.attends:
            seen = min(depth, geometry.window) if layer.window and kind == "upstream" else depth
            row = (row_bytes(shape.kv_k, layer.key_width) or 0) + (row_bytes(shape.kv_v, layer.value_width) or 0)
            read[cache] += seen * row

    read[int(output == HOST or not count)] += geometry.output_bytes
    return 1.0, read[0] / GB, read[1] / GB


def prompt_amounts(geometry: Geometry, shape: PlanShape, kind: Literal["upstream", "ik"]) -> tuple[float, float]:
    """Return what the costs of a prompt's token are multiplied by: one, and its part of the GB that lie on the host.

    With a device, those cross the bus once for each micro-batch.
    """
    layers, _ = place(geometry, shape, kind)
    host = 0
    for index, layer in enumerate(geometry.trunk):
        if layers[index] == HOST:
            host += layer.weights_bytes
        else:
            host += layer.expert_bytes * (index < shape.n_cpu_moe) + layer.ffn_bytes * (index < shape.n_cpu_ffn)

    return 1.0, host / GB / shape.ubatch_in(shape.context_tokens)


def forecast_decode(
    samples: Sequence[SpeedSample], key: SpeedKey, amounts: Sequence[float], ceilings: Ceilings = NO_CEILINGS
) -> SpeedForecast:
    """Return how fast tokens would be decoded, without drafts.

    :param samples: oldest first
    """
    plain = [sample for sample in samples if sample.what == "decode" and sample.width == 1.0]
    return _forecast(plain, key, amounts, ceilings)


def forecast_drafted(
    samples: Sequence[SpeedSample], key: SpeedKey, amounts_at: Callable[[float], Sequence[float]]
) -> SpeedForecast | None:
    """Return how fast tokens would be decoded with drafts, by runs alike that drafted.

    :param amounts_at: of a step by the tokens that it evaluates
    :return: None when there was no such run: acceptance is a matter of the text
    """
    drafted = [sample for sample in samples if sample.what == "decode" and sample.width > 1.0 and sample.key == key]
    if not drafted:
        return None

    width = drafted[-1].width
    alike = [sample for sample in drafted if abs(sample.width - width) <= 0.25 * width]
    gained = [sample.tokens_per_step for sample in alike]
    steps = _forecast(alike, key, amounts_at(width), NO_CEILINGS)
    return SpeedForecast(
        steps.low * min(gained) if steps.low is not None else None,
        steps.high * max(gained) if steps.high is not None else None,
        f"{steps.basis}; {min(gained):.2f} to {max(gained):.2f} tokens a step",
    )


def forecast_prompt(samples: Sequence[SpeedSample], key: SpeedKey, amounts: Sequence[float]) -> SpeedForecast:
    """Return how fast a prompt would be read; by runs alike alone, as it is computing that takes the time."""
    return _forecast([each for each in samples if each.what == "prompt" and each.key == key], key, amounts, NO_CEILINGS)


def break_even_tokens(
    depth: float, prompt_tok_s: float, now: SpeedForecast, then: SpeedForecast, switch_s: float
) -> tuple[float, float] | None:
    """Return after how many tokens a switch to a faster engine has paid, which reads the context again.

    :param depth: tokens of context that are read again, at `prompt_tok_s`
    :param switch_s: until the other engine serves
    :return: the least and the most; None where it may never pay, or a speed is not known
    """
    if now.low is None or now.high is None or then.low is None or then.high is None:
        return None

    cost_s = switch_s + depth / prompt_tok_s
    least_gain, most_gain = 1 / now.high - 1 / then.low, 1 / now.low - 1 / then.high
    return (cost_s / most_gain, cost_s / least_gain) if least_gain > 0 else None


def _forecast(
    samples: Sequence[SpeedSample], key: SpeedKey, amounts: Sequence[float], ceilings: Ceilings
) -> SpeedForecast:
    same = [sample for sample in samples if sample.key == key]
    near = [sample for sample in samples if (sample.key.engine, sample.key.device) == (key.engine, key.device)]
    used = (same or near)[-MOST_SAMPLES:]
    rows = [_measured(sample, ALIKE if same else ELSE) for sample in used]
    rows += [
        MeasuredSum(of, 1000 / bandwidth, math.inf)
        for of, bandwidth in (((0.0, 1.0, 0.0), ceilings.device_gb_s), ((0.0, 0.0, 1.0), ceilings.host_gb_s))
        if bandwidth
    ]
    found = interval(rows, amounts) if rows else None
    if found is None or found[0] <= 0:
        return SpeedForecast(None, None, "nothing alike was measured on this machine")

    low_ms, high_ms = found
    if used and high_ms < math.inf:  # runs that agree better than runs do tell no more for it
        low_ms, high_ms = _widened(low_ms, high_ms, ALIKE if same else ELSE)

    basis = _basis(used, "alike" if same else "of another model or build", ceilings)
    return SpeedForecast(1000 / high_ms if high_ms < math.inf else None, 1000 / low_ms, basis)


def _measured(sample: SpeedSample, share: float) -> MeasuredSum:
    return MeasuredSum(sample.amounts, *_widened(sample.low_ms, sample.high_ms, share))


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """Return the interval with at least this half-width."""
    by = math.sqrt(max((1 + share) / (1 - share) * low / high, 1.0))
    return low / by, high * by


def _basis(used: Sequence[SpeedSample], what: str, ceilings: Ceilings) -> str:
    if used:
        runs = f"{len(used)} run{'s' if len(used) > 1 else ''}"
        return f"{runs} {what}, the last on {used[-1].when[:10]}"

    known = [f"{ceilings.device_gb_s:g} GB/s of the device"] if ceilings.device_gb_s else []
    if ceilings.host_gb_s:
        note = f", {ceilings.host_note}" if ceilings.host_note else ""
        known.append(f"{ceilings.host_gb_s:g} GB/s of the host{note}")

    return f"at most: {' and '.join(known)}; no start was measured"


def _distinct(experts: int, used: int, width: float) -> float:
    """Return the share of the experts that a step reads when each of its tokens draws its own."""
    return 1.0 - (1.0 - used / experts) ** width if experts and used else 1.0
