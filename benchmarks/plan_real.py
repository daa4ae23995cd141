"""Whether the first start of each shipped profile lives on its card: `python -m benchmarks.plan_real [NAME ...]`.

Models with their true geometry and without weights, on a device that counts bytes and grants what the card has, with
both engines' real builds where they are installed (`ORCH_ENGINE_HOME`). For each start: the margin of its first rung,
what the engine was given, and how many MiB of the card stayed free. Loading takes some three seconds for each GB.
Exits 1 when a start fails.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.paths import find_paths
from orchestrator.core.dialect.render import render
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.ladder import apply_rung, first_rung
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.starts.margins import moved_margin
from orchestrator.engines.registry import Engine, EngineRegistry
from orchestrator.engines.start_plan import StartPlanner
from tests import true_geometry
from tests.engines.conftest import engine_paths
from tests.engines.serving import started
from tests.support import until
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.null_device import NullDevice, null_device

READY_S = 240.0
CARD = re.compile(r"-(\d+)gb$")
CONTEXT_MIB = 600
"""What a driver's context takes of a real card before anything is placed."""

QUANTS = {"12gb": "q2_k", "16gb": "q3_k_m", "24gb": "iq4_xs"}
"""Of the dense model, by card: near the profiles' files, in mixes that there are without an importance matrix."""


class Outcome(NamedTuple):
    """One start."""

    ready: bool
    margin_mib: int
    given_mib: int
    free_mib: float
    last_line: str


def start(engine: Engine, profile: EngineProfile, model: Path, device: NullDevice, directory: Path) -> Outcome:
    remote: dict[str, object] = {"memory.rpc": (device.address,), "cpu.threads": 1}
    if engine.capabilities.kind == "ik":
        remote["memory.devices"] = ("CPU", f"RPC0[{device.address}]")
        remote["speculative.type"] = "none"  # the build of spring 2026 has no MTP for this architecture

    profile = replace(profile, settings={**profile.settings, **remote})  # type: ignore[dict-item]
    tried = apply_rung(profile, first_rung(profile))
    planner = StartPlanner(tried, engine, str(model), read_splits(str(model)), ())
    moved, _ = moved_margin(tried, planner.margin_offset(tried))
    names = {"build": engine.build, "model": str(model), "host": "127.0.0.1", "port": "1"}
    argv = render(moved, engine.capabilities, **names, api_key_file=None).argv
    at = argv.index("--host")
    with started(engine, directory, *argv[:at], *argv[at + 4 :]) as server:
        until(lambda: server.process.poll() is not None or server.is_ready(), "it is ready or over", READY_S)
        ready = server.process.poll() is None
        free, _ = device.memory.told()
        last = server.text().strip().splitlines()[-1]

    margin, given = (each.settings["memory.fit_margin"] for each in (tried, moved))
    assert isinstance(margin, int) and isinstance(given, int)
    return Outcome(ready, margin, given, free / MIB, "" if ready else last[:120])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="profiles, or engines; default: all of them")
    names = parser.parse_args().names
    profiles = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"})).load_all()[0]
    registry = EngineRegistry(engine_paths(), {"PATH": "/usr/bin:/bin"})
    failed = False
    with tempfile.TemporaryDirectory(prefix="orch-plan-real-") as directory:
        for profile in profiles:
            card = CARD.search(profile.name)
            if card is None:
                continue

            for engine_id in ("upstream", "ik-fork"):
                wanted = [name for name in names if name in (profile.name, engine_id)]
                if names and len(wanted) < len({name in ("upstream", "ik-fork") for name in names}):
                    continue

                try:
                    engine = registry.resolve(engine_id)
                except OrchError as error:
                    print(f"{engine_id}: {error.message}")
                    continue

                geometry = "qwen36-35b-a3b" if "35b" in profile.name else "qwen36-27b"
                quant = "iq4_xs" if "35b" in profile.name else QUANTS[card[0][1:]]
                mtp = engine.capabilities.kind == "upstream"
                model = Path(directory) / f"{geometry}-{quant}-{mtp}.gguf"
                if not model.exists():
                    true_geometry.write(model, geometry, quant, mtp=mtp)

                with null_device(7 if mtp else 3, int(card[1]) * 1024 - CONTEXT_MIB) as device:
                    found = start(engine, profile.for_engine(engine_id), model, device, Path(directory))

                failed = failed or not found.ready
                what = "lives" if found.ready else "dies"
                figures = f"margin {found.margin_mib:5} given {found.given_mib:5} free {found.free_mib:7.0f}"
                print(f"{profile.name:22} {engine_id:9} {what:5} {figures} {found.last_line}", flush=True)

    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
