"""`orch-embedded-server`: llama-server's command line in front of the server in the `xllamacpp` wheel.

The log is upstream's own, on stderr, with its prefixes; ggml's and libllama's lines (buffer sizes, fitting) appear at
`-lv 4` as they do there. What differs: the start-up lines carry the tag `init` where upstream's carry `llama_server`,
`/props` says `b0-unknown` because the wheel's build does not know its number, and the memory table at exit is missing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence

from orchestrator.engines.embedded.help_layout import help_text
from orchestrator.engines.embedded.option_table import OPTIONS, completed
from orchestrator.engines.embedded.options import ArgumentError, Assignment, apply, parse

OK = 0
FAILED = 1

_STARTED = time.monotonic()
LOG_S = 0.3


def main(argv: Sequence[str] | None = None) -> int:
    if importlib.util.find_spec("xllamacpp") is None:
        return _fail(
            "error: the embedded engine needs xllamacpp, which is not installed here",
            f"  interpreter: {sys.executable}",
            'hint: run `pip install "llama-orch[embedded]"`',
        )

    try:
        parsed = parse(sys.argv[1:] if argv is None else argv, OPTIONS)
    except ArgumentError as error:
        return _fail(error.message)

    if parsed.command == "help":
        sys.stdout.write(help_text(OPTIONS))
        return OK

    try:
        import xllamacpp  # noqa: F401
    except ImportError as error:  # a minimal system lacks libgomp; told as the dynamic linker tells it of a program
        return _fail(
            f"orch-embedded-server: error while loading shared libraries: {error}",
            "hint: install what is missing with the system's packages (libgomp.so.1: `apt install libgomp1`)",
        )

    if parsed.command == "version":
        sys.stderr.write(_version())
        return OK

    if parsed.command == "devices":
        sys.stdout.write(_devices())
        return OK

    if not any(assignment.path == "model.path" for assignment in parsed.assignments):
        return _fail("error: --model is required (this server has no router mode)")

    return _serve(parsed.assignments)


def _serve(assignments: Sequence[Assignment]) -> int:
    # While loading, a signal ends the process at once, as it ends llama-server: the constructor below does not return
    # to the interpreter, and Python's own handler for SIGINT would wait for it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import xllamacpp

    params = xllamacpp.CommonParams()
    try:
        apply(completed(assignments), params, xllamacpp)
    except ArgumentError as error:
        return _fail(error.message)

    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        time.sleep(LOG_S)  # the server has logged why, by a thread of its own that nobody can wait for
        return FAILED

    _wait_for_signal(server)
    _log("srv  llama_server: cleaning up before exit...")
    # Returning would run the server's destructor, which waits up to 30 s for a running request.
    os._exit(OK)


def _wait_for_signal(_server: object) -> None:
    """Return at SIGINT or SIGTERM; the server serves as long as it is referenced."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    os.read(reading, 1)


def _version() -> str:
    """Upstream's form. The wheel's last component is the number of llama.cpp's tag (its release script)."""
    import xllamacpp

    version = importlib.metadata.version("xllamacpp")
    last = version.rpartition(".")[2]
    build = xllamacpp.BUILD_INFO
    number = build["build_number"] or (int(last) if last.isdigit() else 0)
    return (
        f"version: {version} (build {number}, commit {build['commit']})\n"
        f"built with {build['compiler']} for {build['build_target']}\n"
    )


def _devices() -> str:
    import xllamacpp

    lines = ["Available devices:"]
    for device in xllamacpp.get_device_info():
        if device["type"] != xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU:
            total, free = device["memory_total"] >> 20, device["memory_free"] >> 20
            lines.append(f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)")

    return "\n".join(lines if len(lines) > 1 else [*lines, "  (none)"]) + "\n"


def _fail(*lines: str) -> int:
    sys.stderr.write("\n".join(lines) + "\n")
    return FAILED


def _log(text: str) -> None:
    """One line in the form of upstream's log: minutes, seconds, milliseconds, microseconds, level."""
    microseconds = int((time.monotonic() - _STARTED) * 1e6)
    seconds, microseconds = divmod(microseconds, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    stamp = f"{minutes}.{seconds:02}.{microseconds // 1000:03}.{microseconds % 1000:03}"
    sys.stderr.write(f"{stamp} I {text}\n")
    sys.stderr.flush()
