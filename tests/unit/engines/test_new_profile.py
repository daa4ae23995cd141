"""The numbers of a new profile come from the model's header and the devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.plan.plan import DeviceRoom
from orchestrator.engines.new_profile import first_settings
from tests import true_geometry

CARD = DeviceRoom("NVIDIA GeForce RTX 3060", 12288, 12000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def model(models: Path, geometry: str, quant: str = "iq4_xs") -> str:
    path = models / f"{geometry}-{quant}.gguf"
    if not path.exists():
        true_geometry.write(path, geometry, quant)

    return str(path)


@pytest.mark.parametrize(
    ("geometry", "quant", "devices", "context"),
    [
        ("llama32-3b", "iq4_xs", [CARD], 32768),
        ("llama31-8b", "q8_0", [CARD], 19968),
        ("qwen36-27b", "iq4_xs", [CARD], 32768),  # does not fit at any context: part of it is on the host anyway
        ("qwen36-35b-a3b", "iq4_xs", [CARD], 32768),  # experts give way
        ("llama31-8b", "q8_0", [], 32768),
        ("llama31-8b", "q8_0", [DeviceRoom("device", None, None)], 32768),
    ],
)
def test_the_context_is_the_usual_one_or_the_largest_with_which_a_dense_model_is_on_the_device(
    models: Path, geometry: str, quant: str, devices: list[DeviceRoom], context: int
) -> None:
    found = first_settings(model(models, geometry, quant), "upstream", devices)
    assert found is not None
    size = found.settings["context.size"]
    assert isinstance(size, int) and abs(size - context) <= 512
    assert size % 256 == 0
    assert found.settings["context.parallel"] == 1
    assert found.settings["recovery.margins"] == (1024, 1280, 1536, 2048)
    assert str(size) in found.why


def test_a_file_that_says_nothing_gets_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert first_settings(str(path), "upstream", [CARD]) is None
