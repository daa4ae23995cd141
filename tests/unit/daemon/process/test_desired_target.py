"""What a daemon starts first, and what it leaves for the next one."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.to_thread
import pytest

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.api.types import LeaseStatus
from orchestrator.core.errors import UsageError
from orchestrator.core.fleet.fleet_states import DownRequested, LoadRequested, ResidencyRules, RulesChanged
from orchestrator.core.fleet.lifecycle_states import Prepare, Target
from orchestrator.core.residency.lease import ServedTargets
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.process import desired_target as desired_target_module
from orchestrator.daemon.process.desired_target import DesiredTarget, StartOptions
from orchestrator.daemon.process.remembered_fleet import loaded_targets, remembered_target
from tests.unit.core.fleet.lifecycle_machine import A
from tests.unit.daemon.running_owner import request_start, running_owner, until

LAST = {"profile": "last", "engine": "upstream"}
WANTED = {"profile": "wanted", "engine": "ik-fork"}


class Profiles:
    """Resolves every name but `broken`; the engine is the one asked for, else `default`."""

    def resolve(self, name: str, engine: str | None, *, unverified: bool = False, force: bool = False) -> object:
        if name == "broken":
            raise UsageError("profile `broken` is wrong", details=("broken.toml:1",))

        return SimpleNamespace(target=Target(name, engine or "default"))

    def trust(self, target: Target) -> None:
        """Nothing is verified here."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.json")


def remember(path: str, **state: object) -> None:
    Path(path).write_text(json.dumps({"version": 1, **state}))


def remembered(path: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(path).read_text())
    return {name: found.get(name) for name in ("last", "wanted")}


def desired_target(
    path: str,
    owner: Owner,
    *,
    default: str = "",
    event_log: EventLog | None = None,
    options: StartOptions | None = None,
) -> DesiredTarget:
    preparer = cast(Preparer, Profiles())
    return DesiredTarget(path, default, options or StartOptions(), owner, preparer, event_log or EventLog(None))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "state", "default", "started"),
    [
        (StartOptions(), {}, "", None),
        (StartOptions(), {}, "home", Target("home", "default")),
        (StartOptions(), {"last": LAST}, "home", Target("home", "default")),
        (StartOptions(), {"last": LAST, "wanted": WANTED}, "home", Target("wanted", "ik-fork")),
        (StartOptions("named"), {"wanted": WANTED}, "home", Target("named", "default")),
        (StartOptions("named", "upstream"), {"wanted": WANTED}, "", Target("named", "upstream")),
        (StartOptions(started_by_up=True), {"wanted": WANTED}, "home", None),
        (StartOptions(), {"wanted": "nonsense"}, "", None),
    ],
)
async def test_the_command_line_comes_before_what_ran_and_that_before_the_default(
    path: str, options: StartOptions, state: dict[str, object], default: str, started: Target | None
) -> None:
    remember(path, **state)
    async with running_owner() as (owner, effects):
        await desired_target(path, owner, default=default, options=options).start_first()
        assert owner.fleet.desired == started
        assert [each.target for each in effects.asked if isinstance(each, Prepare)] == ([started] if started else [])


@pytest.mark.asyncio
async def test_a_first_start_that_cannot_be_asked_for_is_said_and_the_daemon_goes_on(path: str) -> None:
    event_log = EventLog(None)
    async with running_owner() as (owner, _):
        desired = desired_target(path, owner, default="broken", event_log=event_log)
        await desired.start_first()
        assert owner.fleet.desired is None

    assert desired.refused is not None
    assert [(each["kind"], each["message"]) for each in event_log.after(0)] == [
        ("refused", "profile `broken` is wrong")
    ]


@pytest.mark.asyncio
async def test_what_runs_is_saved_and_what_a_person_stopped_is_not_started_again(path: str) -> None:
    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        tasks.start_soon(desired_target(path, owner).follow)
        await request_start(owner, effects)
        saved = {"profile": A.profile, "engine": A.engine}
        await until_remembered(path, {"last": saved, "wanted": saved})
        await owner.ask(DownRequested())
        await until_remembered(path, {"last": saved, "wanted": None})
        tasks.cancel_scope.cancel()


async def until_remembered(path: str, state: dict[str, object]) -> None:
    await until(lambda: os.path.exists(path) and remembered(path) == state)


def occupy(path: str) -> None:
    """Make a directory where the file is to be: nothing can be renamed to it."""
    os.mkdir(path)


@pytest.mark.asyncio
async def test_a_disk_that_does_not_take_the_state_costs_a_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running_owner() as (owner, _), anyio.create_task_group() as tasks:
        desired = desired_target(path, owner)
        occupy(path)
        tasks.start_soon(desired.follow)
        await until(lambda: "state not saved" in caplog.text)
        tasks.cancel_scope.cancel()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("state", "default", "expected"),
    [
        ({"last": LAST, "wanted": None}, "home", Target("last", "upstream")),
        ({}, "home", Target("home", "default")),
        ({}, "", None),
    ],
)
async def test_without_a_name_what_ran_last_is_meant_else_the_default(
    path: str, state: dict[str, object], default: str, expected: Target | None
) -> None:
    remember(path, **state)
    async with running_owner() as (owner, _):
        assert desired_target(path, owner, default=default).fallback() == expected


@pytest.mark.asyncio
@pytest.mark.parametrize(("options", "kept"), [(StartOptions(), True), (StartOptions(started_by_up=True), False)])
async def test_a_daemon_that_its_manager_ends_leaves_its_target_to_the_next(
    path: str, options: StartOptions, kept: bool
) -> None:
    remember(path)
    async with running_owner() as (owner, _):
        desired_target(path, owner, options=options).keep(A)

    assert remembered(path)["wanted"] == ({"profile": "a", "engine": "upstream"} if kept else None)


@pytest.mark.asyncio
async def test_a_write_that_a_slow_disk_holds_up_does_not_undo_what_is_kept_for_the_next(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ending the engine is saved by a thread as `nothing is wanted`, while the daemon goes down."""
    held, released = threading.Event(), threading.Event()

    def slow(path: str, state: dict[str, object]) -> None:
        if state["wanted"] is None:
            held.set()
            released.wait(0.3)

        save_state(path, state)

    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        desired = desired_target(path, owner)
        tasks.start_soon(desired.follow)
        await request_start(owner, effects)
        saved = {"profile": A.profile, "engine": A.engine}
        await until_remembered(path, {"last": saved, "wanted": saved})
        monkeypatch.setattr(desired_target_module, "save_state", slow)
        await owner.ask(DownRequested())
        await until(held.is_set)
        await anyio.to_thread.run_sync(desired.keep, A)
        released.set()
        tasks.cancel_scope.cancel()

    assert remembered(path) == {"last": saved, "wanted": saved}


@pytest.mark.parametrize("value", [None, 1, "a@b", [], {}, {"profile": "a"}, {"profile": "a", "engine": 1}])
def test_anything_else_in_the_state_file_is_no_target(value: object) -> None:
    assert remembered_target(value) is None


W, E, C, V = "wanted@ik-fork", "embed@upstream", "code@ik-fork", "vision@default"
EMBED, CODE = {"profile": "embed", "engine": "upstream"}, {"profile": "code", "engine": "ik-fork"}


def loads(owner: Owner) -> list[str]:
    """What is loaded or waits to be, in the order in which it was asked for."""
    return [str(target) for target in loaded_targets(owner.fleet, ())]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("state", "rules", "options", "expected"),
    [
        ({"wanted": WANTED, "fleet": [EMBED, WANTED, CODE]}, {}, {}, [W, E, C]),
        ({"wanted": WANTED, "fleet": [EMBED]}, {"preload": ("vision", "embed")}, {}, [W, E, V]),
        ({"wanted": WANTED, "fleet": [EMBED]}, {"policy": "one"}, {}, [W]),
        ({"wanted": WANTED, "fleet": [EMBED, CODE]}, {"max": 2}, {}, [W, E]),
        ({"wanted": WANTED, "fleet": [EMBED, CODE]}, {"exclusive": (frozenset({"embed", "wanted"}),)}, {}, [W, C]),
        ({"wanted": WANTED, "fleet": [{"profile": "broken", "engine": "x"}, CODE]}, {}, {}, [W, C]),
        ({"wanted": WANTED, "fleet": [EMBED]}, {"preload": ("vision",)}, {"profile": "named"}, ["named@default", V]),
        ({"wanted": WANTED, "fleet": [EMBED]}, {"preload": ("vision",)}, {"started_by_up": True}, []),
        ({"wanted": WANTED, "fleet": "nonsense"}, {}, {}, [W]),
        ({}, {"preload": ("vision", "embed")}, {}, [V, "embed@default"]),
    ],
)  # fmt: skip
async def test_what_was_loaded_is_loaded_again_in_the_order_of_its_use_as_far_as_the_rules_allow(
    path: str, state: dict[str, object], rules: dict[str, object], options: dict[str, object], expected: list[str]
) -> None:
    remember(path, **state)
    async with running_owner() as (owner, _):
        owner.post(RulesChanged(ResidencyRules(**rules)))  # type: ignore[arg-type]
        desired = desired_target(path, owner, options=StartOptions(**options))  # type: ignore[arg-type]
        await desired.start_first()
        assert loads(owner) == expected
        assert desired.refused is None


@pytest.mark.asyncio
async def test_a_daemon_of_orch_up_loads_what_is_loaded_at_each_start_once_it_is_told_the_first(path: str) -> None:
    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        owner.post(RulesChanged(ResidencyRules(preload=("embed",))))
        tasks.start_soon(desired_target(path, owner, options=StartOptions(started_by_up=True)).load_after_up)
        await request_start(owner, effects)
        await until(lambda: loads(owner) == [str(A), "embed@default"])
        assert owner.fleet.desired == A


@pytest.mark.asyncio
async def test_what_is_loaded_is_saved_as_it_changes_and_in_the_order_of_use_at_the_end(path: str) -> None:
    def saved() -> list[str]:
        found = json.loads(Path(path).read_text())["fleet"] if os.path.exists(path) else []
        return [each["profile"] for each in found]

    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        desired = desired_target(path, owner)
        tasks.start_soon(desired.follow)
        await request_start(owner, effects)
        await owner.ask(LoadRequested(Target("embed", "upstream"), "t"))
        await until(lambda: saved() == ["a", "embed"])
        desired.order = lambda: ["embed"]
        desired.keep(owner.fleet.desired, desired.loaded())
        assert saved() == ["embed", "a"]
        assert remembered(path)["wanted"] == {"profile": "a", "engine": "upstream"}
        tasks.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_what_a_person_stopped_is_not_loaded_again(path: str) -> None:
    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        tasks.start_soon(desired_target(path, owner).follow)
        await request_start(owner, effects)
        await owner.ask(LoadRequested(Target("embed", "upstream"), "t"))
        await until(lambda: os.path.exists(path) and len(json.loads(Path(path).read_text())["fleet"]) == 2)
        await owner.ask(DownRequested(("embed",)))
        await until(lambda: len(json.loads(Path(path).read_text())["fleet"]) == 1)
        tasks.cancel_scope.cancel()


NOTE = LeaseStatus(title="bench 1", resume="", since="2026-11-21T10:00:05Z", state="held", serves=None, cause=None)


@pytest.mark.asyncio
async def test_what_is_held_is_remembered_whatever_runs_until_it_is_let_go(path: str) -> None:
    async with running_owner() as (owner, effects), anyio.create_task_group() as tasks:
        desired = desired_target(path, owner)
        tasks.start_soon(desired.follow)
        await desired.hold(ServedTargets(Target("wanted", "ik-fork"), (Target("beside", "upstream"),)), NOTE)
        await request_start(owner, effects)
        desired.keep(A, [A])
        state, _ = load_state(path)
        assert (state["last"], state["wanted"], state["lease"]) == (WANTED, WANTED, NOTE)
        assert state["fleet"] == [WANTED, {"profile": "beside", "engine": "upstream"}]
        assert desired_target(path, owner).lease == NOTE
        tasks.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_once_it_is_let_go_what_runs_is_remembered_at_once(path: str) -> None:
    async with running_owner() as (owner, effects):
        desired = desired_target(path, owner)
        await desired.hold(ServedTargets(), NOTE)
        await request_start(owner, effects)
        assert remembered(path)["wanted"] is None
        await desired.release(None)
        assert remembered(path)["wanted"] == {"profile": A.profile, "engine": A.engine}
        assert desired_target(path, owner).lease is None


@pytest.mark.asyncio
@pytest.mark.parametrize("note", ["nonsense", {"title": "x"}, {**NOTE, "state": "odd"}, {**NOTE, "cause": 5}, None])
async def test_a_lease_that_anybody_may_have_written_is_none(path: str, note: object) -> None:
    remember(path, lease=note)
    async with running_owner() as (owner, _):
        assert desired_target(path, owner).lease is None


@pytest.mark.asyncio
async def test_what_is_held_is_saved_once_the_disk_takes_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired_target_module, "SAVE_AGAIN_S", 0.01)
    async with running_owner() as (owner, _), anyio.create_task_group() as tasks:
        desired = desired_target(path, owner)
        occupy(path)
        await desired.hold(ServedTargets(Target("wanted", "ik-fork")), NOTE)
        os.rmdir(path)
        tasks.start_soon(desired.follow)
        await until(lambda: os.path.isfile(path) and remembered(path)["wanted"] == WANTED)
        tasks.cancel_scope.cancel()
