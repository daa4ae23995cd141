"""The accuracy of `diagnose` on labelled logs: `python -m benchmarks.classifier [PATH]`.

PATH holds one JSON object a line (`id`, `class`, `action`, `phase`, `exit`, `alive`, `confidence`, `log`). Without it,
the logs are those that `ORCH_FAILURE_LOGS` names, else the repository's own, for which the classifier was repaired.

Prints accuracy, confusion matrices and the misses by id. Exits 1 when class is below 95 %, action below 90 %, or a log
labelled `ok` is answered with a restart or a retry. By default the classifier is told what `orch explain` is told: the
log and the exit status. `--alive` tells it too whether the process went on, which the daemon knows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.core.engine_log.wrappers import parse_pasted_log
from orchestrator.core.failure.diagnosis import Diagnosis, diagnose

VARIABLE = "ORCH_FAILURE_LOGS"
OWN = Path(__file__).parents[1] / "tests" / "fixtures" / "logs" / "from_sources.jsonl"
"""Written from the format strings of both engines."""

MIN_CLASS, MIN_ACTION = 0.95, 0.90
HARMFUL = ("restart", "retry_margin", "retry_other")


class Score(NamedTuple):
    """One log: its labels, and the answer."""

    row: dict[str, Any]
    found: Diagnosis

    def right(self, label: str) -> bool:
        return bool(self.row[label] == self.answer(label))

    def answer(self, label: str) -> str:
        return str(getattr(self.found, "failure_class" if label == "class" else label))


def exit_of(value: object) -> int | None:
    """`SIGABRT` as Python gives it, a code as it is."""
    if value is None or isinstance(value, int):
        return value

    text = str(value)
    return -int(signal.Signals[text]) if text.startswith("SIG") else int(text)


def measure(rows: Iterable[dict[str, Any]], *, alive: bool = False) -> list[Score]:
    return [
        Score(
            row,
            diagnose(
                parse_pasted_log(row["log"].split("\n")), exit_of(row["exit"]), alive=row["alive"] if alive else None
            ),
        )
        for row in rows
    ]


def accuracy(scores: list[Score], label: str) -> float:
    return sum(score.right(label) for score in scores) / len(scores)


def harmful(scores: list[Score]) -> list[Score]:
    """Logs of processes that went on, which would be answered by stopping them."""
    return [score for score in scores if score.row["class"] == "ok" and score.found.action in HARMFUL]


def passes(scores: list[Score]) -> bool:
    return accuracy(scores, "class") >= MIN_CLASS and accuracy(scores, "action") >= MIN_ACTION and not harmful(scores)


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("path", nargs="?", type=Path, default=os.environ.get(VARIABLE) or OWN)
    parser.add_argument("--alive", action="store_true", help="tell the classifier whether the process went on")
    parser.add_argument("--ids", type=Path, help="measure only the logs whose ids stand in this file, one a line")
    args = parser.parse_args()
    if not args.path.exists():
        print(f"no logs at {args.path}", file=sys.stderr)
        return 2

    rows = load(args.path)
    if args.ids:
        wanted = set(args.ids.read_text().split())
        rows = [row for row in rows if row["id"] in wanted]

    scores = measure(rows, alive=args.alive)
    for label in ("class", "action", "phase"):
        _matrix(scores, label)

    for label in ("class", "action", "phase"):
        print(f"{label:7}{accuracy(scores, label):7.1%}  of {len(scores)}")

    print(f"ok logs answered by a restart or a retry: {len(harmful(scores))}")
    for score in scores:
        wrong = [label for label in ("class", "action", "phase") if not score.right(label)]
        if wrong:
            said = ", ".join(f"{label} {score.answer(label)} for {score.row[label]}" for label in wrong)
            print(f"  {score.row['id']} ({score.row['confidence']}): {said}")

    return 0 if passes(scores) else 1


def _matrix(scores: list[Score], label: str) -> None:
    counts = Counter((score.row[label], score.answer(label)) for score in scores)
    names = sorted({name for pair in counts for name in pair})
    width = max(map(len, names))
    print(f"{label}: labelled (rows) against found (columns)")
    print(" " * (width + 2) + " ".join(f"{name[:7]:>7}" for name in names))
    for row in names:
        cells = " ".join(f"{counts[row, column] or '.':>7}" for column in names)
        print(f"  {row:{width}}{cells}")

    print()


if __name__ == "__main__":
    sys.exit(main())
