"""The check of `orch doctor` on what serves now: what the daemon of this home has noticed about it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.api import client
from orchestrator.api.wording import page_cache_text
from orchestrator.core.errors import NotRunningError, OrchError
from orchestrator.core.setup.doctor import CheckResult
from orchestrator.doctor.examine import DoctorContext

STATUS_S = 3.0


def check_running(context: DoctorContext) -> Iterator[CheckResult]:
    """Yield what is noticed of the instance in focus, and what of its model is in the page cache; nothing at rest."""
    try:
        status = client.status(context.paths.control_socket, STATUS_S)
    except NotRunningError:
        return
    except OrchError as error:
        yield CheckResult("warning", "running", error.message, error.hint)
        return

    if status["state"] != "ready":
        return

    name, cached = status["profile"], status["page_cache"]
    if status["notice"]:
        yield CheckResult("warning", "running", f"{name}: {status['notice']}")
    else:
        text = f"{name} serves, and nothing is noticed"
        yield CheckResult("ok", "running", f"{text}; cached: {page_cache_text(cached)}" if cached else text)
