"""What something was measured on, and what is another one later."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.course.marks import MachineNames, changes, circumstances_of, settings_of
from tests.unit.core.course.histories import NEW_DRIVER, ON

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024"
MACHINE = MachineNames("Ryzen", 16, ("RTX 3060",), VERSION, "Linux 6.8.0")


def test_a_command_line_is_read_by_flag() -> None:
    words = ["/engine", "--ctx-size", "8192", "-ts", "3,1", "--no-mmap", "--temp", "-1", "--lora", "a", "--lora", "b"]
    found = settings_of(words)
    assert found == {"--ctx-size": "8192", "-ts": "3,1", "--no-mmap": "", "--temp": "-1", "--lora": "a b"}


def test_what_is_chosen_for_each_start_is_no_setting() -> None:
    one = settings_of(["/a/engine", "--model", "/m", "--port", "1", "--api-key-file", "/k/1", "--alias", "bench-12"])
    assert one == settings_of(["/b/engine", "--model", "/n", "--port", "2", "--api-key-file", "/k/2"]) == {}


def test_circumstances_are_short_enough_to_be_read() -> None:
    found = circumstances_of("b1 0123", "/models/m.gguf", 9, ["/e", "-c", "1"], MACHINE)
    assert (found.model, found.device) == ("m.gguf, 9 bytes", "RTX 3060, Ryzen, 16 CPUs")
    assert found.driver == "NVIDIA UNIX x86_64 Kernel Module 550.54.14"
    assert circumstances_of("b", "m", 9, ["/e"], replace(MACHINE, driver=None)).driver == ""


def test_each_thing_that_changed_is_named() -> None:
    assert changes(ON, replace(ON, settings={**ON.settings})) == ()
    assert [str(each) for each in changes(ON, NEW_DRIVER)] == [
        "driver NVIDIA UNIX x86_64 Kernel Module 550.54 -> NVIDIA UNIX x86_64 Kernel Module 560.28"
    ]
    other = replace(ON, build="b2 f", kernel="Linux 6.9", settings={"--ctx-size": "4096", "--no-mmap": ""})
    assert [str(each) for each in changes(ON, other)] == [
        "build b11434 0123456789ab -> b2 f",
        "kernel Linux 6.8.0 -> Linux 6.9",
        "setting --ctx-size 8192 -> 4096",
        "setting --flash-attn on -> (none)",
        "setting --no-mmap (none) -> on",
    ]
