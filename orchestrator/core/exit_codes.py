"""The exit codes of `orch`, and the errors that they stand for: for scripts, units and the control API.

0    done
1    it failed; trying again may help
2    the command line, the configuration, a profile or a socket that was handed over is wrong
3    nothing is running
4    a wait was over before it had happened; the daemon goes on
5    another daemon has the lock of this state directory
130  interrupted by the user
"""

from __future__ import annotations

from orchestrator.core.errors import AlreadyRunningError, NotRunningError, OrchError, TimedOutError, UsageError

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
TIMED_OUT = 4
ALREADY_RUNNING = 5
INTERRUPTED = 130

FINAL = (USAGE, ALREADY_RUNNING)
"""Those of `orch serve` after which starting again would change nothing (a unit's `RestartPreventExitStatus`)."""

ERRORS: tuple[tuple[type[OrchError], int], ...] = (
    (UsageError, USAGE),
    (NotRunningError, NOT_RUNNING),
    (TimedOutError, TIMED_OUT),
    (AlreadyRunningError, ALREADY_RUNNING),
    (OrchError, FAILED),
)
"""A class before the one that it extends."""


def exit_code(error: OrchError) -> int:
    return next(code for kind, code in ERRORS if isinstance(error, kind))


def error_of(code: object) -> type[OrchError]:
    """Return the class of error that an exit code stands for; of one that is not ours, the most general."""
    return next((kind for kind, its_code in ERRORS if its_code == code), OrchError)
