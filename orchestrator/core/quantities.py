"""Amounts as people write them on a command line: `12G`, `11500M`, `32k`."""

from __future__ import annotations

import re

from orchestrator.core.errors import UsageError

MOST_MIB = 1 << 30
MOST_TOKENS = (1 << 31) - 1

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([mgt])(?:i?b)?", re.IGNORECASE)
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([km]?)", re.IGNORECASE)
_MIB = {"m": 1, "g": 1 << 10, "t": 1 << 20}
_TIMES = {"": 1, "k": 1 << 10, "m": 1 << 20}


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
