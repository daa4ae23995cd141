"""Small real programs that answer as engines do, or misbehave; for what a real build does not do on demand."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from orchestrator.adapters.paths import Paths, find_paths
from tests.support import FIXTURES

HELP = FIXTURES / "help"

UPSTREAM = "upstream-b11434"
FORK_OLD = "ik-0.1.5-sdist"
FORK_NEW = "ik-b4840"

STAGE = "mtp:n_max=1,p_min=0.0"


def paths_below(directory: Path) -> Paths:
    return find_paths({"ORCH_HOME": str(directory / "orch")})


def program(path: Path, *lines: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def engine(path: Path, name: str, *, refuses: Iterable[str] = (), version: str | None = None) -> Path:
    """Prints a recorded help and version; reads its words from left to right, as both engines do."""
    help_text, version_text = (shlex.quote(str(HELP / f"{name}.{part}.txt")) for part in ("help", "version"))
    says_version = f"echo {shlex.quote(version)} >&2" if version is not None else f"cat {version_text} >&2"
    refused = " ".join(["", *refuses, ""])
    return program(
        path,
        'for word in "$@"; do',
        '  case "$word" in',
        f"    --version) {says_version}; exit 0 ;;",
        f"    --help) cat {help_text}; exit {0 if name.startswith('upstream') else 1} ;;",
        "  esac",
        f'  case {shlex.quote(refused)} in *" $word "*) echo "error: unknown argument: $word" >&2; exit 1 ;; esac',
        "done",
    )
