"""Statistics of requests, summed up from the records of single ones. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that ended, as the history keeps it: figures and names, nothing that was asked or answered.

    Counts are None where the engine did not say. `outcome` is `complete`, `error`, `client_gone` or `cancelled`.

    :param started_s: Unix time
    :param prompt_ms: the engine's time for the prompt, as `output_ms` for what it generated
    :param first_token_s: from the request's arrival; None for an answer that was no stream
    :param client: the name of the key that it came with; None for a key without a name, or no key
    :param request_id: its `X-Request-Id`; None in rows of an older orch
    :param cached_tokens: of its prompt, not computed since the engine had them in its cache
    :param energy_j: that the devices used for it (`core/energy`); None where that is not known
    """

    started_s: float
    profile: str | None
    engine: str | None
    build: str | None
    route: str
    outcome: str
    status: int
    held_s: float
    total_s: float
    first_token_s: float | None = None
    prompt_tokens: int | None = None
    prompt_ms: float | None = None
    output_tokens: int | None = None
    output_ms: float | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None
    replays: int = 0
    client: str | None = None
    request_id: str | None = None
    cached_tokens: int | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStats:
    """Requests taken together. Rates and quantiles are None where nothing was measured.

    Rates weigh each token alike, not each request: tokens and times are added up first. As in `orch status`, n tokens
    count n - 1 steps, because the last step of the prompt yields the first token.

    :param name: the engine, profile or build, None for requests that never got to one; or the client, None for those
        whose key has no name
    :param held_s: time in the queue, all requests together
    :param cached_share: of the prompts' tokens that were in an engine's cache, 0 to 1, over requests that tell it
    :param energy_requests: those whose energy is known; `energy_j` is of them together
    :param prompt_j_per_token: of those of them whose engine told what it computed; as `output_j_per_token`
    """

    name: str | None
    requests: int
    complete: int
    error: int
    client_gone: int
    replays: int
    prompt_tokens: int
    output_tokens: int
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    prompt_tok_s: float | None
    decode_tok_s: float | None
    draft_tokens: int
    draft_accepted: int
    draft_acceptance: float | None
    held_requests: int
    held_s: float
    cancelled: int = 0
    cached_tokens: int = 0
    cached_share: float | None = None
    energy_requests: int = 0
    energy_j: float | None = None
    prompt_j_per_token: float | None = None
    output_j_per_token: float | None = None


HELD_S = 0.05
"""A request that waited for less went straight through, s."""


def sum_requests(name: str | None, records: Sequence[RequestRecord]) -> RequestStats:
    """Return the sums, rates and quantiles of these requests."""
    outcomes = Counter(each.outcome for each in records)
    drafted = sum(each.draft_tokens or 0 for each in records)
    accepted = sum(each.draft_accepted or 0 for each in records)
    prompts = [each for each in records if each.cached_tokens is not None and each.prompt_tokens is not None]
    cached = sum(each.cached_tokens or 0 for each in prompts)
    whole = cached + sum(each.prompt_tokens or 0 for each in prompts)
    joules = [each.energy_j for each in records if each.energy_j is not None]
    split = split_all(records)
    firsts = sorted(each.first_token_s for each in records if each.first_token_s is not None)
    return RequestStats(
        name=name,
        requests=len(records),
        complete=outcomes["complete"],
        error=outcomes["error"],
        client_gone=outcomes["client_gone"],
        replays=sum(each.replays for each in records),
        prompt_tokens=sum(each.prompt_tokens or 0 for each in records),
        output_tokens=sum(each.output_tokens or 0 for each in records),
        first_token_p50_s=quantile(firsts, 0.50),
        first_token_p95_s=quantile(firsts, 0.95),
        prompt_tok_s=_rate((each.prompt_tokens, each.prompt_ms) for each in records),
        decode_tok_s=_rate(
            (each.output_tokens - 1, each.output_ms) for each in records if each.output_tokens is not None
        ),
        draft_tokens=drafted,
        draft_accepted=accepted,
        draft_acceptance=round(accepted / drafted, 4) if drafted else None,
        held_requests=sum(each.held_s >= HELD_S for each in records),
        held_s=round(math.fsum(each.held_s for each in records), 3),
        cancelled=outcomes["cancelled"],
        cached_tokens=cached,
        cached_share=round(cached / whole, 4) if whole else None,
        energy_requests=len(joules),
        energy_j=round(math.fsum(joules), 3) if joules else None,
        prompt_j_per_token=split.prompt_j_per_token,
        output_j_per_token=split.output_j_per_token,
    )


@dataclass(frozen=True, slots=True)
class SplitEnergy:
    """The energy of requests, prompts and answers apart, J, with the tokens that it was used for.

    :param requests: those whose energy is known and whose engine told what it computed
    :param prompt_tokens: those that were computed; `cached_tokens` were not
    """

    requests: int
    prompt_j: float
    output_j: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def prompt_j_per_token(self) -> float | None:
        return round(self.prompt_j / self.prompt_tokens, 6) if self.prompt_tokens else None

    @property
    def output_j_per_token(self) -> float | None:
        return round(self.output_j / self.output_tokens, 6) if self.output_tokens else None


def split_all(records: Iterable[RequestRecord]) -> SplitEnergy:
    """Return the energy of requests, divided between prompt and answer."""
    found = [(each, each.energy_j, _prompt_share(each)) for each in records]
    told = [(each, joules, share) for each, joules, share in found if joules is not None and share is not None]
    return SplitEnergy(
        requests=len(told),
        prompt_j=math.fsum(joules * share for _, joules, share in told),
        output_j=math.fsum(joules * (1 - share) for _, joules, share in told),
        prompt_tokens=sum(each.prompt_tokens or 0 for each, _, _ in told),
        cached_tokens=sum(each.cached_tokens or 0 for each, _, _ in told),
        output_tokens=sum(each.output_tokens or 0 for each, _, _ in told),
    )


def _prompt_share(record: RequestRecord) -> float | None:
    """Return the part of a request's energy that its prompt took, 0 to 1; None where the engine told nothing of it.

    By the engine's times; all of it where only a prompt was computed, as for embeddings, which have no times.
    """
    prompt_ms, output_ms = record.prompt_ms or 0.0, record.output_ms or 0.0
    if prompt_ms + output_ms > 0:
        return prompt_ms / (prompt_ms + output_ms)

    return 1.0 if record.prompt_tokens and not record.output_tokens else None


def sum_requests_by(field: str, records: Iterable[RequestRecord]) -> list[RequestStats]:
    """Return the statistics for each value of a field, the busiest first.

    :param field: `engine`, `profile`, `build` or `client`
    """
    groups: dict[str | None, list[RequestRecord]] = {}
    for each in records:
        groups.setdefault(getattr(each, field), []).append(each)

    return sorted((sum_requests(name, group) for name, group in groups.items()), key=lambda each: -each.requests)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest rank: the least value that this share of them does not exceed."""
    return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1], 4) if ordered else None


def _rate(pairs: Iterable[tuple[int | None, float | None]]) -> float | None:
    """Return tokens a second, from tokens and milliseconds; a pair that lacks either is no measurement."""
    measured = [(tokens, ms) for tokens, ms in pairs if tokens and tokens > 0 and ms and ms > 0]
    tokens, ms = sum(each[0] for each in measured), math.fsum(each[1] for each in measured)
    return round(tokens * 1000 / ms, 2) if measured else None
