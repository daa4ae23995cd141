"""The table `[cost]` of `orch.toml`: what electricity costs, and what APIs ask for tokens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from orchestrator.core.problems import Key, Problems, did_you_mean, dotted
from orchestrator.core.profile.settings import Setting, Value
from orchestrator.core.profile.values import MAX_QUOTED, describe_type, read_value
from orchestrator.core.terminal import quote_text


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """What an API asks for a million tokens.

    :param cached: for tokens of a prompt that it has in its cache
    """

    prompt: float
    output: float
    cached: float


@dataclass(frozen=True, slots=True)
class CostConfig:
    """Prices, all in one currency.

    :param electricity_per_kwh: 0 where nobody has said it
    :param currency: a label; nothing is converted
    :param prices: by the name that a person gave
    """

    electricity_per_kwh: float = 0.0
    currency: str = ""
    prices: Mapping[str, ApiPrice] = field(default_factory=dict)


COST_SETTINGS: tuple[Setting, ...] = (
    Setting("cost.electricity_per_kwh", ("float",), "price of a kWh, 0: not said", minimum=0, maximum=1000),
    Setting("cost.currency", ("string",), "of all prices in `[cost]`; a label, nothing is converted"),
    Setting("cost.prices", ("table",), 'what APIs ask for a million tokens: `[cost.prices."NAME"]`, see below'),
)

_MILLION = "for a million tokens"
PRICE_SETTINGS: tuple[Setting, ...] = (
    Setting("prompt", ("float",), f"{_MILLION} of a prompt", minimum=0, maximum=1e6),
    Setting("output", ("float",), f"{_MILLION} of an answer", minimum=0, maximum=1e6),
    Setting("cached", ("float",), f"{_MILLION} of a prompt in its cache, else as `prompt`", minimum=0, maximum=1e6),
)  # fmt: skip
_BY_KEY = {setting.path: setting for setting in PRICE_SETTINGS}
_NEEDED = ("prompt", "output")
_ALLOWED = "a price has `prompt` and `output`, and may have `cached`"


def read_prices(values: Mapping[str, Value], problems: Problems) -> dict[str, ApiPrice]:
    """Return the prices by name, without those that have a problem, which is added; so is one of the currency."""
    currency = str(values["cost.currency"])
    if not currency.isprintable():
        message = f"`cost.currency`: expected printable characters, found `{quote_text(currency, MAX_QUOTED)}`"
        problems.add(("cost", "currency"), message)

    prices = {}
    for name, content in cast("Mapping[str, object]", values["cost.prices"]).items():
        if not name.strip() or not name.isprintable():
            message = f"`cost.prices`: expected a name of printable characters, found `{quote_text(name, MAX_QUOTED)}`"
            problems.add(("cost", "prices", name), message)
            continue

        price = _read_price(("cost", "prices", name), content, problems)
        if price is not None:
            prices[name] = price

    return prices


def _read_price(place: Key, content: object, problems: Problems) -> ApiPrice | None:
    """Return the price in a table of an API; None when it has a problem, which is added."""
    if not isinstance(content, dict):
        problems.add(place, f"`{dotted(place)}`: expected a table, found {describe_type(content)}", hint=_ALLOWED)
        return None

    found: dict[str, float] = {}
    for key, raw in content.items():
        setting, where = _BY_KEY.get(key), (*place, key)
        if setting is None:
            problems.add(where, f"unknown key `{dotted(where)}`", hint=did_you_mean(key, _BY_KEY) or _ALLOWED)
            continue

        value = read_value(setting, raw, where, problems)
        if value is not None:
            found[key] = cast(float, value)

    missing = [key for key in _NEEDED if key not in content]
    if missing:
        text = " and no ".join(f"`{key}`" for key in missing)
        problems.add(place, f"`{dotted(place)}`: has no {text}", hint=_ALLOWED)

    if not all(key in found for key in _NEEDED):
        return None

    return ApiPrice(found["prompt"], found["output"], found.get("cached", found["prompt"]))
