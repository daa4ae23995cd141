"""What it takes to find models among many files, as `orch init` does.

    python -m benchmarks.find_models [--files 10000] [--runs 5]

The files are empty and in the layouts of LM Studio, the hub's cache and a person's own directories: models, parts,
projectors and draft heads. The first run has the directories read from the disk, as far as it does not remember them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from orchestrator.adapters.paths import find_paths
from orchestrator.engines.models.search import find_models

NAMES = ("A{}-Q8_0", "mmproj-A{}-F16", "B{}-Q4_K_M-00001-of-00002", "mtp-A{}-Q8_0")
FOLDERS = (
    ".lmstudio/models/org{}/Repository{}-GGUF",
    ".cache/huggingface/hub/models--org{}--Repository{}/snapshots/abc",
    "models/own{}/more{}",
)


def fill(home: str, count: int) -> None:
    """Make so many files."""
    for number in range(count):
        group = number // len(NAMES)
        folder = os.path.join(home, FOLDERS[group % len(FOLDERS)].format(group % 20, group % 400))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{NAMES[number % len(NAMES)].format(group)}.gguf"), "wb"):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        fill(home, options.files)
        environment = {"HOME": home}
        paths = find_paths({"ORCH_HOME": os.path.join(home, "orch")})
        for _ in range(options.runs):
            began, used = time.perf_counter(), time.process_time()
            found = find_models(paths, environment)
            wall, cpu = time.perf_counter() - began, time.process_time() - used
            print(f"{options.files} files: {len(found.models)} models in {wall:.2f} s, {cpu:.2f} s of CPU time")

    return 0


if __name__ == "__main__":
    raise SystemExit(main())
