"""Profiles and configurations that are wrong: scenario 65."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults.lab import Lab

BAD = {
    "syntax": ("schema = 1\nmodel = \n", 2),
    "unknown key": ('schema = 1\nmodel = "{model}"\nengine = "fake-upstream"\n[context]\nsise = 4096\n', 5),
    "key given twice": ('schema = 1\nmodel = "{model}"\nmodel = "{model}"\n', 3),
    "half written": ('schema = 1\nmodel = "{model}"\nengine = "fake-upst', 3),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_profile_that_is_wrong_at_a_reload_is_told_with_its_line_and_changes_nothing(lab: Lab, kind: str) -> None:
    pid = lab.run("m")["pid"]
    text, line = BAD[kind]
    lab.profile("m", text.replace("{model}", os.path.join(lab.root, "m.gguf")))
    refused = lab.orch("reload", check=False)
    assert refused.returncode == 2
    assert f"m.toml:{line}" in refused.stderr
    lab.ask("r").check_complete(8)
    assert lab.ready("m")["pid"] == pid


def test_a_configuration_that_is_wrong_at_a_reload_is_told_with_its_line_and_changes_nothing(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    lab.configure("[daemon]\nstop_grace_s = 1.0\ndrain = 3\n")
    refused = lab.orch("reload", check=False)
    assert refused.returncode == 2
    assert "orch.toml:3" in refused.stderr
    lab.ask("r").check_complete(8)
    assert lab.ready("m")["pid"] == pid


@pytest.mark.parametrize("text", ["[daemon]\nstop_grace_s = \n", "[daemon]\ndrain = 3\n"], ids=["syntax", "key"])
def test_a_configuration_that_is_wrong_at_the_start_is_told_with_its_line(lab: Lab, text: str) -> None:
    lab.configure(text)
    refused = lab.orch("serve", check=False)
    assert refused.returncode == 2
    assert "orch.toml:2" in refused.stderr


def test_a_profile_that_is_written_all_the_time_disturbs_nothing(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    path = Path(lab.root, "config", "profiles", "m.toml")
    text = path.read_text()
    for number in range(100):
        path.write_text(text[: number * len(text) // 100])
        time.sleep(0.01)

    path.write_text(text)
    lab.ask("r").check_complete(8)
    assert "nothing" in lab.orch("reload").stdout
    assert (lab.ready("m")["pid"], len(lab.starts("m"))) == (pid, 1)
