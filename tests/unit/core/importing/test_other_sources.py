"""systemd units, compose files and the router's preset files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.config.yaml_file import read_yaml
from orchestrator.core.errors import UsageError
from orchestrator.core.importing.findings import ImportEntry, ImportResult
from orchestrator.core.importing.sources import import_text


def run(text: str) -> ImportResult:
    return import_text(text, {"HOME": "/home/me"}, lambda each: read_yaml(each, "x.yaml"))


def only(text: str) -> ImportEntry:
    [entry] = run(text).entries
    return entry


UNIT = """\
[Unit]
Description=a server; with [brackets]
[Service]
Environment="CTX=4096" CUDA_VISIBLE_DEVICES=1
Environment=MORE='-ngl 99'
EnvironmentFile=-/etc/llama.env
ExecStart=/opt/llama-server \\
  # a comment in between
  -m %h/a.gguf -c ${CTX} $MORE \\
  -ot "blk\\\\.[0-9]=CPU;x" --temp 0.5
  -fa on
ExecStartPre=/bin/true
"""


def test_a_unit_is_split_as_systemd_splits_it() -> None:
    document = only(UNIT).document
    assert (document["model"], document["context"]) == ("/home/me/a.gguf", {"size": 4096})
    assert document["memory"] == {"gpu_layers": 99, "tensor_overrides": ["blk\\.[0-9]=CPU;x"]}
    assert document["environment"] == {"CUDA_VISIBLE_DEVICES": "1"}
    assert "attention" not in document  # without a backslash, the line is not part of the command
    assert {"EnvironmentFile=-/etc/llama.env", "ExecStartPre=/bin/true"} <= {each.source for each in run(UNIT).findings}


def test_a_shell_within_a_unit_has_its_variables() -> None:
    text = "[Service]\nEnvironment=M=/m/a.gguf\nExecStart=/bin/bash -c 'exec llama-server -m $M -c 4096'\n"
    assert only(text).document["model"] == "/m/a.gguf"


def test_a_unit_that_starts_a_script_is_no_profile() -> None:
    assert "import that script" in only("[Service]\nExecStart=/opt/start.sh --fast\n").refusal


def test_a_quadlet_has_the_paths_of_the_machine() -> None:
    text = (
        "[Container]\nImage=ghcr.io/x/llama.cpp:server\nVolume=%h/models:/models:ro\n"
        "Environment=LLAMA_ARG_CTX_SIZE=4096\nExec=-m /models/a.gguf\n"
    )
    document = only(text).document
    assert (document["model"], document["context"]) == ("/home/me/models/a.gguf", {"size": 4096})


COMPOSE = """\
x-common: &common
  volumes: ["./models:/models"]
services:
  chat:
    <<: *common
    image: ghcr.io/x/llama.cpp:server-cuda
    environment: {LLAMA_ARG_N_GPU_LAYERS: "99", HF_TOKEN: hf_none, LLAMA_ARG_FLASH_ATTN: on}
    command: -m /models/a.gguf -c ${CTX:-4096} --api-key $$secret
  embed:
    image: ghcr.io/x/llama.cpp:full
    volumes:
      - {type: bind, source: /m, target: /models}
    command: ["--server", "-m", "/models/e.gguf", "-c", "512", "--embedding"]
  script:
    image: ghcr.io/x/llama.cpp:server
    volumes: ["/m:/models"]
    entrypoint: ["sh", "-c", "exec /app/llama-server -m /models/s.gguf -c 1024"]
  database:
    image: postgres:16
"""


def test_each_service_with_a_server_is_a_profile() -> None:
    result = run(COMPOSE)
    found = {each.name: each.document for each in result.entries}
    assert {name: (each["model"], each["context"]["size"]) for name, each in found.items()} == {
        "a": ("./models/a.gguf", 4096),
        "e": ("/m/e.gguf", 512),
        "s": ("/m/s.gguf", 1024),
    }
    assert (found["a"]["memory"], found["a"]["attention"]) == ({"gpu_layers": 99}, {"flash": True})
    assert "services.database" in {each.source for each in result.findings}
    assert "hf_none" not in repr(result) and "secret" not in repr([each.arguments for each in result.entries])


INI = """\
; presets
version = 1
[*]
ngl = 99
fa = 1          ; for all
temp = 0.5
[Big/One:Q4]
model = /m/big.gguf # the big one
c = 8192
temp = 0.7
no-mmap = true
reasoning = 1
load-on-startup = true
[small]
model = /m/old.gguf
[small]
LLAMA_ARG_MODEL = /m/small.gguf
top_p = 0.9
cache-prompt = false
sleep-idle-seconds = 60
[org/Repo-GGUF:Q8_0]
"""


def test_the_sections_of_a_preset_file_are_profiles() -> None:
    result = run(INI)
    big, small, cached = result.entries
    assert (big.name, big.document["aliases"]) == ("big-one-q4", ["Big/One:Q4"])
    assert big.document["memory"] == {"gpu_layers": 99, "mmap": False}
    assert (big.document["sampling"], big.document["attention"]) == ({"temperature": 0.7}, {"flash": True})
    assert big.document["reasoning"] == {"mode": "on"}
    assert (small.document["model"], small.document["sampling"]) == (
        "/m/small.gguf",
        {"temperature": 0.5, "top_p": 0.9},
    )
    assert small.document["engine"] == {"upstream": {"extra_args": ["--no-cache-prompt"]}}
    assert small.document["residency"] == {"idle_unload_s": 60}
    assert cached.document["model"] == "~/models/Repo-Q8_0.gguf"
    assert result.config == {"residency.preload": ["big-one-q4"]}
    assert {"[small]", "version = 1"} <= {each.source for each in result.findings}


def test_a_dockerfile_is_read_in_both_its_forms() -> None:
    text = (
        'FROM x\nENV LLAMA_ARG_CTX_SIZE=4096\nENTRYPOINT ["/app/llama-server"]\n'
        'CMD ["-m", "/m/a.gguf", \\\n "-ngl", "9"]\n'
    )
    document = only(text).document
    assert (document["model"], document["context"], document["memory"]) == (
        "/m/a.gguf",
        {"size": 4096},
        {"gpu_layers": 9},
    )
    assert only("FROM x\nCMD /app/llama-server -m /m/a.gguf -c 1\n").document["context"] == {"size": 1}


def test_what_a_script_exports_reaches_the_engine() -> None:
    document = only("export CUDA_VISIBLE_DEVICES=1\nexport EDITOR=vi\nllama-server -m /m/a.gguf\n").document
    assert document["environment"] == {"CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    "head", ["models:\n", "services:\n", "[Service]\nExecStart=", "[a]\n", "[Container]\nImage=x\n"]
)
@given(text=st.text(alphabet=st.sampled_from(list("abm-=$(){}[]'\"\\\n :#;|&<>,.019\t@%*")), max_size=100))
def test_no_text_makes_it_fail(head: str, text: str) -> None:
    try:
        run(head + text)
    except UsageError as error:
        assert "x.yaml" in error.message


def test_a_line_that_systemd_ignores_and_a_specifier_are_said() -> None:
    result = run("[Service]\nExecStart=/opt/llama-server -m /m/%i.gguf\n  -c 4096 --jinja\nRestart=always\n")
    assert [each.source for each in result.findings if each.fate == "lost"] == ["-c 4096 --jinja"]
    assert any(each.source == "-m /m/${%i}.gguf" for each in result.entries[0].findings if each.fate == "guessed")


def test_variables_of_newer_builds_are_their_flags() -> None:
    text = (
        "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K=q8_0 LLAMA_ARG_CACHE_PROMPT=0 LLAMA_ARG_ROPE_SCALING_TYPE=yarn llama-server"
    )
    entry = only(f"{text} -m /m/a.gguf --spec-type mtp\n")
    assert entry.document["speculative"] == {"type": "mtp", "kv_k": "q8_0"}
    assert entry.document["engine"]["upstream"]["extra_args"] == ["--no-cache-prompt"]
    assert entry.document["rope"] == {"scaling": "yarn"}


def test_a_preset_file_has_quotes_and_sections_without_a_model() -> None:
    result = run('[*]\nngl = 9\n[global]\nc = 1\n[Some-Model]\ntemp = 0.5\n[b]\nmodel = "/m/b.gguf"\n')
    documents = {entry.name: entry.document for entry in result.entries}
    assert documents["some-model"]["model"] == "~/models/Some-Model.gguf" and documents["b"]["model"] == "/m/b.gguf"
    assert "global" not in documents and "c = 1" in {each.source for each in result.findings}


def test_yaml_in_a_note_and_in_a_script_is_found() -> None:
    yaml = "models:\n  a:\n    cmd: llama-server -m /m/a.gguf -c 5\n"
    note = f"# Title: mine\n\n```yaml\n{yaml}```\nor\n```sh\nllama-server -m /m/b.gguf\n```\n"
    assert [(entry.name, entry.line) for entry in run(note).entries] == [("a", 5), ("b", 10)]
    script = f"#!/bin/sh\ncat > x.yaml <<EOF\n{yaml}EOF\nllama-server -m /m/b.gguf\n"
    assert [entry.document["model"] for entry in run(script).entries] == ["/m/a.gguf", "/m/b.gguf"]


def test_services_extend_others_and_leave_out_what_is_empty() -> None:
    text = (
        "services:\n  base:\n    image: x/llama.cpp:server\n    environment: [LLAMA_ARG_CTX_SIZE=512]\n"
        "    command: -m /m/x.gguf\n  b:\n    extends: {service: base}\n    environment: [LLAMA_ARG_N_PARALLEL=2, X]\n"
        "    command: -m /m/b.gguf ${MORE:-} -ngl ${NGL:-}\n"
    )
    document = run(text).entries[1].document
    assert document == {"model": "/m/b.gguf", "context": {"size": 512, "parallel": 2}}
