"""The costs of models as lines for a terminal, with what they assume. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.core.bench.text import table
from orchestrator.core.energy.cost import MILLION, CardPayback, ModelCost
from orchestrator.core.energy.prices import CostConfig
from orchestrator.core.quantities import DAY_S, HOUR_S, energy_text

HEADINGS = ("per million tokens", "prompt", "cached", "output", "these requests")
MAX_DECIMALS = 8
"""Of money: a hundred-millionth is nothing to anybody."""


def cost_lines(costs: Sequence[ModelCost], config: CostConfig) -> list[str]:
    """Return for each model the table of its costs, and what it saves against each API."""
    lines: list[str] = []
    for each in costs:
        lines += [*([""] if lines else []), *_model_lines(each, config)]

    return lines


def payback_lines(paybacks: Sequence[CardPayback], config: CostConfig, card_price: float, over_s: float) -> list[str]:
    """Return when each API's price would have paid for a card."""
    price = _money(card_price, config)
    lines = [f"a card for {price}, by the use of the last {_time(over_s)}, all models together:"]
    if over_s < DAY_S:
        lines.append("  less than a day: at what pace you use it is hardly known")

    for each in paybacks:
        if each.per_million is None:
            lines.append(f"  {each.name}: unknown, no request is compared")
            continue

        if each.million_tokens is None:
            more = _money(-each.per_million, config)
            lines.append(f"  {each.name}: never; a million tokens costs {more} more here than there")
            continue

        lines.append(
            f"  {each.name}: paid after {each.million_tokens:,.0f} million tokens ({_money(each.per_million, config)} "
            "saved with each million, idle time not counted)"
        )
        pace = f"at {each.million_tokens_a_day:.3g} million tokens a day and with the idle time there was"
        if each.days is None:
            lines.append(f"    {pace}: never, idle time costs more than is saved ({_saved_a_day(each, config)})")
        else:
            lines.append(f"    {pace}: after {_time(each.days * DAY_S)} ({_saved_a_day(each, config)})")

    return lines


def assumptions(costs: Sequence[ModelCost], *, card: bool) -> list[str]:
    """Return what is counted and what is assumed in these figures, a sentence each."""
    requests, compared = sum(each.requests for each in costs), sum(each.energy.requests for each in costs)
    found = [
        f"{compared} of {_requests(requests)} compared: their energy is known, and what was computed",
        "energy is that of the cards, or of the processors for an engine without one; at the plug it is more",
        "between prompt and output it is divided by the engine's times for them",
        "`cached` is what the engine had in its own cache; an API's cache may hold more or less",
        "prices are as they are written in `[cost]`",
    ]
    if card:
        found.append("the tokens stay mixed as they were; nothing else of the machine is paid for")

    return found


def _model_lines(cost: ModelCost, config: CostConfig) -> list[str]:
    """Return one model: its table, what could not be compared, its idle time, what it saves."""
    compared = cost.energy.requests
    if compared:
        figures = (f"  {line}" for line in table(_rows(cost, config)))
        lines = [f"{cost.profile}: {compared} of {_requests(cost.requests)}", *figures]
    elif cost.requests and not cost.untold_requests:
        lines = [f"{cost.profile}: {_requests(cost.requests)}, the energy of none of them is known"]
    else:
        lines = [f"{cost.profile}: {_requests(cost.requests)}"]

    if cost.untold_requests:
        untold = f"{energy_text(cost.untold_j)} of {_requests(cost.untold_requests)} of which the engine told nothing"
        lines.append(f"  not compared: {untold}{_price(cost.untold_cost, config)}")

    if cost.idle_s:
        idle = f"{energy_text(cost.idle_j)} in {_time(cost.idle_s)} without a request"
        lines.append(f"  idle: {idle}{_price(cost.idle_cost, config)}")
        if cost.idle_unknown_s >= 1:
            lines[-1] += f"; of {_time(cost.idle_unknown_s)} more it is unknown"

    if compared:
        for api in cost.apis:
            if api.saved is not None:
                word = "saved" if api.saved >= 0 else "lost"
                lines.append(f"  {word} against {api.name}, idle time counted: {_money(abs(api.saved), config)}")

    return lines


def _rows(cost: ModelCost, config: CostConfig) -> list[tuple[str, ...]]:
    """Return the table of the requests that are compared."""
    energy = cost.energy
    prompt, output = _rate(energy.prompt_j, energy.prompt_tokens), _rate(energy.output_j, energy.output_tokens)
    whole = energy_text(energy.prompt_j + energy.output_j)
    rows: list[tuple[str, ...]] = [HEADINGS, ("energy", prompt, "", output, whole)]
    if cost.busy_cost is not None:
        prompt, output = _amount(cost.prompt_per_million), _amount(cost.output_per_million)
        cached = "0" if energy.cached_tokens else ""
        rows.append(("local", prompt, cached, output, _money(cost.busy_cost, config)))

    for api in cost.apis:
        prices = (api.price.prompt, api.price.cached, api.price.output)
        rows.append((api.name, *map(_amount, prices), _money(api.cost, config)))

    tokens = (energy.prompt_tokens, energy.cached_tokens, energy.output_tokens)
    return [*rows, ("tokens", *(f"{count:,}" for count in tokens), "")]


def _saved_a_day(payback: CardPayback, config: CostConfig) -> str:
    return f"{_money(payback.saved_a_day, config)} a day"


def _price(value: float | None, config: CostConfig) -> str:
    """Return money as the end of a sentence; nothing where it is not known."""
    return "" if value is None else f", {_money(value, config)}"


def _requests(count: int) -> str:
    return "no request" if not count else "1 request" if count == 1 else f"{count:,} requests"


def _rate(joules: float, tokens: int) -> str:
    """Return the energy for a million tokens."""
    return energy_text(joules / tokens * MILLION) if tokens else "-"


def _money(value: float, config: CostConfig) -> str:
    return f"{_amount(value)} {config.currency}".rstrip()


def _amount(value: float | None) -> str:
    """Return money with cents, or with two figures where it is less than ten of them."""
    if value is None:
        return "-"

    decimals = 2 if not value or abs(value) >= 0.1 else min(1 - math.floor(math.log10(abs(value))), MAX_DECIMALS)
    return f"{value:,.{decimals}f}"


def _time(seconds: float) -> str:
    """Return a time from seconds to years, `90 s`, `5.3 h`, `12 days`."""
    if seconds < 2 * HOUR_S:
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

    days = seconds / DAY_S
    if days < 2:
        return f"{seconds / HOUR_S:.1f} h"

    return f"{days:,.0f} days" if days < 1000 else f"{days / 365.25:,.0f} years"
