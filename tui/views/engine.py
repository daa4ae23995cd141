"""The engine from inside: its slots, and the attempts that it took to start it."""

from __future__ import annotations

from orchestrator.api.top_frames import SlotFigures, TopFrame
from orchestrator.api.types import AttemptStatus, Event
from orchestrator.api.wording import memory_texts
from tui import figures
from tui.text import BLANK, Line, Role, cells, cut, line, wrap
from tui.views.devices import memory_bar
from tui.views.residents import resident_lines

LEAST_BAR, MOST_BAR = 6, 40


def engine(frame: TopFrame, width: int) -> list[Line]:
    """Return what is loaded, where that is more than one; then, of the one in focus, the slots, the memory as planned
    and as read, and the attempts with their reasons, newest first.
    """
    lines = resident_lines(frame["status"].get("instances", []), width)
    slots = [slot(each, width) for each in frame["slots"]]
    ready = frame["status"]["state"] == "ready"
    lines += slots or [line("the slots are not known yet" if ready else "no slots: no engine is ready", "dim")]

    for text in memory_texts(frame["status"].get("memory", [])):
        first, *more = wrap(text, max(width - 2, 20))
        lines += [BLANK, line(first), *(line(f"  {part}", "dim") for part in more)]

    attempts = frame["attempts"]
    lines += [BLANK, line("attempts" if attempts else "no attempt yet", "strong" if attempts else "dim")]
    for each in reversed(attempts):
        lines += attempt(each, width)

    return lines


def slot(each: SlotFigures, width: int) -> Line:
    symbol, role, word = ("▶", "accent", "busy") if each["busy"] else ("○", "dim", "idle")
    used, context = each["used_tokens"], each["context_tokens"]
    part = None if used is None or context <= 0 else used / context
    texts = [f" {figures.share(part):>5}", f"  {figures.count(used)} / {context}"]
    done = each["prompt_done"]
    if each["busy"] and done is not None and done < 1:
        texts.append(f"  prompt {figures.share(done)}")
    elif each["busy"] and each["decoded_tokens"] is not None:
        texts.append(f"  {each['decoded_tokens']} decoded")

    label = f"slot {each['id']} "
    room = width - len(label) - 7 - LEAST_BAR
    while len(texts) > 1 and cells("".join(texts)) > room:
        texts.pop()

    text = "".join(texts)
    bar = memory_bar((used or 0, 0), context, None, min(room - cells(text) + LEAST_BAR, MOST_BAR))
    state: Role = "accent" if role == "accent" else "dim"
    return ((label, "strong"), (f"{symbol} {word} ", state), *bar, (text, "warn" if (part or 0) > 0.9 else ""))


def attempt(each: AttemptStatus, width: int) -> list[Line]:
    symbol, role = figures.outcome(each["outcome"])
    margin = "" if each["margin_mib"] is None else f"  margin {each['margin_mib']} MiB"
    steps = f"  {', '.join(each['steps'])}" if each["steps"] else ""
    head: Line = (
        (f"{each['number']:>3} ", "dim"),
        (f"{symbol} {each['outcome']}", role),
        (f"{margin}{steps}", ""),
        (f"  {figures.clock(each['started'])}", "dim"),
    )
    lines = [head]
    if each["cause"]:
        lines += [line(f"    {part}") for part in wrap(each["cause"], max(width - 4, 20))]

    if each["evidence"]:
        lines.append(line(cut(f"    {each['evidence']}", width), "dim"))

    if each["next"]:
        lines.append(line(cut(f"    next: {each['next']}", width), "accent"))

    return lines


_EVENT_ROLES: dict[str, Role] = {
    "switched": "good",
    "switch_failed": "bad",
    "out_of_memory": "bad",
    "unkillable": "bad",
    "guard_died": "bad",
    "refused": "warn",
    "unrouted": "warn",
}


def event(each: Event) -> Line:
    kind = each["kind"]
    role = figures.STATES[kind][1] if kind in figures.STATES else _EVENT_ROLES.get(kind, "")
    return ((f"{figures.clock(each['time'])}  ", "dim"), (f"{each['kind']:<15} ", role), (each["message"], ""))
