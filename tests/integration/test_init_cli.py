"""`orch init` on prepared homes: one command from what lies there to an answer of the embedded engine."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf
from orchestrator.cli.setup.first_run.choice import SMALL_MODEL
from orchestrator.engines.known.layout import fields, tensors
from orchestrator.engines.known.model import EOS, known_model, write_known_model
from orchestrator.engines.known.model import _logits as logits
from tests.fakes.hub import StubHub, serving
from tests.support import ORCH, PATIENCE_S, Home, new_home

SERVICE = b"as a service of yours? [y/N] "
"""The last question, which is asked only where the user's systemd answers."""

HUB = ".cache/huggingface/hub/models--org--Vision-GGUF"


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        home.env["HOME"] = os.path.join(home.root, "person")
        home.env = {name: value for name, value in home.env.items() if not name.startswith(("HF_", "XDG_", "OLLAMA_"))}
        os.makedirs(home.env["HOME"])
        yield home


def below(home: Home, path: str) -> Path:
    found = Path(home.env["HOME"]) / path
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def start(home: Home, *words: str) -> Any:
    """Run `orch init --yes`, and return what it tells; the embedded engine computes on one thread."""
    return home.orch_json("init", "--yes", *words)


def write_projector(path: Path, width: int) -> None:
    fields = [Field("general.architecture", "string", "clip"), Field("clip.vision.projection_dim", "u32", width)]
    write_gguf(str(path), fields, [TensorData("mm.0.weight", (width, 32), "f32", [bytes(4 * 32 * width)])])


def write_split(target: Path, layers: int) -> None:
    """Write a model in two parts as `llama-gguf-split` makes them: the metadata in the first, the tensors in both."""
    model = known_model("llama")
    described = fields("llama", model.vocabulary, layers=layers, context_length=32768, eos=EOS)
    every = tensors("llama", layers, model.state, logits(model), model.draft_rows)
    half = len(every) // 2
    for number, part in enumerate((every[:half], every[half:])):
        own = [
            Field("split.no", "u16", number),
            Field("split.count", "u16", 2),
            Field("split.tensors.count", "i32", len(every)),
        ]
        name = f"{target.name}-{number + 1:05d}-of-00002.gguf"
        write_gguf(str(target.with_name(name)), [*(described if number == 0 else ()), *own], part)


def test_an_empty_home_ends_in_a_chat_with_the_demo_and_says_how_to_get_a_model(home: Home) -> None:
    done = home.orch("init", "--yes")
    assert "no model was found" in done.stderr and "orch init hf:" in done.stderr
    assert "demo on embedded answers at http://127.0.0.1:" in done.stdout
    assert "you: Say hello" in done.stdout and "it:  Even a small machine" in done.stdout
    assert not os.path.exists(os.path.join(home.root, "config", "profiles"))


def test_lm_studio_and_the_hub_s_cache_with_splits_and_projectors_end_in_a_chat(home: Home) -> None:
    target = below(home, ".lmstudio/models/org/Large-GGUF/Large-Q8_0")
    write_split(target, 24)
    cut = below(home, ".lmstudio/models/org/Cut-GGUF/Cut-Q8_0-00001-of-00003.gguf")
    cut.write_bytes(b"GGUF")
    broken = below(home, ".lmstudio/models/org/Broken-GGUF/Broken-Q4_K_M.gguf")
    broken.write_bytes(target.with_name("Large-Q8_0-00001-of-00002.gguf").read_bytes()[:90_000])
    for name in ("Vision-Q4_K_M.gguf", "mmproj-F16.gguf"):
        blob = below(home, f"{HUB}/blobs/{hashlib.sha256(name.encode()).hexdigest()}")
        write_projector(blob, 256) if "mmproj" in name else write_known_model(str(blob))
        below(home, f"{HUB}/snapshots/abc/{name}").symlink_to(blob)

    told = start(home)
    assert [
        (each["title"], each["parts"], each["projector"] is not None, each["draft"]) for each in told["models"]
    ] == [
        ("Large", 2, False, None),
        ("Vision", 1, True, "mtp"),
    ]
    assert {each["from"] for each in told["models"]} == {"LM Studio", "Hugging Face"}
    notes = "\n".join(told["notes"])
    assert "2 of the model's 3 parts are missing" in notes and str(broken) in notes
    assert told["profile"] == "large" and told["engine"] == "embedded"
    assert told["answer"]["text"] and told["answer"]["text"] in known_model("llama").greedy_text("\n", 400)
    profile = tomllib.loads(Path(told["file"]).read_text())
    assert profile["model"] == f"{target}-00001-of-00002.gguf"
    assert home.status()["profile"] == "large"


def test_ollama_s_blobs_end_in_a_chat_that_drafts(home: Home) -> None:
    store = Path(home.env["HOME"]) / ".ollama" / "models"
    path = below(home, "m.gguf")
    write_known_model(str(path), stops=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (store / "blobs").mkdir(parents=True)
    path.rename(store / "blobs" / f"sha256-{digest}")
    tag = store / "manifests" / "registry.ollama.ai" / "library" / "toy" / "latest"
    tag.parent.mkdir(parents=True)
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 1}]
    tag.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))

    told = start(home)
    assert (told["profile"], told["models"][0]["from"]) == ("toy", "Ollama")
    assert told["answer"]["text"].startswith("Even a small machine can hold a large thought")
    text = Path(told["file"]).read_text()
    profile = tomllib.loads(text)
    assert profile["speculative"] == {"type": "mtp", "draft_max": 3}
    assert profile["context"] == {"size": 32768, "parallel": 1}
    lines = text.splitlines()
    for at, line in enumerate(lines):  # a reason stands above each setting
        assert " = " not in line or at < lines.index("[context]") or lines[at - 1].startswith("# ")

    again = start(home)
    assert again["file"] == told["file"], "the same profile is not written under a second name"


def test_a_repository_is_fetched_and_ends_in_a_chat(home: Home) -> None:
    path = below(home, "hub/Toy-Q8_0.gguf")
    write_known_model(str(path), "llama", layers=1, stops=True)
    with serving(StubHub({"org/Toy-GGUF": {path.name: str(path)}}, checksums=True)) as hub:
        home.env["HF_ENDPOINT"] = hub.endpoint
        look = home.orch("init", "--dry-run", "hf:org/Toy-GGUF")
        assert "Toy-Q8_0.gguf" in look.stdout and "to fetch" in look.stdout and "would write" not in look.stdout
        told = start(home, "hf:org/Toy-GGUF")

    assert told["profile"] == "toy" and told["answer"]["text"].startswith("Even a small machine")
    model = tomllib.loads(Path(told["file"]).read_text())["model"]
    assert model.endswith("/data/models/org/Toy-GGUF/Toy-Q8_0.gguf")
    assert home.orch_json("init", "--dry-run")["models"][0]["from"] == "orch"


def test_a_dry_run_writes_and_starts_nothing(home: Home) -> None:
    write_known_model(str(below(home, "models/Toy-Q8_0.gguf")), "llama", layers=1)
    before = sorted(path for path in Path(home.root).rglob("*") if "cache" not in path.parts)
    shown = home.orch("init", "--dry-run").stdout
    assert "would write" in shown and 'engine = "embedded"' in shown and "Toy" in shown
    told = home.orch_json("init", "--dry-run")
    assert told["text"] and "address" not in told and told["next"] == []
    assert sorted(path for path in Path(home.root).rglob("*") if "cache" not in path.parts) == before


def test_a_name_that_is_taken_is_said_and_another_one_is_chosen(home: Home) -> None:
    write_known_model(str(below(home, "models/Toy-Q8_0.gguf")), "llama", layers=1)
    home.profile("toy", 'schema = 1\nmodel = "/elsewhere.gguf"\n')
    done = home.orch("init", "--dry-run")
    assert "there is a profile `toy` already: this one is called `toy-q8_0`" in done.stderr
    refused = home.orch("init", "--dry-run", "--name", "toy", check=False)
    assert refused.returncode == 2 and "--force" in refused.stderr
    for name in ("../toy", "Toy Two"):
        wrong = home.orch("init", "--dry-run", "--name", name, check=False)
        assert wrong.returncode == 2 and "cannot be a profile's name" in wrong.stderr

    assert "/profiles/toy.toml" in home.orch("init", "--dry-run", "--name", "toy", "--force").stdout


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_without_a_terminal_it_wants_to_be_told_that_nobody_is_asked(home: Home, words: tuple[str, ...]) -> None:
    done = home.orch("init", *words, check=False)
    assert done.returncode == 2 and "--yes" in done.stderr


def test_a_service_that_cannot_be_had_is_said_before_anything_is_written(home: Home) -> None:
    write_known_model(str(below(home, "models/Toy-Q8_0.gguf")), "llama", layers=1)
    home.env = {name: value for name, value in home.env.items() if name != "DBUS_SESSION_BUS_ADDRESS"}
    home.env["PATH"] = os.path.join(home.root, "no-systemctl")
    done = home.orch("init", "--yes", "--service", check=False)
    assert done.returncode == 1 and "no service:" in done.stderr
    assert not os.path.exists(os.path.join(home.root, "config", "profiles"))


def test_no_engine_is_an_error_that_says_how_to_get_one(home: Home) -> None:
    code = (
        "import sys, orchestrator.cli.setup.first_run.choice as o, orchestrator.cli.main as m\n"
        "o.engines_here = lambda *_: ()\nsys.exit(m.main(['init', '--yes']))"
    )
    done = subprocess.run([ORCH[0], "-c", code], env=home.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install" in done.stderr and "orch engines build upstream" in done.stderr


def test_a_directory_without_a_model_that_can_be_started_says_why(home: Home) -> None:
    below(home, "x/A-Q8_0.gguf").write_bytes(b"not a model at all, but long enough for a header")
    done = home.orch("init", "--yes", str(below(home, "x")), check=False)
    assert done.returncode == 1 and "not a GGUF" in done.stderr


def on_terminal(home: Home, *answers: tuple[bytes, bytes]) -> bytes:
    """Run `orch init` on a terminal, answer each question as it comes, and return what was seen."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*ORCH, "init"], env={**home.env, "TERM": "dumb"}, stdin=slave, stdout=slave, stderr=slave, close_fds=True
    )
    os.close(slave)
    seen, left = b"", list(answers)
    try:
        while chunk := read(master):
            seen += chunk
            if left and seen.endswith(left[0][0]):
                os.write(master, left.pop(0)[1])
    finally:
        os.close(master)

    assert process.wait(PATIENCE_S) == 0, seen.decode()
    assert not [question for question, _ in left if question != SERVICE], seen.decode()
    return seen


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side has gone
        return b""


def test_three_answers_on_a_terminal_choose_model_use_and_no_service(home: Home) -> None:
    for name, layers in (("Small-Q8_0", 1), ("Large-Q8_0", 4)):
        write_known_model(str(below(home, f"models/{name}.gguf")), "llama", layers=layers)

    seen = on_terminal(
        home, (b"which model? [1] ", b"9\n"), (b"which model? [1] ", b"small\n"), (b"what for? [1] ", b"3\n"),
        (SERVICE, b"\n"),
    )  # fmt: skip
    assert b"`9` is none of them" in seen and b"small on embedded answers at" in seen
    path = os.path.join(home.root, "config", "profiles", "small.toml")
    assert tomllib.loads(Path(path).read_text())["context"] == {"size": 65536, "parallel": 4}


def test_where_there_is_no_model_one_word_fetches_a_small_one(home: Home) -> None:
    path = below(home, "hub/Small-Q4_K_M.gguf")
    write_known_model(str(path), "llama", layers=1, stops=True)
    with serving(StubHub({SMALL_MODEL.removeprefix("hf:"): {path.name: str(path)}}, checksums=True)) as hub:
        home.env["HF_ENDPOINT"] = hub.endpoint
        seen = on_terminal(home, (b"which? [1] ", b"\n"), (SERVICE, b"\n"))

    assert b"no model was found" in seen and b"small on embedded answers at" in seen
    assert b"it:  Even a small machine" in seen
