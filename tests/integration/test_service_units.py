"""The rendered units as systemd itself judges them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.systemd.machine import read_template
from orchestrator.core.config import Config, GatewayConfig
from orchestrator.core.setup.service_unit import Flavour, UnitFacts, render
from tests.support import PATIENCE_S

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: `apt-get install systemd`"
)

MOST_EXPOSED = 2.5
ORCH = (sys.executable, "-m", "orchestrator")  # verify looks whether the program is there


def write(directory: Path, flavour: Flavour, host: str, *, socket: bool) -> list[str]:
    config = Config(gateway=GatewayConfig(host=host))
    version = int(re.findall(r"systemd (\d+)", analyze("--version").stdout)[0])
    environment = {"ORCH_HOME": "/a b/100%"} if flavour == "user" else {}
    keys = "/etc/orch/orch-api-keys" if host == "0.0.0.0" and flavour == "system" else ""
    facts = UnitFacts(flavour, ORCH, version, config, "mine", environment=environment, socket=socket, key_file=keys)
    paths = []
    watch = ("orch-watch.service", "orch-watch.timer")
    for name in ("orch.service", "orch.socket", *watch) if socket else ("orch.service",):
        path = directory / name
        path.write_text(render(read_template(flavour, name), facts))
        paths.append(str(path))

    return paths


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    # `verify --user` looks for units in the session's directory, too.
    env = {**os.environ, "SYSTEMD_PAGER": "", "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": "/run"}
    return subprocess.run(
        ["systemd-analyze", *words], env=env, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


@pytest.mark.parametrize(
    ("flavour", "host", "socket"), list(itertools.product(("user", "system"), ("127.0.0.1", "0.0.0.0"), (False, True)))
)
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, flavour: Flavour, host: str, socket: bool) -> None:
    done = analyze("verify", f"--{flavour}", "--man=no", *write(tmp_path, flavour, host, socket=socket))
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_find_a_mistake(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "system", "127.0.0.1", socket=False)[0])
    path.write_text(path.read_text().replace("WatchdogSec=30", "WatchdogSeconds=30"))
    assert "WatchdogSeconds" in analyze("verify", "--system", "--man=no", str(path)).stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_systems_service_is_exposed_no_more_than_is_said(tmp_path: Path, host: str) -> None:
    path = write(tmp_path, "system", host, socket=False)[0]
    done = analyze("security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}", "--no-pager", path)
    assert done.returncode == 0, done.stdout
    match = re.search(r"exposure level for orch\.service: ([0-9.]+)", done.stdout)
    assert match is not None, done.stdout
    assert float(match[1]) <= MOST_EXPOSED
