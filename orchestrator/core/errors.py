"""The errors that orch raises on purpose.

A subclass exists only where a caller acts differently: exit codes are mapped in `core/exit_codes.py`, HTTP statuses in
`gateway/errors.py`. Kept free of heavy imports: `orch status` needs this module and must stay quick.
"""

from __future__ import annotations


class OrchError(Exception):
    """The operation failed.

    :param message: what failed, one sentence without a full stop
    :param details: where it failed, and what was observed against what is allowed; one line each
    :param hint: what to do about it, with a command in backticks where there is one
    """

    def __init__(self, message: str, *, details: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint


class UsageError(OrchError):
    """Raised when the command line, the configuration or a profile is wrong."""


class NotRunningError(OrchError):
    """Raised when the daemon, or the instance asked for, is not running."""


class AlreadyRunningError(OrchError):
    """Raised when another daemon holds the state directory: starting again will not help while it does."""


class TimedOutError(OrchError):
    """Raised when a bounded wait is over and what it waited for has not happened."""
