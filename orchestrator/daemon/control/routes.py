"""The control API: HTTP and JSON on the unix socket. Its clients are the CLI and the TUI.

    GET  /v1/status?after=GENERATION&wait_s=S    the status; with `after`, once it is newer, or after S seconds
    GET  /v1/frame?points=N&requests=N           what a dashboard shows (`api/top_frames.py`); asked for each second
    POST /v1/up       {"profile"?, "engine"?, "beside"?, "unverified"?, "force"?}   start, or replace what is in focus;
                                                 and load the profiles in `beside` beside it
    POST /v1/switch   {"target", "strategy"?, "dry_run"?, "now"?, "again"?, "keep"?, "unverified"?, "force"?, "lease"?}
                                                 begin a switch of the focus; with dry_run, say what it would do; with
                                                 again, start anew what runs; with keep, what was in focus stays loaded
    POST /v1/load     {"profile", "engine"?, "unverified"?, "force"?}   load it beside what runs; where `taken` is
                                                 false it still ends: ask again once the status is newer
    POST /v1/unload   {"profile"}                end it; the next request for it loads it again
    POST /v1/pin      {"profile", "pinned"?}     never unload it while the daemon runs; with pinned false, let it go
    GET  /v1/switch?operation=ID&wait_s=S        its phase, and its result once there is one
    POST /v1/lease    {"title", "resume"?}       try other targets while the answer lasts, by switches that name the
                                                 lease. JSON Lines: the lease; once it is given back, the progress until
                                                 what served before serves again; why it ended, and what does not. Who
                                                 leaves gives it back
    POST /v1/lease/end {"lease"}                 give it back
    POST /v1/cancel   {}                         cancel the switch under way
    POST /v1/reload   {}                         read the profiles anew, restart what changed
    POST /v1/restart  {"profile"?}               end what runs once its requests are done, and start the same again
    GET  /v1/requests                            what waits and runs, as the gateway's own /v1/requests
    POST /v1/requests/cancel {"id"}              end the requests with this id, or the one with this number (an integer)
    GET  /v1/targets                             what could be started or switched to
    GET  /v1/launch                              the command line, environment and log of what runs
    GET  /v1/vram                                who holds the memory of each device (`core/vram/report.py`)
    GET  /v1/quarantine                          requests that met deaths of engines, and those that are refused for it
    POST /v1/quarantine {"id"?}                  forget one of them, or all
    POST /v1/down     {"profiles"?, "force"?, "all"?}   stop these, or everything, and the daemon when it is to end
                                                 with it
    GET  /v1/logs?lines=N&follow=0|1&after=SEQ   JSON Lines; with `after`, those newer than this one
    GET  /v1/events?lines=N&follow=0|1           JSON Lines

A failure answers `{"error": {"message", "details", "hint", "code"}}`; `code` is the exit code for the CLI.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from urllib.parse import parse_qs

import anyio
import anyio.to_thread
import msgspec

from orchestrator.adapters.http1 import Request, Response
from orchestrator.adapters.log.store import InstanceLog, LogLine
from orchestrator.api.choices import LaunchFacts, Targets
from orchestrator.api.top_frames import TopFrame
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError, UsageError
from orchestrator.core.exit_codes import exit_code
from orchestrator.core.fleet.lifecycle_states import Target, instance_of
from orchestrator.core.fleet.routing import READING_AHEAD
from orchestrator.core.fleet.state_summary import pid_of
from orchestrator.core.terminal import quote_text
from orchestrator.core.vram.report import VramReport
from orchestrator.daemon.control.actions import Actions
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.control.loading import LoadingActions
from orchestrator.daemon.control.request_bodies import (
    CancelBody,
    DownBody,
    EventBody,
    LeaseBody,
    LeaseEndBody,
    LoadBody,
    PinBody,
    QuarantineBody,
    RestartBody,
    SwitchBody,
    UnloadBody,
    UpBody,
    body_of,
    number,
)
from orchestrator.daemon.control.status import StatusBuilder
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import Switcher, name_of
from orchestrator.daemon.residency.leases import Leases
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.requests.ids import MAX_ID
from orchestrator.gateway.requests.listing import cancelled_entries, request_entries

_log = logging.getLogger(__name__)

MAX_WAIT_S = 60.0
_JSON = [(b"content-type", b"application/json")]
_LINES = [(b"content-type", b"application/x-ndjson")]
_STATUSES: tuple[tuple[type[OrchError], int], ...] = (
    (UsageError, 400),
    (NotRunningError, 409),
    (TimedOutError, 504),
    (OrchError, 500),
)


class Control:
    """Routes of the control API.

    :param targets: what could be started; blocking, given what runs
    :param drain_s: how long a stop waits for the requests that run
    :param frame: what a dashboard shows, with at most so many points and requests
    :param vram: who holds device memory, given the profiles of our engines by pid; blocking
    :param requests: the requests that wait and run
    :param end: ends the daemon, once the answer is out
    :param ends_with_engine: whether the daemon ends with the engine (`orch up` started it)
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        router: Router,
        status: StatusBuilder,
        switcher: Switcher,
        actions: Actions,
        loading: LoadingActions,
        leases: Leases,
        event_log: EventLog,
        log: InstanceLog,
        targets: Callable[[Target | None], Targets],
        drain_s: float,
        frame: Callable[[int, int], Awaitable[TopFrame]],
        vram: Callable[[Mapping[int, str]], VramReport],
        requests: Dispatcher,
        end: Callable[[], None],
        ends_with_engine: bool,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._router = router
        self._status_builder = status
        self._switcher = switcher
        self._actions = actions
        self._loading = loading
        self._leases = leases
        self._event_log = event_log
        self._log = log
        self._list_targets = targets
        self._drain_s = drain_s
        self._build_frame = frame
        self._read_vram = vram
        self._dispatcher = requests
        self._end = end
        self._ends_with_engine = ends_with_engine
        self._routes: dict[tuple[str, str], Callable[[Request, Response], Awaitable[None]]] = {
            ("GET", "/v1/status"): self._status,
            ("GET", "/v1/frame"): self._frame,
            ("POST", "/v1/up"): self._up,
            ("POST", "/v1/switch"): self._switch,
            ("GET", "/v1/switch"): self._switch_state,
            ("POST", "/v1/lease"): self._lease,
            ("POST", "/v1/lease/end"): self._end_lease,
            ("POST", "/v1/load"): self._load,
            ("POST", "/v1/unload"): self._unload,
            ("POST", "/v1/pin"): self._pin,
            ("POST", "/v1/cancel"): self._cancel,
            ("POST", "/v1/reload"): self._reload,
            ("POST", "/v1/restart"): self._restart,
            ("GET", "/v1/requests"): self._requests,
            ("POST", "/v1/requests/cancel"): self._cancel_request,
            ("GET", "/v1/targets"): self._targets,
            ("GET", "/v1/launch"): self._launch,
            ("GET", "/v1/vram"): self._vram,
            ("GET", "/v1/quarantine"): self._quarantine,
            ("POST", "/v1/quarantine"): self._clear_quarantine,
            ("POST", "/v1/down"): self._down,
            ("GET", "/v1/logs"): self._logs,
            ("GET", "/v1/events"): self._events,
            ("POST", "/v1/events"): self._add_event,
        }

    async def handle(self, request: Request, response: Response) -> None:
        route = self._routes.get((request.method, request.path))
        try:
            if route is None:
                known = ", ".join(f"{method} {path}" for method, path in self._routes)
                raise UsageError(f"no such request: {request.method} {request.path}", details=(f"known: {known}",))

            await route(request, response)
        except OrchError as error:
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            body = {"message": error.message, "details": error.details, "hint": error.hint, "code": exit_code(error)}
            response.send(status, _JSON, msgspec.json.encode({"error": body}))
        except Exception as error:
            # Whatever it is, it concerns this request alone; the daemon serves on.
            _log.exception("%s %s failed", request.method, request.path)
            self._event_log.add("request_failed", f"{request.method} {request.path}: {error or type(error).__name__}")
            if response.started:
                raise

            response.send(500, _JSON, msgspec.json.encode({"error": _unexpected(error)}))

    async def _status(self, request: Request, response: Response) -> None:
        query = parse_qs(request.query)
        if "after" in query:
            wait_s = min(number(query, "wait_s", 20.0), MAX_WAIT_S)
            with anyio.move_on_after(wait_s):
                await self._router.changed(int(number(query, "after", 0)))

        response.send(200, _JSON, msgspec.json.encode(await self._status_builder.full_status()))

    async def _frame(self, request: Request, response: Response) -> None:
        query = parse_qs(request.query)
        counts = (int(number(query, name, default)) for name, default in (("points", 120), ("requests", 20)))
        response.send(200, _JSON, msgspec.json.encode(await self._build_frame(*counts)))

    async def _up(self, request: Request, response: Response) -> None:
        body = await body_of(request, UpBody)
        answer = await self._actions.up(
            body.profile, body.engine, body.beside, unverified=body.unverified, force=body.force
        )
        operation = answer["operation"]
        await self._leases.acted(f"orch up {answer['profile']}", str(operation) if operation is not None else None)
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _load(self, request: Request, response: Response) -> None:
        body = await body_of(request, LoadBody)
        answer = await self._loading.load(body.profile, body.engine, unverified=body.unverified, force=body.force)
        await self._leases.loaded(Target(str(answer["profile"]), str(answer["engine"])))
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _unload(self, request: Request, response: Response) -> None:
        body = await body_of(request, UnloadBody)
        answer = await self._loading.unload(body.profile)
        await self._leases.ended({str(answer["profile"])}, f"orch unload {answer['profile']}")
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _pin(self, request: Request, response: Response) -> None:
        body = await body_of(request, PinBody)
        response.send(200, _JSON, msgspec.json.encode(await self._loading.pin(body.profile, pinned=body.pinned)))

    async def _switch(self, request: Request, response: Response) -> None:
        body = await body_of(request, SwitchBody)
        answer = await self._actions.switch(
            body.target,
            body.strategy,
            dry_run=body.dry_run,
            now=body.now,
            again=body.again,
            keep=body.keep,
            unverified=body.unverified,
            force=body.force,
            check=partial(self._leases.check, body.lease) if body.lease is not None else None,
        )
        if body.lease is None and not body.dry_run:
            await self._leases.acted(f"orch switch {body.target}", str(answer["operation"]))

        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _lease(self, request: Request, response: Response) -> None:
        body = await body_of(request, LeaseBody)
        lease = await self._leases.open(body.title, body.resume)
        try:
            response.start(200, _LINES)
            async for news in lease.news(self._status_builder.progress):
                response.write(msgspec.json.encode(news) + b"\n")

            response.end()
        finally:
            self._leases.gone(lease)

    async def _end_lease(self, request: Request, response: Response) -> None:
        body = await body_of(request, LeaseEndBody)
        self._leases.leave(body.lease)
        response.send(200, _JSON, b"{}")

    async def _reload(self, request: Request, response: Response) -> None:
        response.send(200, _JSON, msgspec.json.encode(await self._actions.reload()))

    async def _restart(self, request: Request, response: Response) -> None:
        body = await body_of(request, RestartBody)
        profile = self._loading.profile_of(body.profile) if body.profile is not None else None
        response.send(200, _JSON, msgspec.json.encode(await self._actions.restart(profile)))

    async def _requests(self, request: Request, response: Response) -> None:
        found = request_entries(
            self._dispatcher.underway(), self._dispatcher.progress(), self._status_builder.clock.offset
        )
        response.send(200, _JSON, msgspec.json.encode({"requests": found}))

    async def _cancel_request(self, request: Request, response: Response) -> None:
        body = await body_of(request, CancelBody)
        found = self._dispatcher.cancel(body.id)
        if not found:
            shown = quote_text(str(body.id), MAX_ID)
            raise OrchError(f"no request `{shown}` waits or runs", hint="`orch requests` lists those that do")

        response.send(200, _JSON, msgspec.json.encode({"cancelled": cancelled_entries(found)}))

    async def _targets(self, request: Request, response: Response) -> None:
        answer = await anyio.to_thread.run_sync(self._list_targets, self._actions.running())
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _vram(self, request: Request, response: Response) -> None:
        profiles = {run.child.pid: run.launch.target.profile for run in self._runs if run.child is not None}
        response.send(200, _JSON, msgspec.json.encode(await anyio.to_thread.run_sync(self._read_vram, profiles)))

    async def _launch(self, request: Request, response: Response) -> None:
        state = self._owner.fleet.state
        launch = self._runs.launch(instance_of(state))
        if launch is None:
            raise NotRunningError(
                "nothing runs, so there is no command line", hint="start something: `orch up PROFILE`"
            )

        answer = LaunchFacts(
            profile=launch.target.profile,
            engine=launch.target.engine,
            build=launch.rendered.build,
            pid=pid_of(state),
            binary=launch.rendered.binary,
            argv=list(launch.rendered.argv),
            env=dict(launch.rendered.env),
            directory=launch.directory,
            log_file=self._log.file.path if self._log.file is not None else None,
            drain_s=self._drain_s,
            daemon_ends=self._ends_with_engine,
        )
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _switch_state(self, request: Request, response: Response) -> None:
        query = parse_qs(request.query)
        operation = self._switcher.find(query.get("operation", [""])[-1])
        with anyio.move_on_after(min(number(query, "wait_s", 0.0), MAX_WAIT_S)):
            await operation.done.wait()

        progress = READING_AHEAD if operation.phase == "reading" else self._status_builder.progress()
        answer = {"phase": operation.phase, "progress": progress, "result": operation.result}
        response.send(200, _JSON, msgspec.json.encode(answer))

    async def _cancel(self, request: Request, response: Response) -> None:
        operation = self._switcher.cancel()
        response.send(200, _JSON, msgspec.json.encode({"operation": operation.id, "to": name_of(operation.target)}))

    async def _quarantine(self, request: Request, response: Response) -> None:
        response.send(200, _JSON, msgspec.json.encode(self._dispatcher.crash_suspects.entries(monotonic())))

    async def _clear_quarantine(self, request: Request, response: Response) -> None:
        body = await body_of(request, QuarantineBody)
        known = [each.id for each in self._dispatcher.crash_suspects.entries(monotonic())]
        if body.id is not None and body.id not in known:
            text = f"no request `{body.id}` has met the death of an engine"
            raise UsageError(text, details=(f"known: {', '.join(known) or 'none'}",))

        cleared = self._dispatcher.crash_suspects.clear(body.id)
        if cleared:
            which = body.id or ("one request" if cleared == 1 else f"{cleared} requests")
            self._event_log.add("quarantine_cleared", f"{which}: forgotten which engines died meanwhile")

        response.send(200, _JSON, msgspec.json.encode({"cleared": cleared}))

    async def _down(self, request: Request, response: Response) -> None:
        body = await body_of(request, DownBody)
        stopped, left = await self._loading.down(body.profiles, force=body.force)
        what = " ".join(("orch down", *body.profiles))
        await self._leases.ended({each.profile for each in stopped} if body.profiles else None, what)
        ends = body.all or (self._ends_with_engine and not left)
        answer = {
            "target": str(stopped[0]) if stopped else None,
            "targets": [name_of(each) for each in stopped],
            "daemon_ends": ends,
            "daemon_pid": os.getpid(),
        }
        response.send(200, _JSON, msgspec.json.encode(answer))
        if ends:
            self._end()

    async def _logs(self, request: Request, response: Response) -> None:
        query = parse_qs(request.query)
        lines = self._log.tail(int(number(query, "lines", 100)))
        if "after" in query:
            after = number(query, "after", -1)
            lines = [line for line in lines if line.seq > after]

        response.start(200, _LINES)
        for line in lines:
            response.write(_log_line(line))

        if number(query, "follow", 0):
            start = lines[-1].seq + 1 if lines else None
            async for item in self._log.subscribe(start):
                if isinstance(item, LogLine):
                    response.write(_log_line(item))
                else:
                    text = f"[{item.dropped} lines were too many for this reader]"
                    response.write(msgspec.json.encode({"seq": None, "text": text}) + b"\n")

                await response.drain()

        response.end()

    async def _add_event(self, request: Request, response: Response) -> None:
        body = await body_of(request, EventBody)
        self._event_log.add(body.kind, body.message)
        response.send(200, _JSON, b"{}")

    async def _events(self, request: Request, response: Response) -> None:
        query = parse_qs(request.query)
        count = int(number(query, "lines", 50))
        events = self._event_log.after(0)[-count:] if count else []
        seen = self._event_log.news.value
        response.start(200, _LINES)
        generation = self._event_log.news.generation
        while True:
            for event in events:
                response.write(msgspec.json.encode(event) + b"\n")

            if not number(query, "follow", 0):
                break

            await response.drain()
            await self._event_log.news.changed(generation)
            generation = self._event_log.news.generation
            events = self._event_log.after(seen)
            seen = self._event_log.news.value

        response.end()


def _unexpected(error: Exception) -> dict[str, object]:
    """Return the answer for an error that nobody expected."""
    message = f"{str(error) or 'it failed'} ({type(error).__name__})".encode("utf-8", "backslashreplace").decode()
    return {
        "message": message,
        "details": (),
        "hint": "`orch logs --daemon` has the details",
        "code": exit_code(OrchError(message)),
    }


def _log_line(line: LogLine) -> bytes:
    return msgspec.json.encode({"seq": line.seq, "text": line.text}) + b"\n"
