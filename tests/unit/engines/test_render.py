"""The command line that a profile becomes on an engine that was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.profile.profile import DEMO_MODEL, EngineOverride, Profile
from orchestrator.core.profile.settings import Value
from orchestrator.core.starts.cpu_pinning import LogicalCpu
from orchestrator.engines import render
from orchestrator.engines.registry import Engine, EngineRegistry
from orchestrator.engines.render import KEY_FILE_PLACEHOLDER, PORT_PLACEHOLDER, render_profile
from tests.unit.engines.engine_scripts import FORK_NEW, UPSTREAM, engine, paths_below

PROFILE = Profile("p", "/p.toml", "/m.gguf", "upstream", settings={"context.size": 4096})


@pytest.fixture
def upstream(tmp_path: Path) -> Engine:
    return EngineRegistry(paths_below(tmp_path), {}).resolve(str(engine(tmp_path / "up/llama-server", UPSTREAM)))


@pytest.fixture
def fork(tmp_path: Path) -> Engine:
    return EngineRegistry(paths_below(tmp_path), {}).resolve(str(engine(tmp_path / "ik/llama-server", FORK_NEW)))


def value_of(flag: str, argv: tuple[str, ...]) -> str:
    return argv[argv.index(flag) + 1]


def test_the_engine_that_is_given_is_the_one_that_is_started(tmp_path: Path, upstream: Engine) -> None:
    launch = render_profile(paths_below(tmp_path), PROFILE, upstream, port=4711, api_key_file="/key")
    assert (launch.engine, launch.build, launch.binary) == ("upstream", upstream.build, upstream.path)
    assert launch.argv[0] == upstream.path
    assert value_of("--model", launch.argv) == "/m.gguf"
    assert value_of("--ctx-size", launch.argv) == "4096"
    assert (value_of("--port", launch.argv), value_of("--api-key-file", launch.argv)) == ("4711", "/key")


def test_a_port_and_a_key_that_are_not_chosen_yet_are_placeholders(tmp_path: Path, upstream: Engine) -> None:
    argv = render_profile(paths_below(tmp_path), PROFILE, upstream).argv
    assert value_of("--port", argv) == PORT_PLACEHOLDER
    assert value_of("--api-key-file", argv) == KEY_FILE_PLACEHOLDER


def test_a_rung_is_laid_over_the_settings(tmp_path: Path, upstream: Engine) -> None:
    launch = render_profile(
        paths_below(tmp_path), PROFILE, upstream, adjust=lambda each: replace(each, settings={"context.size": 2048})
    )
    assert value_of("--ctx-size", launch.argv) == "2048"
    assert launch.profile.settings == {"context.size": 2048}


def test_the_demo_model_is_its_file(tmp_path: Path, upstream: Engine) -> None:
    paths = paths_below(tmp_path)
    argv = render_profile(paths, replace(PROFILE, model=DEMO_MODEL), upstream).argv
    assert value_of("--model", argv).startswith(paths.cache)


def test_a_program_that_is_not_the_one_that_was_added_is_noted(tmp_path: Path, upstream: Engine) -> None:
    notes = render_profile(paths_below(tmp_path), PROFILE, replace(upstream, changed=True)).notes
    assert any("is not the program that was added" in note for note in notes)


def test_what_cannot_work_on_an_engine_that_the_profile_does_not_name_is_refused(tmp_path: Path, fork: Engine) -> None:
    profile = replace(PROFILE, settings={"context.parallel": 2, "speculative.type": "mtp"})
    with pytest.raises(UsageError, match="cannot work on the engine `ik-fork`"):
        render_profile(paths_below(tmp_path), profile, fork)


def test_a_table_for_the_engine_is_what_makes_it_work_there(tmp_path: Path, fork: Engine) -> None:
    profile = replace(
        PROFILE,
        settings={"context.parallel": 2, "speculative.type": "mtp"},
        overrides={"ik-fork": EngineOverride({"context.parallel": 1})},
    )
    assert render_profile(paths_below(tmp_path), profile, fork).profile.settings["context.parallel"] == 1


def test_the_profiles_environment_reaches_the_process_and_wins_over_the_daemons(
    tmp_path: Path, upstream: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    settings: dict[str, Value] = {"environment.GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1"}
    settings["environment.CUDA_VISIBLE_DEVICES"] = "1"
    env = render_profile(paths_below(tmp_path), replace(PROFILE, settings=settings), upstream).env
    assert (env["GGML_CUDA_ENABLE_UNIFIED_MEMORY"], env["CUDA_VISIBLE_DEVICES"]) == ("1", "1")


def test_a_flag_that_the_build_does_not_have_is_refused_before_a_start(tmp_path: Path, upstream: Engine) -> None:
    with pytest.raises(UsageError) as caught:
        render_profile(paths_below(tmp_path), replace(PROFILE, extra_args=("--merge-qkv",)), upstream)

    assert any("`memory.merge_qkv`" in line for line in caught.value.details)


def test_what_a_default_makes_inert_is_noted(tmp_path: Path, upstream: Engine) -> None:
    notes = render_profile(paths_below(tmp_path), replace(PROFILE, settings={"memory.cpu_moe": True}), upstream).notes
    assert any("gives that up for `memory.cpu_moe`" in note for note in notes)


def test_the_fork_is_asked_for_a_flag_that_its_help_does_not_list(tmp_path: Path) -> None:
    program = engine(tmp_path / "ik/llama-server", FORK_NEW, refuses=["--nonsense"])
    fork = EngineRegistry(paths_below(tmp_path), {}).resolve(str(program))
    paths = paths_below(tmp_path)
    taken = replace(PROFILE, extra_args=("--of-tomorrow", "8"))
    assert render_profile(paths, taken, fork).argv[-2:] == ("--of-tomorrow", "8")
    with pytest.raises(UsageError) as caught:
        render_profile(paths, replace(PROFILE, extra_args=("--nonsense",)), fork)

    assert "it has no flag `--nonsense`" in caught.value.details[0]


def test_upstream_is_asked_nothing_as_its_help_lists_every_flag(tmp_path: Path, upstream: Engine) -> None:
    with pytest.raises(UsageError):
        render_profile(paths_below(tmp_path), replace(PROFILE, extra_args=("--of-tomorrow",)), upstream)


@pytest.mark.parametrize("which", ["upstream", "fork"])
def test_a_pinned_engine_has_its_cpus_and_a_thread_for_each(
    tmp_path: Path, which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    smt = tuple(LogicalCpu(number, str(number % 2)) for number in range(4))
    monkeypatch.setattr(render, "read_topology", lambda: smt)
    found: Engine = request.getfixturevalue(which)
    paths, pinned = paths_below(tmp_path), replace(PROFILE, settings={"cpu.pin": "one_per_core"})
    launch = render_profile(paths, pinned, found)
    assert (launch.cpus, value_of("--threads", launch.argv)) == ((0, 1), "2")
    assert [note for note in launch.notes if "CPUs 0-1 of 4" in note]
    assert "cpu.threads" not in launch.profile.settings
    chosen = render_profile(paths, replace(PROFILE, settings={**pinned.settings, "cpu.threads": 1}), found)
    assert (chosen.cpus, value_of("--threads", chosen.argv)) == ((0, 1), "1")
    assert render_profile(paths, PROFILE, found).cpus == ()
    assert render_profile(paths, pinned, found, topology=smt[:1]).cpus == (0,), "what is known is not read again"
