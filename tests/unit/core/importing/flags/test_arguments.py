"""Command lines of a server as profiles: the intent of each flag, and what is said of the others."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.importing.findings import ImportEntry
from orchestrator.core.importing.shell_script import import_shell
from orchestrator.core.profile.settings import BY_PATH


def entry(flags: str, program: str = "llama-server") -> ImportEntry:
    [found] = import_shell(f"{program} -m /m/a.gguf {flags}", {}).entries
    return found


def settings(flags: str, program: str = "llama-server") -> dict[str, Any]:
    document = entry(flags, program).document
    tables = {path.partition(".")[0] for path in BY_PATH}
    return {f"{table}.{key}": value for table in tables for key, value in document.get(table, {}).items()}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-c 8192 -fa", {"context.size": 8192, "attention.flash": True}),
        ("-fa on --jinja", {"attention.flash": True, "chat.jinja": True}),
        ("-fa 0", {"attention.flash": False}),
        ("-ngl -1", {"memory.gpu_layers": "auto"}),
        ("-ngl -2", {"memory.gpu_layers": "all"}),
        ("-ngl 100,100", {"memory.gpu_layers": 100}),
        ("--top_p 0.9 --top-k 0.0", {"sampling.top_p": 0.9, "sampling.top_k": 0}),
        ("--no-mmap --mlock", {"memory.mmap": False, "memory.mlock": True}),
        ("--load-mode mmap+mlock", {"memory.mmap": True, "memory.mlock": True}),
        ("-ts 24/24", {"memory.tensor_split": [24.0, 24.0]}),
        ("--temp 1 --temp 0.5", {"sampling.temperature": 0.5}),
        ("-ot a=CPU -ot 'b=CUDA0, c=CUDA1'", {"memory.tensor_overrides": ["a=CPU", "b=CUDA0", "c=CUDA1"]}),
        ("--threads -1 -n -1", {}),
        ("-ub 4096 -b 1024", {"batch.size": 1024, "batch.ubatch": 1024}),
        ("--fit on --fit-target 512 -ncmoe 4", {"memory.n_cpu_moe": 4}),
        ("-md /m/d.gguf", {"speculative.draft_model": "/m/d.gguf", "speculative.type": "draft"}),
        ("--spec-type draft-mtp --spec-draft-n-max 2", {"speculative.type": "mtp", "speculative.draft_max": 2}),
        ("--spec-type ngram-mod --spec-type draft-mtp", {"speculative.type": ["ngram-mod", "mtp"]}),
        ("--chat-template-kwargs '{\"enable_thinking\": false}'", {"chat.template_kwargs": {"enable_thinking": False}}),
        ("--rope-scaling yarn --yarn-orig-ctx 32768", {"rope.scaling": "yarn", "rope.original_context": 32768}),
    ],
)
def test_a_flag_becomes_the_setting_that_means_the_same(flags: str, expected: dict[str, Any]) -> None:
    assert settings(flags) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-fmoe -rtr -mla 2 -amb 512", {
            "memory.fused_moe": True, "memory.repack": True, "attention.mla": 2, "attention.max_batch_mib": 512,
        }),
        ("-mtp --draft-max 3", {"speculative.type": "mtp", "speculative.draft_max": 3}),
        ("--spec-type mtp:n_max=3,p_min=0.1", {
            "speculative.type": "mtp", "speculative.draft_max": 3, "speculative.draft_p_min": 0.1,
        }),
        ("--fit -ngl 99 -fmoe", {"memory.fit": True, "memory.fused_moe": True}),
        ("-np 4 -mtp", {"context.parallel": 1, "speculative.type": "mtp"}),
    ],
)  # fmt: skip
def test_the_fork_is_known_by_its_flags(flags: str, expected: dict[str, Any]) -> None:
    found = entry(flags)
    assert found.engine == "ik-fork"
    assert settings(flags) == expected


@pytest.mark.parametrize(
    ("flags", "fate", "said"),
    [
        ("-c 8k", "changed", "forgets `k`"),
        ("--port 8080 --host 0.0.0.0", "changed", "gateway's address"),
        ("-cb", "changed", "drop it"),
        ("--tools all", "lost", "run commands"),
        ("-ctx-size 4096", "guessed", "read as `--ctx-size`"),
        ("--ngl 5", "guessed", "read as `-ngl`"),
        ("-ngl99", "guessed", "read as `-ngl 99`"),
        ("--moe-cache soft", "guessed", "no known build has it"),
        ("--mmproj $P", "guessed", "put the file's path here"),
        ("-hfd org/some-GGUF:Q8_0", "guessed", "downloads nothing"),
        ("${MORE:-}", "changed", "empty"),
        ("--top-p=0.9", "guessed", "no engine takes `=`"),
        ("--temp $T", "lost", "does not say what $T is"),
        ("--chat-template-kwargs '{thinking:true}'", "lost", "not JSON"),
        ("-ctk q9_9", "lost", "none of"),
        ("stray", "lost", "no engine takes it"),
        ("-c", "lost", "value is missing"),
    ],
)
def test_what_is_not_taken_as_written_is_said(flags: str, fate: str, said: str) -> None:
    found = [each for each in entry(flags).findings if each.fate == fate]
    assert any(said in each.text for each in found), entry(flags).findings


def test_a_flag_without_a_setting_goes_to_its_engine() -> None:
    assert entry("--timeout 600").document["engine"] == {"upstream": {"extra_args": ["--timeout", "600"]}}


def test_secrets_are_never_copied() -> None:
    found = import_shell(
        "HF_TOKEN=hf_abc llama-server -m /m/a.gguf --api-key sk-abc --api-key=sk-def --apikey sk-abc -c 1", {}
    ).entries
    assert "abc" not in repr(found) and "sk-def" not in repr(found)
    assert {"HF_TOKEN", "--api-key"} <= {each.source for each in found[0].findings if each.fate == "lost"}


def test_the_environment_of_a_start_is_kept() -> None:
    [found] = import_shell("CUDA_VISIBLE_DEVICES=1 LLAMA_ARG_CTX_SIZE=4096 llama-server -m /m/a.gguf", {}).entries
    assert found.document["environment"] == {"CUDA_VISIBLE_DEVICES": "1"}
    assert found.document["context"] == {"size": 4096}


@pytest.mark.parametrize(
    "text",
    [
        "sudo -E nohup /opt/llama-server -m /m/a.gguf -c 4096",
        "bash -c 'exec /opt/llama-server -m /m/a.gguf -c 4096'",
        "tmux new-session -d -s llm 'cd /opt && ./llama-server -m /m/a.gguf -c 4096'",
        "numactl --interleave=all ./llama-server -m /m/a.gguf -c 4096 2>&1 | tee log",
        "docker run --rm -p 80:80 -v /m:/models --gpus all ghcr.io/x/llama.cpp:server-cuda -m /models/a.gguf -c 4096",
        "docker run -e LLAMA_ARG_CTX_SIZE=4096 -v /m:/models x/llama.cpp:full --server -m /models/a.gguf",
        "cat > x.service <<EOF\nExecStart=/opt/llama-server -m /m/a.gguf -c 4096\nEOF",
        "$a = @('-m', '/m/a.gguf', '-c', '4096')\nStart-Process -FilePath C:\\llama-server.exe -ArgumentList $a -Wait",
        "BIN=/opt/llama-server\nMODEL=/m/a.gguf\n$BIN -m $MODEL -c 4096",
    ],
)
def test_a_server_is_found_behind_what_starts_it(text: str) -> None:
    [found] = import_shell(text, {}).entries
    assert (found.document["model"], found.document["context"]) == ("/m/a.gguf", {"size": 4096})


@pytest.mark.parametrize(
    "text", ["llama-cli -m a.gguf -p hello", "echo llama-server", "pip install llama-server", "vllm serve x --port 1"]
)
def test_other_programs_are_none(text: str) -> None:
    assert import_shell(text, {}).entries == []


def test_a_repository_and_an_unknown_variable_are_places_to_fill_in() -> None:
    [pulled] = import_shell("llama-server -hf org/Some-GGUF:Q8_0 -c 1024", {}).entries
    [named] = import_shell("llama-server -m $MODEL -c 1024", {}).entries
    assert (pulled.document["model"], named.document["model"]) == ("~/models/Some-Q8_0.gguf", "${MODEL}")
    for found in (pulled, named):
        assert not found.refusal and [each for each in found.findings if each.fate == "guessed"]


def test_a_router_is_no_model() -> None:
    [found] = import_shell("llama-server --models-preset models.ini --port 80", {}).entries
    assert "router" in found.refusal


@given(st.text(alphabet=st.sampled_from(list("ab -=$(){}[]'\"\\\n`%#;|&<>,:.0189\r\t@")), max_size=120))
def test_no_text_makes_it_fail(text: str) -> None:
    import_shell(text, {"a": "b"})
    import_shell(f"a='{text}\nllama-server -m {text}", {})
    import_shell(f"docker run {text} llama.cpp:server -m a {text}", {})


_WORDS = st.sampled_from([
    "-c", "-fa", "on", "-ngl", "99", "--spec-type", "mtp:", "-ot", "x=y,", "-1", "--fit", "--lora", "-np", "0", "-md",
    "--pooling", "rank", "--embedding", "--mmproj", "{}", "q8_0", "-ctv", "off", "--override-kv", "a=int:x", "-gfm",
    "0,1", "--load-mode", "-ub", "--samplers", ";", "--lora-scaled", "a:b", "--chat-template-kwargs",
])  # fmt: skip


@given(st.lists(_WORDS, max_size=14))
def test_any_flags_end_in_a_valid_profile_or_a_reason(words: list[str]) -> None:
    [found] = import_shell(f"llama-server -m a.gguf {shlex.join(words)}", {}).entries
    named = {part for each in found.findings for part in each.source.split()}
    assert found.refusal or all(word in named for word in words if word.startswith("-") and word != "-1")


def test_options_of_a_container_are_told() -> None:
    [found] = import_shell("docker run --gpus device=1 -p 1:2 -e X=1 x/llama.cpp:server -m /m/a.gguf", {}).entries
    assert {"--gpus device=1", "-p 1:2", "X=1"} <= {each.source for each in found.findings}
