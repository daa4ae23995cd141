"""The actions of the dashboard that need the daemon: confirmed first, followed to their end, their errors kept."""

from __future__ import annotations

import asyncio
import shlex
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from textual.app import App

from orchestrator.api.top_frames import RequestRow
from orchestrator.api.types import GatewayStatus, InstanceStatus, Status
from orchestrator.api.wording import agreeing, counted, flag_texts, interruption_text, rollback_text, target_text
from orchestrator.core.errors import NotRunningError, OrchError
from tui import figures
from tui.screens.confirm import ConfirmScreen, MenuScreen
from tui.screens.residents import ResidentAction, ResidentsScreen
from tui.screens.switch import SwitchScreen
from tui.screens.text import TextScreen, facts
from tui.source import FrameSource, error_texts
from tui.text import BLANK, Line, line
from tui.views.vram import holders

KEPT_ERRORS = 20
FOLLOW_S = 1.0
RESTING = ("stopped", "failed")


class FailedAction(NamedTuple):
    time: str
    message: str
    details: list[str]
    hint: str


class Display(Protocol):
    """The parts of the dashboard that show what comes of an action (`tui/app.py`)."""

    def tell(self, text: str) -> None: ...

    def complain(self, text: str) -> None: ...

    def draw_head(self) -> None: ...

    def current_status(self) -> Status | None:
        """Return the status as of the newest frame; None while the daemon does not answer."""
        ...


class Operator:
    """The actions that talk to the daemon. Each runs as a worker of the app; none of them raises what the daemon says.

    :ivar activity: what is under way, for the head; empty without
    """

    def __init__(self, app: App[None], display: Display, source: FrameSource) -> None:
        self._app = app
        self._display = display
        self._source = source
        self.problems: deque[FailedAction] = deque(maxlen=KEPT_ERRORS)
        self.activity = ""

    def start(self, action: Callable[[], Awaitable[None]]) -> None:
        self._app.run_worker(self._guarded(action), group="operator", exit_on_error=False)

    async def switch(self) -> None:
        targets = await self._get("/v1/targets")
        launch = await self._launch()
        drain_s = launch["drain_s"] if launch else None
        target = await self._app.push_screen_wait(SwitchScreen(targets, self._source, self._gateway(), drain_s))
        if target is not None:
            answer = await self._post("/v1/switch", {"target": target})
            await self._follow(answer["operation"], f"switching to {target}")

    async def start_stop(self) -> None:
        status = self._display.current_status()
        if status is None or status["state"] in RESTING:
            answer = await self._post("/v1/up", {})
            self._display.tell(f"starting {answer['target']}")
            return

        facts = await self._launch()
        limit = f", {facts['drain_s']:g} s at most" if facts else ""
        in_flight, queued = self._in_flight(), self._queued()
        consequences = [f"{counted(in_flight, 'running request')} may end first{limit}; whatever runs then is cut off"]
        consequences += _refused(queued)
        if await self._confirmed("Stop", consequences, facts):
            await self._down(force=False)

    async def stop_now(self) -> None:
        facts = await self._launch()
        in_flight, queued = self._in_flight(), self._queued()
        consequences = [f"cuts off {counted(in_flight, 'running request')}", *_refused(queued)]
        if await self._confirmed("Stop at once", consequences, facts):
            await self._down(force=True)

    async def restart(self) -> None:
        in_flight = self._in_flight()
        end, they = agreeing(in_flight, "ends", "end"), agreeing(in_flight, "it", "they")
        consequences = [
            f"{counted(in_flight, 'running request')} {end} first, on the engine {they} began on",
            "new requests wait, if both engines do not fit side by side",
        ]
        if await self._confirmed("Restart", consequences, None):
            answer = await self._post("/v1/restart", {})
            await self._follow(answer["operation"], "restarting")

    async def cancel(self) -> None:
        answer = await self._post("/v1/cancel", {})
        self._display.tell(f"cancelling the switch to {target_text(answer['to'])}")

    async def cancel_request(self, row: RequestRow) -> None:
        client = f" of {row['client']}" if row.get("client") else ""
        consequences = [
            f"{row['route']}{client}, {figures.seconds(row['total_s'])} old: its client is told that it was cancelled",
            "the other requests go on",
        ]
        question = f"Cancel request {row.get('request_id') or row['id']}?"
        if await self._app.push_screen_wait(ConfirmScreen(question, consequences, "Cancel it")):
            await self._post("/v1/requests/cancel", {"id": row["id"]})
            self._display.tell(f"cancelled {row.get('request_id') or row['id']}")

    async def residents(self) -> None:
        """Show what is loaded, and do what is chosen there."""
        status = self._display.current_status()
        rows = status.get("instances", []) if status is not None else []  # a daemon of an earlier version has none
        chosen: ResidentAction | None = await self._app.push_screen_wait(ResidentsScreen(rows))
        if chosen is None:
            return

        row = chosen.row
        if row is None:
            await self._load(rows)
        elif chosen.verb == "focus":
            target = f"{row['profile']}@{row['engine']}"
            answer = await self._post("/v1/switch", {"target": target, "keep": True})
            await self._follow(answer["operation"], f"switching to {target}")
        elif chosen.verb == "pin":
            answer = await self._post("/v1/pin", {"profile": row["profile"], "pinned": not row["pinned"]})
            self._display.tell(f"{row['profile']} is {'pinned' if answer['pinned'] else 'not pinned any more'}")
        else:
            answer = await self._post("/v1/unload", {"profile": row["profile"]})
            already = " already" if answer["unloaded"] else ": the next request loads it again"
            self._display.tell(f"{row['profile']} is unloaded{already}")

    async def _load(self, rows: Sequence[InstanceStatus]) -> None:
        """Have a profile loaded that is not, and show how far it is."""
        targets = await self._get("/v1/targets")
        loaded = {row["profile"] for row in rows if row["unloaded_since"] is None and row["state"] != "failed"}
        offered = [each for each in targets["targets"] if each["profile"] not in loaded]
        if not offered:
            self._display.tell("there is no other profile that could be loaded")
            return

        names = [f"{each['profile']}@{each['engine']}" for each in offered]
        name = await self._app.push_screen_wait(MenuScreen("Load", [(each, each) for each in names]))
        if name is None:
            return

        profile, _, engine = name.partition("@")
        doing = f"loading {name}"
        self._set_activity(doing)
        try:
            answer, generation = None, 0
            while answer is None or not answer["taken"]:  # it may still end, from before
                answer = await self._post("/v1/load", {"profile": profile, "engine": engine})
                status = await self._get(f"/v1/status?after={generation}&wait_s={FOLLOW_S}")
                generation = status["generation"]

            row = await self._follow_load(profile, answer["generation"], doing)
        finally:
            self._set_activity("")

        if row is None or row["state"] != "ready":
            cause = row["cause"] if row is not None and row["cause"] else "it was ended"
            raise OrchError(f"{doing} failed: {cause}", hint="l shows the engine's log")

        self._display.tell(f"{name} is loaded")

    async def _follow_load(self, profile: str, generation: int, doing: str) -> InstanceStatus | None:
        """Return the row of a profile once it serves or does not; None where it is gone."""
        while True:
            status: Status = await self._get(f"/v1/status?after={generation}&wait_s={FOLLOW_S}")
            row = next((each for each in status["instances"] if each["profile"] == profile), None)
            if row is None or row["unloaded_since"] is not None or row["state"] in ("ready", "failed"):
                return row

            generation = status["generation"]
            self._set_activity(f"{doing}: {row['waits'] or row['progress']}")

    async def menu(self) -> None:
        choices = (
            ("switch", "w  switch engine or profile"),
            ("residents", "m  what is loaded: load, unload, pin"),
            ("restart", "r  restart"),
            ("start_stop", "s  start, or stop once the running requests are done"),
            ("stop_now", "K  stop at once"),
            ("cancel_switch", "c  cancel the switch under way"),
            ("copy_command", "y  show and copy the command line"),
        )
        action = await self._app.push_screen_wait(MenuScreen("Engine", choices))
        if action is not None:
            await self._app.run_action(action)

    async def command_line(self) -> None:
        facts_ = await self._get("/v1/launch")
        text = shlex.join(facts_["argv"])
        self._app.copy_to_clipboard(text)
        self._display.tell("the command line is in the clipboard")
        first, *flags = flag_texts(facts_["argv"])
        lines = [line(first, "strong"), *(line(f"  {each}") for each in flags), BLANK]
        lines += facts(
            [
                ("build", facts_["build"]),
                ("process", str(facts_["pid"] or "none")),
                ("directory", facts_["directory"]),
                ("log", facts_["log_file"] or "none"),
                *((name, value) for name, value in facts_["env"].items()),
            ],
            24,
        )
        title = f"{facts_['profile']}@{facts_['engine']}"
        self._app.push_screen(TextScreen(title, lines, copy=text))

    async def vram(self) -> None:
        """Show who holds the memory of each device."""
        self._app.push_screen(TextScreen("Device memory", holders(await self._get("/v1/vram"))))

    def show_errors(self) -> None:
        """Show the present failure of the daemon first, then the kept errors, the newest first."""
        lines: list[Line] = []
        status = self._display.current_status()
        if status is not None and status["cause"]:
            lines += [line(f"now: {status['cause']}", "bad"), line(status["hint"] or "", "accent"), BLANK]

        for each in reversed(self.problems):
            lines += [((f"{each.time}  ", "dim"), (each.message, "bad"))]
            lines += [(("          ", ""), (detail, "")) for detail in each.details]
            lines += [(("          ", ""), (each.hint, "accent"))] if each.hint else []

        self._app.push_screen(TextScreen("Errors", lines or [line("nothing went wrong so far", "good")]))

    def keep_error(self, error: OrchError | OSError) -> None:
        """Show an error, and keep it to be read later."""
        problem = FailedAction(datetime.now().strftime("%H:%M:%S"), *error_texts(error))
        self.problems.append(problem)
        self._display.complain(problem.message)

    async def _guarded(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except (OrchError, OSError) as error:
            self.keep_error(error)

    async def _down(self, *, force: bool) -> None:
        row = self._focus_of_several()
        only = {"profiles": [row["profile"]]} if row is not None else {}
        answer = await self._post("/v1/down", {"force": force, **only})
        target = answer["target"]
        self._display.tell(f"stopping {target}" if target else "nothing was running")

    async def _follow(self, operation: str, doing: str) -> None:
        """Show a switch until it has ended.

        :raises OrchError: when it failed
        """
        self._set_activity(doing)
        try:
            while True:
                news = await self._get(f"/v1/switch?operation={quote(operation)}&wait_s={FOLLOW_S}")
                result = news["result"]
                if result is not None:
                    break

                self._set_activity(f"{doing}: {news['progress'].removeprefix(doing + ': ')} (c cancels)")
        finally:
            self._set_activity("")

        if result["ok"]:
            cost = f"{interruption_text(result)} ({result['strategy']})"
            self._display.tell(f"{target_text(result['to'])} serves: {cost}")
            return

        rollback = rollback_text(result)
        details = (rollback,) if rollback else ()
        raise OrchError(f"{doing} failed: {result['cause']}", details=details, hint="l shows the engine's log")

    def _set_activity(self, activity: str) -> None:
        self.activity = activity
        self._display.draw_head()

    async def _confirmed(self, what: str, consequences: list[str], facts: Any) -> bool:
        status = self._display.current_status()
        target = f" {status['profile']}@{status['engine']}" if status and status["profile"] else ""
        if facts and facts["daemon_ends"] and self._focus_of_several() is None:
            consequences.append("the daemon ends with it, as `orch up` started it")

        answer: bool | None = await self._app.push_screen_wait(ConfirmScreen(f"{what}{target}?", consequences, what))
        return answer is True

    async def _launch(self) -> Any:
        try:
            return await self._get("/v1/launch")
        except NotRunningError:  # between two attempts there is no process
            return None

    async def _get(self, target: str) -> Any:
        return await asyncio.to_thread(self._source.get, target)

    async def _post(self, target: str, body: dict[str, object]) -> Any:
        return await asyncio.to_thread(self._source.post, target, body)

    def _gateway(self) -> GatewayStatus | None:
        status = self._display.current_status()
        return status["gateway"] if status is not None else None

    def _focus_of_several(self) -> InstanceStatus | None:
        """Return the one in focus where others are loaded beside it: what the screen is about is what is acted on."""
        status = self._display.current_status()
        rows = status.get("instances", []) if status is not None else []
        return next((row for row in rows if row["focus"]), None) if len(rows) > 1 else None

    def _in_flight(self) -> int:
        row = self._focus_of_several()
        if row is not None:
            return row["in_flight"]

        gateway = self._gateway()
        return gateway["in_flight"] if gateway else 0

    def _queued(self) -> int:
        row = self._focus_of_several()
        if row is not None:
            return row["queued"]

        gateway = self._gateway()
        return gateway["queued"] if gateway else 0


def _refused(queued: int) -> list[str]:
    return [f"refuses {counted(queued, 'request')} that {agreeing(queued, 'waits', 'wait')}"] if queued else []
