"""What an import drags in, seen from fresh interpreters: a test process has imported everything already."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import orchestrator
from orchestrator.cli.main import VERBS as cli_verbs
from orchestrator.cli.main import module_of

ROOT = Path(orchestrator.__file__).parent
VERBS = sorted(module_of(verb) for verb in cli_verbs)
CORE = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "core").rglob("*.py"))

HEAVY = [
    "aiohttp",
    "anyio",
    "asyncio",
    "concurrent",
    "dataclasses",
    "email",
    "gguf",
    "hashlib",
    "http",
    "httptools",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "importlib.metadata",
    "inspect",
    "logging",
    "msgspec",
    "multiprocessing",
    "numpy",
    "psutil",
    "pydoc",
    "pynvml",
    "ruamel.yaml",
    "shtab",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "textual",
    "tomlkit",
    "tomllib",
    "unittest",
    "urllib.request",
    "uvloop",
    "xllamacpp",
]
"""What `orch status` must not pay for."""

THIRD_PARTY = [
    "anyio",
    "httpx",
    "httpx2",
    "httptools",
    "huggingface_hub",
    "msgspec",
    "numpy",
    "psutil",
    "pynvml",
    "shtab",
    "textual",
    "tomlkit",
    "uvloop",
    "xllamacpp",
]
"""What a command may import only when it runs: `orch COMMAND --help` and completion import its module."""

IMPURE = [
    "anyio",
    "asyncio",
    "httpx",
    "logging",
    "psutil",
    "pynvml",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
]
"""Input, output, clocks and chance: the core is given what it needs."""


@cache
def modules_after(code: str) -> frozenset[str]:
    """The modules that a fresh interpreter has after this code and not before."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    # -I: neither the environment nor the working directory decide what is found.
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(done.stdout.split())


def within(modules: frozenset[str], packages: list[str]) -> list[str]:
    return sorted(
        module
        for module in modules
        if any(module == package or module.startswith(f"{package}.") for package in packages)
    )


def imports_of(source: Path) -> Iterator[str]:
    """The modules that a file names, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_finding_the_command_imports_nothing_heavy() -> None:
    assert within(modules_after("import orchestrator.cli.main"), HEAVY) == []


def test_finding_the_command_imports_no_command() -> None:
    assert within(modules_after("import orchestrator.cli.main"), VERBS) == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_status_of_a_daemon_that_is_not_there_imports_nothing_heavy(options: list[str], tmp_path: Path) -> None:
    code = f"""
import os
os.environ["ORCH_HOME"] = {str(tmp_path)!r}
from orchestrator.cli.main import main
assert main(["status", *{options!r}]) == 3
"""
    assert within(modules_after(code), HEAVY) == []


def test_showing_a_status_imports_nothing_heavy() -> None:
    assert (
        within(
            modules_after("import orchestrator.cli.operate.status, orchestrator.cli.operate.render_status, json"), HEAVY
        )
        == []
    )


@pytest.mark.parametrize("module", VERBS)
def test_a_command_imports_its_libraries_when_it_runs(module: str) -> None:
    assert within(modules_after(f"import {module}"), [*THIRD_PARTY, "asyncio"]) == []


def test_the_core_as_a_whole_drags_in_neither_io_nor_a_clock() -> None:
    loaded = modules_after("".join(f"import orchestrator.{name}\n" for name in CORE))
    outside = ["orchestrator." + path.stem for path in ROOT.iterdir() if path.stem not in ("core", "__init__")]
    assert within(loaded, [*THIRD_PARTY, "asyncio", "logging", "socket", "subprocess"]) == []
    assert within(loaded, outside) == []


@pytest.mark.parametrize("name", CORE)
def test_a_module_of_the_core_names_neither_io_nor_a_clock(name: str) -> None:
    assert within(frozenset(imports_of(ROOT / f"{name.replace('.', '/')}.py")), IMPURE) == []
