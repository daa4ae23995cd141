"""`orch stats --cost`: what requests cost in electricity, and would by the prices of APIs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TypeVar

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.trial_profiles import is_trial_profile
from orchestrator.adapters.hardware.cpu_energy import CpuEnergy
from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.history import read_idle_energy, read_requests
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.energy.cost import CardPayback, ModelCost, card_paybacks, model_costs
from orchestrator.core.energy.prices import CostConfig
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.energy.text import assumptions, cost_lines, payback_lines
from orchestrator.core.errors import UsageError
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.quantities import HOUR_S


def run_cost(args: argparse.Namespace, since_s: float) -> int:
    """Print what the requests of each profile cost here, and what APIs would ask for them.

    :raises UsageError: when an option is wrong
    :raises OrchError: when the configuration or the history cannot be read
    """
    card_price = _card_price(args)
    paths, now_s = find_paths(), time.time()
    config = load_config(paths).cost
    records = [_in_its_row(each) for each in read_requests(paths.history_file, since_s)]
    idle_since_s = since_s - HOUR_S  # it is kept by the hour
    idle = [_in_its_row(each) for each in read_idle_energy(paths.history_file, idle_since_s)]
    costs = model_costs(records, idle, config)
    begins = [*(each.started_s for each in records), *(float(each.hour_s) for each in idle)]
    over_s = now_s - max(since_s, min(begins, default=now_s - 1))
    paybacks = () if card_price is None or not costs else card_paybacks(costs, config, card_price, over_s)
    if args.json:
        _print_json(costs, paybacks, config, since_s, over_s)
        return exit_codes.OK

    for line in cost_lines(costs, config):
        output.line(line)

    if paybacks and card_price is not None:
        output.line()
        for line in payback_lines(paybacks, config, card_price, over_s):
            output.line(line)

    if any(each.energy.requests for each in costs):
        output.line()
        output.line("these figures go by:")
        for text in assumptions(costs, card=bool(paybacks)):
            output.line(f"  {text}")

    for text in _missing(costs, config, paths.config_file):
        diagnostics.note(text)

    return exit_codes.OK


TRIALS = "benches and tuning"

Row = TypeVar("Row", RequestRecord, IdleRecord)


def _in_its_row(record: Row) -> Row:
    """Return a record with the name of its row: all the profiles of benches and tunings are one."""
    return replace(record, profile=TRIALS) if is_trial_profile(record.profile or "") else record


def _card_price(args: argparse.Namespace) -> float | None:
    """:raises UsageError: when it is no price, or options contradict each other"""
    example = "orch stats --cost --card-price 800"
    if not args.cost:
        raise UsageError("--card-price needs --cost", hint=example)

    if args.csv:
        raise UsageError("--cost has no CSV", hint="use --json")

    if args.by not in (None, "profile"):
        raise UsageError(f"--cost is by profile, not by {args.by}", hint="leave out --cost, or --by")

    if args.card_price is None:
        return None

    try:
        price = float(args.card_price)
    except ValueError:
        price = 0.0

    if not 0 < price < 1e9:
        found = f"found `{args.card_price}`; allowed: a number above 0, in the currency of `[cost]`"
        raise UsageError("--card-price is no price", details=(found,), hint=example)

    return price


def _missing(costs: Sequence[ModelCost], config: CostConfig, file: str) -> list[str]:
    """Return what is not known, and how it can be."""
    if not costs:
        return ["no requests in that time"]

    missing = []
    if any(each.requests for each in costs) and not any(each.energy.requests + each.untold_requests for each in costs):
        missing.append(
            "no energy is known: a card has to tell its energy or its power (NVIDIA's driver or amdgpu), and for an "
            f"engine without a card {CpuEnergy().why_unknown() or 'the daemon has to have been running for it'}"
        )

    if not config.electricity_per_kwh:
        missing.append(f"the price of electricity is not known: `electricity_per_kwh` in `[cost]` of {file}")

    if not config.prices:
        missing.append(f'no API price to compare with: `[cost.prices."NAME"]` with `prompt` and `output` in {file}')

    return missing


def _print_json(
    costs: Sequence[ModelCost], paybacks: Sequence[CardPayback], config: CostConfig, since_s: float, over_s: float
) -> None:
    output.json_data(
        {
            "version": 1,
            "since": datetime.fromtimestamp(since_s, UTC).isoformat(timespec="seconds"),
            "over_s": round(over_s, 3),
            "electricity_per_kwh": config.electricity_per_kwh or None,
            "currency": config.currency or None,
            "models": [asdict(each) for each in costs],
            "card": [asdict(each) for each in paybacks],
        }
    )
