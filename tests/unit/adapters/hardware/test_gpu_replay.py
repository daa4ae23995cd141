"""Devices from a recording, and what is said of a file that is none."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import msgspec
import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.gpu_replay import Device, Replay
from orchestrator.adapters.hardware.gpu_sources import open_gpus
from orchestrator.core.errors import UsageError

CARD = {"index": 0, "name": "A", "used_mib": 9000, "total_mib": 12288}


def recorded(path: Path, *samples: object, **more: object) -> str:
    file = path / "gpus.json"
    file.write_text(json.dumps({"samples": samples, **more}))
    return str(file)


def test_the_variable_makes_a_recording_the_devices(tmp_path: Path) -> None:
    full = {**CARD, "utilization": 0.9, "throttle": ["power_cap"], "processes": {"7": 100}}
    reader = open_gpus({"ORCH_GPU_REPLAY": recorded(tmp_path, [full])})
    expected = GpuReading(0, "A", 9000, 12288, utilization=0.9, throttle=("power_cap",), processes={7: 100})
    assert reader.read() == (expected,)


def test_a_recording_can_hold_every_field_of_a_reading() -> None:
    recorded_ones = [(field.name, field.default) for field in msgspec.structs.fields(Device) if not field.required]
    readings = [(field.name, field.default) for field in dataclasses.fields(GpuReading)]
    assert recorded_ones == readings[4:]
    assert [field.name for field in msgspec.structs.fields(Device)] == [name for name, _ in readings]


def test_samples_follow_each_other_and_begin_again(tmp_path: Path) -> None:
    source = Replay(recorded(tmp_path, [CARD], [], every_s=0.05))
    seen: list[int] = []
    deadline = time.monotonic() + 10.0
    while seen.count(1) < 2 and time.monotonic() < deadline:
        count = len(source.query(()))
        if seen[-1:] != [count]:
            seen.append(count)

        time.sleep(0.005)

    assert seen[:3] in ([1, 0, 1], [0, 1, 0])


def test_the_engine_of_a_recording_is_the_one_that_runs(tmp_path: Path) -> None:
    source = Replay(recorded(tmp_path, [{**CARD, "processes": {"engine": 8000, "7": 300}}]))
    running, idle = source.query((900, 901))[0], source.query(())[0]
    assert (running.processes, running.used_mib) == ({900: 8000, 7: 300}, 9000)
    assert (idle.processes, idle.used_mib) == ({7: 300}, 1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "truncated"),
        ('{"samples": []}', "0 samples"),
        ('{"samples": [[{"index": 0}]]}', "$.samples[0][0]"),
        ('{"samples": [[{"index": 0, "name": "A", "used_mib": "x", "total_mib": 1}]]}', "$.samples[0][0].used_mib"),
        ('{"samples": [[{"index": 0, "name": "A", "used_mib": 1, "total_mib": 1, "watts": 3}]]}', "watts"),
        (
            '{"samples": [[{"index": 0, "name": "A", "used_mib": 1, "total_mib": 1, "processes": {"x": 1}}]]}',
            "`x`; allowed",
        ),
        ('{"samples": [[]], "every_s": 0}', "every_s 0"),
    ],
)
def test_a_wrong_recording_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        open_gpus({"ORCH_GPU_REPLAY": str(path)})

    assert said in " ".join(caught.value.details)
    assert str(path) in caught.value.message and caught.value.hint


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the recording"):
        Replay(str(tmp_path / "none.json"))
