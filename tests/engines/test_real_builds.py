"""Both engines as they really are: what they print, what they accept, and what they say with a model that is known."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.core.dialect.model_limits import refuse_model
from orchestrator.core.dialect.render import UnsupportedError, render
from orchestrator.core.profile.settings import BY_PATH, KV_TYPES, SETTINGS, Value
from orchestrator.engines.ask import Answer, ask
from orchestrator.engines.build import installs
from orchestrator.engines.known.model import KnownModel, write_known_model
from orchestrator.engines.registry import Engine
from tests.engines.conftest import engine_paths
from tests.engines.serving import environment, serving, started
from tests.support import until
from tests.unit.core.dialect.dialect_samples import _samples
from tests.unit.core.dialect.fixture_builds import profile

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

NOT_ASKED = {
    "memory.rpc": "the engine connects to it at once",
    "memory.devices": "names devices of another machine",
    "multimodal.device": "names a device of another machine",
    "speculative.draft_devices": "names devices of another machine",
}

FORK_REFUSES_ON_CPU = ("f32", "q5_0", "q5_1")
"""With flash attention; it lists the others when it aborts."""

FORK_V_TYPES = {"q8_KV": "q8_0"}
"""As a type of V it aborts."""

SMALL = ("-c", "512", "-np", "1")


class Model(NamedTuple):
    path: str
    known: KnownModel


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """`llama`, which every build loads, and `mtp`, which has a draft head."""
    directory = tmp_path_factory.mktemp("models")
    plain, mtp = str(directory / "llama.gguf"), str(directory / "mtp.gguf")
    return {"llama": Model(plain, write_known_model(plain, "llama")), "mtp": Model(mtp, write_known_model(mtp))}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What command lines refer to."""
    (tmp_path / "key").write_text("key")
    (tmp_path / "template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    return tmp_path


def line(engine: Engine, settings: Mapping[str, Value], files: Path, model: str = "/m.gguf") -> tuple[str, ...]:
    """The words that orch would start it with, without host and port.

    :raises UnsupportedError: when the build does not claim to know one of the settings
    """
    what = profile(dict(settings))
    words = render(
        what, engine.capabilities, build="b", model=model, host="HOST", port="PORT", api_key_file=str(files / "key")
    ).argv
    joined = "\0".join(words)
    return tuple(joined.replace("\0--host\0HOST", "").replace("\0--port\0PORT", "").split("\0"))


def says(engine: Engine, directory: Path, *words: str) -> Answer:
    return ask(engine.path, words, env=environment(directory), cwd=str(directory))


def test_it_is_the_build_that_was_installed(engine: Engine) -> None:
    assert engine.source == "installed"
    assert installs.verify(engine.path) is None


def test_version_tells_what_is_known_about_the_source(engine: Engine, tmp_path: Path) -> None:
    manifest = next(each for each in installs.installed(engine.id, engine_paths()) if each.current).manifest
    text = says(engine, tmp_path, "--version").stderr
    number, commit = manifest["build_number"] or 0, (manifest["commit"] or "unknown")[:9]
    wanted = f"version: {number} ({commit})" if engine.id == "ik-fork" else f"(build {number}, commit {commit})"
    assert wanted in text
    assert engine.capabilities.build_number == manifest["build_number"]
    assert engine.capabilities.commit == (manifest["commit"] and commit)


def test_the_tools_beside_the_server_run(engine: Engine, tmp_path: Path) -> None:
    directory = Path(engine.path).parent
    names = {each.name for each in directory.iterdir()}
    rpc = "rpc-server" if engine.id == "ik-fork" else "ggml-rpc-server"
    assert {"llama-server", "llama-bench", rpc} <= names
    for name in sorted(names & {"llama-bench", "llama-fit-params", rpc}):
        answer = ask(str(directory / name), ["--help"], env=environment(tmp_path), cwd=str(tmp_path))
        assert "usage" in answer.text.lower(), answer


def test_every_setting_that_the_build_claims_is_accepted(engine: Engine, files: Path) -> None:
    accepted: set[str] = set()
    refused: list[str] = []
    for setting in SETTINGS:
        for speculation, value in _samples(setting) if setting.path not in NOT_ASKED else ():
            settings = _complete(setting.path, speculation, _real(setting.path, value, files), files)
            try:
                words = line(engine, settings, files)
            except UnsupportedError:
                continue

            answer = says(engine, files, *words, "--version")
            if answer.returncode != 0 or "version: " not in answer.text:
                refused.append(f"{settings}: {' '.join(words)}\n  {answer.stderr.strip()[:300]}")
            else:
                accepted.add(setting.path)

    assert not refused, "\n".join(refused)
    assert {"context.size", "kv.k", "memory.gpu_layers", "batch.ubatch", "cache.prompt_ram_mib"} <= accepted
    assert len(accepted) > len(SETTINGS) // 2


def test_a_flag_that_does_not_exist_is_refused(engine: Engine, files: Path) -> None:
    assert says(engine, files, "--no-such-flag", "--version").returncode == 1


def test_settings_have_their_effect(engine: Engine, files: Path, models: dict[str, Model]) -> None:
    settings: dict[str, Value] = {
        "context.size": 1024,
        "context.parallel": 2,
        "batch.size": 256,
        "batch.ubatch": 64,
        "kv.k": "q8_0",
        "kv.v": "q8_0",
        "attention.flash": True,
        "sampling.temperature": 0.25,
        "sampling.top_k": 17,
        "sampling.min_p": 0.125,
    }
    with serving(engine, files, *line(engine, settings, files, models["llama"].path)) as server:
        status, props = server.request("GET", "/props", key="key")
        assert status == 200, props
        assert props["total_slots"] == 2
        assert props["default_generation_settings"]["n_ctx"] in (512, 1024)
        log = server.text()

    for name, number in (("n_batch", 256), ("n_ubatch", 64), ("n_ctx", 1024)):
        assert re.search(rf"\b{name}\s*= {number}\b", log), name

    assert re.search(r"K \(q8_0\):.*V \(q8_0\):", log)
    defaults = props["default_generation_settings"]
    sampling = defaults.get("params", defaults)
    assert [round(sampling[key], 3) for key in ("temperature", "top_k", "min_p")] == [0.25, 17, 0.125]


def test_every_type_of_the_cache_works(engine: Engine, files: Path, models: dict[str, Model]) -> None:
    model = models["llama"]
    worked: list[str] = []
    for kind in KV_TYPES:
        if engine.id == "ik-fork" and kind in FORK_REFUSES_ON_CPU and _backend(engine) == "cpu":
            continue

        try:
            words = line(engine, cache(kind, FORK_V_TYPES.get(kind, kind)), files, model.path)
        except UnsupportedError:
            continue

        with serving(engine, files, *words) as server:
            assert server.complete("Hello", 16, key="key")["content"] == model.known.greedy_text("Hello", 16), kind
            assert f"K ({kind})" in server.text(), kind

        worked.append(kind)

    assert {"f16", "q8_0", "q4_0"} <= set(worked)
    assert ("q6_0" in worked) == ("q8_KV" in worked) == (engine.id == "ik-fork")


@pytest.mark.parametrize(
    ("k", "v", "why"),
    [
        *((kind, kind, "is not a supported combination on the CPU backend") for kind in FORK_REFUSES_ON_CPU),
        ("q8_KV", "q8_KV", "GGML_ASSERT(view_src == NULL"),
    ],
)
def test_the_fork_aborts_on_some_types_of_the_cache(
    fork: Engine, files: Path, models: dict[str, Model], k: str, v: str, why: str
) -> None:
    if _backend(fork) != "cpu" or fork.capabilities.spec_stages:
        pytest.skip("known of the CPU build of the fork's archive 0.1.5 alone")

    with started(fork, files, *line(fork, cache(k, v), files, models["llama"].path)) as server:
        assert server.process.wait(60) == -signal.SIGABRT
        assert why in server.text()


def test_the_greedy_text_is_the_known_one(engine: Engine, tmp_path: Path, models: dict[str, Model]) -> None:
    model = models["llama"]
    with serving(engine, tmp_path, "-m", model.path, *SMALL) as server:
        for prompt in ("Hello", "line\n", "A question?"):
            assert server.complete(prompt, 64)["content"] == model.known.greedy_text(prompt, 64)


def test_it_ends_when_it_is_told_to(engine: Engine, tmp_path: Path, models: dict[str, Model]) -> None:
    with serving(engine, tmp_path, "-m", models["llama"].path, *SMALL) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_a_crash_is_seen_as_the_signal(engine: Engine, tmp_path: Path, models: dict[str, Model]) -> None:
    with serving(engine, tmp_path, "-m", models["llama"].path, *SMALL) as server:
        server.process.send_signal(signal.SIGSEGV)
        assert server.process.wait(20) == -signal.SIGSEGV


@pytest.mark.parametrize("broken", ["missing", "cut"])
def test_a_model_that_cannot_be_loaded_ends_it(
    engine: Engine, tmp_path: Path, models: dict[str, Model], broken: str
) -> None:
    path = tmp_path / "broken.gguf"
    if broken == "cut":
        content = Path(models["llama"].path).read_bytes()
        path.write_bytes(content[: len(content) // 2])

    with started(engine, tmp_path, "-m", str(path), *SMALL) as server:
        assert server.process.wait(60) == _failed_load(engine)
        assert str(path) in server.text()


def test_upstream_drafts_as_computed(upstream: Engine, files: Path, models: dict[str, Model]) -> None:
    model = models["mtp"]
    settings: dict[str, Value] = {
        "context.size": 512,
        "context.parallel": 1,
        "speculative.type": "mtp",
        "speculative.draft_max": 3,
        "speculative.draft_p_min": 0.0,
    }
    with serving(upstream, files, *line(upstream, settings, files, model.path)) as server:
        answer = server.complete("Hello", 100, key="key")

    expected = model.known.drafting("Hello", 100, 3)
    assert answer["content"] == model.known.greedy_text("Hello", 100)
    timings = answer["timings"]
    assert (timings["draft_n"], timings["draft_n_accepted"]) == (expected.drafted, expected.accepted)
    assert 0.5 < expected.acceptance < 1


def test_what_is_said_about_a_model_that_the_build_cannot_load_is_true(
    engine: Engine, tmp_path: Path, models: dict[str, Model]
) -> None:
    refusal = refuse_model(engine.capabilities, "qwen35moe", 1)
    with started(engine, tmp_path, "-m", models["mtp"].path, *SMALL) as server:
        if refusal is not None:
            assert server.process.wait(60) == _failed_load(engine)
            assert "attn_qkv.weight' not found" in server.text()
        else:
            until(server.is_ready, "the engine is ready")

    assert refuse_model(engine.capabilities, "llama", 0) is None


def cache(k: str, v: str) -> dict[str, Value]:
    return {"kv.k": k, "kv.v": v, "attention.flash": True, "context.size": 512}


def _failed_load(engine: Engine) -> int:
    """The exit status after a load that failed: the fork of spring 2026 says what failed, and then crashes."""
    old_fork = engine.capabilities.kind == "ik" and not engine.capabilities.spec_stages
    return -signal.SIGSEGV if old_fork else 1


def _backend(engine: Engine) -> str:
    manifest = next(each for each in installs.installed(engine.id, engine_paths()) if each.current).manifest
    return str(manifest["backend"])


def _real(path: str, value: Value, files: Path) -> Value:
    """A file that is there in place of one that is not."""
    if BY_PATH[path].types == ("paths",):
        return (str(files / "key"),)

    if BY_PATH[path].types != ("path",):
        return value

    return str(files / ("template.jinja" if path == "chat.template_file" else "key"))


def _complete(path: str, speculation: str, value: Value, files: Path) -> dict[str, Value]:
    """The setting with what it does not go without."""
    base: dict[str, Value] = {} if speculation == "none" else {"speculative.type": speculation}
    if speculation == "draft":
        base["speculative.draft_model"] = str(files / "key")

    if path == "lora.scales":
        base["lora.adapters"] = (str(files / "key"),)

    return {**base, path: value}
