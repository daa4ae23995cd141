"""What `orch doctor --measure` found, judged: memory and disk as they are read, links of cards, and a profile's step.

Pure. A figure that nobody tells is None and is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from orchestrator.core.quantities import GB
from orchestrator.core.setup.doctor import CheckResult
from orchestrator.core.setup.memory_modules import MemoryModule, channels_of, peak_gb_s

WINDOW_S = 0.1
LOW_SHARE = 0.6
"""Enough threads that read in order reach 64 to 90 % of what the modules give; below this something is amiss. The least
have processors of one chiplet, whose link to the memory controller carries 64 GB/s beside 96 of DDR5-6000.
"""

DISTURBED = 1.3
"""Best over middle above which other programs, or other virtual machines, have used memory or processors meanwhile."""

BASE_MT_S = {"DDR4": (2133, 2400, 2666), "DDR5": (4800,)}
"""Speeds of the standard at which modules that are made for more run without XMP or EXPO. Firmware rounds them."""

_ROUNDED_MT_S = 2
_XMP = "is XMP (Intel) or EXPO/DOCP (AMD) on? It is set in the BIOS"


class ReadSpeed(NamedTuple):
    """How fast something was read, GB/s: the best tenth of a second and the one in the middle.

    :param readers: threads that read at the same time
    """

    best: float
    middle: float
    readers: int

    @property
    def disturbed(self) -> bool:
        return self.best > DISTURBED * self.middle


class PcieLink(NamedTuple):
    """A card's link to the host; None where the driver does not tell.

    :param generation: now: a card that does nothing goes down to 1
    :param generation_here: the most that card, slot and processor can together; `generation_card` the card alone
    :param width: lanes now; `width_card` the card's own most
    """

    name: str
    generation: int | None
    generation_here: int | None
    generation_card: int | None
    width: int | None
    width_card: int | None


def read_speed(ends: Sequence[Sequence[float]], piece_bytes: int, began: float, ended: float) -> ReadSpeed:
    """Return how fast readers read together, from when each of them had read its pieces.

    :param ends: for each reader, when it had read each piece, s
    :param began: between this and `ended` all of them read
    """
    count = max(int((ended - began) / WINDOW_S), 1)
    window_s = (ended - began) / count
    pieces = [0] * count
    for reader in ends:
        for at in reader:
            if began <= at < ended:
                pieces[min(int((at - began) / window_s), count - 1)] += 1

    rates = [number * piece_bytes / GB / window_s for number in pieces]
    return ReadSpeed(max(rates), median(rates), len(ends))


def judge_memory(speed: ReadSpeed, modules: Sequence[MemoryModule] | None) -> Iterator[CheckResult]:
    """Yield whether the memory is as fast as its modules can be, and whether those are set and placed well.

    :param modules: None where the firmware's table cannot be read
    """
    threads = f"{speed.readers} thread{'' if speed.readers == 1 else 's'}"
    text = f"read at {speed.best:.1f} GB/s at best, {speed.middle:.1f} in the middle, with {threads}"
    measured = CheckResult("ok", "memory", text)
    if speed.disturbed:
        text += "; disturbed: something else used memory or processors meanwhile"
        fix = "measure again in a quiet moment; the fastest reading is kept"
        measured = CheckResult("note", "memory", text, fix)

    if modules is None:
        yield measured
        fix = "as root: `sudo orch doctor --measure`; or look at `sudo dmidecode -t memory`"
        yield CheckResult("note", "modules", "what the memory is set to is unknown: only root may read it", fix)
        return

    fitted = [module for module in modules if module.size_mib]
    if not fitted:
        yield measured
        yield CheckResult("note", "modules", "the firmware tells of no memory module: a virtual machine, perhaps")
        return

    yield from _judge_modules(fitted)
    peak, channels = peak_gb_s(fitted), channels_of(fitted)
    if peak is None or channels is None:
        yield replace(measured, text=f"{text}; what the modules give is not told")
        return

    beside = f"{text}; {channels} channel{'' if channels == 1 else 's'} as they are set give {peak:.0f} at most"
    enough = speed.best >= LOW_SHARE * peak or speed.readers < 2 * channels  # fewer threads cannot read as much
    if enough or speed.disturbed:
        yield replace(measured, text=beside)
    else:
        fix = f"if it is the same when nothing else runs: {_XMP}; has each channel a module?"
        yield CheckResult("warning", "memory", f"{beside}: {speed.best / peak:.0%} of it", fix)


def _judge_modules(fitted: Sequence[MemoryModule]) -> Iterator[CheckResult]:
    """Yield whether the modules run as fast as they are rated, and in more than one channel."""
    channels = channels_of(fitted)
    of = f" in {channels} channel{'' if channels == 1 else 's'}" if channels is not None else ""
    slow = [each for each in fitted if each.configured_mt_s and each.configured_mt_s < (each.rated_mt_s or 0)]
    kinds = dict.fromkeys(f"{each.kind}-{each.configured_mt_s or '?'}" for each in fitted)
    text = f"{len(fitted)} module{'' if len(fitted) == 1 else 's'}{of}, set to {', '.join(kinds)}"
    if slow:
        yield CheckResult(
            "warning",
            "modules",
            f"{text}, rated {slow[0].rated_mt_s}",
            _XMP,
        )
    elif channels == 1:
        yield CheckResult("warning", "modules", text, "a second module in the other channel doubles the speed")
    elif any(map(_at_base_speed, fitted)):
        yield CheckResult("note", "modules", text, f"if their label says more: {_XMP}")
    else:
        yield CheckResult("ok", "modules", text)


def _at_base_speed(module: MemoryModule) -> bool:
    """Return whether a module runs as any of its kind does before somebody turns on the speed that it was sold for."""
    now = module.configured_mt_s
    return now is not None and any(abs(now - base) <= _ROUNDED_MT_S for base in BASE_MT_S.get(module.kind, ()))


def judge_disk(path: str, speed_gb_s: float | None, model_bytes: int, why_unknown: str = "") -> CheckResult:
    """Return how long a cold start takes to read a model's file.

    :param speed_gb_s: read past the page cache
    """
    if not speed_gb_s:
        return CheckResult("note", "disk", f"{path}: not measured: {why_unknown}")

    text = f"{path}: {speed_gb_s:.2f} GB/s past the page cache: a cold start reads"
    return CheckResult("ok", "disk", f"{text} {cold_read_text(speed_gb_s, model_bytes)}")


def cold_read_text(speed_gb_s: float, model_bytes: int) -> str:
    """Return how long a model takes that is read from its disk: `18.1 GB in 36 s`."""
    whole_s = model_bytes / GB / speed_gb_s
    return f"{model_bytes / GB:.1f} GB in " + (f"{whole_s:.0f} s" if whole_s >= 1 else "under 1 s")


def judge_link(link: PcieLink) -> CheckResult:
    """Return whether a card's link is as wide as the card is. Its generation now says nothing of one that is idle."""
    if link.width is None or link.width_card is None:
        return CheckResult("note", "pcie", f"{link.name}: the width of its link is unknown")

    generation = link.generation_here or link.generation
    text = f"{link.name}: {link.width} of {link.width_card} lanes"
    if generation is not None:
        text += f", generation {generation}"
        if link.generation_card is not None and link.generation_card > generation:
            text += f" of {link.generation_card}"

    if link.generation is not None and generation is not None and link.generation < generation:
        text += f" (at {link.generation} now, as cards go while they have nothing to do)"

    if link.width < link.width_card:
        fix = "try another slot, or without a riser: prompts are read more slowly with weights on the host"
        return CheckResult("warning", "pcie", text, fix)

    return CheckResult("ok", "pcie", text)


def judge_profile(profile: str, host_gb: float, speed_gb_s: float, basis: str) -> CheckResult:
    """Return how many tokens a second the memory's speed allows a profile at most.

    :param host_gb: what one step of decoding reads of the host's memory, GB; `basis` says of which placement
    :param speed_gb_s: the fastest that the memory was ever read
    """
    if host_gb < 0.001:
        return CheckResult("ok", "profile", f"{profile}: decoding reads nothing of the host's memory {basis}")

    most = speed_gb_s / host_gb
    amount = f"{host_gb:.2f} GB" if host_gb >= 0.1 else f"{host_gb * 1000:.0f} MB"
    text = f"{profile}: {amount} of the host's memory for each token {basis}"
    return CheckResult("ok", "profile", f"{text}: at most {most:.0f} tokens/s at {speed_gb_s:.0f} GB/s, without drafts")
