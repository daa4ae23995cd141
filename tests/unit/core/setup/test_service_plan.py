from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.setup.service_plan import (
    PRIVATE_DIRECTORIES,
    MakeDirectory,
    RemoveFile,
    RemoveTree,
    Run,
    ServiceHost,
    Step,
    WriteFile,
    install_steps,
    uninstall_steps,
)

ORCH = ("/opt/orch/bin/orch",)
UNIT = "/etc/systemd/system/orch.service"
SOCKET = "/etc/systemd/system/orch.socket"
SERVICE_ONLY = {"orch.service": "new"}
BOTH = {"orch.service": "new", "orch.socket": "new"}

FRESH = ServiceHost("system", "/etc/systemd/system", groups=("video",))
INSTALLED = ServiceHost(
    "system",
    "/etc/systemd/system",
    units={UNIT: "new"},
    enabled=("orch.service",),
    active=("orch.service",),
    existing=frozenset(PRIVATE_DIRECTORIES),
    user=True,
    group=True,
    member=("video",),
    groups=("video",),
)


def commands(steps: tuple[Step, ...]) -> list[str]:
    return [" ".join(step.argv) for step in steps if isinstance(step, Run) and step.argv]


def undone(steps: tuple[Step, ...]) -> list[str]:
    """The commands that run when everything is undone."""
    return [" ".join(step.undo) for step in reversed(steps) if isinstance(step, Run) and step.undo]


def test_a_fresh_system_gets_user_directories_units_and_a_start() -> None:
    steps = install_steps(FRESH, BOTH, ORCH)
    assert [step.path for step in steps if isinstance(step, MakeDirectory)] == list(PRIVATE_DIRECTORIES)
    assert [step.path for step in steps if isinstance(step, WriteFile)] == [UNIT, SOCKET]
    names = [command.split()[:2] for command in commands(steps)]
    assert names == [
        ["useradd", "--system"], ["runuser", "-u"],
        ["systemctl", "daemon-reload"], ["systemctl", "enable"], ["systemctl", "start"],
    ]  # fmt: skip


def test_undoing_it_stops_disables_and_reloads_once_the_files_are_gone() -> None:
    assert undone(install_steps(FRESH, SERVICE_ONLY, ORCH)) == [
        "systemctl stop orch.service",
        "systemctl reset-failed orc[h].service",
        "systemctl disable orch.service",
        "systemctl daemon-reload",
        "userdel orch",
    ]


def test_what_is_installed_already_needs_nothing() -> None:
    assert install_steps(INSTALLED, SERVICE_ONLY, ORCH) == ()


def test_another_text_restarts_the_service_and_undoing_starts_the_old_one_again() -> None:
    steps = install_steps(INSTALLED, {"orch.service": "newer"}, ORCH)
    assert commands(steps) == [
        "systemctl reset-failed orch.service",  # the start counts, and the limit is low
        "systemctl stop orch.service",
        "systemctl daemon-reload",
        "systemctl start orch.service",
    ]
    assert undone(steps) == [
        "systemctl stop orch.service",
        "systemctl reset-failed orc[h].service",
        "systemctl daemon-reload",
        "systemctl start orch.service",
    ]


def test_a_unit_that_failed_is_forgotten_before_it_is_started_or_removed() -> None:
    failed = replace(INSTALLED, active=(), failed=("orch.service",))
    assert commands(install_steps(failed, SERVICE_ONLY, ORCH)) == [
        "systemctl reset-failed orch.service",
        "systemctl start orch.service",
    ]
    assert commands(uninstall_steps(failed)) == [
        "systemctl reset-failed orch.service",
        "systemctl disable orch.service",
        "systemctl daemon-reload",
    ]


def test_a_socket_takes_the_address_while_the_service_is_down() -> None:
    assert commands(install_steps(INSTALLED, BOTH, ORCH)) == [
        "systemctl reset-failed orch.service",
        "systemctl stop orch.service",
        "systemctl daemon-reload",
        "systemctl enable orch.socket",
        "systemctl start orch.socket orch.service",
    ]


def test_a_socket_that_was_stopped_takes_the_address_back() -> None:
    machine = replace(INSTALLED, units={UNIT: "new", SOCKET: "new"}, enabled=("orch.service", "orch.socket"))
    assert commands(install_steps(machine, BOTH, ORCH)) == [
        "systemctl reset-failed orch.service",
        "systemctl stop orch.service",
        "systemctl start orch.socket orch.service",
    ]


def test_a_socket_that_is_not_wanted_any_more_goes() -> None:
    machine = ServiceHost(
        "user", "/u", units={"/u/orch.service": "new", "/u/orch.socket": "new"},
        enabled=("orch.service", "orch.socket"), active=("orch.service", "orch.socket"),
    )  # fmt: skip
    steps = install_steps(machine, SERVICE_ONLY, ORCH)
    assert RemoveFile("/u/orch.socket") in steps
    assert commands(steps) == [
        "systemctl --user reset-failed orch.service orch.socket",
        "systemctl --user stop orch.socket orch.service",
        "systemctl --user disable orch.socket",
        "systemctl --user daemon-reload",
        "systemctl --user start orch.service",
    ]


WATCHED = {"orch.service": "new", "orch-watch.service": "w", "orch-watch.timer": "t"}
WATCH_UNITS = {f"/etc/systemd/system/{name}": text for name, text in WATCHED.items()}


def test_a_timer_is_added_beside_the_service_which_runs_on() -> None:
    assert commands(install_steps(INSTALLED, WATCHED, ORCH)) == [
        "systemctl reset-failed orch.service",
        "systemctl daemon-reload",
        "systemctl enable orch-watch.timer",
        "systemctl start orch.service orch-watch.timer",
    ]


def test_a_timer_that_is_not_wanted_any_more_goes_with_what_it_starts() -> None:
    machine = replace(
        INSTALLED,
        units=WATCH_UNITS,
        enabled=("orch.service", "orch-watch.timer"),
        active=("orch.service", "orch-watch.service", "orch-watch.timer"),
    )
    assert install_steps(machine, WATCHED, ORCH) == ()
    steps = install_steps(machine, SERVICE_ONLY, ORCH)
    assert commands(steps) == [
        "systemctl reset-failed orch.service orch-watch.service orch-watch.timer",
        "systemctl stop orch-watch.timer orch-watch.service",
        "systemctl disable orch-watch.timer",
        "systemctl daemon-reload",
        "systemctl start orch.service",
    ]
    assert [step.path for step in steps if isinstance(step, RemoveFile)] == [
        "/etc/systemd/system/orch-watch.timer",
        "/etc/systemd/system/orch-watch.service",
    ]
    removed = uninstall_steps(machine)
    assert commands(removed) == [
        "systemctl stop orch-watch.timer orch-watch.service orch.service",
        "systemctl disable orch-watch.timer orch.service",
        "systemctl daemon-reload",
    ]
    assert len([step for step in removed if isinstance(step, RemoveFile)]) == 3


def test_a_user_that_is_there_is_added_to_the_groups_that_it_lacks() -> None:
    machine = ServiceHost(
        "system", "/x", existing=frozenset(PRIVATE_DIRECTORIES), user=True, member=("audio",), groups=("render",)
    )
    steps = install_steps(machine, SERVICE_ONLY, ORCH)
    assert commands(steps)[0] == "usermod --append --groups render orch"
    assert undone(steps)[-1] == "usermod --groups audio orch"


def test_an_image_is_installed_into_but_not_started() -> None:
    machine = ServiceHost("system", "/etc/systemd/system", root="/image", groups=("video",))
    steps = install_steps(machine, SERVICE_ONLY, ORCH)
    assert not [command for command in commands(steps) if "start" in command or "daemon-reload" in command]
    assert "systemctl --root=/image enable orch.service" in commands(steps)
    assert all(step.path.startswith("/image/") for step in steps if isinstance(step, (MakeDirectory, WriteFile)))


def test_removing_leaves_the_users_files_and_purging_takes_them_last() -> None:
    kept = uninstall_steps(INSTALLED)
    assert RemoveFile(UNIT) in kept
    assert not [step for step in kept if isinstance(step, RemoveTree)]
    assert "userdel orch" not in commands(kept)
    purged = uninstall_steps(INSTALLED, ("/etc/orch", "/var/lib/orch"))
    assert purged[: len(kept)] == kept
    assert purged[len(kept) :] == (
        RemoveTree("/etc/orch"),
        RemoveTree("/var/lib/orch"),
        Run(("userdel", "orch")),
    )


@pytest.mark.parametrize("machine", [FRESH, ServiceHost("user", "/u")])
def test_removing_what_is_not_installed_needs_nothing(machine: ServiceHost) -> None:
    assert uninstall_steps(machine) == ()


def test_nothing_that_cannot_be_undone_comes_before_something_that_can() -> None:
    steps = uninstall_steps(INSTALLED, ("/etc/orch",))
    first = next(number for number, step in enumerate(steps) if isinstance(step, RemoveTree))
    assert all(isinstance(step, RemoveTree) or (isinstance(step, Run) and not step.undo) for step in steps[first:])
