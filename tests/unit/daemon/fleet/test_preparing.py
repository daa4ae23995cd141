from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import read_gguf
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros
from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.paths import Paths, make_directories
from orchestrator.adapters.process.key_handover import sweep_keys
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.daemon.fleet import preparing
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.model_check import MissingModelError
from orchestrator.engines.registry import Engine, EngineRegistry
from tests.installed_builds import install_build
from tests.unit.engines.engine_scripts import UPSTREAM, engine, paths_below

PROFILE = """
schema = 1
model = "{model}"

[memory]
gpu_layers = 1

[engine.upstream.memory]
gpu_layers = 2
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A home with one profile, whose engine upstream, found by its variable, is a program that answers as one."""
    found = paths_below(tmp_path)
    make_directories(found)
    os.makedirs(found.profiles, exist_ok=True)
    monkeypatch.setenv("ORCH_ENGINE_UPSTREAM", str(engine(tmp_path / "llama-server", UPSTREAM)))
    (tmp_path / "m.gguf").touch()
    write_known_model(str(tmp_path / "m.gguf"), "llama")
    Path(found.profiles, "p.toml").write_text(PROFILE.format(model=tmp_path / "m.gguf"))
    return found


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were looked up, in their order."""
    names: list[str] = []
    resolve = EngineRegistry.resolve

    def counted(self: EngineRegistry, id_or_path: str) -> Engine:
        names.append(id_or_path)
        return resolve(self, id_or_path)

    monkeypatch.setattr(EngineRegistry, "resolve", counted)
    return names


def test_a_start_looks_up_its_engine_once_and_renders_the_one_that_it_checked(
    paths: Paths, looked_up: list[str]
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    resolved = preparer.resolve("p", None)
    assert looked_up == ["upstream"]

    looked_up.clear()
    launch = preparer.prepare("i-1", resolved.target, None)
    assert looked_up == ["upstream"]
    assert launch.rendered.argv[0] == resolved.argv[0] == launch.rendered.binary
    assert launch.model_bytes == resolved.model_bytes == os.path.getsize(resolved.model_path)


def test_an_engine_given_by_its_path_is_started_with_what_the_profile_says_for_its_kind(
    paths: Paths, tmp_path: Path
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    resolved = preparer.resolve("p", str(tmp_path / "llama-server"))
    launch = preparer.prepare("i-1", resolved.target, None)
    assert launch.profile.settings["memory.gpu_layers"] == 2
    assert launch.written == launch.profile
    assert preparer.changes(launch) == ()


def test_what_the_text_says_differently_since_is_named(paths: Paths, tmp_path: Path) -> None:
    preparer = Preparer(paths, GpuReader(()))
    launch = preparer.prepare("i-1", preparer.resolve("p", None).target, None)
    file = Path(paths.profiles, "p.toml")
    file.write_text(file.read_text().replace("gpu_layers = 2", "gpu_layers = 3"))
    assert preparer.changes(launch) == ("memory.gpu_layers",)


def test_the_key_of_a_launch_is_its_own_and_goes_with_it(paths: Paths) -> None:
    preparer = Preparer(paths, GpuReader(()))
    launch = preparer.prepare("i-1", preparer.resolve("p", None).target, None)
    assert Path(launch.key.path).read_text() == launch.api_key
    assert os.stat(launch.key.path).st_mode & 0o777 == 0o600

    launch.key.forget()
    launch.key.forget()
    assert not os.path.exists(launch.key.path)


def test_a_model_that_does_not_exist_is_refused_before_anything_is_made(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").unlink()
    preparer = Preparer(paths, GpuReader(()))
    with pytest.raises(MissingModelError) as caught:
        preparer.resolve("p", None)

    assert caught.value.details == (str(tmp_path / "m.gguf"),)
    assert not os.path.exists(os.path.join(paths.runtime, "keys"))


def test_an_engine_alone_is_a_target_while_a_profile_runs(paths: Paths) -> None:
    preparer = Preparer(paths, GpuReader(()))
    running = preparer.resolve_text("p", None).target
    assert preparer.resolve_text("upstream", running).target == running
    with pytest.raises(UsageError, match="no profile runs"):
        preparer.resolve_text("upstream", None)


def test_a_build_that_is_not_current_is_started_with_what_the_profile_says_for_its_engine(
    paths: Paths, tmp_path: Path
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    new = install_build(paths, "upstream", "b2", engine(tmp_path / "new", UPSTREAM, version="version: 2 (abc)"))
    target = preparer.resolve_text("p@upstream@b2", None).target
    launch = preparer.prepare("i-1", target, None)
    assert str(target) == "p@upstream@b2"
    assert (launch.rendered.engine, launch.rendered.binary) == ("upstream", new.server)
    assert launch.profile.settings["memory.gpu_layers"] == 2


MTP = """
schema = 1
model = "{model}"

[speculative]
type = "mtp"
draft_model = "{drafter}"
"""


def write_header(path: Path, architecture: str, **numbers: int) -> None:
    fields = [Field("general.architecture", "string", architecture)]
    fields += [Field(f"{architecture}.{key}", "u32", value) for key, value in numbers.items()]
    write_gguf(str(path), fields, [TensorData("x.weight", (32,), "f32", zeros(32))])


def test_mtp_drafts_with_a_file_of_its_own_where_the_model_has_no_head(paths: Paths, tmp_path: Path) -> None:
    drafter = tmp_path / "drafter.gguf"
    Path(paths.profiles, "p.toml").write_text(MTP.format(model=tmp_path / "m.gguf", drafter=drafter))
    width = read_gguf(str(tmp_path / "m.gguf")).number("embedding_length")
    assert width is not None
    write_header(drafter, "gemma4-assistant", embedding_length=8, embedding_length_out=width)
    launch = Preparer(paths, GpuReader(())).resolve("p", None)
    assert str(drafter) in launch.argv


@pytest.mark.parametrize(
    ("architecture", "numbers", "words"),
    [
        ("gemma4-assistant", {"embedding_length_out": 12345}, "for a model of width 12345"),
        ("llama", {"embedding_length": 64}, "has no MTP layers"),
        ("qwen35", {"embedding_length": 12345, "nextn_predict_layers": 1}, "for a model of width 12345"),
    ],
)
def test_a_file_that_cannot_draft_for_the_model_is_refused_before_a_start(
    paths: Paths, tmp_path: Path, architecture: str, numbers: dict[str, int], words: str
) -> None:
    drafter = tmp_path / "drafter.gguf"
    Path(paths.profiles, "p.toml").write_text(MTP.format(model=tmp_path / "m.gguf", drafter=drafter))
    write_header(drafter, architecture, **numbers)
    with pytest.raises(UsageError) as caught:
        Preparer(paths, GpuReader(())).resolve("p", None)

    assert words in caught.value.message and str(drafter) in caught.value.details[0]


def test_a_drafter_that_does_not_exist_is_named(paths: Paths, tmp_path: Path) -> None:
    text = MTP.format(model=tmp_path / "m.gguf", drafter=tmp_path / "none.gguf")
    Path(paths.profiles, "p.toml").write_text(text)
    with pytest.raises(MissingModelError, match="the drafter's file"):
        Preparer(paths, GpuReader(())).resolve("p", None)


@pytest.mark.parametrize("kind", ['"mtp"', '["ngram-mod", "mtp"]'])
def test_mtp_without_a_head_and_without_a_drafter_is_refused(paths: Paths, tmp_path: Path, kind: str) -> None:
    text = f'schema = 1\nmodel = "{tmp_path / "m.gguf"}"\n[speculative]\ntype = {kind}\n'
    Path(paths.profiles, "p.toml").write_text(text)
    with pytest.raises(UsageError, match="the model has no MTP head") as caught:
        Preparer(paths, GpuReader(())).resolve("p", None)

    assert "speculative.draft_model" in (caught.value.hint or "")


def test_a_head_that_lies_beside_its_model_is_named_with_the_command(paths: Paths, tmp_path: Path) -> None:
    width = read_gguf(str(tmp_path / "m.gguf")).number("embedding_length")
    assert width is not None
    write_header(tmp_path / "mtp-of-another.gguf", "llama", embedding_length=width + 1, nextn_predict_layers=1)
    write_header(tmp_path / "mtp-this one.gguf", "llama", embedding_length=width, nextn_predict_layers=1)
    text = f'schema = 1\nmodel = "{tmp_path / "m.gguf"}"\n[speculative]\ntype = "mtp"\n'
    Path(paths.profiles, "p.toml").write_text(text)
    with pytest.raises(UsageError, match="the model has no MTP head") as caught:
        Preparer(paths, GpuReader(())).resolve("p", None)

    assert caught.value.hint == f"`orch profile set p speculative.draft_model='{tmp_path / 'mtp-this one.gguf'}'`"


def test_embeddings_of_a_file_that_names_no_pooling_are_refused_before_a_start(paths: Paths, tmp_path: Path) -> None:
    text = f'schema = 1\nmodel = "{tmp_path / "m.gguf"}"\n[server]\nembeddings = true\n'
    Path(paths.profiles, "p.toml").write_text(text)
    with pytest.raises(UsageError, match="does not say how") as caught:
        Preparer(paths, GpuReader(())).resolve("p", None)

    assert '"last" for decoders' in caught.value.details[0]
    Path(paths.profiles, "p.toml").write_text(text + 'pooling = "last"\n')
    argv = Preparer(paths, GpuReader(())).resolve("p", None).argv
    assert argv[argv.index("--pooling") + 1] == "last"


def test_a_build_that_is_not_what_was_installed_is_neither_resolved_nor_started(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    target = preparer.resolve("p", None).target
    asked: list[str] = []

    def changed(path: str) -> str:
        asked.append(path)
        return f"{path} has another sha256"

    monkeypatch.setattr(preparing, "verify", changed)
    for start in (lambda: preparer.resolve("p", None), lambda: preparer.prepare("i-1", target, None)):
        with pytest.raises(OrchError, match="its build was changed") as caught:
            start()

        assert "another sha256" in caught.value.details[0]

    assert len(asked) == 2
    assert not os.path.exists(os.path.join(paths.keys, "i-1"))


def test_a_key_that_cannot_be_written_is_in_memory_and_its_engine_starts(paths: Paths) -> None:
    os.makedirs(paths.runtime, exist_ok=True)
    Path(paths.keys).write_text("no directory")
    Path(paths.state, "engine").parent.mkdir(exist_ok=True)
    Path(paths.state, "engine").write_text("no directory")
    preparer = Preparer(paths, GpuReader(()))
    launch = preparer.prepare("i-1", preparer.resolve("p", None).target, None)
    assert Path(launch.key.path).read_text() == launch.api_key
    assert launch.key.path in launch.rendered.argv
    assert launch.directory == "/"
    assert [text.split(" (")[0] for text in launch.lacking] == ["its directory", "its key file"]
    launch.key.forget()
    launch.key.forget()
    assert not os.path.exists(launch.key.path)


def test_keys_of_an_earlier_daemon_are_swept_and_nothing_else(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("a.1", "b.2"):
        (keys / name).write_text("key")

    (keys / "directory").mkdir()
    (keys / "link").symlink_to(tmp_path)
    assert sweep_keys(str(keys)) == 2
    assert sorted(os.listdir(keys)) == ["directory", "link"]
    assert sweep_keys(str(tmp_path / "none")) == 0
