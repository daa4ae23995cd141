"""A fake engine: a real process that looks like a recorded build of either engine, and fails on command.

    main TABLE ARGV...

Upstream's answers 503 while it loads; the fork is bound and silent until it has loaded. The children of the daemon get
a scrubbed environment, so that commands come from a file beside the model (`faults.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from tests.fakes.fake_llama.command_line import Build, Refused
from tests.fakes.fake_llama.dying import die, leave_grandchild
from tests.fakes.fake_llama.faults import Faults, Files
from tests.fakes.fake_llama.serving import Engine
from tests.fakes.fake_llama.texts import Log
from tests.fakes.fake_llama.web import accept_for_ever

LOAD_STEP_S = 0.05


def main() -> None:
    build = Build.load(sys.argv[1])
    words = sys.argv[2:]
    log = Log(build.is_upstream)
    try:
        given = build.read(words)
    except Refused as refused:
        log.bare(str(refused))
        os._exit(1)

    if "--version" in given:
        sys.stderr.write(build.text("version"))
    elif "--help" in given:
        sys.stdout.write(build.text("help"))
        sys.exit(0 if build.is_upstream else 1)
    else:
        run(build, given, words, log)


def run(build: Build, given: dict[str, str], argv: list[str], log: Log) -> None:
    model = _first(given, "--model", "-m")
    port = int(given["--port"])
    files = Files(model, f"{os.path.basename(model).removesuffix('.gguf')}-{os.getpid()}")
    faults = files.begin(argv, port)
    faults = replace(faults, tokens_s=faults.tokens_s / build.slow_by)
    if faults.die_at == "spawn":
        die(faults, log)

    if faults.grandchild:
        leave_grandchild(faults.grandchild)

    if faults.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    time.sleep(faults.bind_after_s)
    listener = bind(build, port, log, share=faults.reuseport)
    with open(given["--api-key-file"], encoding="ascii") as file:
        key = file.read().strip()

    slots = int(_first(given, "--parallel", "-np") or 4)
    margin = _first(given, "--fit-target", "--fit-margin", "-fitt")
    drafts = any("mtp" in value or name in ("-mtp", "--multi-token-prediction") for name, value in given.items())
    engine = Engine(
        faults, files, log, upstream=build.is_upstream, model=_first(given, "--alias", "-a") or model, key=key,
        slots=slots, drafts=drafts,
    )  # fmt: skip
    name = "llama.cpp" if build.is_upstream else "ik_llama.cpp"
    extra = f"X-Fake-Instance: {files.instance}\r\nServer: {name}\r\n".encode()
    accepting = threading.Thread(target=accept_for_ever, args=(listener, engine.handle, extra), daemon=True)
    if build.is_upstream and faults.hang != "accept":
        accepting.start()

    if faults.free_mib:
        log.device(faults.free_mib)

    log.loading(model)
    load(faults, log)
    if faults.oom_below_mib and int((margin or "0").split(",")[0]) < faults.oom_below_mib:
        log.out_of_memory(model, faults.oom_mib or faults.oom_below_mib)
        os._exit(1)

    if not faults.ignore_term:
        heed_term(faults, files, log)

    context = _first(given, "--ctx-size", "-c") or "4096"
    log.loaded(context, slots, int(margin.split(",")[0]) if margin else None)
    engine.loaded.set()
    log.listening(port)
    if not build.is_upstream and faults.hang != "accept":
        accepting.start()

    live(faults, files, log)


def bind(build: Build, port: int, log: Log, *, share: bool) -> socket.socket:
    listener = socket.socket()
    if share or not build.is_upstream:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        log.server(
            f"srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}",
            "couldn't bind HTTP server socket",
            "E",
        )
        os._exit(1)

    listener.listen(512 if build.is_upstream else 5)
    return listener


def _compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def load(faults: Faults, log: Log) -> None:
    until = time.monotonic() + faults.load_s
    while (left_s := until - time.monotonic()) > 0:
        if faults.load_moves:
            log.line("load_tensors: loading", "T")

        if faults.load_computes:
            _compute(min(left_s, LOAD_STEP_S))
        else:
            time.sleep(min(left_s, LOAD_STEP_S))

    if faults.die_at == "load":
        die(faults, log)


def heed_term(faults: Faults, files: Files, log: Log) -> None:
    def end(number: int, frame: Any) -> None:
        log.server("srv    operator(): cleaning up before exit...", "cleaning up before exit...")
        time.sleep(faults.slow_term_s)
        files.mark("ended")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def live(faults: Faults, files: Files, log: Log) -> None:
    if faults.log_bytes:
        log.garbage(faults.log_bytes)

    began = time.monotonic()
    printed = 0
    while True:
        time.sleep(0.01 if faults.die_at == "ready" or faults.log_lines_s else 1000)
        if faults.die_at == "ready" and time.monotonic() - began >= faults.after:
            files.note("died")
            die(faults, log)

        due = int((time.monotonic() - began) * faults.log_lines_s)
        if due > printed:
            log.bare("\n".join(f"flood line {number}" for number in range(printed, due)))
            printed = due


def _first(given: dict[str, str], *names: str) -> str:
    return next((given[name] for name in names if name in given), "")
