"""An engine crashes while a file that it needs cannot be used for a moment: once that is mended, it serves again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.lab import Lab
from tests.support import until

Step = Callable[[str], None]


def empty(path: str) -> None:
    os.rename(path, f"{path}.away")
    open(path, "w", encoding="utf-8").close()  # an editor, a compiler or a copy that has just begun


def append(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("\nxx = [\n")


def cut_last_line(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        text = file.read()

    with open(path, "w", encoding="utf-8") as file:
        file.write(text.removesuffix("\nxx = [\n"))


def take_away(path: str) -> None:
    os.rename(path, f"{path}.away")


def bring_back(path: str) -> None:
    os.replace(f"{path}.away", path)


CASES: dict[str, tuple[str, Step, Step]] = {
    "the profile is half written": ("config/profiles/a.toml", append, cut_last_line),
    "the profile is empty": ("config/profiles/a.toml", empty, bring_back),
    "the model is away": ("a.gguf", take_away, bring_back),
    "the model is empty": ("a.gguf", empty, bring_back),
    "the program is away": ("fakes/mine", take_away, bring_back),
    "the program is being written": ("fakes/mine", empty, bring_back),
    "the program may not be run": (
        "fakes/mine",
        lambda path: os.chmod(path, 0o644),
        lambda path: os.chmod(path, 0o755),
    ),
    "the engines are not listed": ("data/engines.toml", take_away, bring_back),
}


@pytest.mark.parametrize("case", CASES)
def test_a_crash_while_a_file_cannot_be_used_is_not_for_good(lab: Lab, case: str) -> None:
    lab.fake("mine", "upstream")
    lab.model("a", engine="mine")
    lab.serve("a")
    pid = int(lab.ready("a")["pid"])
    path, breaks, mends = CASES[case]
    path = os.path.join(lab.root, path)
    breaks(path)
    os.kill(pid, signal.SIGKILL)
    until(lambda: lab.status()["state"] == "failed", "it cannot be started")
    mends(path)
    lab.ready("a")
    assert any("files have changed" in text for text in lab.events("looked_again"))
    answer = lab.ask("a1", 3)
    assert answer.status == 200, json.dumps(answer.headers)
