"""Which of the models that were found are proposed, how each would be started, and what is said of the others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.gguf import splits
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf
from orchestrator.adapters.paths import find_paths
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.core.setup.found_models import FoundModel
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.models import examine as examining
from orchestrator.engines.models import offer as offering
from orchestrator.engines.models.examine import Examined, examine
from orchestrator.engines.models.first_profile import engine_for, propose
from orchestrator.engines.models.offer import EngineHere, Offer, devices_seen, engines_here, offer
from orchestrator.engines.models.search import find_below
from orchestrator.engines.registry import Engine, EngineRegistry
from tests import true_geometry
from tests.unit.engines.engine_scripts import paths_below

CARD = DeviceRoom("RTX 3060", 12288, 11000)
HOST = HostRoom(64000, 60000)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return EngineRegistry(paths_below(tmp_path_factory.mktemp("orch"))).resolve("embedded")


@pytest.fixture(scope="module")
def true_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("true")
    for title, geometry, quant in (
        ("Qwen3.6-35B-A3B-Q4_K_M", "qwen36-35b-a3b", "q4_k_m"), ("Llama-3.1-8B-Q8_0", "llama31-8b", "q8_0"),
        ("Qwen3.6-27B-Q4_K_M", "qwen36-27b", "q4_k_m"), ("Llama-3.3-70B-Q8_0", "llama33-70b", "q8_0"),
    ):  # fmt: skip
        true_geometry.write(folder / f"{title}.gguf", geometry, quant)

    return folder


def model_at(path: Path) -> FoundModel:
    (model,) = find_below(str(path)).models
    return model


def header(path: Path, fields: list[Field], *tensors: tuple[str, tuple[int, ...]]) -> Path:
    written = []
    for name, shape in tensors:
        count = 4
        for each in shape:
            count *= each

        written.append(TensorData(name, shape, "f32", [bytes(count)]))

    write_gguf(str(path), fields, written)
    return path


def architecture(name: str) -> list[Field]:
    return [Field("general.architecture", "string", name)]


def offered(folder: Path, engine: Engine, *devices: DeviceRoom, host: HostRoom = HOST) -> Offer:
    return offer(find_below(str(folder)).models, [EngineHere(engine, devices, False)], host, "chat")


def titles(found: Offer) -> list[str]:
    return [each.examined.model.title for each in found.proposals]


def test_on_a_card_the_largest_that_runs_well_comes_first_and_what_is_slow_last(
    true_models: Path, engine: Engine
) -> None:
    found = offered(true_models, engine, CARD)
    assert titles(found) == ["Qwen3.6-35B-A3B", "Llama-3.1-8B", "Qwen3.6-27B", "Llama-3.3-70B"]
    verdicts = [each.plan.judgement.verdict for each in found.proposals]
    assert verdicts == ["fits_with_offload", "fits", "fits_with_offload", "does_not_fit"]
    assert [each.is_slow for each in found.proposals[:3]] == [False, False, True]


def test_on_the_processor_what_is_read_for_each_token_decides(true_models: Path, engine: Engine) -> None:
    found = offered(true_models, engine)
    assert titles(found)[0] == "Qwen3.6-35B-A3B"  # of 35 billion weights three are read
    assert [each.is_slow for each in found.proposals] == [False, True, True, True]


def test_the_settings_come_from_the_plan_with_its_figures(true_models: Path, engine: Engine) -> None:
    proposal = propose(
        examine(model_at(true_models / "Llama-3.1-8B-Q8_0.gguf")), engine, [CARD._replace(free_mib=11264)], HOST, "chat"
    )
    settings = {each.key: each for each in proposal.settings}
    assert settings["context.size"].value == 16384 and proposal.plan.judgement.verdict == "fits"
    need = proposal.plan.need.device_total(0)
    assert f"{round(need.low_mib)} to {round(need.high_mib)} of 12288 MiB on RTX 3060" in settings["context.size"].why
    assert settings["memory.fit"].value is True and settings["memory.fit_margin"].value == 1024
    assert settings["recovery.margins"].value == (1024, 1280, 1536, 2048)
    assert all(each.why for each in proposal.settings)


def test_a_model_with_mtp_layers_drafts_with_them(true_models: Path, engine: Engine) -> None:
    proposal = propose(examine(model_at(true_models / "Qwen3.6-27B-Q4_K_M.gguf")), engine, [], HOST, "agent")
    settings = {each.key: each.value for each in proposal.settings}
    assert settings["speculative.type"] == "mtp" and "speculative.draft_model" not in settings
    assert "memory.fit" not in settings, "there is no device to fit to"


def test_headers_of_a_few_are_read_however_many_there_are(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_known_model(str(tmp_path / "M0-Q8_0.gguf"), "llama", layers=1)
    for number in range(1, 60):
        os.link(tmp_path / "M0-Q8_0.gguf", tmp_path / f"M{number}-Q8_0.gguf") if number > 40 else (
            tmp_path / f"M{number}-Q8_0.gguf"
        ).write_bytes((tmp_path / "M0-Q8_0.gguf").read_bytes())

    read: list[str] = []
    real = splits.read_splits

    def counted(path: str) -> object:
        read.append(path)
        return real(path)

    monkeypatch.setattr(examining, "read_splits", counted)
    found = offered(tmp_path, engine)
    assert len(found.proposals) == offering.MOST_OFFERED and len(read) == offering.MOST_READ


def test_what_cannot_be_started_is_told_with_the_reason(tmp_path: Path, engine: Engine) -> None:
    write_known_model(str(tmp_path / "Good-Q8_0.gguf"), "llama", layers=1)
    whole = (tmp_path / "Good-Q8_0.gguf").read_bytes()
    (tmp_path / "Cut-Q8_0.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "Text-Q8_0.gguf").write_text("this is a pointer of Git LFS, and not a model\n")
    (tmp_path / "Part-Q8_0-00002-of-00002.gguf").write_bytes(whole)
    header(tmp_path / "Eye-F16.gguf", architecture("clip"), ("mm.0.weight", (4, 4)))
    header(tmp_path / "Words-F16.gguf", [*architecture("llama"), Field("tokenizer.ggml.model", "string", "gpt2")])
    header(tmp_path / "Paint-Q8_0.gguf", architecture("flux"), ("double_blocks.0.img_attn.qkv.weight", (4, 4)))
    found = offered(tmp_path, engine)
    assert titles(found) == ["Good"]
    said = "\n".join(found.notes)
    for part in ("Cut-Q8_0.gguf is incomplete", "Text-Q8_0.gguf: not a GGUF", "1 of the model's 2 parts are missing",
                 "the model is a projector", "it has a vocabulary and no weights", "Paint-Q8_0.gguf"):  # fmt: skip
        assert part in said, said


@pytest.mark.parametrize(
    ("name", "tensor", "what"),
    [("gptoss", "blk.0.attn_qkv.weight", "architecture gptoss"), ("gemma3", "v.blk.0.attn_q.weight", "projector")],
)
def test_what_only_ollama_reads_is_not_proposed(tmp_path: Path, name: str, tensor: str, what: str) -> None:
    header(tmp_path / "m.gguf", architecture(name), (tensor, (4, 4)))
    with pytest.raises(OrchError, match="only Ollama reads") as caught:
        examine(model_at(tmp_path / "m.gguf"))

    assert what in caught.value.details[0]


def pair(tmp_path: Path, *projectors: tuple[str, int]) -> Examined:
    write_known_model(str(tmp_path / "A-Q8_0.gguf"), layers=4)
    write_known_model(str(tmp_path / "B-Q8_0.gguf"), "llama", layers=1)
    for name, width in projectors:
        header(tmp_path / name, architecture("clip"), ("mm.0.weight", (width, 3)))

    (model,) = [each for each in find_below(str(tmp_path)).models if each.title == "A"]
    return examine(model)


def test_a_projector_without_a_name_is_the_model_s_whose_width_it_has(tmp_path: Path) -> None:
    examined = pair(tmp_path, ("mmproj-F16.gguf", 256), ("mmproj-BF16.gguf", 33))
    assert examined.projector == str(tmp_path / "mmproj-F16.gguf")


def test_of_two_that_fit_none_is_guessed(tmp_path: Path) -> None:
    examined = pair(tmp_path, ("mmproj-F16.gguf", 256), ("mmproj-BF16.gguf", 512))
    assert examined.projector is None and "2 projectors lie beside it" in examined.notes[0]


def test_a_projector_of_another_width_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    examined = pair(tmp_path, ("mmproj-A-F16.gguf", 33))
    assert examined.projector is None
    assert examined.notes == (
        "mmproj-A-F16.gguf, which lies beside it, is not used: the projector is of another model",
    )


def test_a_draft_head_of_another_model_is_not_used_and_its_own_layers_draft(tmp_path: Path) -> None:
    write_known_model(str(tmp_path / "A-Q8_0.gguf"), layers=4)
    header(tmp_path / "mtp-A-Q8_0.gguf", [*architecture("qwen35"), Field("qwen35.embedding_length", "u32", 512),
           Field("qwen35.nextn_predict_layers", "u32", 1)], ("blk.0.nextn.eh_proj.weight", (4, 4)))  # fmt: skip
    examined = examine(model_at(tmp_path / "A-Q8_0.gguf"))
    assert (examined.drafter, examined.draft) == (None, "mtp")
    assert "width 512" in examined.notes[0]


def test_a_draft_head_of_its_own_is_used_with_a_file_that_has_none(tmp_path: Path, engine: Engine) -> None:
    write_known_model(str(tmp_path / "A-Q8_0.gguf"), "llama", layers=1)
    head = header(tmp_path / "mtp-A-Q8_0.gguf", [*architecture("llama"), Field("llama.embedding_length", "u32", 256),
                  Field("llama.nextn_predict_layers", "u32", 1)], ("blk.0.nextn.eh_proj.weight", (4, 4)))  # fmt: skip
    examined = examine(model_at(tmp_path / "A-Q8_0.gguf"))
    assert (examined.drafter, examined.draft) == (str(head), "mtp")
    settings = {each.key: each.value for each in propose(examined, engine, [], HOST, "chat").settings}
    assert (settings["speculative.type"], settings["speculative.draft_model"]) == ("mtp", str(head))


@pytest.mark.parametrize(
    ("pooling", "kind", "key"), [(3, "embedding", "server.embeddings"), (4, "reranker", "server.reranking")]
)
def test_a_model_whose_header_names_a_pooling_measures_texts(
    true_models: Path, engine: Engine, pooling: int, kind: str, key: str
) -> None:
    examined = examine(model_at(true_models / "Llama-3.1-8B-Q8_0.gguf"))
    first = examined.parts[0]
    part = replace(first, kv={**first.kv, "llama.pooling_type": pooling})
    assert examining._kind(part) == kind
    found = propose(replace(examined, parts=(part,), kind=kind), engine, [], HOST, "chat")
    settings = {each.key: each.value for each in found.settings}
    assert settings[key] is True and settings["batch.ubatch"] == settings["context.size"] == 2048
    assert "speculative.type" not in settings and "server.pooling" not in settings


def test_the_engine_is_the_first_that_reads_the_model(tmp_path: Path, engine: Engine) -> None:
    fork = replace(engine, id="ik-fork", capabilities=replace(engine.capabilities, kind="ik"))
    write_known_model(str(tmp_path / "A-Q8_0.gguf"), "llama", layers=1)
    examined = examine(model_at(tmp_path / "A-Q8_0.gguf"))
    assert engine_for(examined, [engine, fork]) is engine
    first = examined.parts[0]
    forks_own = replace(first.tensors[0], type=144)  # IQ4_KS
    examined = replace(examined, parts=(replace(first, tensors=(forks_own, *first.tensors[1:])),))
    assert engine_for(examined, [engine, fork]) is fork
    with pytest.raises(OrchError, match="cannot read this quantisation"):
        engine_for(examined, [engine])


def test_a_build_tells_the_devices_that_it_uses(tmp_path: Path, engine: Engine) -> None:
    script = tmp_path / "llama-server"
    script.write_text(
        "#!/bin/sh\ncat <<END\nggml_cuda_init: found 1 CUDA devices:\nAvailable devices:\n"
        "  CUDA0: NVIDIA GeForce RTX 3060 (12288 MiB, 11900 MiB free)\n  Vulkan0: (none) of ours\nEND\n"
    )
    script.chmod(0o755)
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    assert devices_seen(replace(engine, path=str(script)), paths) == (
        DeviceRoom("NVIDIA GeForce RTX 3060", 12288, 11900),
    )
    script.write_text("#!/bin/sh\nexit 1\n")
    assert devices_seen(replace(engine, path=str(script)), paths) is None
    assert devices_seen(engine, paths) == ()


def test_an_engine_that_uses_the_device_comes_first_and_one_that_does_not_says_so(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"upstream": (), "ik-fork": None, "embedded": (CARD._replace(name="as the build calls it"),)}

    def resolve(registry: EngineRegistry, name: str) -> Engine:
        return replace(engine, id=name)

    monkeypatch.setattr(EngineRegistry, "resolve", resolve)
    monkeypatch.setattr(offering, "devices_seen", lambda found, paths: seen[found.id])
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    found = engines_here(paths, (CARD,))
    assert [(each.engine.id, each.devices, each.blind) for each in found] == [
        ("ik-fork", (CARD,), False),  # a build that cannot be asked is taken to use what is there
        ("embedded", (CARD,), False),
        ("upstream", (), True),
    ]
    untold = engines_here(paths, ())  # no driver tells of a device: the build that sees one does
    assert untold[0].engine.id == "embedded" and untold[0].devices[0].name == "as the build calls it"
    assert not any(each.blind for each in untold)
