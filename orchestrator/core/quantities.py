"""Units; amounts as people write them on a command line (`12G`, `11500M`, `32k`, `15m`); figures as they read them."""

from __future__ import annotations

import re

from orchestrator.core.errors import UsageError

MIB = 1 << 20
GB = 1e9
"""Both in bytes."""

HOUR_S = 3600
DAY_S = 86_400
WH_J = 3600
KWH_J = 1000 * WH_J

MOST_MIB = 1 << 30
MOST_TOKENS = (1 << 31) - 1

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([mgt])(?:i?b)?", re.IGNORECASE)
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([km]?)", re.IGNORECASE)
_MIB = {"m": 1, "g": 1 << 10, "t": 1 << 20}
_TIME = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIMES = {"": 1, "k": 1 << 10, "m": 1 << 20}


def shown_change(ratio: float) -> str:
    """Return a ratio as the change that it is: `+12.5 %` of 1.125."""
    return f"{100 * (ratio - 1):+.1f} %" if ratio <= 10 else "over +900 %"


def energy_text(joules: float) -> str:
    """Return energy with three figures that matter: `512 J`, `24.5 Wh`, `1.2 kWh`."""
    unit, size = ("J", 1) if joules < WH_J else ("Wh", WH_J) if joules < KWH_J else ("kWh", KWH_J)
    amount = joules / size
    return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:,.0f} {unit}"


def parse_memory(text: str, option: str) -> int:
    """Return the MiB of an amount such as `12G`, `12GB`, `12GiB` or `11500M`: all of them powers of 1024, as memory is.

    :param option: what it was given for, for the message
    :raises UsageError: when it is none
    """
    plain = text.strip()
    match = _MEMORY.fullmatch(plain)
    mib = 0 if plain == "0" else round(float(match[1]) * _MIB[match[2].lower()]) if match else -1
    if 0 <= mib <= MOST_MIB:
        return mib

    shown = plain[:40]
    needs_unit = plain.replace(".", "", 1).isdigit()
    raise UsageError(
        f"{option}: `{shown}` {'has no unit' if needs_unit else 'is no amount of memory'}",
        details=("expected a number with M, G or T, at most 1024T",),
        hint=f"for example `{option} {shown}G`" if needs_unit else f"for example `{option} 12G` or `{option} 11500M`",
    )


def parse_tokens(text: str, option: str) -> int:
    """Return the tokens of an amount such as `32768`, `32k` or `1M`; k is 1024, as context sizes are.

    :raises UsageError: when it is none
    """
    match = _TOKENS.fullmatch(text.strip())
    tokens = round(float(match[1]) * _TIMES[match[2].lower()]) if match else 0
    if 0 < tokens <= MOST_TOKENS:
        return tokens

    raise UsageError(
        f"{option}: `{text.strip()[:40]}` is no number of tokens",
        details=(f"expected 1 to {MOST_TOKENS}, or with k for 1024",),
        hint=f"for example `{option} 32k`",
    )


def parse_seconds(text: str, option: str, example: str) -> int:
    """Return the seconds of a time such as `90s`, `15m`, `24h`, `7d` or `2w`.

    :param example: of a command that gives it rightly
    :raises UsageError: when it is none
    """
    match = _TIME.fullmatch(text.strip())
    if match is None or not int(match[1]):
        allowed = "a number with s, m, h, d or w, as in 90m or 7d"
        raise UsageError(f"`{option}`: found `{text[:40]}`", details=(f"allowed: {allowed}",), hint=f"run `{example}`")

    return int(match[1]) * _SECONDS[match[2]]
