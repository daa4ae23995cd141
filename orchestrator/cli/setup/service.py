"""`orch service`: orch as a systemd service, of this user or of the system."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import NotRunningError, OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.systemd.steps import Tools
    from orchestrator.core.setup.service_plan import ServiceHost, Step
    from orchestrator.core.setup.service_unit import Flavour

HELP = "install, remove and watch orch as a systemd service"
EXAMPLES = """\
  orch service install --profile mine
  sudo /opt/orch/bin/orch service install --system --profile mine
  orch service install --socket --dry-run
  orch service logs -f
  orch service uninstall"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        flavour = added.add_mutually_exclusive_group()
        flavour.add_argument("--user", action="store_true", help="this user's service; the default for all but root")
        flavour.add_argument("--system", action="store_true", help="the system's, as user `orch`; root's default")
        if json:
            added.add_argument("--json", action="store_true", help="print JSON")

        return added

    install = action("install", "install the service, enable it, start it, and wait until it answers")
    install.add_argument(
        "--profile",
        nargs="+",
        metavar="NAME",
        help="start this when nothing ran before, and load more beside it",
    )
    install.add_argument("--socket", action="store_true", help="let systemd hold the gateway's address over restarts")
    install.add_argument(
        "--watch", action="store_true", help="look for newer engines at night, build and judge them (a timer)"
    )
    uninstall = action("uninstall", "stop the service and remove it; profiles, builds and what was learned stay")
    uninstall.add_argument("--purge", action="store_true", help="remove those as well, and the user `orch`")
    for each in (install, uninstall):
        each.add_argument("--dry-run", action="store_true", help="show each file and command, and do nothing")
        each.add_argument("--force", action="store_true", help="replace or remove a unit that somebody has edited")
        each.add_argument("--root", metavar="DIR", default="/", help="the system below DIR, which does not run now")

    action("status", "show whether it is installed, enabled and running")
    logs = action("logs", "show the journal of the service", json=False)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    logs.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="start with the last N lines (100)")


def run(args: argparse.Namespace) -> int:
    actions = {"install": _install, "uninstall": _uninstall, "status": _status, "logs": _logs}
    return actions[args.action](args, _flavour(args))


def _flavour(args: argparse.Namespace) -> Flavour:
    if args.user or args.system:
        return "system" if args.system else "user"

    return "system" if os.geteuid() == 0 else "user"


def _install(args: argparse.Namespace, flavour: Flavour) -> int:
    from orchestrator.adapters.systemd.steps import Tools, perform_steps
    from orchestrator.core.setup.service_plan import install_steps
    from orchestrator.doctor.service import prepare_units

    tools = Tools()
    machine = _machine(args, flavour, tools)
    units, warnings, orch = prepare_units(machine, tools, args.profile or (), socket=args.socket, watch=args.watch)
    steps = install_steps(machine, units, orch)
    _refuse_edited(args, machine, [machine.unit(name) for name in units if machine.text(name) != units[name]], units)
    for warning in warnings:
        diagnostics.warn(warning)

    if args.dry_run:
        return _show_plan(args, machine, steps, warnings)

    try:
        perform_steps(steps, tools, machine.root, lambda step: diagnostics.progress(str(step)))
    except OrchError as error:
        error.hint = error.hint or f"what the service said is in `orch service logs --{flavour}`"
        raise

    if args.profile and not machine.offline:
        for profile in args.profile:
            warnings += _start_warnings(tools, machine, orch, profile)

    return _report(args, machine, steps, warnings, "installed" if steps else "installed already: nothing to do")


def user_service_problem() -> str | None:
    """Return why this user's systemd could not be given the service; None where it could."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.systemd.machine import check_systemd, inspect_host
    from orchestrator.adapters.systemd.steps import Tools
    from orchestrator.doctor.service import refuse_another_daemon

    if os.geteuid() == 0:
        return "root's service is the system's: `orch service install --system`"

    tools = Tools()
    try:
        check_systemd("user", tools)
        machine = inspect_host("user", tools)
        if machine.units:
            return "it is installed already"

        refuse_another_daemon(find_paths(), machine)
    except OrchError as error:
        return error.message

    return None


def install_user_service(profile: str) -> tuple[str, ...]:
    """Install the service for this user, start it, and wait until it answers; return what was done.

    :param profile: that it starts
    :raises OrchError: when it cannot be installed; what was done is undone
    """
    from orchestrator.adapters.systemd.machine import check_systemd, inspect_host
    from orchestrator.adapters.systemd.steps import Tools, perform_steps
    from orchestrator.cli.steps import visible_steps
    from orchestrator.core.setup.service_plan import install_steps
    from orchestrator.doctor.service import prepare_units

    tools = Tools()
    check_systemd("user", tools)
    machine = inspect_host("user", tools)
    units, warnings, orch = prepare_units(machine, tools, (profile,), socket=False)
    for warning in warnings:
        diagnostics.warn(warning)

    steps = install_steps(machine, units, orch)
    perform_steps(steps, tools, machine.root, lambda step: diagnostics.progress(str(step)))
    diagnostics.clear_progress()
    return tuple(map(str, visible_steps(steps)))


def _start_warnings(tools: Tools, machine: ServiceHost, orch: tuple[str, ...], profile: str) -> list[str]:
    """Return why the profile will not start in the service's environment, whose PATH is not that of a shell.

    That is no reason to undo the installation.
    """
    from orchestrator.adapters.systemd.machine import carried_environment, manager_environment
    from orchestrator.core.setup.service_plan import HOME, USER

    system = machine.flavour == "system"
    environment = {**({"HOME": HOME} if system else {}), **manager_environment(machine.flavour, tools)}
    environment |= carried_environment(machine.flavour)
    settings = tuple(f"{name}={value}" for name, value in environment.items())
    as_service = (*(("runuser", "-u", USER, "--") if system else ()), "env", "-i", *settings)
    done = tools.attempt((*as_service, *orch, "profile", "render", profile), 30)
    if done.returncode == 0:
        return []

    warning = f"`{profile}` cannot start yet: {' '.join(done.stderr.split()).removeprefix('error: ')}"
    diagnostics.warn(warning)
    return [warning]


def _uninstall(args: argparse.Namespace, flavour: Flavour) -> int:
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.systemd.machine import system_paths
    from orchestrator.adapters.systemd.steps import Tools, perform_steps
    from orchestrator.core.setup.service_plan import uninstall_steps
    from orchestrator.core.setup.service_unit import SERVICE, SOCKET, TIMER, WATCH
    from orchestrator.doctor.service import refuse_another_daemon

    tools = Tools()
    machine = _machine(args, flavour, tools)
    _refuse_edited(args, machine, list(machine.units or ()), {})
    paths = system_paths() if flavour == "system" else find_paths()
    places = [machine.below(path) for path in (paths.config, paths.state, paths.data, paths.cache, paths.logs)]
    places += (
        f"{machine.unit(name)}.d" for name in (SERVICE, SOCKET, WATCH, TIMER)
    )  # what `systemctl edit` has written
    # Not what lies in another one of them: that goes with it.
    kept = [path for path in places if os.path.isdir(path) and not any(path.startswith(f"{it}/") for it in places)]
    if args.purge and not machine.offline:
        refuse_another_daemon(paths, machine)

    steps = uninstall_steps(machine, tuple(kept) if args.purge else ())
    if args.dry_run:
        return _show_plan(args, machine, steps, [])

    perform_steps(steps, tools, machine.root, lambda step: diagnostics.progress(str(step)))
    code = _report(args, machine, steps, [], "removed" if steps else "not installed: nothing to do")
    if kept and not args.purge:
        user = " and the user `orch`" if machine.user else ""
        diagnostics.note(f"left as they are: {', '.join(kept)}{user} (`--purge` removes them)")

    return code


def _machine(args: argparse.Namespace, flavour: Flavour, tools: Tools) -> ServiceHost:
    from orchestrator.adapters.systemd.machine import check_systemd, inspect_host

    root = os.path.abspath(args.root)
    if root != "/" and flavour == "user":
        raise UsageError("--root is for the system's service", hint="add --system")

    if flavour == "system" and os.geteuid() != 0 and not args.dry_run:
        raise OrchError(
            "the system's service needs root", hint=f"`sudo {_command_as_root(args)}`, or leave `--system` out"
        )

    if root == "/":
        check_systemd(flavour, tools)

    return inspect_host(flavour, tools, root)


def _command_as_root(args: argparse.Namespace) -> str:
    from orchestrator.adapters.systemd.machine import this_orch

    profile = ["--profile", *args.profile] if getattr(args, "profile", None) else []
    socket = ["--socket"] if getattr(args, "socket", False) else []
    watch = ["--watch"] if getattr(args, "watch", False) else []
    return shlex.join([*this_orch(), "service", args.action, "--system", *profile, *socket, *watch])


def _refuse_edited(args: argparse.Namespace, machine: ServiceHost, paths: list[str], units: dict[str, str]) -> None:
    """:raises UsageError: when somebody wrote in a unit that is to be replaced or removed, with the difference"""
    from orchestrator.core.setup.service_unit import is_ours

    if args.force:
        return

    new = {machine.unit(name): text for name, text in units.items()}
    for path in paths:
        text = (machine.units or {}).get(path)
        if text is None or is_ours(text):
            continue

        import difflib

        difference = difflib.unified_diff(
            text.splitlines(), new.get(path, "").splitlines(), path, f"{path} (new)", lineterm="", n=1
        )
        raise UsageError(
            f"{path} was edited, or is not ours",
            details=tuple(difference) if path in new else (),
            hint="keep your changes with `systemctl edit orch`, then `--force` replaces the unit",
        )


def _show_plan(args: argparse.Namespace, machine: ServiceHost, steps: tuple[Step, ...], warnings: list[str]) -> int:
    from orchestrator.cli.steps import show_steps

    if args.json:
        output.json_data(_as_json(machine, steps, warnings))
    else:
        show_steps(steps)

    return exit_codes.OK


def _report(
    args: argparse.Namespace, machine: ServiceHost, steps: tuple[Step, ...], warnings: list[str], words: str
) -> int:
    diagnostics.clear_progress()
    if args.json:
        output.json_data(_as_json(machine, steps, warnings))
        return exit_codes.OK

    from orchestrator.cli.steps import visible_steps

    for step in visible_steps(steps):
        diagnostics.note(str(step))

    output.line(f"orch.service ({machine.flavour}): {words}")
    if args.action == "install" and not machine.offline:
        who = "sudo -u orch " if machine.flavour == "system" else ""
        flavour = f" --{machine.flavour}"
        diagnostics.note(f"see `{who}orch status` and `orch service logs{flavour}`")

    return exit_codes.OK


def _as_json(machine: ServiceHost, steps: tuple[Step, ...], warnings: list[str]) -> dict[str, object]:
    from orchestrator.cli.steps import steps_data

    return {
        "version": 1,
        "flavour": machine.flavour,
        "steps": steps_data(steps),
        "warnings": warnings,
    }


PROPERTIES = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "StatusText", "Result", "ExecMainStatus")


def _status(args: argparse.Namespace, flavour: Flavour) -> int:
    from orchestrator.adapters.systemd.machine import user_lingers
    from orchestrator.adapters.systemd.steps import Tools
    from orchestrator.core.setup.service_unit import SERVICE, SOCKET, TIMER, is_ours

    tools = Tools()
    args.root, args.dry_run = "/", True
    machine = _machine(args, flavour, tools)
    text = machine.text(SERVICE)
    if text is None:
        other = "user" if flavour == "system" else "system"
        raise NotRunningError(
            f"the {flavour}'s service is not installed",
            details=(machine.unit(SERVICE),),
            hint=f"`orch service install --{flavour}`, or look at `orch service status --{other}`",
        )

    shown = tools.run(machine.systemctl("show", SERVICE, f"--property={','.join(PROPERTIES)}"), 10)
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    active = found.get("ActiveState") == "active"
    data: dict[str, object] = {
        "version": 1,
        "flavour": flavour,
        "unit": machine.unit(SERVICE),
        "edited": not is_ours(text),
        "enabled": SERVICE in machine.enabled,
        "socket": SOCKET in machine.active,
        "watch": TIMER in machine.active,
        "active": found.get("ActiveState", "unknown"),
        "sub_state": found.get("SubState", "unknown"),
        "pid": int(found.get("MainPID", "0")) or None,
        "restarts": int(found.get("NRestarts") or 0),
        "status_text": found.get("StatusText", ""),
        "result": found.get("Result", ""),
        "exit_status": int(found.get("ExecMainStatus") or 0),
        "lingers": user_lingers(tools) if flavour == "user" else None,
    }
    if args.json:
        output.json_data(data)
    else:
        rows = [(key, value) for key, value in data.items() if key != "version" and value not in (None, "")]
        output.table(("WHAT", "VALUE"), rows)

    return exit_codes.OK if active else exit_codes.NOT_RUNNING


def _logs(args: argparse.Namespace, flavour: Flavour) -> int:
    import shutil

    from orchestrator.core.setup.service_unit import SERVICE

    program = shutil.which("journalctl")
    if program is None:
        raise OrchError("`journalctl` is not installed here", hint="without systemd, see `orch logs --daemon`")

    unit = "--user-unit" if flavour == "user" else "--unit"
    follow = ("--follow",) if args.follow else ("--no-pager",)
    os.execv(program, [program, unit, SERVICE, "--lines", str(max(args.lines, 0)), *follow])
