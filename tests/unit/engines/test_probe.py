"""A probe learns what a program is from the program, and survives whatever the program does."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from orchestrator.engines.fork_flags import LEGACY, UNLISTED
from orchestrator.engines.probe import Build, NotAnEngineError, probe
from tests.unit.engines.engine_scripts import FORK_NEW, FORK_OLD, STAGE, UPSTREAM, engine, paths_below, program


def fault(path: Path | str, tmp_path: Path, timeout_s: float = 10.0) -> NotAnEngineError:
    with pytest.raises(NotAnEngineError) as caught:
        probe(str(path), paths_below(tmp_path), timeout_s=timeout_s)

    return caught.value


def spellings(build: Build, *, listed: bool) -> set[str]:
    return {spelling for flag in build.capabilities.each() if flag.listed is listed for spelling in flag.spellings}


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} still lives"
        time.sleep(0.01)


def test_upstream_is_known_by_its_help(tmp_path: Path) -> None:
    build = probe(str(engine(tmp_path / "a", UPSTREAM)), paths_below(tmp_path))
    assert build.capabilities.kind == "upstream"
    assert build.capabilities.find("--fit-target") is not None
    assert build.capabilities.find("--draft-max") is None


def test_the_fork_is_known_although_its_help_ends_with_a_failure(tmp_path: Path) -> None:
    build = probe(str(engine(tmp_path / "a", FORK_NEW)), paths_below(tmp_path))
    assert (build.capabilities.kind, build.capabilities.build_number) == ("ik", 4840)


def test_help_on_stderr_is_read_too(tmp_path: Path) -> None:
    inner = engine(tmp_path / "inner", UPSTREAM)
    outer = program(tmp_path / "outer", f'exec {inner} "$@" 1>&2')
    assert probe(str(outer), paths_below(tmp_path)).capabilities.kind == "upstream"


def test_flags_that_the_forks_help_leaves_out_are_found_by_asking(tmp_path: Path) -> None:
    refuses = ("--defer-experts", "-fmoe", "--fused-moe", "-gfm", "--gpu-fit-margin", STAGE)
    found = probe(str(engine(tmp_path / "a", FORK_OLD, refuses=refuses)), paths_below(tmp_path))

    assert {"-ngl", "--n-gpu-layers", "-ts", "-ot", "-dev", "-sm", "-mg", "-rcache"} <= spellings(found, listed=False)
    layers = found.capabilities.find("-ngl")
    assert layers is not None and layers.value
    for spelling in refuses:
        assert found.capabilities.find(spelling) is None


def test_a_short_form_that_the_help_leaves_out_joins_its_long_form(tmp_path: Path) -> None:
    found = probe(str(engine(tmp_path / "a", FORK_OLD)), paths_below(tmp_path))
    repack = found.capabilities.find("-rtr")
    assert repack is not None
    assert (repack.name, repack.aliases, repack.listed) == ("--run-time-repack", ("-rtr",), True)


@pytest.mark.parametrize("takes_stages", [True, False])
def test_stages_are_understood_when_the_fork_accepts_one(tmp_path: Path, takes_stages: bool) -> None:
    path = engine(tmp_path / "a", FORK_OLD, refuses=() if takes_stages else (STAGE,))
    assert probe(str(path), paths_below(tmp_path)).capabilities.spec_stages is takes_stages


def test_legacy_flags_that_the_fork_lists_and_refuses_are_removed(tmp_path: Path) -> None:
    refuses = ("-mtp", "--multi-token-prediction", "--draft-max", "--draft", "--draft-n")
    found = probe(str(engine(tmp_path / "a", FORK_OLD, refuses=refuses)), paths_below(tmp_path)).capabilities

    assert found.flags["-mtp"].removed and found.find("-mtp") is None
    assert found.find("--draft-max") is None
    assert found.find("--draft-p-min") is not None


def test_upstream_is_believed_without_further_questions(tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = engine(tmp_path / "inner", UPSTREAM)
    outer = program(tmp_path / "outer", f'echo "$@" >> {log}', f'exec {inner} "$@"')
    probe(str(outer), paths_below(tmp_path))
    assert log.read_text().split("\n") == ["--version", "--help", ""]


def test_no_question_reads_a_file_or_opens_a_connection() -> None:
    words = {spelling for question in (*UNLISTED, *LEGACY) for spelling in question.spellings}
    assert not words & {"--rpc", "--model", "-m", "-md", "--mmproj", "--lora", "--file", "-f", "--api-key-file"}
    assert not any(question.sample and "/" in question.sample for question in (*UNLISTED, *LEGACY))


def test_a_second_look_does_not_run_the_program(tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = engine(tmp_path / "inner", FORK_NEW)
    outer = program(tmp_path / "outer", f"echo run >> {log}", f'exec {inner} "$@"')
    first = probe(str(outer), paths_below(tmp_path))
    runs = log.read_text()

    assert probe(str(outer), paths_below(tmp_path)) == first
    assert log.read_text() == runs


def test_a_changed_program_is_asked_again(tmp_path: Path) -> None:
    path = engine(tmp_path / "a", UPSTREAM)
    before = probe(str(path), paths_below(tmp_path))
    engine(path, FORK_NEW)

    after = probe(str(path), paths_below(tmp_path))
    assert (before.capabilities.kind, after.capabilities.kind) == ("upstream", "ik")
    assert before.sha256 != after.sha256


def test_the_same_content_with_another_time_is_asked_again(tmp_path: Path) -> None:
    path = engine(tmp_path / "a", UPSTREAM)
    probe(str(path), paths_below(tmp_path))
    entry = next((tmp_path / "orch" / "cache" / "probe").glob("*.json"))
    old = entry.read_text()
    os.utime(path, ns=(1, 1))

    probe(str(path), paths_below(tmp_path))
    assert entry.read_text() != old


def test_a_changed_library_beside_the_program_is_a_changed_program(tmp_path: Path) -> None:
    library = tmp_path / "libllama.so"
    library.write_text("1")
    path = engine(tmp_path / "llama-server", UPSTREAM, version="version: 1000 (aaaaaaa)")
    assert probe(str(path), paths_below(tmp_path)).capabilities.build_number == 1000

    status = path.stat()
    content = path.read_text().replace("1000", "2000")
    path.write_text(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert probe(str(path), paths_below(tmp_path)).capabilities.build_number == 1000  # nothing to see from outside

    library.write_text("22")
    assert probe(str(path), paths_below(tmp_path)).capabilities.build_number == 2000


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", '{"version": 99}', '{"version": 1, "stamp": {}}', "\x00\xff"],
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    path = engine(tmp_path / "a", UPSTREAM)
    first = probe(str(path), paths_below(tmp_path))
    entry = next((tmp_path / "orch" / "cache" / "probe").glob("*.json"))
    entry.write_bytes(damage.encode("latin-1"))

    assert probe(str(path), paths_below(tmp_path)) == first
    assert json.loads(entry.read_text())["version"] == 1


def test_a_cache_with_rows_of_another_shape_is_made_again(tmp_path: Path) -> None:
    path = engine(tmp_path / "a", UPSTREAM)
    first = probe(str(path), paths_below(tmp_path))
    entry = next((tmp_path / "orch" / "cache" / "probe").glob("*.json"))
    content = json.loads(entry.read_text())
    content["capabilities"]["flags"] = [["--fit"]]
    entry.write_text(json.dumps(content))

    assert probe(str(path), paths_below(tmp_path)) == first


def test_what_the_cache_gives_back_is_what_was_learned(tmp_path: Path) -> None:
    path = engine(tmp_path / "a", FORK_OLD, refuses=("-mtp", "-ts", "--tensor-split"))
    assert probe(str(path), paths_below(tmp_path)) == probe(str(path), paths_below(tmp_path))


def test_the_program_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_PORT", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda/lib64")
    log = tmp_path / "log"
    inner = engine(tmp_path / "inner", UPSTREAM)
    probe(str(program(tmp_path / "outer", f"env > {log}", f'exec {inner} "$@"')), paths_below(tmp_path))

    seen = log.read_text()
    assert "LLAMA_ARG_PORT" not in seen and "secret" not in seen
    assert "LD_LIBRARY_PATH=/opt/cuda/lib64" in seen


def test_a_program_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    path = program(tmp_path / "a", f"echo $$ > {pid}", "trap '' TERM INT", "while :; do sleep 1; done")
    began = time.monotonic()
    error = fault(path, tmp_path, timeout_s=0.5)

    assert time.monotonic() - began < 5
    assert "did not answer within 0.5 s" in error.message
    wait_until_gone(int(pid.read_text()))


def test_a_program_that_prints_for_ever_is_cut_off(tmp_path: Path) -> None:
    path = program(tmp_path / "a", "exec cat /dev/zero")
    assert "printed more than 1048576 bytes" in fault(path, tmp_path).message


def test_a_grandchild_that_keeps_the_pipe_does_not_hold_the_probe(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    inner = engine(tmp_path / "inner", UPSTREAM)
    path = program(tmp_path / "a", "sleep 1000 &", f"echo $! > {pid}", f'{inner} "$@"')
    began = time.monotonic()

    assert probe(str(path), paths_below(tmp_path), timeout_s=8).capabilities.kind == "upstream"
    assert time.monotonic() - began < 5
    wait_until_gone(int(pid.read_text()))


def test_a_program_that_reads_its_input_gets_none(tmp_path: Path) -> None:
    path = program(tmp_path / "a", "read line || exit 3", "sleep 100")
    assert "`--help` ended with exit code 3" in fault(path, tmp_path).details


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    message = "error while loading shared libraries: libcudart.so.12: cannot open shared object file: No such file"
    error = fault(program(tmp_path / "a", f'echo "$0: {message}" >&2', "exit 127"), tmp_path)

    assert error.message.endswith("a library is missing: libcudart.so.12")
    assert "`--version` ended with exit code 127" in error.details
    assert error.hint is not None and "LD_LIBRARY_PATH" in error.hint


def test_a_build_for_another_processor_is_named(tmp_path: Path) -> None:
    error = fault(program(tmp_path / "a", "kill -ILL $$"), tmp_path)
    assert "`--version` was ended by SIGILL" in error.details
    assert error.hint is not None and "another processor" in error.hint


def test_what_another_program_printed_is_shown_without_control_characters(tmp_path: Path) -> None:
    error = fault(program(tmp_path / "a", r"printf '\033]0;owned\007hello\n'"), tmp_path)
    assert "does not print an engine's help" in error.message
    assert any("hello" in line for line in error.details)
    assert all(line.isprintable() for line in error.details)


def test_another_program_of_llama_cpp_is_no_engine(tmp_path: Path) -> None:
    path = program(
        tmp_path / "llama-cli",
        "printf '%s\\n' '----- common params -----' '' '-c,    --ctx-size N                     size'",
    )
    assert "without a server" in fault(path, tmp_path).message


def test_a_file_that_is_no_program_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    path.chmod(0o755)
    assert "cannot be run: Exec format error" in fault(path, tmp_path).message


def test_a_missing_interpreter_is_told_from_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("#!/nowhere/python\n")
    path.chmod(0o755)
    error = fault(path, tmp_path)
    assert "cannot be run" in error.message
    assert error.details == ("it exists; its interpreter or loader is missing",)


def test_a_file_that_may_not_be_run_says_how_to_change_that(tmp_path: Path) -> None:
    path = engine(tmp_path / "a", UPSTREAM)
    path.chmod(0o644)
    error = fault(path, tmp_path)
    assert "is not executable" in error.message
    assert error.hint is not None and "chmod +x" in error.hint


def test_a_directory_points_to_the_program_inside(tmp_path: Path) -> None:
    inside = engine(tmp_path / "bin" / "llama-server", UPSTREAM)
    error = fault(inside.parent, tmp_path)
    assert "is a directory" in error.message
    assert error.hint == f"give the program: {inside}"


def test_a_path_with_nothing_there_says_so(tmp_path: Path) -> None:
    assert "there is no file" in fault(tmp_path / "nowhere", tmp_path).message


def test_a_named_pipe_is_not_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o755)
    assert "is not a regular file" in fault(tmp_path / "pipe", tmp_path).message


def test_a_real_program_that_is_no_engine_is_refused(tmp_path: Path) -> None:
    assert "cannot be used as an engine" in fault(sys.executable, tmp_path).message


def test_nothing_is_kept_about_a_program_that_failed(tmp_path: Path) -> None:
    path = program(tmp_path / "a", "exit 1")
    fault(path, tmp_path)
    engine(path, UPSTREAM)
    assert probe(str(path), paths_below(tmp_path)).capabilities.kind == "upstream"
