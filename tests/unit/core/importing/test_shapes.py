"""One command line in the many forms that people keep it in: each becomes the same profile."""

from __future__ import annotations

import json
import shlex

import pytest

from orchestrator.adapters.config.yaml_file import read_yaml
from orchestrator.core.importing.findings import ImportEntry
from orchestrator.core.importing.sources import import_text

REST = "-c 4096 -ngl 99 -fa on --temp 0.7 --jinja -np 2 -t 8 -ctk q8_0 -ctv q8_0 -b 1024 -ub 256 --no-mmap --mlock"
LINE = f"-m /m/a.gguf {REST}"
INSIDE = f"-m /models/a.gguf {REST}"
"""As it is in a container that has `/m` as `/models`."""
WORDS = LINE.split()
IMAGE = "ghcr.io/ggml-org/llama.cpp:server-cuda"
SERVICE = f"services:\n  llm:\n    image: {IMAGE}\n    volumes: ['/m:/models']\n"
LISTED = ", ".join(json.dumps(word) for word in WORDS)
ARRAY = ",\n".join(f'    "{word}"' for word in WORDS)

SHAPES = {
    "sudo": f"sudo -u llm -E /opt/llama-server {LINE}",
    "env, taskset": f"exec env FOO=1 CUDA_VISIBLE_DEVICES=0 taskset -c 0-7 /opt/llama-server {LINE}",
    "numactl": f"OMP_NUM_THREADS=8 numactl --cpunodebind=0 --membind=0 ./llama-server {LINE}",
    "background": f"nohup ./llama-server {LINE} > /tmp/log 2>&1 &\necho $! > pid",
    "tmux": f"tmux new -d -s llm '/opt/llama-server {LINE}'",
    "screen": f'screen -dmS llm bash -c "/opt/llama-server {LINE}; exec bash"',
    "ssh": f'ssh host "cd /opt && ./llama-server {LINE}"',
    "alias": f"alias llm='llama-server {LINE}'",
    "serve": f"llama serve {LINE}",
    "subshell": f"(cd /opt && ./llama-server {LINE}) &",
    "loop": f"while true; do\n  ./llama-server {LINE}\n  sleep 5\ndone",
    "array": "ARGS=(\n" + "\n".join(WORDS) + '\n)\nexec llama-server "${ARGS[@]}" "$@"',
    "array of all": f'cmd=(/opt/llama-server {LINE})\necho "${{cmd[@]}}"\n"${{cmd[@]}}"',
    "eval": f'CMD="llama-server {LINE}"\neval "$CMD"',
    "text that grows": f'O="-m /m/a.gguf"\nif [ "$X" ]; then O="$O {REST}"; fi\nllama-server $O',
    "function": f'run() {{\n  local m="$1"; shift\n  llama-server -m "$m" "$@"\n}}\nrun /m/a.gguf {REST}',
    "default of an argument": f'f () {{\n  local c=${{1:-4096}}\n  llama-server -m /m/a.gguf -c "$c" {REST[8:]}\n}}\nf',
    "case": f'case "${{1:-a}}" in\n  a) C=4096 ;;\n  b) C=1 ;;\nesac\nllama-server -m /m/a.gguf -c $C {REST[8:]}',
    "arguments of a script": f"C=4096\nwhile [ $# -gt 0 ]; do C=$2; done\nllama-server -m /m/a.gguf -c $C {REST[8:]}",
    "docker run": f"docker run -d --gpus all -v /m:/models -p 8080:8080 {IMAGE} {INSIDE}",
    "docker entrypoint": f"docker run --rm --entrypoint=/app/llama-server --ipc=host -v /m:/models x/y:full {INSIDE}",
    "docker sh": f'docker run --rm -v /m:/models x/llama:latest bash -c "cd /app && ./llama-server {INSIDE}"',
    "docker exec": f"docker exec -it llama /app/llama-server {LINE}",
    "toolbox": f"toolbox run -c llama-rocm llama-server {LINE}",
    "nix": f"nix run github:ggml-org/llama.cpp#vulkan -- {LINE}",
    "systemd-run": f"systemd-run --user --unit=llm -p MemoryMax=40G /opt/llama-server {LINE}",
    "powershell": '& "C:\\llama\\llama-server.exe" `\n  -m "/m/a.gguf" `\n  ' + REST,
    "powershell list": f'<# it starts a server #>\n$a = @(\n{ARRAY}\n)\n& "$PSScriptRoot\\llama-server.exe" @a',
    "powershell process": f'Start-Process -FilePath "C:\\l\\llama-server.exe" -ArgumentList "{LINE}" -NoNewWindow',
    "powershell in a batch file": "@echo off\npowershell -WindowStyle Hidden -Command \"Start-Process -FilePath "
    f"'%~dp0llama-server.exe' -ArgumentList '{LINE}' -WindowStyle Minimized\"",
    "batch": f'@echo off\nset MODEL=/m/a.gguf\nif "%C%"=="" set C=4096\n'
    f'llama-server.exe ^\n -m "%MODEL%" ^\n -c %C% {REST[8:]}',
    "batch, flags in a variable": f"@echo off\nset ARGS={LINE}\nllama-server.exe %ARGS%\npause",
    "batch start": f'start "LLM" /B cmd /c "llama-server.exe {LINE}"',
    "nssm": f"nssm set llm AppParameters '{LINE}'",
    "fish": f"set -x MODEL /m/a.gguf\nllama-server -m $MODEL {REST}",
    "note": f"# It's how I run it\n\n```bash\nllama-server \\\n  {LINE}\n```",
    "prompt": f"user@box:~/llama.cpp$ ./build/bin/llama-server {LINE}",
    "comment in between": f"llama-server \\\n  -m /m/a.gguf \\\n  # -c 8192 \\\n  {REST}",
    "help text before": f"usage() {{\n  cat <<EOF\nIt's llama-server --model PATH -c N\nEOF\n}}\n"
    f"llama-server {LINE}",
    "written by a script": "sudo tee /etc/x.service > /dev/null <<'EOF'\n[Service]\n"
    f"ExecStart=/o/llama-server {LINE}\nEOF",
    "unit": f"[Service]\nExecStart=/opt/llama-server {LINE}\n[Install]\nWantedBy=default.target",
    "unit, flags in a variable": f'[Service]\nEnvironment="ARGS={LINE}"\nExecStart=/opt/llama-server $ARGS',
    "unit shell": f'[Service]\nExecStart=/usr/bin/env bash -lc "source ~/.bashrc && exec llama-server {LINE}"',
    "unit docker": f"[Service]\nExecStart=/usr/bin/docker run --rm --name llm \\\n"
    f"  -v /m:/models \\\n  {IMAGE} {INSIDE}",
    "quadlet": f"[Container]\nImage={IMAGE}\nExec={INSIDE}\nVolume=/m:/models:ro\nAddDevice=/dev/dri",
    "supervisord": f"[program:llm]\ncommand=/opt/llama-server {LINE}\nautostart=true",
    "compose": f"{SERVICE}    command: {INSIDE}",
    "compose, folded": f"{SERVICE}    command: >-\n      -m /models/a.gguf\n      {REST}",
    "compose list": f"{SERVICE}    command:\n" + "".join(f"      - {json.dumps(word)}\n" for word in INSIDE.split()),
    "compose sh": f"{SERVICE}    entrypoint: ['/bin/sh', '-c']\n    environment: {{C: '{REST}'}}\n"
    "    command: ['exec /app/llama-server -m /models/a.gguf $$C']",
    "compose anchor": f"x-a: &a\n  image: {IMAGE}\n  volumes: ['/m:/models']\nservices:\n"
    f"  llm:\n    <<: *a\n    command: {INSIDE}",
    "compose extends": f"{SERVICE}    profiles: [x]\n  b:\n    extends: {{service: llm}}\n    command: {INSIDE}",
    "dockerfile": f'FROM {IMAGE}\nCMD [{LISTED}]',
    "llama-swap": f"models:\n  a:\n    cmd: |\n      /o/llama-server --port ${{PORT}}\n      # -c 9\n"
    f"      -m /m/a.gguf \\\n      {REST}",
    "llama-swap macros": "macros:\n  s: /o/llama-server --port ${PORT}\n  c: 4096\n  all: ${s} -c ${c}\nmodels:\n  a:\n"
    f"    cmd: ${{all}} -m /m/a.gguf {REST[8:]}",
    "llama-swap docker": f"models:\n  a:\n    cmd: docker run --name ${{MODEL_ID}} --rm -v /m:/models {IMAGE} {INSIDE}",
    "router": "version = 1\n[*]\nfa = on\njinja = true\n[a]\nmodel = /m/a.gguf\nc = 4096\nngl = 99\n"
    "temp = 0.7\nnp = 2\nthreads = 8\n"
    "ctk = q8_0\ncache-type-v = q8_0\nbatch-size = 1024 ; all\nub = 256\nno-mmap = true\nmlock = 1",
}  # fmt: skip


def only(text: str) -> ImportEntry:
    result = import_text(f"{text}\n", {"HOME": "/home/me"}, lambda each: read_yaml(each, "x.yaml"))
    [entry] = [each for each in result.entries if not each.refusal]
    return entry


@pytest.mark.parametrize("shape", SHAPES)
def test_a_line_is_the_same_profile_in_every_form(shape: str) -> None:
    document, plain = only(SHAPES[shape]).document, only(f"llama-server {LINE}").document
    beside = ("environment", "aliases")
    assert {key: value for key, value in document.items() if key not in beside} == plain


@pytest.mark.parametrize("shape", SHAPES)
def test_every_flag_is_in_a_finding(shape: str) -> None:
    entry = only(SHAPES[shape])
    told = {shlex.split(each.source)[0] for each in entry.findings if each.source.startswith("-")}
    assert {word for word in WORDS if word.startswith("-")} <= told | {
        flag for flag in WORDS if SHAPES[shape].startswith("version")
    }
