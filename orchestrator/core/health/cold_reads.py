"""Whether an engine reads weights from the disk while it answers: a verdict on counters of its processes. Pure.

Weights that are mapped lie in the page cache, from which the kernel takes them when memory is short; each use then
waits for the disk. Counted are bytes that its processes had read from storage (`read_bytes`, proc_pid_io(5)) while
requests were in flight, if pages were missing as well (major faults, proc_pid_stat(5)): a saved slot that is read
causes none. An engine that has loaded reads nothing: both engines touch every weight before they serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from orchestrator.core.quantities import MIB

WINDOW_S = 10.0
PART = 0.1
LEAST_BYTES, MOST_BYTES = 8 * MIB, 256 * MIB
"""So much within the window is noticed: a tenth of what the host has of the model, between these bounds."""

WARM_SHARE = 0.98
"""With so much of the host's part in the page cache, what was read has come back."""

News = Literal["cold", "warm"]


class ProcessReads(NamedTuple):
    """Counters of one process: they only grow."""

    read_bytes: int
    major_faults: int


class ReadLook(NamedTuple):
    """What was read since the look before it, while requests ran.

    :param at_s: monotonic
    """

    at_s: float
    took_s: float
    read_bytes: int
    major_faults: int


@dataclass(frozen=True, slots=True)
class ColdReads:
    """The history of one instance.

    :param host_bytes: of the model in host memory
    :param allowed_bytes: that may be read for the first time: a profile can ask for reading when first needed
    :param last: the time of the last look (monotonic) and the counters then, by process; None before the first one
    :param looks: of the window, oldest first
    :param cold: what was read in the window in which it was noticed, bytes; 0 while nothing is
    """

    host_bytes: int
    allowed_bytes: int = 0
    last: tuple[float, Mapping[int, ProcessReads]] | None = None
    looks: tuple[ReadLook, ...] = ()
    cold: int = 0

    @property
    def threshold_bytes(self) -> int:
        return round(min(max(PART * self.host_bytes, LEAST_BYTES), MOST_BYTES))


def add_look(
    history: ColdReads, at_s: float, now: Mapping[int, ProcessReads], *, used: bool
) -> tuple[ColdReads, News | None]:
    """Return the history after a look at the counters, and what is new.

    :param at_s: monotonic
    :param now: of the engine's processes, by process id; one that was not there at the last look begins to count
    :param used: requests were in flight since the look before
    """
    last, history = history.last, replace(history, last=(at_s, now))
    if last is None or not used:
        return history, None

    since_s, before = last
    both = [(before[pid], reads) for pid, reads in now.items() if pid in before]
    read = sum(max(reads.read_bytes - earlier.read_bytes, 0) for earlier, reads in both)
    faults = sum(max(reads.major_faults - earlier.major_faults, 0) for earlier, reads in both)
    counted = max(read - history.allowed_bytes, 0)
    look = ReadLook(at_s, at_s - since_s, counted, faults)
    kept = tuple(each for each in (*history.looks, look) if at_s - each.at_s < WINDOW_S)
    history = replace(history, looks=kept, allowed_bytes=max(history.allowed_bytes - read, 0))
    total = sum(each.read_bytes for each in kept)
    if total >= history.threshold_bytes and any(each.major_faults for each in kept):
        return replace(history, cold=max(total, history.cold)), None if history.cold else "cold"

    whole = sum(each.took_s for each in kept) >= WINDOW_S / 2
    if history.cold and whole and total < history.threshold_bytes / 10:
        return replace(history, cold=0), "warm"

    return history, None


def add_residency(history: ColdReads, at_s: float, share: float | None) -> tuple[ColdReads, News | None]:
    """Return the history after a look at the page cache, and what is new.

    :param at_s: monotonic
    :param share: of the host's part that lies in the page cache; None where that is not known
    """
    recent = any(look.read_bytes and at_s - look.at_s < WINDOW_S for look in history.looks)
    if not history.cold or recent or share is None or share < WARM_SHARE:
        return history, None

    return replace(history, cold=0, looks=()), "warm"


def cold_text(cold_bytes: int, share: float | None, io_pressure: float | None, *, mapped: bool, locked: bool) -> str:
    """Return what is noticed, with what to do about it, for people.

    :param share: as in `add_residency`
    :param io_pressure: share of the last 10 s in which some program of the machine waited for a disk
    :param mapped: the weights are mapped, and not copied: those are read back from swap
    :param locked: the profile asks for locked memory
    """
    what = "weights are read from the disk" if mapped else "its memory is read back from swap"
    seen = f"{cold_bytes >> 20} MiB in {WINDOW_S:.0f} s"
    if share is not None:
        seen += f", {share:.0%} of the host's part was in the page cache then"

    if io_pressure is not None:
        seen += f"; programs waited for disks {io_pressure:.0%} of the time"

    fix = "fewer models or programs beside it, a smaller quantisation, or more memory"
    return f"{what} while it answers ({seen}): {fix}{'' if locked else '; `memory.mlock = true` keeps what fits'}"
