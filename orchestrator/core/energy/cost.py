"""What requests cost here in electricity, and what APIs would ask for the same tokens. Pure.

Only requests whose energy is known, and whose engine told what it computed, are compared: on both sides the same
tokens. Idle energy is a cost of this machine alone, and kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.energy.prices import ApiPrice, CostConfig
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.measure.request_stats import RequestRecord, SplitEnergy, split_all
from orchestrator.core.quantities import DAY_S, KWH_J

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class ApiCost:
    """What an API would ask for the requests that are compared.

    :param cost: prompts, cached tokens and answers together
    :param saved: that, less the electricity of these requests and of idle time; None without a price of electricity
    """

    name: str
    price: ApiPrice
    cost: float
    saved: float | None


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One profile's requests over a time; money is None without a price of electricity, and a rate without tokens.

    :param requests: all of them; `energy.requests` are compared
    :param untold_j: of `untold_requests` more of known energy, which the engine told nothing of: most were broken off
    :param idle_j: while it was loaded and not asked, in `idle_s`; in `idle_unknown_s` more nobody knows
    :param prompt_per_million: electricity for a million tokens of prompts that were computed
    :param busy_cost: of the requests that are compared; None also when there are requests, and none can be
    """

    profile: str
    requests: int
    energy: SplitEnergy
    untold_requests: int
    untold_j: float
    idle_j: float
    idle_s: float
    idle_unknown_s: float
    prompt_per_million: float | None
    output_per_million: float | None
    busy_cost: float | None
    untold_cost: float | None
    idle_cost: float | None
    apis: tuple[ApiCost, ...]


@dataclass(frozen=True, slots=True)
class CardPayback:
    """When what is saved would have paid for a card, by one API's prices, all models together.

    :param per_million: saved with each million tokens (prompts, cached ones and answers as they were mixed), before
        idle time; None without tokens
    :param million_tokens: so many pay for the card, before idle time; None when they never do
    :param million_tokens_a_day: the present use
    :param saved_a_day: at the present use, less idle time
    :param days: until the card is paid at the present use; None when it never is
    """

    name: str
    per_million: float | None
    million_tokens: float | None
    million_tokens_a_day: float
    saved_a_day: float
    days: float | None


def model_costs(
    records: Sequence[RequestRecord], idle: Sequence[IdleRecord], config: CostConfig
) -> tuple[ModelCost, ...]:
    """Return the costs of each profile that was asked or loaded, the one with most requests first."""
    by_profile: dict[str, list[RequestRecord]] = {each.profile: [] for each in idle}
    for record in records:
        if record.profile is not None and record.engine is not None:
            by_profile.setdefault(record.profile, []).append(record)

    costs = [
        _model_cost(profile, own, [each for each in idle if each.profile == profile], config)
        for profile, own in by_profile.items()
    ]
    return tuple(sorted(costs, key=lambda each: (-each.requests, each.profile)))


def _model_cost(
    profile: str, records: Sequence[RequestRecord], idle: Sequence[IdleRecord], config: CostConfig
) -> ModelCost:
    """Return the cost of one profile, from its requests and its idle hours."""
    energy = split_all(records)
    joules = [each.energy_j for each in records if each.energy_j is not None]
    untold_j = max(sum(joules) - energy.prompt_j - energy.output_j, 0.0) if len(joules) > energy.requests else 0.0
    idle_j = sum(each.idle_j for each in idle)
    known = energy.requests or not records
    busy_cost = _electricity(energy.prompt_j + energy.output_j, config) if known else None
    idle_cost = _electricity(idle_j, config)
    apis = []
    for name, price in config.prices.items():
        cost = _api_cost(energy, price)
        saved = None if busy_cost is None or idle_cost is None else cost - busy_cost - idle_cost
        apis.append(ApiCost(name, price, cost, saved))

    return ModelCost(
        profile=profile,
        requests=len(records),
        energy=energy,
        untold_requests=len(joules) - energy.requests,
        untold_j=untold_j,
        idle_j=idle_j,
        idle_s=sum(each.idle_s for each in idle),
        idle_unknown_s=sum(each.idle_unknown_s for each in idle),
        prompt_per_million=_per_million(energy.prompt_j, energy.prompt_tokens, config),
        output_per_million=_per_million(energy.output_j, energy.output_tokens, config),
        busy_cost=busy_cost,
        untold_cost=_electricity(untold_j, config),
        idle_cost=idle_cost,
        apis=tuple(apis),
    )


def card_paybacks(
    costs: Sequence[ModelCost], config: CostConfig, card_price: float, over_s: float
) -> tuple[CardPayback, ...]:
    """Return for each API when it would have paid for a card; nothing without a price of electricity.

    :param over_s: the time that the costs are of
    """
    if not config.electricity_per_kwh:
        return ()

    busy_cost = sum(each.busy_cost or 0.0 for each in costs)
    idle_cost = sum(each.idle_cost or 0.0 for each in costs)
    millions = sum(_tokens(each.energy) for each in costs) / MILLION
    days = over_s / DAY_S
    paybacks = []
    for name, price in config.prices.items():
        saved = sum(_api_cost(each.energy, price) for each in costs) - busy_cost
        per_million = saved / millions if millions else None
        saved_a_day = (saved - idle_cost) / days
        paybacks.append(
            CardPayback(
                name=name,
                per_million=per_million,
                million_tokens=card_price / per_million if per_million is not None and per_million > 0 else None,
                million_tokens_a_day=millions / days,
                saved_a_day=saved_a_day,
                days=card_price / saved_a_day if saved_a_day > 0 else None,
            )
        )

    return tuple(paybacks)


def _api_cost(energy: SplitEnergy, price: ApiPrice) -> float:
    """Return what an API asks for these tokens."""
    prompt, cached, output = energy.prompt_tokens, energy.cached_tokens, energy.output_tokens
    return (prompt * price.prompt + cached * price.cached + output * price.output) / MILLION


def _tokens(energy: SplitEnergy) -> int:
    """Return all tokens: of prompts, computed or cached, and of answers."""
    return energy.prompt_tokens + energy.cached_tokens + energy.output_tokens


def _electricity(joules: float, config: CostConfig) -> float | None:
    """Return what energy costs; None without a price of electricity."""
    return joules / KWH_J * config.electricity_per_kwh if config.electricity_per_kwh else None


def _per_million(joules: float, tokens: int, config: CostConfig) -> float | None:
    """Return what the energy of a million tokens costs, by what these took; None without tokens or a price."""
    return _electricity(joules / tokens * MILLION, config) if tokens else None
