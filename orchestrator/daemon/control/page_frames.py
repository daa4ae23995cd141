"""What the gateway's page shows (`gateway/page/contract.py`), from the dashboard's frame, the models and the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.api.top_frames import Point, TopFrame
from orchestrator.api.types import InstanceStatus
from orchestrator.core.errors import OrchError
from orchestrator.daemon.control.actions import Actions
from orchestrator.daemon.control.client_requests import check_allowed
from orchestrator.daemon.control.top_frame import TopFrames
from orchestrator.daemon.residency.demand import told
from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.models import ANY_NAME
from orchestrator.gateway.page.contract import PageFrame, PageModel, PagePoint

REQUESTS = 20
POINTS = 150
LOG_LINES = 200


class PageFrames:
    """Answers the page's feed, and its wish for another model.

    :param models: the models that clients are offered
    :param allowed: whether clients decide what is loaded (`gateway.switch_on_request`)
    """

    def __init__(
        self,
        frames: TopFrames,
        models: Callable[[], Sequence[Model]],
        points: Callable[[int], list[Point]],
        log: InstanceLog,
        actions: Actions,
        *,
        allowed: bool,
    ) -> None:
        self._frames = frames
        self._models = models
        self._points = points
        self._log = log
        self._actions = actions
        self._allowed = allowed

    async def frame(self) -> PageFrame:
        """Return what is to be seen now."""
        return page_frame(await self._frames.frame(0, REQUESTS), self._models())

    def points(self) -> list[PagePoint]:
        """Return the plot of the last minutes, oldest first."""
        return [PagePoint(at_s=point["at_s"], decode_tok_s=point["decode_tok_s"]) for point in self._points(POINTS)]

    def log_lines(self, after: int | None) -> tuple[int, Sequence[str]]:
        """Return the engine's log after a line's number, or its end; and the number of the newest line."""
        newest = self._log.next_seq - 1
        count = LOG_LINES if after is None else min(newest - after, LOG_LINES)
        return newest, [line.text for line in self._log.tail(count)]

    async def switch(self, profile: str) -> None:
        """Begin to replace the model in focus by another one.

        :raises GatewayError: when it cannot be, or clients may not
        """
        check_allowed(self._allowed)
        try:
            await self._actions.switch(profile, None, dry_run=False)
        except OrchError as error:
            raise GatewayError("load_failed", told(error), param="model", permanent=True) from error


def page_frame(frame: TopFrame, models: Sequence[Model]) -> PageFrame:
    """Return what the page shows of the dashboard's frame."""
    status = frame["status"]
    rows = {row["profile"]: row for row in status["instances"]}
    return PageFrame(
        state=status["state"],
        profile=status["profile"],
        engine=status["engine"],
        build=status["build"],
        progress=status["progress"],
        cause=status["cause"],
        hint=status["hint"],
        notice=status["notice"],
        switching=status["switching"],
        queued=status["gateway"]["queued"],
        in_flight=status["gateway"]["in_flight"],
        rates=frame["rates"],
        gpus=frame["gpus"],
        host=frame["host"],
        models=page_models(rows, models),
        requests=frame["requests"],
    )


def page_models(rows: Mapping[str, InstanceStatus], models: Sequence[Model]) -> list[PageModel]:
    """Return the models: those that are loaded or were in the order of the rows, the others by name."""
    known = {model.name: model for model in models}
    names = [*rows, *sorted(name for name in known if name not in rows)]
    return [_page_model(name, rows.get(name), known.get(name)) for name in names]


def _page_model(name: str, row: InstanceStatus | None, model: Model | None) -> PageModel:
    more = [each for each in model.names if each not in (name, ANY_NAME)] if model is not None else []
    unloaded = row is None or row["unloaded_since"] is not None
    return PageModel(
        name=name,
        description=model.description if model is not None else "",
        names=more,
        context_tokens=model.figures.context_tokens if model is not None else None,
        size_bytes=model.figures.size_bytes if model is not None else None,
        state="unloaded" if row is None or unloaded else row["state"],
        engine=row["engine"] if row is not None else None,
        focus=row is not None and row["focus"],
        pinned=row is not None and row["pinned"],
        idle_s=row["idle_s"] if row is not None else None,
        in_flight=row["in_flight"] if row is not None else 0,
        queued=row["queued"] if row is not None else 0,
        device_mib=row["device_mib"] if row is not None else None,
        host_mib=row["host_mib"] if row is not None else None,
        waits=row["waits"] if row is not None else None,
        cause=row["cause"] if row is not None else None,
        hint=row["hint"] if row is not None else None,
        progress=row["progress"] if row is not None else "",
        ui=False,
    )
