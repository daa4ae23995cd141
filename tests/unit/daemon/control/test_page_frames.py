"""What the page shows of the models: those that the status has, and those that clients are offered."""

from __future__ import annotations

from orchestrator.api.types import InstanceStatus
from orchestrator.core.fleet.model_figures import Model, ModelFigures
from orchestrator.daemon.control.page_frames import page_models


def row(profile: str, **more: object) -> InstanceStatus:
    nothing = {
        "profile": profile, "engine": "upstream", "build": "b1", "state": "ready", "pid": 7, "focus": False,
        "pinned": False, "idle_s": 3.0, "in_flight": 0, "queued": 0, "memory": [], "device_mib": 100, "host_mib": 50,
        "unloaded_since": None, "waits": None, "cause": None, "hint": None, "since": "", "progress": "",
    }  # fmt: skip
    return {**nothing, **more}  # type: ignore[typeddict-item]


def model(name: str, *aliases: str, status: str = "unloaded") -> Model:
    return Model(name, aliases, f"about {name}", status, 0, ModelFigures(context_tokens=4096, size_bytes=1 << 30))


def test_what_is_loaded_comes_first_and_the_others_by_name() -> None:
    rows = {"b": row("b", focus=True), "gone": row("gone", state="failed", cause="no file")}
    found = page_models(rows, [model("c"), model("b", "alias", "*"), model("a")])
    assert [each["name"] for each in found] == ["b", "gone", "a", "c"]
    focus, gone, unloaded, _ = found
    assert (focus["state"], focus["focus"], focus["device_mib"]) == ("ready", True, 100)
    assert focus["names"] == ["alias"], "the alias for any name is none that people choose"
    assert (gone["state"], gone["cause"], gone["context_tokens"]) == ("failed", "no file", None)
    assert (unloaded["state"], unloaded["engine"], unloaded["context_tokens"]) == ("unloaded", None, 4096)


def test_what_was_unloaded_is_told_as_that() -> None:
    rows = {"a": row("a", state="stopped", unloaded_since="2026-01-01T00:00:00Z", pid=None)}
    assert page_models(rows, [model("a")])[0]["state"] == "unloaded"
