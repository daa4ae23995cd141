"""Remembers how fast each profile answers, and tells when one has become slower than it was.

An answer counts where it can be compared with those of another day (`core/course/answers.py`). The answers of one
start on one day are one mark; it is written at the eighth answer, and whenever their number has doubled. Whether a
profile is slower, and what has changed, is decided by `core/course/decline.py` after each write.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import anyio.to_thread

from orchestrator.adapters.file_stamps import Stamp, stamp
from orchestrator.adapters.hardware.machine import driver_version, kernel_release, processor_name
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.core.course.answers import LEAST_ANSWERS, ComparableAnswer, answer_of, kind_of, mark_of
from orchestrator.core.course.course import SpeedSeries, courses_of
from orchestrator.core.course.decline import Decline
from orchestrator.core.course.marks import Circumstances, MachineNames, SpeedMark, circumstances_of
from orchestrator.core.course.text import accept_hint, decline_text
from orchestrator.core.errors import OrchError
from orchestrator.core.health.slowdown import StepSample
from orchestrator.core.identities import ModelIdentity, device_name
from orchestrator.core.profile.profile import engine_of
from orchestrator.core.quantities import DAY_S
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.telemetry.pace import IDLE_S

_log = logging.getLogger(__name__)

KEPT_ANSWERS = 256
"""Of one start and day, the newest."""


@dataclass(slots=True)
class DayOfAnswers:
    """The answers of one start on one day that may be compared with each other.

    :ivar run: the start that gave them
    :ivar kind: what they may be compared with (`core/course/answers.py`)
    :ivar begun_s: Unix time of the first
    :ivar answers: the newest, `KEPT_ANSWERS` at most
    :ivar seen: how many there were, those that are no longer kept among them
    :ivar due: whether their mark is to be written
    """

    run: EngineRun
    kind: str
    begun_s: float
    answers: deque[ComparableAnswer] = field(default_factory=lambda: deque(maxlen=KEPT_ANSWERS))
    seen: int = 0
    due: bool = False


class SpeedMarkBook:
    """Collects the answers of the instances that run.

    :param record: notes an event for people: its kind, and a sentence
    :param on_notice: called when what `notice` says has changed
    :param trial: whether another client tries targets right now, whose answers are no use of a profile
    :param clock: Unix time
    """

    def __init__(
        self,
        path: str,
        record: Callable[[str, str], None],
        on_notice: Callable[[], None],
        trial: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = SpeedMarkStore(path)
        self._record = record
        self._on_notice = on_notice
        self._trial = trial
        self._clock = clock
        self._machine = MachineNames(processor_name(), os.cpu_count() or 1, (), driver_version(), kernel_release())
        self._days: dict[tuple[str, str], DayOfAnswers] = {}
        self._declines: list[tuple[SpeedSeries, Decline]] = []
        self._judged: tuple[Stamp] | None = None
        self._looked_s = 0.0
        self._declined: set[str] = set()
        self._told: set[str] = set()

    def note(self, run: EngineRun, step: StepSample) -> None:
        """Add an answer, if it can be compared with those of another day."""
        kind = kind_of(step)
        if kind is None or self._trial():
            return

        now_s = self._clock()
        name = (run.launch.instance, kind)
        kept = self._days.get(name)
        if kept is None or kept.begun_s // DAY_S != now_s // DAY_S:
            kept = self._days[name] = DayOfAnswers(run, kind, now_s)

        kept.answers.append(answer_of(step))
        kept.seen += 1
        kept.due = kept.due or (kept.seen >= LEAST_ANSWERS and kept.seen.bit_count() == 1)

    async def save_due(self, serving: Collection[str]) -> None:
        """Write what is due, judge anew what was written or accepted, and forget the instances that have ended.

        Best effort: a file that cannot be written is logged.
        """
        due = [each for each in self._days.values() if each.due]
        for each in due:
            each.due = False

        for name in [name for name in self._days if name[0] not in serving]:
            del self._days[name]

        now_s = self._clock()
        rests = not self._declines or abs(now_s - self._looked_s) < IDLE_S  # this clock may be set, also back
        if not due and self._judged and rests:
            return  # what could be accepted is nothing, or was looked at just now

        self._looked_s = now_s
        try:
            self._declines = await anyio.to_thread.run_sync(self._judge, due)
        except (OSError, OrchError) as error:
            self._judged = self._judged or (None,)  # not again each second
            _log.warning("how fast profiles answer could not be kept: %s", error)
        else:
            self._tell()

    def notice(self, run: EngineRun | None) -> str | None:
        """Return a sentence for people where what runs is slower than it was; None when all is well."""
        if run is None:
            return None

        found = next((each for each in self._declines if self._is_of(run, *each)), None)
        return _sentence(*found) if found is not None else None

    def _is_of(self, run: EngineRun, series: SpeedSeries, decline: Decline) -> bool:
        """Return whether it was found on what runs: something else may by now."""
        target = run.launch.target
        return (series.profile, series.engine) == (target.profile, engine_of(target.engine)) and (
            decline.now.marks[-1].circumstances == self._circumstances(run)
        )

    def _judge(self, due: Collection[DayOfAnswers]) -> list[tuple[SpeedSeries, Decline]]:
        """Write marks, and return what has become slower; nothing anew where nothing was written since. Blocks."""
        marks = [mark for mark in map(self._mark, due) if mark is not None]
        if not marks and self._judged == (stamp(self._store.path),):
            return self._declines

        kept = self._store.record(marks) if marks else self._store.read()
        self._judged = (kept.stamp,)
        courses = courses_of(kept.marks, kept.accepted)
        return [(each.series, each.decline) for each in courses if each.decline is not None]

    def _tell(self) -> None:
        """Note an event where answers of what runs now show it; not of a build that somebody has gone back from."""
        declined = {series.target for series, _ in self._declines}
        self._told &= declined
        for series, decline in self._declines:
            if series.target not in self._told and any(
                self._is_of(each.run, series, decline) for each in self._days.values()
            ):
                self._told.add(series.target)
                text = _sentence(series, decline)
                _log.warning("%s", text)
                self._record("declined", text)

        if declined != self._declined:
            self._declined = declined
            self._on_notice()

    def _mark(self, of: DayOfAnswers) -> SpeedMark | None:
        target = of.run.launch.target
        on = self._circumstances(of.run)
        return mark_of(tuple(of.answers), of.begun_s, target.profile, engine_of(target.engine), of.kind, on)

    def _circumstances(self, run: EngineRun) -> Circumstances:
        launch = run.launch
        model = ModelIdentity.parse(launch.margin_key.model)
        devices = tuple(map(device_name, launch.margin_key.devices))
        machine = replace(self._machine, devices=devices)
        return circumstances_of(launch.margin_key.build, model.name, model.size_bytes, launch.rendered.argv, machine)


def _sentence(series: SpeedSeries, decline: Decline) -> str:
    return f"{decline_text(series, decline)}; {accept_hint(series)}"
