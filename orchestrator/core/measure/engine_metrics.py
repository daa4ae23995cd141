"""An engine's own `GET /metrics`, read so that nothing in it can spoil the page that it is passed on in. Pure.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Both engines prefix their names with `llamacpp:`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_SAMPLES = 100
"""Upstream has some twenty, and one more for each drafted position."""

LEFT_OUT = frozenset(("llamacpp:prompt_tokens_seconds", "llamacpp:predicted_tokens_seconds"))
"""Rates since somebody last asked, whoever that was: each reader would spoil the others'."""

_SAMPLE = re.compile(r"(llamacpp:[a-zA-Z0-9_]{1,100})(?:\{([^{}]{0,500})\})? +([0-9.eE+-]{1,40})(?: +-?[0-9]+)? *")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]{0,40})="([^"\\]{0,80})",?')
_TYPE = re.compile(r"# TYPE (llamacpp:[a-zA-Z0-9_]{1,100}) (counter|gauge) *")
_HELP = re.compile(r"# HELP (llamacpp:[a-zA-Z0-9_]{1,100}) (.{1,300})")
_OURS = frozenset(("profile", "engine"))

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Family:
    """One metric: `kind` is counter, gauge or unknown; samples are labels to value."""

    name: str
    kind: str = "unknown"
    help: str = ""
    samples: dict[Labels, float] = field(default_factory=dict)


def read_families(text: str) -> list[Family]:
    """Return the metrics that an engine exports. Lines that are not understood, or come twice, are left out."""
    families: dict[str, Family] = {}
    count = 0
    for line in text.splitlines():
        described = _HELP.fullmatch(line) or _TYPE.fullmatch(line)
        if described:
            family = families.setdefault(described[1], Family(described[1]))
            if described.re is _HELP:
                family.help = described[2]
            else:
                family.kind = described[2]

            continue

        found = _SAMPLE.fullmatch(line)
        if found is None or found[1] in LEFT_OUT or count >= MAX_SAMPLES:
            continue

        labels, value = _labels(found[2] or ""), _value(found[3])
        if labels is None or value is None:
            continue

        samples = families.setdefault(found[1], Family(found[1])).samples
        if labels not in samples:
            samples[labels] = value
            count += 1

    return [family for family in families.values() if family.samples]


def _labels(text: str) -> Labels | None:
    """Return the labels of a sample, sorted; None when they are not understood."""
    found = _LABEL.findall(text)
    whole = "".join(match[0] for match in _LABEL.finditer(text)) == text
    names = [name for name, _ in found]
    if not whole or len(set(names)) < len(names) or not _OURS.isdisjoint(names):
        return None

    return tuple(sorted(found))


def _value(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
