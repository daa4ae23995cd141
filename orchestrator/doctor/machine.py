"""The checks of `orch doctor` on the machine: Python, libraries, devices, limits, systemd."""

from __future__ import annotations

import glob
import grp
import importlib
import os
import platform
import stat
import sys
from collections.abc import Iterator
from importlib import metadata

from orchestrator import __version__
from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.hardware.machine import kernel_release
from orchestrator.adapters.hardware.nvidia_driver import DriverMissing, DriverUnresponsive, describe_driver
from orchestrator.adapters.paths import is_service_user
from orchestrator.adapters.process.linux import check_platform
from orchestrator.adapters.systemd.machine import (
    inspect_host,
    memlock_limit_mib,
    missing_groups,
    system_paths,
    user_lingers,
    user_name,
)
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.setup.doctor import CheckResult, parse_requirement
from orchestrator.core.setup.service_unit import SERVICE, SOCKET, Flavour, is_ours, program_of, stop_timeout_s
from orchestrator.doctor.examine import DoctorContext

DISTRIBUTION = "llama-orch"
COMPILED = ("httptools", "msgspec", "uvloop", "psutil")
"""Those with machine code: installed does not mean that they can be loaded here. The others are not imported, which
would take longer than all the rest."""

NVIDIA_CONTROL = "/dev/nvidiactl"
NVIDIA_UVM = "/dev/nvidia-uvm"
NODES = ("/dev/nvidia[0-9]*", NVIDIA_CONTROL, NVIDIA_UVM, "/dev/kfd", "/dev/dri/renderD*", "/dev/dxg")


def check_orch(_: DoctorContext) -> Iterator[CheckResult]:
    yield CheckResult("ok", "orch", f"orch {__version__}, Python {platform.python_version()}, {sys.prefix}")
    if os.geteuid() == 0:
        text = "this is root: engines that root starts are root, too"
        yield CheckResult("note", "orch", text, "`orch service install --system` has a user of its own")


def check_libraries(_: DoctorContext) -> Iterator[CheckResult]:
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield CheckResult("note", "libraries", f"{DISTRIBUTION} runs from a checkout; its requirements are not known")
        return

    wrong = False
    for wanted in filter(None, map(parse_requirement, lines)):
        if "extra" in wanted.marker or "win32" in wanted.marker.replace("!= 'win32'", ""):
            continue

        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong = True
            yield _library(f"{wanted.name} is not installed")
            continue

        if not wanted.allows(version):
            wrong = True
            yield _library(f"{wanted.name} {version}, needed {wanted.rule}")

    for name in COMPILED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            wrong = True
            yield _library(f"{name} cannot be loaded: {error}")

    if not wrong:
        yield CheckResult("ok", "libraries", "all there, in versions that fit")


def _library(text: str) -> CheckResult:
    return CheckResult("problem", "libraries", text, f"`{sys.executable} -m pip install --upgrade {DISTRIBUTION}`")


def check_driver(_: DoctorContext) -> Iterator[CheckResult]:
    try:
        found = describe_driver()
    except DriverMissing:
        if os.path.exists("/dev/kfd"):
            yield CheckResult("ok", "driver", "AMD: /dev/kfd is there")
        elif glob.glob("/dev/nvidia[0-9]*"):
            fix = "install the driver's libraries (libnvidia-compute, libnvidia-ml)"
            yield CheckResult("problem", "driver", "NVIDIA device nodes without libnvidia-ml", fix)
        else:
            yield CheckResult("note", "driver", "no NVIDIA or AMD compute driver: engines run on the CPU, or on Vulkan")
    except DriverUnresponsive as error:
        fix = "reboot: after an update of the driver, the old one is still loaded"
        yield CheckResult("problem", "driver", f"the NVIDIA driver does not answer: {error}", fix)
    else:
        cards = ", ".join(f"{name} ({total_mib} MiB)" for name, total_mib in found.cards)
        yield CheckResult("ok", "driver", f"NVIDIA {found.version}: {cards or 'no device'}")


def check_devices(_: DoctorContext) -> Iterator[CheckResult]:
    found = sorted(path for pattern in NODES for path in glob.glob(pattern))
    closed = [path for path in found if not os.access(path, os.R_OK | os.W_OK)]
    for path in closed:
        owner = grp.getgrgid(os.stat(path).st_gid).gr_name
        mode = stat.filemode(os.stat(path).st_mode)
        fix = f"`sudo usermod -aG {owner} {user_name()}`, then log in anew"
        yield CheckResult(
            "warning", "devices", f"{path} may not be opened by {user_name()}: {mode}, group {owner}", fix
        )

    if NVIDIA_CONTROL in found and NVIDIA_UVM not in found:
        fix = "`sudo nvidia-modprobe -u -c=0`, at each boot; nvidia-persistenced does it as well"
        yield CheckResult(
            "warning", "devices", f"{NVIDIA_UVM} is missing: CUDA needs it, a service may not make it", fix
        )

    if found and not closed:
        yield CheckResult("ok", "devices", f"{', '.join(found)} may be opened")


def check_memlock(context: DoctorContext) -> Iterator[CheckResult]:
    limit_mib = None if is_service_user() else memlock_limit_mib()  # its unit has none, whatever this shell has
    if limit_mib is None:
        yield CheckResult("ok", "memlock", "no limit on locked memory")
        return

    profiles, _ = ProfileStore(context.paths).load_all()
    locking = [each.name for each in profiles if each.settings.get("memory.mlock") is True]
    text = f"{limit_mib} MiB may be locked"
    if locking:
        fix = f"`{user_name()} hard memlock unlimited` in /etc/security/limits.conf; the system's service has no limit"
        yield CheckResult("warning", "memlock", f"{text}, and {', '.join(locking)} ask for memory.mlock", fix)
    else:
        yield CheckResult("note", "memlock", f"{text}; only profiles with memory.mlock need more")


def check_service(context: DoctorContext) -> Iterator[CheckResult]:
    system = context.tools.attempt(("systemctl", "is-system-running")).stdout.strip()
    if system in ("", "offline"):
        yield CheckResult("note", "service", "no systemd here: `orch serve` is for the container's own manager")
        return

    installed = False
    flavours: tuple[Flavour, ...] = ("system",) if is_service_user() else ("user", "system")
    for flavour in flavours:
        machine = inspect_host(flavour, context.tools)
        text = machine.text(SERVICE)
        if text is None:
            continue

        installed = True
        who = f"the {flavour}'s service"
        again = f"`{'sudo ' if flavour == 'system' else ''}orch service install --{flavour}`"
        if not is_ours(text):
            yield CheckResult("note", "service", f"{who} was edited by hand: {machine.unit(SERVICE)}")

        wanted_s = _stop_timeout_s(context, flavour)
        if wanted_s is not None and f"\nTimeoutStopSec={wanted_s}\n" not in text:
            yield CheckResult("warning", "service", f"{who} does not wait as long as orch.toml lets a stop take", again)

        program = program_of(text)
        if program is not None and not os.access(program, os.X_OK):
            yield CheckResult("problem", "service", f"{who} runs {program}, which is not there", again)

        state = context.tools.attempt(machine.systemctl("is-active", SERVICE)).stdout.strip()
        if state == "failed":
            # Also after the start limit, which a restart alone would meet again.
            anew = "; ".join(" ".join(machine.systemctl(verb, SERVICE)) for verb in ("reset-failed", "start"))
            fix = f"see `orch service logs --{flavour}`, then `{anew}`"
            yield CheckResult("problem", "service", f"{who} has failed", fix)
        elif SERVICE not in machine.enabled:
            yield CheckResult("warning", "service", f"{who} is {state}, and does not start at boot", again)
        else:
            yield CheckResult("ok", "service", f"{who} is enabled and {state}")

        if machine.text(SOCKET) is not None and SOCKET not in machine.active:
            text = f"{SOCKET} does not listen: a restart of {who} refuses connections"
            yield CheckResult("warning", "service", text, f"{again[:-1]} --socket`")

        if flavour == "user":
            yield from _check_session(context)

    if not installed:
        yield CheckResult(
            "note", "service", "not installed as a service", "`orch service install` if it is to run at boot"
        )


def _stop_timeout_s(context: DoctorContext, flavour: Flavour) -> int | None:
    """Return the TimeoutStopSec that the unit should have, s; None without a valid configuration."""
    paths = system_paths() if flavour == "system" else context.paths
    if not os.access(paths.config, os.X_OK):
        return None

    try:
        return stop_timeout_s(load_config(paths, context.environment))
    except UsageError:
        return None


def _check_session(context: DoctorContext) -> Iterator[CheckResult]:
    if user_lingers(context.tools) is False:
        text = "the user's service runs only while you are logged in"
        yield CheckResult("warning", "service", text, "`loginctl enable-linger`")

    missing = missing_groups()
    if missing:
        fix = f"`sudo usermod -aG {','.join(missing)} {user_name()}`, then log in anew"
        yield CheckResult("note", "service", f"{user_name()} is not in {', '.join(missing)}", fix)


def check_kernel(_: DoctorContext) -> Iterator[CheckResult]:
    try:
        check_platform()
    except OrchError as error:
        yield CheckResult("problem", "kernel", f"{error.message}: {'; '.join(error.details)}")
    else:
        yield CheckResult("ok", "kernel", kernel_release())
