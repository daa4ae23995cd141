"""A recorded build: what it prints for `--help` and `--version`, and which words it takes.

The words come from a table that `tests/faults/lab.py` writes from the recorded help: a fake engine starts in 40 ms, and
has no time to read 60 KB of help.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

HELP = os.path.join(os.path.dirname(__file__), "..", "..", "fixtures", "help")


class Refused(Exception):
    """Carries what the engine prints before it ends with exit code 1."""


@dataclass(frozen=True)
class Build:
    """One recorded build.

    :param takes: whether a spelling is followed by a value; other words are refused
    :param removed: spellings that are known only to be refused
    :param slow_by: tokens take so many times as long as the model's faults say
    """

    name: str
    takes: dict[str, bool]
    removed: list[str]
    slow_by: float = 1.0

    @classmethod
    def load(cls, table: str) -> Build:
        with open(table, encoding="utf-8") as file:
            return cls(**json.load(file))

    @property
    def is_upstream(self) -> bool:
        return self.name.startswith("upstream")

    def text(self, part: str) -> str:
        with open(os.path.join(HELP, f"{self.name}.{part}.txt"), encoding="utf-8") as file:
            return file.read()

    def read(self, argv: list[str]) -> dict[str, str]:
        """The values by spelling, up to the first word that makes the engine print and exit.

        :raises Refused: at the first word that this build does not take
        """
        given: dict[str, str] = {}
        words = iter(argv)
        for word in words:
            if word not in self.takes:
                kind = "invalid" if self.is_upstream else "unknown"
                raise Refused(f"error: {kind} argument: {word}")

            if word in self.removed:
                raise Refused(f'error while handling argument "{word}": the argument has been removed.')

            given[word] = next(words, "") if self.takes[word] else "on"
            if word in ("--version", "--help", "-h"):
                return given

        return given
