from __future__ import annotations

import struct
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros
from orchestrator.core.errors import OrchError
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.model_check import BrokenModelError, MissingModelError, UnfitModelError, check_fit, read_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    write_known_model(str(path), "llama")
    return path


def profile(model: Path, **settings: Value) -> EngineProfile:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return EngineProfile("small", "upstream", str(model), (), dotted, Recovery(), ())


def check(profile: EngineProfile) -> None:
    check_fit(profile, read_model(profile, profile.model), "upstream")


def retype(path: Path, tensor: str, number: int) -> None:
    data = bytearray(path.read_bytes())
    key = struct.pack("<Q", len(tensor)) + tensor.encode()
    at = data.index(key) + len(key)
    at += 4 + 8 * struct.unpack_from("<I", data, at)[0]
    struct.pack_into("<I", data, at, number)
    path.write_bytes(data)


def write_header(path: Path, architecture: str, *tensors: tuple[str, tuple[int, ...]], **texts: str) -> str:
    fields = [Field("general.architecture", "string", architecture)]
    fields += [Field(key.replace("__", "."), "string", value) for key, value in texts.items()]
    data = []
    for name, shape in tensors or (("x.weight", (32,)),):
        count = 1
        for dimension in shape:
            count *= dimension

        data.append(TensorData(name, shape, "f32", zeros(count)))

    write_gguf(str(path), fields, data)
    return str(path)


def test_whole_files_that_belong_together_pass(model: Path) -> None:
    check(profile(model, speculative__type="draft", speculative__draft_model=str(model)))


@pytest.mark.parametrize(
    ("number", "hint"),
    [(144, "`orch up small --engine ik-fork`"), (142, "take another quantisation"), (139, "ik-fork"), (99, "is whole")],
)
def test_a_tensor_type_that_the_build_does_not_know(model: Path, number: int, hint: str) -> None:
    retype(model, "output.weight", number)
    with pytest.raises(UnfitModelError) as caught:
        check(profile(model))

    assert hint in str(caught.value.hint) and "download" not in str(caught.value.hint)


def test_download_again_is_said_of_a_file_that_is_shorter_than_its_header_says(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(BrokenModelError) as caught:
        check(profile(model))

    assert caught.value.hint == "download the file again" and "bytes are missing" in caught.value.message


def test_a_projector_of_another_model(model: Path, tmp_path: Path) -> None:
    other = write_header(tmp_path / "p.gguf", "clip", ("mm.2.weight", (33, 35)))
    with pytest.raises(UnfitModelError, match="projector is of another model"):
        check(profile(model, multimodal__mmproj=other))


def test_a_draft_model_with_another_tokenizer(model: Path, tmp_path: Path) -> None:
    other = write_header(tmp_path / "d.gguf", "llama", tokenizer__ggml__model="bert")
    with pytest.raises(UnfitModelError, match="another vocabulary"):
        check(profile(model, speculative__type="draft", speculative__draft_model=other))

    check(profile(model, speculative__type="none", speculative__draft_model=other))  # nothing drafts with it


def test_an_adapter_of_another_architecture(model: Path, tmp_path: Path) -> None:
    other = write_header(tmp_path / "l.gguf", "qwen3", general__type="adapter")
    with pytest.raises(UnfitModelError, match="LoRA adapter is of another model"):
        check(profile(model, lora__adapters=(other,)))


@pytest.mark.parametrize("key", ["multimodal__mmproj", "lora__adapters"])
def test_a_file_beside_the_model_that_is_not_there_is_named_with_its_key(model: Path, key: str) -> None:
    value: Value = ("/no.gguf",) if key == "lora__adapters" else "/no.gguf"
    with pytest.raises(MissingModelError) as caught:
        check(profile(model, **{key: value}))

    assert key.replace("__", ".") in caught.value.message and caught.value.details == ("/no.gguf",)


@pytest.mark.parametrize("missing", [2, 3])
def test_a_split_that_is_missing_is_named(model: Path, tmp_path: Path, missing: int) -> None:
    for number in (1, 2, 3):
        if number != missing:
            (tmp_path / f"s-0000{number}-of-00003.gguf").write_bytes(model.read_bytes())

    with pytest.raises(OrchError) as caught:
        check(profile(tmp_path / "s-00001-of-00003.gguf"))

    assert f"s-0000{missing}-of-00003.gguf" in caught.value.details[0]
