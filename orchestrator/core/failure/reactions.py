"""The one table from a failure to what follows: the daemon, `orch explain` and docs/failures.md go by it.

A failure is its class, the phase it happened in, and its cause: what its evidence says beyond the class. The action is
the advice of the diagnosis (in `orch explain --json`); the response is what the daemon does with a process that ended.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from orchestrator.core.engine_log.signatures import Action, FailureClass, Phase

Response = Literal[
    "leave", "device", "margin", "steps", "host_steps", "another_port", "restart", "restart_longer",
    "end_and_restart", "give_up",
]  # fmt: skip

Cause = Literal[
    "", "margin_cannot_help", "no_buffer", "spawn", "shared_memory", "ended", "went_on", "device_lost", "remote",
    "every_start", "tight_margin", "silent_load",
]  # fmt: skip
"""`""` is the class by itself, where nothing more is known."""


class Reaction(NamedTuple):
    """One row of the table.

    :param phases: that it holds for; empty for any
    :param at_top: what follows where the ladder has no further step
    :param when: the cause in words, for the documentation
    """

    failure_class: FailureClass
    phases: tuple[Phase, ...]
    cause: Cause
    action: Action
    response: Response
    when: str
    at_top: Literal["give_up", "restart"] = "give_up"


_AT_A_START: tuple[Phase, ...] = ("none", "load", "kv", "compute")

REACTIONS: tuple[Reaction, ...] = (
    Reaction("ok", (), "", "continue", "leave", "the process went on, or stopped cleanly"),
    Reaction("device_oom", (), "", "retry_margin", "margin", "an allocation on the device failed"),
    Reaction("device_oom", (), "margin_cannot_help", "retry_other", "steps", "the log shows that no margin can help"),
    Reaction("host_oom", (), "", "retry_other", "host_steps", "an allocation in host memory failed", "restart"),
    Reaction("host_oom", ("load",), "no_buffer", "give_up", "give_up", "the engine could make no buffer at all"),
    Reaction("host_oom", ("none",), "spawn", "restart", "restart", "no process could be made"),
    Reaction("killed", (), "", "retry_other", "host_steps", "for memory, or nobody knows why", "restart"),
    Reaction("killed", (), "shared_memory", "retry_margin", "margin", "device and host share their memory", "restart"),
    Reaction("killed", (), "ended", "restart", "restart", "somebody ended it, or a time limit did"),
    Reaction("bad_flag", (), "", "give_up", "give_up", "any"),
    Reaction("bad_model", (), "", "give_up", "give_up", "any"),
    Reaction("missing_file", (), "", "give_up", "give_up", "any"),
    Reaction("port_in_use", (), "", "give_up", "another_port", "any"),
    Reaction("missing_library", (), "", "give_up", "give_up", "any"),
    Reaction("driver", (), "", "give_up", "give_up", "no device can be used, and the engine ended"),
    Reaction("driver", (), "went_on", "continue", "device", "no device can be used, and the engine goes on without"),
    Reaction("driver", ("runtime",), "device_lost", "restart", "end_and_restart", "the device was lost"),
    Reaction("driver", ("load",), "remote", "restart", "restart", "a device of `memory.rpc` cannot be reached"),
    Reaction("illegal_instruction", (), "", "give_up", "give_up", "any"),
    Reaction("engine_bug", ("runtime",), "", "restart", "end_and_restart", "it crashed, or failed, while it computed"),
    Reaction("engine_bug", _AT_A_START, "", "give_up", "give_up", "it crashed while it started"),
    Reaction("engine_bug", ("load",), "silent_load", "restart", "restart_longer", "it loaded in silence for too long"),
    Reaction("engine_bug", (), "every_start", "give_up", "give_up", "what failed fails at every start"),
    Reaction("engine_bug", (), "tight_margin", "retry_margin", "margin", "cuBLAS failed right after a fit"),
)
"""By class; the row without a cause is the one for all that have none of their own."""

RESPONSES: dict[Response, str] = {
    "leave": "orch leaves it running; one that has ended without being asked to is started again",
    "device": "orch starts it again, a limited number of times, where the profile wants layers on a device; else, and "
    "with `memory.require_device = false`, it leaves it running",
    "margin": "orch starts it again with more device memory kept free, then with the steps of `recovery.then`",
    "steps": "orch takes the next step of the profile's `recovery.then`; a larger margin cannot help",
    "host_steps": "orch takes the next step of the profile's `recovery.then` that needs less host memory",
    "another_port": "orch starts it again on another port, a limited number of times",
    "restart": "orch starts it again, a limited number of times",
    "restart_longer": "orch starts it once more and waits twice as long; a second silence ends it",
    "end_and_restart": "orch starts it again, a limited number of times; one that lives on is ended when it answers "
    "only errors",
    "give_up": "orch stops trying: the same start would fail the same way, until profile, model or program change",
}
"""What the daemon does, one sentence each."""

_AT_TOP = {
    "give_up": "without a further one it gives up",
    "restart": "without one it starts the same again, a limited number of times",
}


def default_action(failure_class: FailureClass, phase: Phase = "runtime") -> Action:
    """Return the action for a failure of which no more than its class and phase are known."""
    return next(
        row.action
        for row in REACTIONS
        if row.failure_class == failure_class and not row.cause and (not row.phases or phase in row.phases)
    )


def action_for(failure_class: FailureClass, cause: Cause) -> Action:
    """Return the action for a failure with this cause.

    :raises KeyError: when the class has no such cause
    """
    for row in REACTIONS:
        if row.failure_class == failure_class and row.cause == cause:
            return row.action

    raise KeyError((failure_class, cause))


def find_reaction(failure_class: str, action: str, phase: str = "none") -> Reaction | None:
    """Return the row for a failure with this action; None where no row of the class has it."""
    rows = [row for row in REACTIONS if row.failure_class == failure_class and row.action == action]
    exact = (row for row in rows if phase in row.phases)
    return next(exact, next(iter(rows), None))


def response_to(failure_class: str, action: str, phase: str = "none") -> Response:
    """Return what the daemon does about a process that ended so."""
    row = find_reaction(failure_class, action, phase)
    if row is None:
        return "give_up" if action == "give_up" else "restart"

    return row.response


def response_text(failure_class: str, action: str, phase: str = "none") -> str:
    """Return what the daemon does, for people."""
    row = find_reaction(failure_class, action, phase)
    response = response_to(failure_class, action, phase)
    climbs = row is not None and response in ("margin", "steps", "host_steps")
    return f"{RESPONSES[response]}; {_AT_TOP[row.at_top]}" if climbs and row is not None else RESPONSES[response]


def table() -> list[str]:
    """Return the rows of the documentation's table, in Markdown."""
    return [
        f"| `{row.failure_class}` | {', '.join(row.phases) or 'any'} | {row.when} | `{row.action}` | "
        f"{response_text(row.failure_class, row.action, row.phases[0] if row.phases else 'none')} |"
        for row in REACTIONS
    ]
