"""The head: what runs, where clients reach it, and what is under way or wrong."""

from __future__ import annotations

from orchestrator.api.top_frames import TopFrame
from orchestrator.api.types import Status
from tui import figures
from tui.text import Line, Role, Span, cells, clip, cut, joined, line, plain


def head(frame: TopFrame, width: int) -> list[Line]:
    """Return three lines: the state and target, the gateway, and what needs attention."""
    status = frame["status"]
    return [
        spread(_state_and_target(frame), _margin(frame), width),
        spread(_gateway(status), line(status["build"] or "", "dim"), width),
        news(status, width),
    ]


def without_daemon(frame: TopFrame | None, problem: str, hint: str, since: str, width: int) -> list[Line]:
    """Return the head while the daemon does not answer.

    :param frame: the last one that there was
    :param since: a time of day
    """
    first: Line = (("✗ ", "bad"), (problem, "bad"), (f" since {since}", ""))
    second: Line = line(hint, "accent")
    if frame is None:
        return [first, second, line("the dashboard goes on by itself as soon as a daemon answers", "dim")]

    status = frame["status"]
    seen = f"{status['state']} {_target(status)}".rstrip()
    text = f"below is what was seen at {figures.clock(frame['taken'])}: {seen}"
    return [first, second, line(cut(text, width), "dim")]


def state(status: Status) -> Line:
    symbol, role = figures.STATES.get(status["state"], ("?", "warn"))
    return ((f"{symbol} {status['state']}", role),)


def spread(left: Line, right: Line, width: int) -> Line:
    """Put one part at the left and one at the right edge; without room for both, the left alone."""
    space = width - cells(plain(left)) - cells(plain(right))
    if space < 2:
        return clip(left, width)

    return (*left, (" " * space, ""), *right)


def news(status: Status, width: int) -> Line:
    """Return the line for what needs attention: a failure, a switch, a start under way, an engine that has become slow,
    a profile that has changed; empty without."""
    text, role = news_text(status)
    if cells(text) > width:
        return ((cut(text, width - 9), role), ("  E: more", "dim"))

    return line(text, role)


def news_text(status: Status) -> tuple[str, Role]:
    if status["switching"]:
        return f"⇄ {status['progress']} (c cancels)", "accent"

    if status["cause"]:
        hint = f"; {status['hint']}" if status["hint"] else ""
        return f"✗ {status['cause']}{hint}", "bad" if status["state"] == "failed" else "warn"

    if status["state"] in ("preparing", "starting", "draining", "stopping"):
        return f"◌ {status['progress']}", "accent"

    unloaded = status.get("unloaded")  # a daemon of an earlier version says nothing of it
    if unloaded is not None:
        return f"{unloaded['profile']} is unloaded: a request loads it again", "dim"

    if status["state"] == "stopped":
        return "nothing runs: s starts what ran last, w chooses", "dim"

    parts = [status["notice"]] if status["notice"] else []
    if status["stale"]:
        parts.append(f"the profile has changed ({', '.join(status['stale'])}): r restarts with it")

    return f"! {'; '.join(parts)}" if parts else "", "warn" if parts else ""


def _state_and_target(frame: TopFrame) -> Line:
    status = frame["status"]
    age_s = figures.age_s(status["since"], frame["taken"])
    since = "" if age_s is None else f" {figures.duration(age_s)}"
    target: list[Span] = [(_target(status), "strong")] if status["profile"] else []
    return joined([(*state(status), (since, "dim")), tuple(target)])


def _target(status: Status) -> str:
    return f"{status['profile']}@{status['engine']}" if status["profile"] else ""


def _margin(frame: TopFrame) -> Line:
    margin = frame["status"]["margin_mib"]
    if margin is None:
        return ()

    origin = frame["margin_origin"]
    return ((f"margin {margin} MiB", ""), (f" ({origin})" if origin else "", "dim"))


def _gateway(status: Status) -> Line:
    gateway = status["gateway"]
    queued, abandoned = gateway["queued"], gateway.get("abandoned", 0)
    shown: Line = (
        (gateway["url"], "accent"),
        (f"  {gateway['in_flight']} in flight", ""),
        (f"  {queued} queued", "warn" if queued else ""),
    )
    return (*shown, (f"  {abandoned} abandoned", "warn")) if abandoned else shown
