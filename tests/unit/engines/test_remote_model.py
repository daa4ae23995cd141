"""Models in a repository, from its listing to their headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import GgufError
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros
from orchestrator.core.errors import UsageError
from orchestrator.core.plan.repository import ModelReference, choose_model
from orchestrator.engines.remote_model import LATER_PART_BYTES, look_into, read_remote
from tests.fakes.hub import StubHub, serving

REPOSITORY = "org/Model-GGUF"


def part(path: Path, number: int, count: int, tensors: int = 1) -> str:
    fields = [Field("general.architecture", "string", "llama")]
    if count > 1:
        fields += [Field("split.no", "u16", number), Field("split.count", "u16", count)]

    name = f"blk.{number}"
    write_gguf(str(path), fields, [TensorData(f"{name}.t{i}", (32,), "f32", zeros(32)) for i in range(tensors)])
    return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    names = [f"big/M-Q8_0-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    files = {name: part(tmp_path / f"{number}.gguf", number, 3) for number, name in enumerate(names)}
    files |= {"M-Q4_K_M.gguf": part(tmp_path / "small.gguf", 0, 1), "mmproj-F16.gguf": part(tmp_path / "p.gguf", 0, 1)}
    with serving(StubHub({REPOSITORY: files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_every_part_of_a_split_model_is_read_and_little_of_the_later_ones(hub: StubHub) -> None:
    model = choose_model(ModelReference(REPOSITORY, "Q8_0"), look_into(REPOSITORY))
    headers = read_remote(REPOSITORY, model)
    assert [header.tensors[0].name for header in headers] == ["blk.0.t0", "blk.1.t0", "blk.2.t0"]
    asked = [request.range for request in hub.requests if request.host == "cdn"]
    assert asked == ["bytes=0-1048575", *[f"bytes=0-{LATER_PART_BYTES - 1}"] * 2]


def test_a_part_that_the_repository_lacks_is_named_before_anything_is_read(hub: StubHub) -> None:
    files = dict(hub.repositories[REPOSITORY])
    del files["big/M-Q8_0-00002-of-00003.gguf"]
    hub.repositories = {REPOSITORY: files}
    with pytest.raises(GgufError, match="1 of the 3 files of Q8_0 are missing") as caught:
        read_remote(REPOSITORY, choose_model(ModelReference(REPOSITORY, "Q8_0"), look_into(REPOSITORY)))

    assert caught.value.details == ("big/M-Q8_0-00002-of-00003.gguf",)
    assert not any(request.host == "cdn" for request in hub.requests)


def test_parts_of_two_models_do_not_belong_together(hub: StubHub, tmp_path: Path) -> None:
    files = {**hub.repositories[REPOSITORY]}
    files["big/M-Q8_0-00002-of-00003.gguf"] = part(tmp_path / "other.gguf", 2, 3)
    hub.repositories = {REPOSITORY: files}
    with pytest.raises(GgufError, match="do not belong together"):
        read_remote(REPOSITORY, choose_model(ModelReference(REPOSITORY, "Q8_0"), look_into(REPOSITORY)))


def test_a_file_that_was_moved_since_the_listing_is_said(hub: StubHub) -> None:
    model = choose_model(ModelReference(REPOSITORY, ""), look_into(REPOSITORY))
    hub.faults["M-Q4_K_M.gguf"] = "gone"
    with pytest.raises(UsageError, match=r"hf:org/Model-GGUF/M-Q4_K_M.gguf: not there"):
        read_remote(REPOSITORY, model)


@pytest.mark.parametrize("length", [100, 150])
def test_a_file_that_is_cut_in_the_repository_is_not_to_be_downloaded_again(
    hub: StubHub, tmp_path: Path, length: int
) -> None:
    whole = Path(hub.repositories[REPOSITORY]["M-Q4_K_M.gguf"]).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:length])
    hub.repositories = {REPOSITORY: {"M-Q4_K_M.gguf": str(cut)}}
    with pytest.raises(GgufError, match="corrupt|incomplete") as caught:
        read_remote(REPOSITORY, choose_model(ModelReference(REPOSITORY, ""), look_into(REPOSITORY)))

    assert "another quantisation" in (caught.value.hint or "")
