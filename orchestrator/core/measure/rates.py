"""The present rates of an engine, from the rise of its raw counts between two samples. Pure.

A rate is tokens over the wall time between two samples, whatever the engines call a rate themselves: they count n or
n - 1 steps, over the time of a request, and their gauges are emptied by whoever asks.

Two counts are put together. The slots (`GET /slots`) show a request's tokens while it runs, and a slot's last request
after it ended; what began and ended between two samples they may not show. The totals (`GET /metrics`) have every
request, but only once it has ended. So the tokens ever generated are the total plus those of the slots that are busy.
The totals are asked first: a request that ends between the two answers is then in neither, never in both, and what was
missed is counted at the next sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.core.measure.slots import Slot

MIN_S = 0.2
"""Samples closer to each other say little: one token more or less is a large part."""

MAX_S = 15.0
"""Over a longer time a rate is no longer what the engine does right now; an engine may take seconds to answer."""

PREDICTED = "tokens_predicted_total"
PROMPT = "prompt_tokens_total"
PROMPT_SECONDS = "prompt_seconds_total"
DRAFTED = "spec_decode_num_draft_tokens_total"
ACCEPTED = "spec_decode_num_accepted_tokens_total"
DEFERRED = "requests_deferred"
KV_USED = "kv_cache_usage_ratio"
_PREFIX = "llamacpp:"


@dataclass(frozen=True, slots=True)
class CounterSample:
    """The counts that an engine answered with.

    :param taken_s: monotonic time of the answer
    :param slots: None where it has no `/slots`
    :param totals: by name, without the prefix; empty where it has no `/metrics`
    """

    taken_s: float
    slots: tuple[Slot, ...] | None
    totals: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates in tokens per second; `draft_acceptance` and `kv_used` are 0 to 1. None where it is not known."""

    decode_tok_s: float | None = None
    prompt_tok_s: float | None = None
    draft_acceptance: float | None = None
    processing: int | None = None
    deferred: int | None = None
    kv_used: float | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    """The base that the next sample is compared with: the last one, and the tokens that were counted until then.

    :param prompt_at: when tokens of a prompt were last counted, or no prompt was being read; their rate was
        `prompt_tok_s`
    """

    last: CounterSample
    decoded: float
    prompt: float
    prompt_at: float
    prompt_tok_s: float | None = None


def begin_meter(sample: CounterSample) -> tuple[Meter, Measured]:
    """Return the meter of a first sample, and its figures: there is no rate yet."""
    reading = sum(slot.prompt_read or 0 for slot in sample.slots or () if slot.reading)
    prompt = sample.totals.get(PROMPT, 0.0) + reading
    return Meter(sample, _total_decoded(sample), prompt, sample.taken_s), _current_figures(sample)


def idle_meter(meter: Meter, now: float) -> Meter:
    """Return the meter as of now, when nothing was in flight since the last sample: its counts still hold."""
    return replace(meter, last=replace(meter.last, taken_s=now), prompt_at=now, prompt_tok_s=None)


def advance_meter(meter: Meter, sample: CounterSample) -> tuple[Meter, Measured]:
    """Return the meter with this sample in it, and the rates since the one before it.

    Samples that are too close to each other leave the meter; with a gap between them, or counts that fell (the engine
    is another one), it begins anew. Rates are then None.
    """
    last = meter.last
    elapsed_s = sample.taken_s - last.taken_s
    if elapsed_s < MIN_S:
        return meter, _current_figures(sample)

    if not sample.totals:  # they were not answered this time
        sample = replace(sample, totals=last.totals)

    if elapsed_s > MAX_S or _any_counter_fell(last.totals, sample.totals) or (sample.totals and not last.totals):
        return begin_meter(sample)

    decoded = max(_slots_increase(last.slots, sample.slots, _decoded), _total_decoded(sample) - meter.decoded)
    prompt = max(_slots_increase(last.slots, sample.slots, _prompt_read), sample.totals.get(PROMPT, 0.0) - meter.prompt)
    meter = _count_prompt(meter, sample, prompt)
    drafted = _counter_increase(last.totals, sample.totals, DRAFTED)
    measured = replace(
        _current_figures(sample),
        decode_tok_s=decoded / elapsed_s,
        prompt_tok_s=meter.prompt_tok_s,
        draft_acceptance=_counter_increase(last.totals, sample.totals, ACCEPTED) / drafted if drafted else None,
    )
    return replace(meter, last=sample, decoded=meter.decoded + decoded), measured


def _count_prompt(meter: Meter, sample: CounterSample, tokens: float) -> Meter:
    """Return the meter with these tokens of prompts counted.

    They come a batch at a time, or all at once when a prompt was read, and either may take longer than the time between
    two samples: their rate is over the time since the last of them, and holds until the next.
    """
    if tokens > 0:
        took_s = max(
            sample.taken_s - meter.prompt_at, _counter_increase(meter.last.totals, sample.totals, PROMPT_SECONDS)
        )
        rate: float | None = tokens / took_s
    elif any(slot.reading for slot in sample.slots or ()):
        return meter
    else:
        rate = 0.0

    return replace(meter, prompt=meter.prompt + tokens, prompt_at=sample.taken_s, prompt_tok_s=rate)


def read_totals(text: str) -> dict[str, float]:
    """Return the totals in an answer to `GET /metrics`, of either engine: the values without labels, by name."""
    totals = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith(_PREFIX) and "{" not in name:
            try:
                totals[name.removeprefix(_PREFIX)] = float(value)
            except ValueError:  # something newer
                continue

    return totals


def _current_figures(sample: CounterSample) -> Measured:
    slots, totals = sample.slots, sample.totals
    deferred, kv_used = totals.get(DEFERRED), totals.get(KV_USED)
    if kv_used is None and slots and any(slot.prompt is not None for slot in slots):
        context = sum(slot.context for slot in slots)
        kv_used = sum(slot.prompt or 0 for slot in slots) / context if context else None

    return Measured(
        processing=None if slots is None else sum(slot.busy for slot in slots),
        deferred=None if deferred is None else int(deferred),
        kv_used=None if kv_used is None else min(kv_used, 1.0),
    )


def _total_decoded(sample: CounterSample) -> float:
    running = sum(slot.decoded or 0 for slot in sample.slots or () if slot.busy)
    return sample.totals[PREDICTED] + running if PREDICTED in sample.totals else 0.0


def _decoded(slot: Slot) -> int:
    return slot.decoded or 0


def _prompt_read(slot: Slot) -> int:
    return slot.prompt_read or 0


def _slots_increase(before: Iterable[Slot] | None, after: Iterable[Slot] | None, count: Callable[[Slot], int]) -> int:
    """Return the tokens that the slots themselves show to be new: no more than there were."""
    known = {slot.id: slot for slot in before or ()}
    moved = 0
    for slot in after or ():
        last = known.get(slot.id)
        if last is not None and last.task == slot.task:
            moved += max(count(slot) - count(last), 0)
        elif last is not None and slot.busy:
            moved += count(slot)

    return moved


def _counter_increase(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    return max(after[name] - before[name], 0.0) if name in before and name in after else 0.0


def _any_counter_fell(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    return any(after.get(name, before[name]) < before[name] for name in before if name.endswith("_total"))
