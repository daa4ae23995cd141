"""Cards by name, as people write it: total memory and memory bandwidth.

Sources, per block of the table: the vendors' product and data sheets. Bandwidth is bus width times data rate, as those
give it; a laptop's card may be clocked lower. Memory is what the box says; a driver reports up to 3 % less.
Chips that share the host's memory (Apple's, AMD's Strix Halo, NVIDIA's GB10) have none of their own and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.errors import UsageError
from orchestrator.core.problems import nearest


@dataclass(frozen=True, slots=True)
class Card:
    """One model of card; one with two sizes of memory is two."""

    name: str
    total_mib: int
    bandwidth_gb_s: int

    @property
    def full_name(self) -> str:
        """The name that means this card alone."""
        return f"{self.name} {self.total_mib >> 10}GB"


def _cards(rows: Iterable[tuple[str, int, int]]) -> tuple[Card, ...]:
    return tuple(Card(name, gib << 10, bandwidth) for name, gib, bandwidth in rows)


CARDS: tuple[Card, ...] = _cards((
    # https://www.nvidia.com/en-us/geforce/graphics-cards/compare/ and the series' own pages
    ("RTX 5090", 32, 1792), ("RTX 5080", 16, 960), ("RTX 5070 Ti", 16, 896), ("RTX 5070", 12, 672),
    ("RTX 5060 Ti", 16, 448), ("RTX 5060 Ti", 8, 448), ("RTX 5060", 8, 448), ("RTX 5050", 8, 320),
    ("RTX 5090 Laptop", 24, 896), ("RTX 5080 Laptop", 16, 896), ("RTX 5070 Ti Laptop", 12, 672),
    ("RTX 5070 Laptop", 8, 384), ("RTX 5060 Laptop", 8, 384),
    ("RTX 4090", 24, 1008), ("RTX 4080 Super", 16, 736), ("RTX 4080", 16, 717), ("RTX 4070 Ti Super", 16, 672),
    ("RTX 4070 Ti", 12, 504), ("RTX 4070 Super", 12, 504), ("RTX 4070", 12, 504),
    ("RTX 4060 Ti", 16, 288), ("RTX 4060 Ti", 8, 288), ("RTX 4060", 8, 272),
    ("RTX 4090 Laptop", 16, 576), ("RTX 4080 Laptop", 12, 432), ("RTX 4070 Laptop", 8, 256),
    ("RTX 4060 Laptop", 8, 256), ("RTX 4050 Laptop", 6, 192),
    ("RTX 3090 Ti", 24, 1008), ("RTX 3090", 24, 936), ("RTX 3080 Ti", 12, 912), ("RTX 3080", 12, 912),
    ("RTX 3080", 10, 760), ("RTX 3070 Ti", 8, 608), ("RTX 3070", 8, 448), ("RTX 3060 Ti", 8, 448),
    ("RTX 3060", 12, 360), ("RTX 3060", 8, 240), ("RTX 3050", 8, 224), ("RTX 3050", 6, 168),
    ("RTX 3080 Laptop", 16, 448), ("RTX 3080 Laptop", 8, 448), ("RTX 3070 Laptop", 8, 448),
    ("RTX 3060 Laptop", 6, 336),
    ("RTX 2080 Ti", 11, 616), ("RTX 2080 Super", 8, 496), ("RTX 2080", 8, 448), ("RTX 2070 Super", 8, 448),
    ("RTX 2070", 8, 448), ("RTX 2060 Super", 8, 448), ("RTX 2060", 12, 336), ("RTX 2060", 6, 336),
    ("GTX 1660 Ti", 6, 288), ("GTX 1660 Super", 6, 336), ("GTX 1650", 4, 128), ("GTX 1080 Ti", 11, 484),
    ("GTX 1080", 8, 320), ("GTX 1070 Ti", 8, 256), ("GTX 1070", 8, 256), ("GTX 1060", 6, 192),
    ("Titan RTX", 24, 672),
    # https://www.nvidia.com/en-us/products/workstations/ and /en-us/data-center/ , the data sheets there
    ("RTX PRO 6000", 96, 1792), ("RTX PRO 5000", 48, 1344), ("RTX PRO 4500", 32, 896), ("RTX PRO 4000", 24, 672),
    ("RTX 6000 Ada", 48, 960), ("RTX 5000 Ada", 32, 576), ("RTX 4500 Ada", 24, 432), ("RTX 4000 Ada", 20, 360),
    ("RTX 2000 Ada", 16, 224), ("RTX A6000", 48, 768), ("RTX A5000", 24, 768), ("RTX A4500", 20, 640),
    ("RTX A4000", 16, 448), ("RTX A2000", 12, 288), ("RTX A2000", 6, 288),
    ("H200", 141, 4800), ("H100 PCIe", 80, 2000), ("H100 SXM", 80, 3350), ("A100 PCIe", 80, 1935),
    ("A100 SXM", 80, 2039), ("A100", 40, 1555), ("L40S", 48, 864), ("L40", 48, 864), ("L4", 24, 300),
    ("A40", 48, 696), ("A30", 24, 933), ("A10", 24, 600), ("T4", 16, 320), ("V100", 32, 900), ("V100", 16, 900),
    ("P100", 16, 732), ("P40", 24, 346),
    # https://www.amd.com/en/products/graphics/desktops/radeon.html , /workstations/ and /accelerators/instinct/
    ("RX 9070 XT", 16, 640), ("RX 9070", 16, 640), ("RX 9060 XT", 16, 320), ("RX 9060 XT", 8, 320),
    ("RX 7900 XTX", 24, 960), ("RX 7900 XT", 20, 800), ("RX 7900 GRE", 16, 576), ("RX 7800 XT", 16, 624),
    ("RX 7700 XT", 12, 432), ("RX 7600 XT", 16, 288), ("RX 7600", 8, 288), ("RX 6950 XT", 16, 576),
    ("RX 6900 XT", 16, 512), ("RX 6800 XT", 16, 512), ("RX 6800", 16, 512), ("RX 6750 XT", 12, 432),
    ("RX 6700 XT", 12, 384), ("RX 6650 XT", 8, 280), ("RX 6600 XT", 8, 256), ("RX 6600", 8, 224),
    ("RX 5700 XT", 8, 448), ("RX 580", 8, 256), ("Radeon VII", 16, 1024), ("Radeon AI PRO R9700", 32, 640),
    ("Radeon PRO W7900", 48, 864), ("Radeon PRO W7800", 32, 576), ("Instinct MI50", 32, 1024),
    ("Instinct MI50", 16, 1024), ("Instinct MI60", 32, 1024), ("Instinct MI100", 32, 1229),
    # https://www.intel.com/content/www/us/en/products/details/discrete-gpus/arc.html
    ("Arc B580", 12, 456), ("Arc B570", 10, 380), ("Arc A770", 16, 560), ("Arc A770", 8, 512), ("Arc A750", 8, 512),
    ("Arc A580", 8, 512), ("Arc A380", 6, 186), ("Arc Pro B60", 24, 456), ("Arc Pro B50", 16, 224),
))  # fmt: skip

_MEMORY = re.compile(r"\b(\d+)\s*(?:gib|gb|g)\b")
_WORDS = re.compile(r"\d+|[a-z]+")
_SPLIT = re.compile(r"(ti|super|xtx|xt|gre|laptop|mobile|ada)(?=[a-z]|$)")

_BUILT_IN = re.compile(r"\b(?:hbm\d\w*|gddr\d\w*)\b|(?<=sxm)\d")
_SERIES = frozenset({"rtx", "gtx", "rx", "arc", "instinct", "pro", "ai", "pcie", "sxm"})
"""May be left out, and must agree where they are said; of the loose ones, where they tell two cards apart."""

_LOOSE = frozenset({"pro", "ai", "pcie", "sxm"})

_IDLE = frozenset({
    "nvidia", "amd", "intel", "geforce", "radeon", "quadro", "tesla", "graphics", "gpu", "card", "vram", "edition",
    "founders", "generation", "blackwell", "max", "q", "workstation", "server", "oem", "lhr",
})  # fmt: skip
_ALIASES = {"mobile": "laptop", "d": ""}
_SAME_SIZE = 0.9, 1.03
"""A driver's total against the box's: what error correction and the driver keep, and rounding."""


def find_card(text: str) -> Card:
    """Return the card that a person means by a name.

    :raises UsageError: when it is none of the table, or not clear which
    """
    memory = _MEMORY.search(text.lower())
    named = _of_this_name(text)
    sized = [each for each in named if memory is None or each[0].total_mib >> 10 == int(memory[1])]
    if named and not sized and memory is not None:
        first = named[0][0]
        sizes = " or ".join(dict.fromkeys(f"{card.total_mib >> 10}GB" for card, _ in named))
        raise UsageError(
            f"there is no {first.name} with {memory[1]}GB",
            details=(f"it has {sizes}",),
            hint=f'`--card "{first.full_name}"`, or `--vram {memory[1]}G`',
        )

    found = _nearest_form(sized)
    if len(found) == 1:
        return found[0]

    if found:
        raise UsageError(
            f"which `{text}`?",
            details=tuple(f"{card.full_name}: {card.total_mib} MiB, {card.bandwidth_gb_s} GB/s" for card in found),
            hint=f'`--card "{found[0].full_name}"`',
        )

    similar = _similar(text)
    raise UsageError(
        f"`{text}` is no card that orch knows",
        details=(f"similar: {', '.join(similar)}",) if similar else (),
        hint="give its memory instead: `--vram 12G`",
    )


def card_of_device(name: str, total_mib: int) -> Card | None:
    """Return the card that a driver names so; None when it is not in the table, or not clear."""
    low, high = _SAME_SIZE
    found = _nearest_form([each for each in _of_this_name(name) if low <= total_mib / each[0].total_mib <= high])
    return found[0] if len(found) == 1 else None


def _of_this_name(text: str) -> list[tuple[Card, bool]]:
    """Return the cards that a name may mean, and whether the loose words agree as well."""
    series, core = _parse(text)
    named = [(card, *_parse(card.name)) for card in CARDS]
    return [(card, its >= series) for card, its, its_core in named if its_core == core and its >= series - _LOOSE]


def _nearest_form(found: list[tuple[Card, bool]]) -> list[Card]:
    return [card for card, agrees in found if agrees] or [card for card, _ in found]


def _parse(text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the words of a name that may be missing, and those that make the card, in their order."""
    plain = _BUILT_IN.sub(" ", _MEMORY.sub(" ", text.lower().replace("-", " ").replace("_", " ")))
    words = []
    for word in _WORDS.findall(plain):
        words += [part for part in _SPLIT.split(word) if part] if word not in _SERIES | _IDLE else [word]

    words = [_ALIASES.get(word, word) for word in words]
    series = frozenset(word for word in words if word in _SERIES)
    return series, tuple(word for word in words if word and word not in _SERIES and word not in _IDLE)


def _similar(text: str) -> list[str]:
    _, core = _parse(text)
    numbers = {word for word in core if word.isdigit()}
    found = [card.full_name for card in CARDS if numbers & set(_parse(card.name)[1])]
    if not found:
        match = nearest(text.upper(), [card.name for card in CARDS])
        found = [match] if match else []

    return list(dict.fromkeys(found))[:6]
