"""Builds as `orch engines build` installs them, made of any program."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.adapters.paths import Paths
from orchestrator.engines.build import installs
from tests.support import Home


def install_build(
    paths: Paths,
    engine: str,
    build: str,
    server: str | Path,
    *,
    current: bool = False,
    built_at: str = "2026-01-01T00:00:00Z",
    source: dict[str, object] | None = None,
) -> installs.Install:
    """Install a program as a build of an engine.

    :param server: copied: it must not depend on what lies beside it
    """
    directory = Path(installs.root_of(engine, paths), build)
    (directory / "bin").mkdir(parents=True)
    shutil.copy2(server, directory / "bin" / "llama-server")
    files, links, size = installs.describe(str(directory))
    facts = {"version": f"version of {build}", "backend": "cpu", "source": source or {"kind": "path", "path": "/src"}}
    installs.write_manifest(
        str(directory), {**facts, "files": files, "links": links, "size_bytes": size, "built_at": built_at}
    )
    if current:
        installs.make_current(engine, build, paths)

    return installs.find(engine, build, paths)


def install_script(home: Home, paths: Paths, name: str, line: str, *, current: bool = False) -> installs.Install:
    """Install a program of one line of shell as a build of upstream."""
    script = Path(home.write(f"programs/{name}", f"#!/bin/sh\n{line}\n"))
    script.chmod(0o755)
    return install_build(paths, "upstream", name, script, current=current)
