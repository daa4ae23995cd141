"""Marks in lines: what was measured is said by rates."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.course.marks import Circumstances, SpeedMark

DAY_S = 86400.0
ON = Circumstances(
    build="b11434 0123456789ab",
    model="m.gguf, 4096 bytes",
    settings={"--ctx-size": "8192", "--flash-attn": "on"},
    device="RTX 3060, Ryzen, 16 CPUs",
    driver="NVIDIA UNIX x86_64 Kernel Module 550.54",
    kernel="Linux 6.8.0",
)
NEW_DRIVER = replace(ON, driver="NVIDIA UNIX x86_64 Kernel Module 560.28")


def mark(day: float, rate: float, on: Circumstances = ON, *, answers: int = 32, bench: int | None = None) -> SpeedMark:
    """A mark of this day, of so many tokens a second without drafts."""
    kind = "answers" if bench is None else "chat, 192 tokens (abcdef)"
    return SpeedMark(
        day * DAY_S, "p", "upstream", kind, on, answers, rate, rate * 0.98, rate * 1.02, 1000 / rate, 400.0, bench
    )


def days(count: int, rate: float, on: Circumstances = ON, *, first: int = 0) -> list[SpeedMark]:
    """One mark a day; every other one is slower by half a percent."""
    return [mark(first + day, rate * (1 - 0.005 * (day % 2)), on) for day in range(count)]
