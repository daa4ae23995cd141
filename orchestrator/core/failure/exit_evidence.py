"""Tell a SIGKILL of the kernel, for want of memory, from somebody's. The log of a killed process cannot.

The kernel counts its kills, so a counter that is the same before and after speaks for somebody as much as one that grew
speaks for the kernel. How much a growth says depends on how many processes are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.core.failure.advice import describe
from orchestrator.core.failure.diagnosis import SIGKILL, Diagnosis, ExitStatus
from orchestrator.core.failure.reactions import action_for, default_action

Scope = Literal["engine", "group", "machine"]
"""The processes whose kills a counter counts: this engine's, those of the daemon's group, or all."""

_COUNTED: dict[Scope, str] = {
    "engine": "",
    "group": ", which counts what else is in that group too",
    "machine": ", which counts the whole machine",
}

_SOMEBODYS = "somebody, or a program such as systemd-oomd or earlyoom, sent SIGKILL: the kernel did not"


@dataclass(frozen=True, slots=True)
class OomKills:
    """A counter of the kernel's kills at the start of an engine and after its end.

    :param source: where it stands, for people
    :param before: None when it could not be read; so `after`
    :param limit_mib: of the engine's own group; 0 for none
    """

    source: str
    scope: Scope
    before: int | None
    after: int | None
    limit_mib: int = 0


def judge_kill(found: Diagnosis, exit: ExitStatus, ours: bool, kills: OomKills) -> Diagnosis:
    """Tell the kernel's kill from a person's, where the log and the exit status say no more than `killed`.

    :param ours: orch itself sent the SIGKILL
    """
    if found.failure_class != "killed" or exit.signal != SIGKILL:
        return found

    if ours:  # a process that did not heed SIGTERM: memory has nothing to do with it
        return replace(found, action=action_for("killed", "ended"))

    if kills.before is None or kills.after is None:
        return found

    if kills.after <= kills.before:
        if found.evidence:
            return found  # a line that says so, such as systemd's: it knows better

        evidence = f"{kills.source}: oom_kill {kills.after}, as before"
        return replace(found, evidence=evidence, action=action_for("killed", "ended"), hint=_SOMEBODYS)

    evidence = f"{kills.source}: oom_kill {kills.before} -> {kills.after}{_COUNTED[kills.scope]}"
    action = default_action("host_oom", found.phase)
    message, hint = describe("host_oom", found.phase, action, device=None, requested_mib=None, ended=None)
    if kills.limit_mib:
        hint = f"{hint}; or raise `daemon.engine_memory_max_mib`, which is {kills.limit_mib}"

    return replace(found, failure_class="host_oom", evidence=evidence, action=action, message=message, hint=hint)
