"""The daemon's own log, on stderr: one line for each message, whatever was quoted in it."""

from __future__ import annotations

import faulthandler
import logging
import sys

from orchestrator.core.terminal import neutralise, neutralise_lines


class PlainFormatter(logging.Formatter):
    """Messages quote what others wrote (paths, names out of a model file), and are read on terminals."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return neutralise(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        return neutralise_lines(super().formatException(ei))  # type: ignore[arg-type]  # typeshed has no public name


def configure() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per health probe otherwise
    if sys.stderr is not None:
        faulthandler.enable()  # the service manager's watchdog ends us with SIGABRT: its journal gets the stacks

    logging.raiseExceptions = False  # a full disk must not fill the terminal with tracebacks
