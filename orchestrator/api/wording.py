"""Answers of the control API as text for people, for the CLI and the dashboard alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.api.types import SwitchResult, TargetName
    from orchestrator.core.fleet.state_summary import StateName

STATE_SYMBOLS: dict[StateName, str] = {
    "ready": "●",
    "stopped": "○",
    "failed": "✗",
    "backoff": "◌",
    "preparing": "◌",
    "starting": "◌",
    "draining": "◍",
    "stopping": "◍",
}
"""Each state's symbol: it can be told without colours."""


def target_text(target: TargetName | None) -> str:
    """Return `profile@engine`."""
    return f"{target['profile']}@{target['engine']}" if target is not None else "nothing"


def counted(count: int, noun: str) -> str:
    """Return `1 request`, `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def agreeing(count: int, one: str, more: str) -> str:
    """Return the word that agrees with a count: `agreeing(n, "waits", "wait")`."""
    return one if count == 1 else more


def interruption_text(result: SwitchResult) -> str:
    """Return what a switch cost those who asked meanwhile: `3 requests held, gap 0.31 s`."""
    held = counted(result["held_requests"], "request") if result["held_requests"] else "no request"
    return f"{held} held, gap {result['gap_s']} s"


def rollback_text(result: SwitchResult) -> str | None:
    """Return what serves again after a switch that failed; None when nothing does."""
    return f"rolled back: {target_text(result['from'])} serves" if result["rolled_back"] and result["from"] else None


def flag_texts(argv: Iterable[str]) -> list[str]:
    """Return one text for each flag with its value; the program and other words stand alone."""
    texts: list[str] = []
    for word in argv:
        if texts and not word.startswith("-") and texts[-1].startswith("-") and " " not in texts[-1]:
            texts[-1] += f" {word}"
        else:
            texts.append(word)

    return texts
