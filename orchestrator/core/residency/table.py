"""The table `[residency]` of `orch.toml`: its keys, and what they must not say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from orchestrator.core.problems import Key, Problems, did_you_mean, dotted
from orchestrator.core.profile.profile import NAME_RULE, is_name
from orchestrator.core.profile.settings import Setting, Value
from orchestrator.core.terminal import quote_text

Groups = tuple[tuple[str, ...], ...]

PRELOAD: Key = ("residency", "preload")
EXCLUSIVE: Key = ("residency", "exclusive")


@dataclass(frozen=True, slots=True)
class ResidencyConfig:
    """What is loaded, and what stays loaded."""

    policy: Literal["fit", "one"] = "fit"
    max: int = 0
    idle_unload_s: float = 0.0
    preload: tuple[str, ...] = ()
    exclusive: Groups = ()


RESIDENCY_SETTINGS: tuple[Setting, ...] = (
    Setting("residency.policy", ("string",), "as many models as fit into memory, or one", choices=("fit", "one")),
    Setting("residency.max", ("int",), "models that are loaded at a time; 0: any number", minimum=0, maximum=1000),
    Setting("residency.idle_unload_s", ("float",), "unload a model after so long without a request, s; 0: never",
            minimum=0, maximum=2_592_000),
    Setting("residency.preload", ("strings",), "profiles that are loaded when the daemon starts"),
    Setting("residency.exclusive", ("groups",), "groups of profiles of which one at a time is loaded"),
)  # fmt: skip


def check_residency(values: Mapping[str, Value], problems: Problems) -> None:
    """Add what is wrong with the names and the groups, and with what is preloaded together."""
    preload = cast("tuple[str, ...]", values["residency.preload"])
    groups = cast(Groups, values["residency.exclusive"])
    _check_names(preload, PRELOAD, problems)
    for at, group in enumerate(groups):
        where = (*EXCLUSIVE, at)
        _check_names(group, where, problems)
        if len(group) < 2:
            found = f"only `{quote_text(group[0], 64)}`" if group else "none"
            problems.add(where, f"`{dotted(where)}`: expected at least two profiles in a group, found {found}")

    for at, name in enumerate(preload):
        before = preload[:at]
        for number, group in enumerate(groups):
            other = next((each for each in before if name not in before and {name, each} <= set(group)), None)
            if other is not None:
                message = f"`{dotted((*PRELOAD, at))}`: `{name}` is never loaded beside `{other}`"
                problems.add((*PRELOAD, at), f"{message} (`{dotted((*EXCLUSIVE, number))}`)")

    most = 1 if values["residency.policy"] == "one" else cast(int, values["residency.max"])
    count = len(set(preload))
    if most and count > most:
        key = 'policy = "one"' if values["residency.policy"] == "one" else f"max = {most}"
        problems.add(PRELOAD, f"`{dotted(PRELOAD)}`: expected at most {most} (`residency.{key}`), found {count}")


def find_unknown_names(values: Mapping[str, Value], names: Iterable[str], problems: Problems) -> None:
    """Add the profiles that the table names and that are not there.

    :param names: of the profiles that are
    """
    known = frozenset(names)
    for key, name in named_profiles(values):
        if is_name(name) and name not in known:
            hint = did_you_mean(name, known) or "`orch profile list` shows them"
            problems.add(key, f"`{dotted(key)}`: there is no profile `{name}`", hint=hint)


def named_profiles(values: Mapping[str, Value]) -> Sequence[tuple[Key, str]]:
    """Return the profiles that the table names, with their places."""
    preload = cast("tuple[str, ...]", values["residency.preload"])
    found: list[tuple[Key, str]] = [((*PRELOAD, at), name) for at, name in enumerate(preload)]
    for number, group in enumerate(cast(Groups, values["residency.exclusive"])):
        found += (((*EXCLUSIVE, number, at), name) for at, name in enumerate(group))

    return found


def _check_names(names: Sequence[str], where: Key, problems: Problems) -> None:
    for at, name in enumerate(names):
        place = (*where, at)
        if not is_name(name):
            problems.add(place, f"`{dotted(place)}`: expected {NAME_RULE}, found `{quote_text(name, 64)}`")
        elif name in names[:at]:
            problems.add(place, f"`{dotted(place)}`: `{name}` is there twice")
