"""The cost of a start: CPU time of a bare interpreter, of each import, of `orch status --json` and of `orch plan`.

User and system time of a child process, the least of several runs; CPU time because the machine may be shared.

    python -m benchmarks.import_cost
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support import ORCH, new_home
from tests.true_geometry import write

RUNS = 15
PLAN_MS, MATRIX_MS = 300, 2000
IMPORTS = (
    "argparse", "json, socket", "http.client", "click", "msgspec", "tomllib", "tomlkit", "anyio", "httptools",
    "httpx", "uvloop", "psutil", "pynvml", "shtab", "prometheus_client", "huggingface_hub.hf_api", "ruamel.yaml",
)  # fmt: skip


def main() -> int:
    bare_ms = cost_ms([sys.executable, "-c", "pass"], {})
    print(f"{'python -c pass':28} {bare_ms:6.1f} ms")
    for names in IMPORTS:
        text = f"import {names}"
        code = f"try:\n {text}\nexcept ImportError:\n raise SystemExit(3)"
        total_ms = cost_ms([sys.executable, "-c", code], {})
        shown = "not installed" if total_ms < 0 else f"{total_ms - bare_ms:+6.1f} ms"
        print(f"{text:28} {shown}")

    with new_home() as home:
        home.serve()
        env = home.env
        status_ms = cost_ms([*ORCH, "status", "--json"], env, allowed=(0, 3))
        model = Path(home.root) / "Qwen3.6-35B-A3B-IQ4_XS.gguf"
        write(model, "qwen36-35b-a3b")
        plan_ms = cost_ms([*ORCH, "plan", str(model), "--vram", "12G"], env)
        matrix_ms = cost_ms([*ORCH, "plan", str(model), "--vram", "12G", "--matrix"], env)

    print(f"{'orch plan FILE':28} {plan_ms:6.1f} ms (limit {PLAN_MS})")
    print(f"{'orch plan FILE --matrix':28} {matrix_ms:6.1f} ms (limit {MATRIX_MS})")
    ratio = status_ms / bare_ms
    print(f"{'orch status --json':28} {status_ms:6.1f} ms, {ratio:.2f} times the bare interpreter (limit 4)")
    return 0 if ratio <= 4 and plan_ms <= PLAN_MS and matrix_ms <= MATRIX_MS else 1


def cost_ms(argv: list[str], env: dict[str, str], allowed: tuple[int, ...] = (0,)) -> float:
    """The least CPU time of several runs, ms; negative when the program could not do it."""
    best = float("inf")
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, target) for target in (0, 1, 2)]
    for _ in range(RUNS):
        pid = os.posix_spawn(argv[0], argv, env or os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status) not in allowed:
            best = -1.0
            break

        best = min(best, (usage.ru_utime + usage.ru_stime) * 1000)

    os.close(null)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
