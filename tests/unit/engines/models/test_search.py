"""Models in the directories of other programs: found where they lie, and what cannot be read is told."""

from __future__ import annotations

import builtins
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.paths import find_paths
from orchestrator.core.errors import UsageError
from orchestrator.core.setup.found_models import FoundModel
from orchestrator.engines.models import scan
from orchestrator.engines.models.places import known_places
from orchestrator.engines.models.search import Finds, find_below, find_models

HUB = ".cache/huggingface/hub"
OLLAMA = ".ollama/models"


def search(home: Path, **more: str) -> Finds:
    env = {"HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share"), "XDG_RUNTIME_DIR": str(home), **more}
    return find_models(find_paths(env), env)


def put(home: Path, name: str, content: bytes = b"") -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or name.encode())
    return path


def link(home: Path, name: str, to: Path) -> None:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def found(finds: Finds) -> dict[str, FoundModel]:
    return {model.title: model for model in finds.models}


@pytest.mark.parametrize(
    ("name", "owner", "label"),
    [
        (".local/share/orch/models/org/A-GGUF/A-Q8_0.gguf", "orch", "org/A-GGUF"),
        (f"{HUB}/models--org--A-GGUF/snapshots/abc/A-Q8_0.gguf", "Hugging Face", "org/A-GGUF"),
        (".cache/llama.cpp/org_A-GGUF_A-Q8_0.gguf", "llama.cpp", "org/A-GGUF"),
        (".lmstudio/models/org/A-GGUF/A-Q8_0.gguf", "LM Studio", "org/A-GGUF"),
        (".cache/lm-studio/models/org/A-GGUF/A-Q8_0.gguf", "LM Studio", "org/A-GGUF"),
        (".local/share/Jan/data/llamacpp/models/org/A/A-Q8_0.gguf", "Jan", None),
        ("koboldcpp/A-Q8_0.gguf", "KoboldCpp", None),
        ("text-generation-webui/user_data/models/A-Q8_0.gguf", "text-generation-webui", None),
        (".local/share/nomic.ai/GPT4All/A-Q8_0.gguf", "GPT4All", None),
        ("models/deep/er/A-Q8_0.gguf", "you", None),
        ("Downloads/A-Q8_0.gguf", "you", None),
    ],
)
def test_a_model_is_found_in_each_program_s_directory(tmp_path: Path, name: str, owner: str, label: str | None) -> None:
    path = put(tmp_path, name)
    finds = search(tmp_path)
    (model,) = finds.models
    assert (model.title, model.quant, model.path, model.owner) == ("A", "Q8_0", str(path), owner)
    assert label is None or model.label == label
    assert finds.notes == ()


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("HF_HOME", "hf", "hf/hub/models--o--A-GGUF/snapshots/1/A-Q8_0.gguf"),
        ("HF_HUB_CACHE", "hub", "hub/models--o--A-GGUF/snapshots/1/A-Q8_0.gguf"),
        ("LLAMA_CACHE", "ll", "ll/o_A-GGUF_A-Q8_0.gguf"),
        ("LLAMA_CACHE", "ll", "ll/models--o--A-GGUF/snapshots/1/A-Q8_0.gguf"),
        ("XDG_CACHE_HOME", "c", "c/huggingface/hub/models--o--A-GGUF/snapshots/1/A-Q8_0.gguf"),
    ],
)
def test_the_programs_variables_are_followed(tmp_path: Path, variable: str, value: str, name: str) -> None:
    path = put(tmp_path, name)
    (model,) = search(tmp_path, **{variable: str(tmp_path / value)}).models
    assert (model.path, model.label) == (str(path), "o/A-GGUF")


def test_lm_studio_s_own_setting_is_followed(tmp_path: Path) -> None:
    path = put(tmp_path, "disk/org/A-GGUF/A-Q8_0.gguf")
    put(tmp_path, ".lmstudio/settings.json", json.dumps({"downloadsFolder": str(tmp_path / "disk")}).encode())
    assert [model.path for model in search(tmp_path).models] == [str(path)]


def test_a_file_that_jan_names_is_found_where_it_lies(tmp_path: Path) -> None:
    path = put(tmp_path, "disk/A-Q8_0.gguf")
    own = put(tmp_path, ".local/share/Jan/data/llamacpp/models/org/B/model.gguf")
    for name, model in (("A", str(path)), ("org/B", "llamacpp/models/org/B/model.gguf")):
        text = f"embedding: false\nmodel_path: {model}\nname: {name}\n"
        put(tmp_path, f".local/share/Jan/data/llamacpp/models/{name}/model.yml", text.encode())

    assert {model.title: model.path for model in search(tmp_path).models} == {"A": str(path), "B": str(own)}


@pytest.mark.parametrize(
    "text", ['"/disk\\u0000"', '"/\\ud800"', "5", "null", '"relative"', "{", "[" * 5000, '"/nowhere"']
)
def test_settings_that_mean_nothing_are_passed_over(tmp_path: Path, text: str) -> None:
    put(tmp_path, ".lmstudio/settings.json", f'{{"downloadsFolder": {text}}}'.encode())
    put(tmp_path, ".lmstudio-home-pointer", b"/nowhere\0")
    put(tmp_path, ".local/share/Jan/data/llamacpp/models/x/model.yml", b"model_path: /a\0b/c.gguf\n")
    put(tmp_path, ".lmstudio/models/org/A-GGUF/A-Q8_0.gguf")
    assert [model.title for model in search(tmp_path).models] == ["A"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(
        ["application/vnd.ollama.image.model", f"sha256:{'0' * 64}", "sha256:../../x", "", "\0"]
    ),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["layers", "config", "mediaType", "digest", "file_type"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(document=JSON)
def test_any_manifest_is_read_or_passed_over(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    home = tmp_path_factory.mktemp("ollama")
    put(home, f"{OLLAMA}/blobs/sha256-{'0' * 64}", b"blob")
    put(home, f"{OLLAMA}/manifests/registry.ollama.ai/library/a/1b", json.dumps(document).encode())
    assert all(model.path.startswith(str(home / OLLAMA / "blobs")) for model in search(home).models)


def test_the_hub_s_links_lead_to_one_model_whatever_snapshot_they_are_in(tmp_path: Path) -> None:
    root = f"{HUB}/models--org--A-GGUF"
    blob = put(tmp_path, f"{root}/blobs/abc")
    projector = put(tmp_path, f"{root}/blobs/def")
    put(tmp_path, f"{root}/blobs/ghi.incomplete")
    for snapshot in ("old", "new"):
        link(tmp_path, f"{root}/snapshots/{snapshot}/A-Q8_0.gguf", blob)
        link(tmp_path, f"{root}/snapshots/{snapshot}/mmproj-F16.gguf", projector)

    (model,) = search(tmp_path).models
    assert model.projector is not None and os.path.realpath(model.projector) == str(projector)
    assert model.also == ()


def test_a_manifest_tells_the_repository_of_a_file_in_llama_cpp_s_cache(tmp_path: Path) -> None:
    put(tmp_path, ".cache/llama.cpp/manifest=org_x=Some_Model=latest.json", b"{}")
    put(tmp_path, ".cache/llama.cpp/org_x_Some_Model_A-Q8_0.gguf")
    put(tmp_path, ".cache/llama.cpp/org_x_Some_Model_mmproj-F16.gguf")
    put(tmp_path, ".cache/llama.cpp/org_x_Some_Model_B-Q8_0.gguf.downloadInProgress")
    (model,) = search(tmp_path).models
    assert (model.title, model.label, model.projector is not None) == ("A", "org_x/Some_Model", True)


def manifest(home: Path, name: str, layers: dict[str, bytes], file_type: str = "Q4_K_M") -> None:
    digests = {}
    for number, (kind, content) in enumerate(
        {**layers, "config": json.dumps({"file_type": file_type}).encode()}.items()
    ):
        digest = f"{number + 1:0>2}" + f"{abs(hash((name, kind))):062x}"[:62]
        digests[kind] = f"sha256:{digest}"
        if content:
            put(home, f"{OLLAMA}/blobs/sha256-{digest}", content)

    document = {
        "schemaVersion": 2,
        "config": {"digest": digests.pop("config")},
        "layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": each} for kind, each in digests.items()
        ],
    }
    put(home, f"{OLLAMA}/manifests/{name}", json.dumps(document).encode())


def test_ollama_s_blobs_are_found_by_its_manifests_with_their_projectors(tmp_path: Path) -> None:
    manifest(tmp_path, "registry.ollama.ai/library/qwen3-vl/8b", {"model": b"m", "projector": b"p", "template": b"t"})
    manifest(tmp_path, "hf.co/org/A-GGUF/Q8_0", {"model": b"m2"}, "unknown")
    models = found(search(tmp_path))
    vision, plain = models["qwen3-vl-8b"], models["A-GGUF-Q8_0"]
    assert (vision.quant, vision.owner, vision.label) == ("Q4_K_M", "Ollama", "qwen3-vl:8b")
    assert Path(vision.path).read_bytes() == b"m" and vision.projector is not None
    assert Path(vision.projector).read_bytes() == b"p"
    assert (plain.label, plain.projector) == ("hf.co/org/A-GGUF:Q8_0", None)


def test_what_ollama_has_not_as_one_gguf_file_is_told(tmp_path: Path) -> None:
    manifest(tmp_path, "registry.ollama.ai/library/gone/1b", {"model": b""})
    manifest(tmp_path, "registry.ollama.ai/library/adapted/1b", {"model": b"m", "adapter": b"a"})
    manifest(tmp_path, "registry.ollama.ai/library/mlx/1b", {"tensor": b"t"})
    manifest(tmp_path, "registry.ollama.ai/library/cloud/1b", {"license": b"l"})
    put(tmp_path, f"{OLLAMA}/manifests/registry.ollama.ai/library/broken/1b", b"{")
    finds = search(tmp_path)
    (model,) = finds.models
    assert not model.usable and model.problem is not None and "adapter" in model.problem
    said = "\n".join(finds.notes)
    assert "gone:1b: its blob is not there" in said and "mlx:1b: its weights are in no GGUF file" in said
    assert "broken/1b: it is no JSON" in said and "cloud" not in said


def test_links_in_a_circle_and_links_that_lead_nowhere_hold_nobody_up(tmp_path: Path) -> None:
    path = put(tmp_path, "models/a/A-Q8_0.gguf")
    link(tmp_path, "models/a/again", tmp_path / "models")
    link(tmp_path, "models/self.gguf", tmp_path / "models/self.gguf")
    link(tmp_path, "models/gone.gguf", tmp_path / "nowhere")
    link(tmp_path, "models/loop", tmp_path / "models/loop")
    os.mkfifo(tmp_path / "models/fifo.gguf")
    finds = search(tmp_path)
    assert [model.path for model in finds.models] == [str(path)]
    assert [note.partition(": ")[0] for note in finds.notes] == [
        str(tmp_path / "models/gone.gguf"), str(tmp_path / "models/self.gguf"),
    ]  # fmt: skip
    assert "leads nowhere" in finds.notes[0]


def test_a_directory_that_cannot_be_read_is_named_and_the_others_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "models/closed/A-Q8_0.gguf")
    put(tmp_path, "models/open/B-Q8_0.gguf")
    closed, real = str(tmp_path / "models/closed"), os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if path == closed:
            raise PermissionError(13, "Permission denied", path)

        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    finds = search(tmp_path)
    assert [model.title for model in finds.models] == ["B"]
    assert finds.notes == (f"{closed}: Permission denied",)


def test_a_name_that_is_no_utf_8_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with open(os.fsencode(tmp_path / "models") + b"/A-\xff-Q8_0.gguf", "wb"):
        pass

    finds = search(tmp_path)
    assert finds.models == () and "no UTF-8" in finds.notes[0]


def test_partial_files_and_hidden_ones_are_no_models(tmp_path: Path) -> None:
    for name in ("A-Q8_0.gguf.12-0123456789abcdef.part", "A.gguf.tmp", ".A-Q8_0.gguf", "A.safetensors"):
        put(tmp_path, f".local/share/orch/models/org/A-GGUF/{name}")

    assert search(tmp_path) == Finds((), ())


def test_a_place_that_does_not_end_is_left_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MOST_ENTRIES", 50)
    for number in range(80):
        put(tmp_path, f"models/{number}/x.gguf")

    finds = search(tmp_path)
    assert len(finds.models) < 50 and "not looked at further" in finds.notes[0]


def test_ten_thousand_files_are_found_without_opening_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10_000):
        owner = f".lmstudio/models/org{number % 20}/R{number % 400}-GGUF" if number % 2 else f"models/d{number % 8}"
        name = ("A{}-Q8_0", "mmproj-A{}-F16", "B{}-Q4_K_M-00001-of-00002", "mtp-A{}-Q8_0")[number // 2 % 4]
        folder = tmp_path / owner
        if number < 1000:
            folder.mkdir(parents=True, exist_ok=True)

        (folder / f"{name.format(number // 8)}.gguf").touch()

    counts: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def call(*args: object, **named: object) -> object:
            counts[name] += 1
            return real(*args, **named)

        monkeypatch.setattr(module, name, call)

    counted(builtins, "open")
    for name in ("scandir", "stat"):
        counted(os, name)

    finds = search(tmp_path)
    assert len(finds.models) > 4000
    assert counts["open"] < 8  # settings of programs
    assert counts["scandir"] < 700 and counts["stat"] < 13_000


def test_a_directory_and_a_file_can_be_named(tmp_path: Path) -> None:
    path = put(tmp_path, "x/A-Q8_0.gguf")
    put(tmp_path, "x/B-Q8_0.gguf")
    put(tmp_path, "x/mmproj-A-F16.gguf")
    assert {model.title for model in find_below(str(tmp_path / "x")).models} == {"A", "B"}
    (model,) = find_below(str(path)).models
    assert model.path == str(path) and model.projector == str(tmp_path / "x/mmproj-A-F16.gguf")
    for missing in (tmp_path / "none.gguf", tmp_path / "x/mmproj-A-F16.gguf"):
        with pytest.raises(UsageError):
            find_below(str(missing))


def test_no_place_is_listed_twice_and_the_programs_come_before_what_is_one_s_own(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "models")}
    places = known_places(find_paths({**env, "XDG_RUNTIME_DIR": str(tmp_path)}), env)
    assert len({place.path for place in places}) == len(places)
    assert [place.owner for place in places if place.path == str(tmp_path / "models")] == ["Hugging Face"]


TREE = st.recursive(
    st.sampled_from(["A-Q8_0.gguf", "mmproj-F16.gguf", "x.txt", "B-00001-of-00002.gguf", "loop", "dangling.gguf"]).map(
        lambda name: {name: None}
    ),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "models--o--r", "snapshots"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(tree=TREE, layout=st.sampled_from(["models", ".lmstudio/models", HUB, ".cache/llama.cpp", OLLAMA]))
def test_any_tree_is_searched_to_its_end_and_each_file_is_one_model_at_most(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], layout: str
) -> None:
    home = tmp_path_factory.mktemp("home")

    def make(folder: Path, inner: dict[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in inner.items():
            path = folder / name
            if isinstance(content, dict):
                make(path, content)
            elif name == "loop":
                path.symlink_to(home)
            elif name == "dangling.gguf":
                path.symlink_to(home / "nowhere")
            else:
                path.write_bytes(b"x")

    make(home / layout, tree)
    finds = search(home)
    files = [file.identity for model in finds.models for file in model.files]
    assert len(files) == len(set(files))
    assert all(os.path.isfile(file.path) for model in finds.models for file in model.files)
