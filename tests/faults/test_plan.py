"""What the plan says cannot fit is refused before anything stops, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import true_geometry
from tests.faults.lab import Lab
from tests.support import until

ALL_ON_DEVICE = '[memory]\nfit = false\ngpu_layers = "all"\n'


def card(lab: Lab, total_mib: int, **more: object) -> None:
    device = {"index": 0, "name": "NVIDIA GeForce RTX 3060", "used_mib": 500, "total_mib": total_mib, **more}
    lab.env["ORCH_GPU_REPLAY"] = lab.write("gpus.json", json.dumps({"samples": [[device]]}))


def weightless(lab: Lab, name: str, geometry: str, more: str, *, context: int = 8192, engine: str = "upstream") -> None:
    path = Path(lab.root) / f"{geometry}.gguf"
    if not path.exists():
        true_geometry.write(path, geometry, "iq4_xs")

    text = f'schema = 1\nmodel = "{path}"\nengine = "fake-{engine}"\n[context]\nsize = {context}\nparallel = 1\n{more}'
    lab.profile(name, text)


def test_a_model_larger_than_the_card_is_refused_and_what_runs_serves_on(lab: Lab) -> None:
    card(lab, 12288)
    lab.run("m")
    before = lab.status()["pid"]
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    for words in (["up", "big"], ["switch", "big"], ["up", "big", "--dry-run"], ["switch", "big", "--dry-run"]):
        refused = lab.orch(*words, check=False)
        assert refused.returncode == 1, refused.stderr
        assert "profile `big` does not fit here: it needs" in refused.stderr
        assert "MiB of device memory at least, and there are 12 288 MiB in all" in refused.stderr
        assert "--force" in refused.stderr

    status = lab.status()
    assert (status["state"], status["profile"], status["pid"]) == ("ready", "m", before)


def test_force_tries_it_all_the_same_and_a_daemon_that_comes_back_does_too(lab: Lab) -> None:
    card(lab, 12288)
    lab.serve()
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    lab.orch("up", "big", "--force")
    lab.ready("big")
    assert lab.daemon is not None
    lab.daemon.kill()
    lab.daemon.wait()
    lab.serve()
    lab.ready("big")


def test_what_became_ready_once_is_not_refused_later(lab: Lab) -> None:
    card(lab, 12288)
    lab.serve()
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    lab.orch("up", "big", "--force")
    lab.ready("big")
    lab.orch("down")
    lab.orch("up", "big")
    lab.ready("big")


@pytest.mark.parametrize(
    ("geometry", "more"),
    [
        ("qwen36-35b-a3b", "[memory]\ncpu_moe = true\ngpu_layers = \"all\"\n"),
        ("qwen36-35b-a3b", "[memory]\nn_cpu_moe = 20\ngpu_layers = \"all\"\n"),
        ("qwen36-27b", "[memory]\nfit = true\n"),
        ("qwen36-27b", "[memory]\ngpu_layers = 20\nfit = false\n"),
        ("qwen36-27b", "[memory]\nfit = false\n"),
        ("qwen36-27b", '[memory]\ngpu_layers = "all"\nrequire_device = false\n'),
        ("qwen36-27b", f'{ALL_ON_DEVICE}[environment]\nGGML_CUDA_ENABLE_UNIFIED_MEMORY = "1"\n'),
        ("qwen36-27b", f'{ALL_ON_DEVICE}tensor_overrides = ["ffn=CPU"]\n'),
    ],
    ids=["experts on the host", "some experts on the host", "fitted", "some layers", "the build's default",
         "no device needed", "paged by the driver", "placed by hand"],
)  # fmt: skip
def test_what_may_start_is_not_refused(lab: Lab, geometry: str, more: str) -> None:
    card(lab, 12288)
    lab.serve()
    weightless(lab, "maybe", geometry, more)
    dry = lab.orch("up", "maybe", "--dry-run", check=False)
    assert dry.returncode == 0, dry.stderr


def test_a_step_of_the_ladder_that_fits_is_where_the_start_begins(lab: Lab) -> None:
    card(lab, 12288)
    lab.serve()
    recovery = '[recovery]\nthen = ["context:65536", "context:4096"]\n'
    weightless(lab, "long", "llama31-8b", ALL_ON_DEVICE + recovery, context=131072)
    lab.orch("up", "long")
    status = lab.ready("long")
    assert [attempt["steps"] for attempt in status["attempts"]] == [["context:65536"]]


def test_a_larger_card_takes_it(lab: Lab) -> None:
    card(lab, 24576)
    lab.serve()
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    lab.orch("up", "big")
    lab.ready("big")


def test_profile_check_names_what_does_not_fit_this_machine(lab: Lab) -> None:
    card(lab, 12288)
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    weightless(lab, "fitted", "qwen36-27b", "[memory]\nfit = true\n")
    told = lab.orch("profile", "check", "big", check=False)
    assert "it does not fit this machine: it needs" in told.stdout + told.stderr
    assert told.returncode == 0, "its text is right, and another machine may have the room"
    told = lab.orch("profile", "check", "fitted")
    assert "does not fit" not in told.stdout + told.stderr


def test_status_shows_what_was_planned_and_what_was_read(lab: Lab) -> None:
    card(lab, 24576)
    lab.serve()
    weightless(lab, "big", "qwen36-27b", ALL_ON_DEVICE)
    lab.orch("up", "big")
    lab.ready("big")

    def weights() -> list[Any]:
        rows = lab.status()["memory"]
        return [row for row in rows if row["component"] == "weights" and row["measured_mib"] is not None]

    [row] = until(weights, "it is read back")
    assert (row["place"], row["kind"], row["measured_mib"]) == ("CUDA0", "exact", 42.5), "as the fake says"
    assert row["planned_mib"]["low"] == row["planned_mib"]["high"] > 13000
    assert "memory    CUDA0: 44 MiB" in lab.orch("status").stdout
    assert "weights 42 (planned" in lab.orch("status").stdout
    (told,) = lab.events("plan_contradicted")
    assert "weights on CUDA0: 43 MiB, planned" in told
    assert "took other memory on" in lab.orch("doctor", check=False).stdout


def test_a_new_profile_has_the_numbers_of_the_plan(lab: Lab) -> None:
    card(lab, 12288)
    path = Path(lab.root) / "eight.gguf"
    true_geometry.write(path, "llama31-8b", "q8_0")
    made = lab.orch("profile", "new", "eight", "--model", str(path))
    text = Path(made.stdout.strip()).read_text()
    assert 'engine = "fake-upstream"' in text and "fit_margin = 1024" in text and "parallel = 1" in text
    assert "size = 16384\n" in text, "the plan has no room for more on this card"
    assert lab.orch("profile", "check", "eight").returncode == 0
