"""What was measured of a profile's speed, with all that is known of what it was measured on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

NORMAL_95 = 1.96
"""Standard deviations of a normal distribution within which 95 % of it lie."""

_DRIVER = re.compile(r"(?:NVRM version:)?\s*(.*?\d+\.\d+(?:\.\d+)*)")
_NO_SETTINGS = frozenset({"--host", "--port", "--api-key-file", "--alias", "--model", "-m"})
"""Flags whose values orch chooses for a start, names, and the model, which is compared by its file."""


@dataclass(frozen=True, slots=True)
class MachineNames:
    """The machine that something was measured on.

    :param processor: its name; `cpus` how many there are
    :param devices: names of the GPUs
    :param driver: the first line of what NVIDIA's driver says of itself; None without one
    :param kernel: name and release of the system
    """

    processor: str
    cpus: int
    devices: tuple[str, ...]
    driver: str | None
    kernel: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a speed was measured on, as far as orch knows it: any of these may be why it is another one later.

    :param build: its label and the beginning of its program's digest
    :param model: name and size of the file
    :param settings: the command line by flag, without address, keys and names
    :param device: names of GPUs and processor
    :param driver: of NVIDIA; empty without one: others come with the kernel
    """

    build: str
    model: str
    settings: Mapping[str, str]
    device: str
    driver: str
    kernel: str


@dataclass(frozen=True, slots=True)
class CircumstanceChange:
    """One thing that is another one; empty where there is none."""

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what} {self.then or '(none)'} -> {self.now or '(none)'}"


@dataclass(frozen=True, slots=True)
class SpeedMark:
    """One measurement of a profile's speed: answers to clients of one start on one day, or one target of a bench.

    :param when_s: Unix time at which it began
    :param engine: without a build
    :param kind: how it was measured; only marks of one kind are compared
    :param decode_tok_s: the median of the answers, or the bench's mean, with its 95 % interval
    :param step_ms: of one decoding step, the median; a step yields one token, and the drafts that were right
    :param prompt_tok_s: None where no prompt was long enough to tell
    :param bench: its number; None for answers to clients
    :param trial: a build or settings that were named for a bench alone
    """

    when_s: float
    profile: str
    engine: str
    kind: str
    circumstances: Circumstances
    answers: int
    decode_tok_s: float
    low_tok_s: float
    high_tok_s: float
    step_ms: float
    prompt_tok_s: float | None = None
    bench: int | None = None
    trial: bool = False

    @property
    def has_level(self) -> bool:
        """Whether it holds a rate that can be compared: what is read from a file may hold anything."""
        return 0 < (self.decode_tok_s if self.bench is not None else self.step_ms) < inf

    @property
    def level(self) -> float:
        """What is compared, the logarithm of a rate: of tokens in a bench, which repeats its texts; of steps in answers
        to clients, where the share of accepted drafts changes with what they ask.
        """
        return log(self.decode_tok_s) if self.bench is not None else -log(self.step_ms / 1000)

    @property
    def own_error(self) -> float:
        """The standard error of `level` that a bench knows of itself, by its blocks; infinite without an interval.

        That of answers is in how they scatter from mark to mark.
        """
        if self.bench is None:
            return 0.0

        known = self.low_tok_s > 0 and self.high_tok_s > 0
        return log(self.high_tok_s / self.low_tok_s) / (2 * NORMAL_95) if known else inf


def circumstances_of(
    build: str, model: str, model_bytes: int, argv: Sequence[str], machine: MachineNames
) -> Circumstances:
    """Return what something is measured on.

    :param build: its label and the beginning of its program's digest
    :param model: a path, or the name of the file
    :param argv: the engine's command line, the program first
    """
    driver = _DRIVER.match(machine.driver or "")
    return Circumstances(
        build=build,
        model=f"{model.rpartition('/')[2]}, {model_bytes} bytes",
        settings=settings_of(argv),
        device=", ".join((*machine.devices, f"{machine.processor}, {machine.cpus} CPUs")),
        driver=" ".join(driver[1].split()) if driver else machine.driver or "",
        kernel=machine.kernel,
    )


def settings_of(argv: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command line with their values; a flag that is given twice has both, in order."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in argv[1:]:
        if word.startswith("-") and not word[1:2].isdigit():
            flag = word
            found.setdefault(flag, [])
        elif flag:
            found[flag].append(word)

    return {flag: " ".join(values) for flag, values in found.items() if flag not in _NO_SETTINGS}


def changes(then: Circumstances, now: Circumstances) -> tuple[CircumstanceChange, ...]:
    """Return what is another one, the likeliest reason for another speed first."""
    names = ("build", "driver", "kernel", "model", "device")
    found = [CircumstanceChange(name, getattr(then, name), getattr(now, name)) for name in names]
    flags = dict.fromkeys((*then.settings, *now.settings))
    found += [CircumstanceChange(f"setting {flag}", _value(then, flag), _value(now, flag)) for flag in flags]
    return tuple(each for each in found if each.then != each.now)


def _value(circumstances: Circumstances, flag: str) -> str:
    """Return a flag's value; a flag without one is on."""
    return circumstances.settings[flag] or "on" if flag in circumstances.settings else ""
