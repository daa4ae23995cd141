"""Real compositors, started as the sessions of `orch vram reclaim` start them: they draw on the CPU.

`apt-get install sway kwin-wayland` for all of it. No screen and no device is needed: both have a back end
for neither.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.vram.desktop_facts import LoginSession
from orchestrator.core.vram.session_files import session_text, software_variables

KWIN = shutil.which("kwin_wayland")
MESA_VENDOR_FILE = "/usr/share/glvnd/egl_vendor.d/50_mesa.json"
NOBODY = 65534
SWAY_ENTRY = "[Desktop Entry]\nName=Sway\nExec=sway\nType=Application\n"
PLASMA_ENTRY = "[Desktop Entry]\nName=Plasma\nExec=startplasma-wayland\nType=Application\n"


@pytest.fixture
def seat() -> Iterator[Path]:
    """A directory of a user who is not root: sway refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="orch-seat-") as directory:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)

        yield Path(directory)


def run(command: list[str], seat: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a compositor until it ends by itself."""
    user = NOBODY if os.geteuid() == 0 else None
    environment = {"PATH": os.environ["PATH"], "HOME": str(seat), "XDG_RUNTIME_DIR": str(seat), **variables}
    return subprocess.run(
        command, env=environment, cwd=seat, user=user, group=user, extra_groups=None if user is None else [],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=60, check=False,
    )  # fmt: skip


def session(entry: str) -> LoginSession:
    return LoginSession("/usr/share/wayland-sessions/some.desktop", entry)


def mesa() -> str:
    """The file that a machine with NVIDIA's libraries needs, where it is there: it does no harm without them."""
    return MESA_VENDOR_FILE if os.path.exists(MESA_VENDOR_FILE) else ""


@pytest.mark.skipif(shutil.which("sway") is None, reason="sway is not installed (apt-get install sway)")
def test_sway_draws_on_the_cpu_and_what_it_starts_inherits_that(seat: Path) -> None:
    variables = software_variables(session(SWAY_ENTRY), mesa())
    text = session_text(session(SWAY_ENTRY), "drawn by the CPU", variables)
    command = shlex.split(LoginSession("/usr/share/wayland-sessions/x.desktop", text).fields["Exec"])
    (seat / "config").write_text("exec sh -c 'env > inherited; swaymsg exit'\n")
    done = run([*command, "-d", "-c", "config"], seat, WLR_BACKENDS="headless", WLR_LIBINPUT_NO_DEVICES="1")
    assert "user-specified renderer due to WLR_RENDERER: pixman" in done.stdout
    assert "Creating pixman renderer" in done.stdout
    inherited = dict(line.split("=", 1) for line in (seat / "inherited").read_text().splitlines() if "=" in line)
    assert variables.items() <= inherited.items()


@pytest.mark.skipif(KWIN is None, reason="kwin_wayland is not installed (apt-get install kwin-wayland)")
def test_kwin_draws_on_the_cpu_and_its_opengl_is_llvmpipe(seat: Path) -> None:
    # A copy has not the file's capabilities, which a container may not give; KWin insists on its own name.
    program = str(shutil.copy(KWIN or "", seat / "kwin_wayland"))
    variables = software_variables(session(PLASMA_ENTRY), mesa())
    command = [program, "--virtual", "--no-lockscreen", "--no-global-shortcuts", "--exit-with-session", "/bin/true"]
    own = {"QT_LOGGING_RULES": "kwin_*.debug=true"}
    drawn = run(command, seat, **variables, **own).stdout
    assert "QPainter compositing has been successfully initialized" in drawn
    assert "OpenGL renderer" not in drawn
    without = {name: value for name, value in variables.items() if name != "KWIN_COMPOSE"}
    assert "llvmpipe" in run(command, seat, **without, **own).stdout
