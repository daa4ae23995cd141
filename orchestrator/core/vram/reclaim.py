"""The ways in which the desktop gives device memory back, for one machine, the best first; what each writes and runs.

    integrated   the integrated GPU draws: no cost but its own speed; needs one, and screens that hang on it
    software     another login session, which the CPU draws: no card needed; costs CPU time and effects
    console      no desktop while models run: frees all of it, and there is no screen

Each way but the last adds files beside those that are there, marked as ours, and changes none: `uninstall_steps` takes
them away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.setup.service_plan import RemoveFile, Run, Step, WriteFile
from orchestrator.core.vram.desktop_facts import DesktopFacts, GraphicsCard, LoginSession
from orchestrator.core.vram.session_files import (
    RULES,
    card_variables,
    rules_text,
    session_path,
    session_text,
    software_variables,
)

WayName = Literal["integrated", "software", "console"]

LEFT_MIB = 126
"""What a desktop drawn by the CPU was seen to keep, of over 1024 MB: published by one person, for one machine."""

_RELOAD = (Run(("udevadm", "control", "--reload")), Run(("udevadm", "trigger", "--subsystem-match=drm")))


_NOTHING_HELD = "no program of a desktop holds device memory"


@dataclass(frozen=True, slots=True)
class ReclaimWay:
    """One way in which the desktop of this machine can give device memory back.

    :ivar gain: how much it may free, and where the figure is from
    :ivar first: what a person has to do before it is installed
    :ivar by_hand: what a person has to do then, in order
    :ivar cautions: what it costs, and what it does not do
    :ivar steps: what `--install` does; empty where there is nothing to install
    """

    name: WayName
    title: str
    reason: str
    gain: str
    first: tuple[str, ...]
    by_hand: tuple[str, ...]
    cautions: tuple[str, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class ReclaimPlan:
    """What the desktop holds, and the ways in which it can give that back, the best first.

    :ivar situation: what the desktop holds, or why there is nothing to get back
    :ivar notes: what was left out, and why
    """

    situation: str
    ways: tuple[ReclaimWay, ...]
    notes: tuple[str, ...] = ()


def reclaim_plan(facts: DesktopFacts) -> ReclaimPlan:
    """Return the ways for this machine, the best first; none where there is nothing to get back.

    A machine with login sessions keeps its ways while nothing is held: its desktop may draw on the CPU already, and
    another one not.
    """
    if not facts.discrete:
        why = "no graphics card" if not facts.cards else "no graphics card with memory of its own"
        return ReclaimPlan(f"{why}: there is nothing to get back", ())

    if facts.nothing_held and not facts.sessions:
        return ReclaimPlan(f"{_NOTHING_HELD}: there is nothing to get back", ())

    ways = [*_integrated(facts), *_software(facts), _console(facts)]
    notes = [f"{each.name} ({each.path}): orch knows no way for it" for each in facts.sessions if each.family is None]
    if facts.integrated is None:
        notes.append(
            "no integrated GPU is seen: where the processor has one, the firmware setup may have it turned off "
            "(`iGPU Multi-Monitor`, `Integrated Graphics`)"
        )

    return ReclaimPlan(_situation(facts), tuple(ways), tuple(notes))


def install_steps(facts: DesktopFacts, name: str | None) -> tuple[WayName, tuple[Step, ...]]:
    """Return the way that is installed, and its steps; none where all of it is there already.

    :param name: of the way; None for the best that can be installed, where there is something to get back
    :raises UsageError: when the machine has no such way
    :raises OrchError: when a file is in the way that orch has not written
    """
    plan = reclaim_plan(facts)
    ways = [way for way in plan.ways if way.steps]
    way = next((each for each in ways if name is None or each.name == name), None)
    known = ", ".join(each.name for each in ways) or "none"
    if way is not None and name is None and facts.nothing_held:
        raise UsageError(
            plan.situation,
            details=(f"ways that can be installed: {known}",),
            hint=f"`orch vram reclaim --install {way.name}` installs one all the same",
        )

    if way is None:
        raise UsageError(
            f"this machine has no way {f'`{name}`' if name else 'that can be installed'}",
            details=(plan.situation, f"ways that can be installed: {known}", *plan.notes),
            hint="see `orch vram reclaim --plan`",
        )

    for step in way.steps:
        if isinstance(step, WriteFile) and step.path in facts.foreign:
            raise OrchError(
                f"{step.path} is there, and orch has not written it",
                details=("expected: no file of this name, or one that `orch vram reclaim` wrote",),
                hint="move it away, and try again",
            )

    writes = [each for each in way.steps if isinstance(each, WriteFile) and facts.written.get(each.path) != each.text]
    runs = [each for each in way.steps if not isinstance(each, WriteFile)]
    return way.name, (*writes, *(runs if any(each.path == RULES for each in writes) else ()))


def uninstall_steps(facts: DesktopFacts) -> tuple[Step, ...]:
    """Return the steps that take away all that `orch vram reclaim` has written; none where there is nothing."""
    steps: list[Step] = [RemoveFile(path) for path in sorted(facts.written)]
    return (*steps, *(_RELOAD if RULES in facts.written else ()))


def plan_lines(plan: ReclaimPlan, command: str) -> list[str]:
    """Return a plan as lines of a terminal: each way with its reason, its gain, what it costs and what is to be done.

    :param command: that runs orch as root
    """
    lines = [plan.situation]
    for number, way in enumerate(plan.ways, 1):
        lines += ["", f"{number}. {way.title}", f"   why   {way.reason}", f"   gain  {way.gain}"]
        lines += [f"   note  {each}" for each in way.cautions]
        lines += [f"   first {each}" for each in way.first]
        lines += [f"   file  {each.path}" for each in way.steps if isinstance(each, WriteFile)]
        if way.steps:
            lines.append(f"   do    {command} vram reclaim --install {way.name}")

        lines += [f"   {'then' if way.steps else 'do  '}  {each}" for each in way.by_hand]

    return [*lines, *([""] if plan.notes else []), *plan.notes]


def _situation(facts: DesktopFacts) -> str:
    """Return what the desktop holds now, in a sentence."""
    if facts.held_mib is None:
        return "what the desktop holds is not known: no driver tells which process holds how much here"

    if facts.nothing_held:
        return f"{_NOTHING_HELD} now"

    each = ", ".join(f"{name} {mib}" for name, mib in sorted(facts.held_mib.items(), key=lambda item: -item[1]))
    return f"the desktop holds {sum(facts.held_mib.values())} MiB of device memory now: {each} MiB"


def _gain(facts: DesktopFacts, left_mib: int) -> str:
    """Return how much may be freed, in words.

    :param left_mib: what was seen to stay
    """
    if facts.held_mib is None:
        return "not known here; published for one machine: from over 1024 MB to about 126 MB"

    if facts.nothing_held:
        return "nothing is held now"

    held = sum(facts.held_mib.values())
    measured = f"{held} MiB measured now"
    if not left_mib:
        return f"up to {measured}"

    return f"about {max(held - left_mib, 0)} MiB ({measured}, less the {left_mib} MB published for one machine)"


def _integrated(facts: DesktopFacts) -> list[ReclaimWay]:
    """Return the way in which the integrated GPU draws; none without such a GPU."""
    card = facts.integrated
    if card is None:
        return []

    others = tuple(each for each in facts.discrete if each.screens)
    cards = (card, *others)
    mutter = any(each.family == "mutter" and not each.x11 for each in facts.sessions)
    files: list[Step] = [WriteFile(RULES, rules_text(cards, mutter=mutter))]
    for session in facts.sessions:
        variables = card_variables(session, cards)
        if variables:
            text = session_text(session, "on the integrated GPU", variables)
            files.append(WriteFile(session_path(session, "integrated"), text))

    if len(files) == 1 and not mutter:
        files = []  # no session here would heed the rule

    cautions = ["GNOME has no variable for it: the rule holds for each of its sessions"] if mutter else []
    if any(each.x11 for each in facts.sessions):
        cautions.append("X11 sessions take their card from xorg.conf, which is not written")

    if others:
        cautions.append(
            "a screen that stays on the card is shown from there, and its buffers stay: install again once it is moved"
        )

    log_in = [_log_in("on the integrated GPU")] if len(files) > 1 else []
    log_in += ["restart the machine, for GNOME"] if mutter and files else []
    return [
        ReclaimWay(
            name="integrated",
            title=f"the integrated GPU draws ({card.name}, {card.driver}, {card.address})",
            reason="the desktop stays as it is, with effects and video, and the graphics card is left alone",
            gain=_gain(facts, 0),
            first=tuple(map(_cable, others)),
            by_hand=tuple(log_in),
            cautions=tuple(cautions),
            steps=(*files, *_RELOAD) if files else (),
        )
    ]


def _cable(card: GraphicsCard) -> str:
    """Return which cable a person has to move."""
    return f"move the screen on {', '.join(card.screens)} of {card.name} ({card.driver}) to a socket of the mainboard"


def _log_in(title: str) -> str:
    """Return which session a person has to choose, by the end of its name."""
    return f"log out, and choose the session that ends in `{title}` on the login screen"


def _software(facts: DesktopFacts) -> list[ReclaimWay]:
    """Return the way in which the CPU draws; none without a session whose compositor can be told so."""
    sessions = [each for each in facts.sessions if each.family is not None]
    if not sessions:
        return []

    nvidia = any(each.driver == "nvidia" for each in facts.cards)
    vendor_file = facts.mesa_vendor_file if nvidia else ""
    cautions = [
        "the processor draws: windows, video and web pages take its time, effects are gone",
        "programs that compute or draw with CUDA or Vulkan still use the card",
    ]
    if any(each.x11 for each in sessions):
        cautions.append("on X11 the server itself is started before the session, and keeps what it holds")

    if nvidia and not vendor_file:
        cautions.append(
            "Mesa's EGL is not installed beside NVIDIA's (`libegl-mesa0`): without it the card goes on drawing"
        )

    title = "drawn by the CPU"
    return [
        ReclaimWay(
            name="software",
            title=f"a login session that is {title}, beside {_names(sessions)}",
            reason="needs no other card and no cable; it is chosen at each login, and the usual session stays",
            gain=_gain(facts, LEFT_MIB),
            first=(),
            by_hand=(_log_in(title),),
            cautions=tuple(cautions),
            steps=tuple(
                WriteFile(
                    session_path(each, "software"),
                    session_text(each, title, software_variables(each, vendor_file)),
                )
                for each in sessions
            ),
        )
    ]


def _console(facts: DesktopFacts) -> ReclaimWay:
    """Return the way without a desktop, which every machine has."""
    return ReclaimWay(
        name="console",
        title="no desktop while models run",
        reason="frees all that the desktop holds, where another machine is the screen",
        gain=_gain(facts, 0),
        first=(),
        by_hand=("sudo systemctl isolate multi-user.target", "back: sudo systemctl isolate graphical.target"),
        cautions=("ends the desktop with all that is open in it; orch goes on as a system's service, or over SSH",),
    )


def _names(sessions: Sequence[LoginSession]) -> str:
    return ", ".join(each.name for each in sessions)
