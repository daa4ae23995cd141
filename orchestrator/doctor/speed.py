"""The check of `orch doctor` on how fast profiles are: slower than they were, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.adapters.store.courses import read_courses
from orchestrator.core.course.text import accept_hint, decline_text
from orchestrator.core.setup.doctor import CheckResult
from orchestrator.doctor.examine import DoctorContext


def check_speed(context: DoctorContext) -> Iterator[CheckResult]:
    courses = read_courses(context.paths)
    declined = [(each.series, each.decline) for each in courses if each.decline is not None]
    for series, decline in declined:
        yield CheckResult("warning", "speed", decline_text(series, decline), accept_hint(series))

    if courses and not declined:
        count = len({each.series.target for each in courses})
        measured = "1 profile that was" if count == 1 else f"{count} profiles that were"
        yield CheckResult("ok", "speed", f"{measured} measured: none is slower than it was, as far as that can be told")
