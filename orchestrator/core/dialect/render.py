"""A profile as the argv of one build, from what that build says it accepts.

The tables are in `tables.py` and `speculative.py`; docs/dialects.md shows them for recorded builds.
Nothing here asks for an engine's name. A setting ends on the command line, in a note, or in the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.dialect.adapters import render_adapters, render_overrides
from orchestrator.core.dialect.capabilities import Capabilities, Kind
from orchestrator.core.dialect.extra_args import find_faults, find_settings
from orchestrator.core.dialect.forms import (
    Inexpressible,
    Sheet,
    accepts_flag,
    profile_text,
    same_value,
    spell,
)
from orchestrator.core.dialect.speculative import render_speculation
from orchestrator.core.dialect.tables import FITTING, LOAD_FLAGS, LOAD_MODES, PLACEMENT, REST, Form, Row, Shape
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.speculation import speculates


@dataclass(frozen=True, slots=True)
class Rendered:
    """A command line without the binary, and what the user should know about it."""

    argv: tuple[str, ...]
    notes: tuple[str, ...]


class UnsupportedError(UsageError):
    """Raised when a build cannot express what a profile asks for; `details` has a line for each setting."""


@dataclass(frozen=True, slots=True)
class _Conflict:
    """Two settings that a build refuses together, although it knows the flags of both."""

    kind: Kind
    setting: str
    value: Value
    against: tuple[str, ...]
    harmless: tuple[Value, ...]
    reason: str


_CONFLICTS = (
    _Conflict(
        "ik", "memory.fit", True,
        ("memory.cpu_moe", "memory.n_cpu_moe", "memory.tensor_overrides", "memory.gpu_layers"), (False, "auto", "all"),
        "its fit places the model itself and does not go with `{other}`; drop one of the two",
    ),
    _Conflict(
        "ik", "memory.mmap", True,
        ("memory.repack",), (False,),
        "repacking while loading reads the file instead of mapping it; drop `{other}`",
    ),
)  # fmt: skip

_OWN_DEFAULTS: Mapping[str, tuple[str, str]] = {
    "context.parallel": ("--no-kv-unified", "this build would open 4 slots that share one KV buffer"),
}
"""What a build does when it is not told, and the flag that shows that it does: said, because passing it changes that.

A default of orch that is not here makes every engine do the same; one whose flag a build lacks is its own default.
"""


@dataclass(frozen=True, slots=True)
class _OwnedArgument:
    """An argument that is orch's own.

    :param needed: a build without it cannot be supervised; else it is left out
    """

    forms: tuple[Form, ...]
    needed: bool = False


_SERVER: Mapping[str, _OwnedArgument] = {
    "model": _OwnedArgument((Form(Shape.VALUE, ("--model",)),), needed=True),
    "alias": _OwnedArgument((Form(Shape.VALUE, ("--alias",)),)),
    "host": _OwnedArgument((Form(Shape.VALUE, ("--host",)),), needed=True),
    "port": _OwnedArgument((Form(Shape.VALUE, ("--port",)),), needed=True),
    "api_key_file": _OwnedArgument((Form(Shape.VALUE, ("--api-key-file",)),), needed=True),
    "metrics": _OwnedArgument((Form(Shape.BARE, ("--metrics",)),)),
    "slots": _OwnedArgument((Form(Shape.BARE, ("--slots",)),)),
    "log_colors": _OwnedArgument((Form(Shape.VALUE, ("--log-colors",)),)),
    # 4 is `trace` since `--log-colors` takes a value (March 2026 at the latest): buffer sizes and fitting are logged
    # there. Before, and in the fork, the number means something else and those lines are always printed.
    "verbosity": _OwnedArgument((Form(Shape.VALUE, ("-lv",), beside=("--log-colors=",)),)),
    "offline": _OwnedArgument((Form(Shape.BARE, ("--offline",)),)),
    # Upstream looks whether a stream's client is still there when it says `:` to it, every 30 s by itself.
    "sse_ping_interval": _OwnedArgument((Form(Shape.VALUE, ("--sse-ping-interval",)),)),
}


def render(
    profile: EngineProfile,
    caps: Capabilities,
    *,
    build: str,
    model: str,
    host: str,
    port: str,
    api_key_file: str | None,
) -> Rendered:
    """Return the argv that starts this profile on a build with these capabilities.

    :param build: what to call the build in messages
    :param model: path of the GGUF, absolute
    :param api_key_file: file with the key that the engine asks its clients for
    :raises UnsupportedError: when the build cannot express a setting; it lists every one
    """
    sheet = Sheet()
    _add_rows(PLACEMENT, profile.settings, caps, sheet)
    _add_load_mode(profile.settings, caps, sheet)
    _add_rows(FITTING, profile.settings, caps, sheet)
    render_speculation(profile.settings, caps, sheet)
    _add_rows(REST, profile.settings, caps, sheet)
    render_adapters(profile.settings, caps, sheet)
    render_overrides(profile.settings, caps, sheet)
    _check_conflicts(profile.settings, caps, sheet)

    owned = {"model": model, "alias": _alias(profile, caps), "host": host, "port": port}
    if api_key_file is not None:
        owned["api_key_file"] = api_key_file

    if caps.kind == "ik" and host.endswith(".sock"):
        sheet.refuse("host", host, "it listens on TCP only; nearest here 127.0.0.1")

    # The order of `_SERVER`, so that the same profile gives the same line whatever it sets.
    values = {**owned, "log_colors": "off", "verbosity": "4", "sse_ping_interval": "1"}
    for name, argument in _SERVER.items():
        if name != "api_key_file" or api_key_file is not None:
            _add_owned(name, argument, values.get(name, True), caps, sheet)

    _add_extra_args(profile, caps, sheet)
    if sheet.problems:
        raise _unsupported_error(profile, build, sheet.problems)

    return Rendered(tuple(sheet.argv), tuple(sheet.notes))


def _add_rows(rows: Iterable[Row], settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    for row in rows:
        if row.setting in settings:
            sheet.add(row.setting, settings[row.setting], spell(row, settings[row.setting], caps))
        elif row.default is not None and not any(accepts_flag(caps, flag) for flag in row.default_unless):
            _add_default(row, row.default, caps, sheet)


def _add_default(row: Row, default: Value, caps: Capabilities, sheet: Sheet) -> None:
    result = spell(row, default, caps)
    if isinstance(result, Inexpressible) or not result.argv:
        return

    sheet.argv += result.argv
    evidence, otherwise = _OWN_DEFAULTS.get(row.setting, ("", ""))
    if not evidence or accepts_flag(caps, evidence):
        passed = f"{row.setting} is unset: `{' '.join(result.argv)}` is passed, so that every engine does the same"
        sheet.notes.append(f"{passed} ({otherwise})" if otherwise else passed)


def _add_load_mode(settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    """Add the way to read the file: one word since b10142; flags of their own before that, and in the fork."""
    given = {row.setting: settings[row.setting] for row in LOAD_FLAGS if row.setting in settings}
    if not accepts_flag(caps, "--load-mode="):
        _add_rows(LOAD_FLAGS, settings, caps, sheet)
        return

    mode = _load_mode(given.get("memory.mmap"), given.get("memory.mlock"), given.get("memory.direct_io"))
    if mode is None:
        for setting, value in given.items():
            sheet.refuse(setting, value, "`--load-mode` takes one way to read the file; drop all but one")

        return

    if mode == "auto":
        for setting, value in given.items():
            sheet.note(setting, value, "nothing to pass, the build's own load mode is `auto`")

        return

    row = Row(
        "memory.mmap",
        (Form(Shape.VALUE, ("--load-mode",), words=LOAD_MODES),),
        nearest="nearest here `memory.mmap` or `memory.mlock` alone",
    )
    result = spell(row, mode, caps)
    if isinstance(result, Inexpressible):
        for setting, value in given.items():
            sheet.refuse(setting, value, result.reason)
    else:
        sheet.argv += result.argv


def _load_mode(mmap: Value | None, mlock: Value | None, direct_io: Value | None) -> str | None:
    """Return the word for three settings; None when two exclude one another. Unset mmap means mapped, as elsewhere."""
    if direct_io is True:
        return None if mmap is True or mlock is True else "dio"

    if mlock is True:
        return "mlock" if mmap is False else "mmap+mlock"

    return {True: "mmap", False: "none"}.get(mmap, "auto") if isinstance(mmap, bool) else "auto"


def _check_conflicts(settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    for conflict in _CONFLICTS:
        if caps.kind != conflict.kind or settings.get(conflict.setting) != conflict.value:
            continue

        for other in conflict.against:
            value = settings.get(other)
            if value is not None and not any(same_value(value, word) for word in conflict.harmless):
                sheet.refuse(conflict.setting, conflict.value, conflict.reason.format(other=other))

    parallel = settings.get("context.parallel", 1)
    if caps.kind == "ik" and parallel != 1 and speculates(settings):
        sheet.refuse("context.parallel", parallel, "it speculates with one slot only; nearest here 1")


def _alias(profile: EngineProfile, caps: Capabilities) -> str:
    # A comma list is told by its neighbour of the same change: the names themselves are in the help's prose alone.
    names = [profile.name, *(alias for alias in profile.aliases if "," not in alias and alias != profile.name)]
    return ",".join(dict.fromkeys(names)) if accepts_flag(caps, "--tags=") else profile.name


def _add_owned(name: str, owned: _OwnedArgument, value: Value, caps: Capabilities, sheet: Sheet) -> None:
    result = spell(Row(name, owned.forms, nearest="use another build"), value, caps)
    if not isinstance(result, Inexpressible):
        sheet.argv += result.argv
    elif owned.needed:
        sheet.refuse(name, value, result.reason)


def _add_extra_args(profile: EngineProfile, caps: Capabilities, sheet: Sheet) -> None:
    sheet.argv += profile.extra_args
    for fault in find_faults(profile.extra_args, caps):
        sheet.refuse("extra_args", profile.extra_args, fault)

    for flag, setting in find_settings(profile.extra_args, caps):
        twice = ", which this profile has too: the argument comes last and wins" if setting in profile.settings else ""
        sheet.notes.append(f"extra_args: `{flag}` is said by `{setting}` for every engine{twice}")


def _unsupported_error(
    profile: EngineProfile, build: str, problems: Sequence[tuple[str, Value, str]]
) -> UnsupportedError:
    lines = dict.fromkeys(
        f"{setting} = {profile_text(value)}: {build} cannot: {why}" for setting, value, why in problems
    )
    count = len({setting for setting, _, _ in problems})
    return UnsupportedError(
        f"{build} cannot do what profile `{profile.name}` asks for: {count} setting{'s' if count != 1 else ''}",
        details=tuple(lines),
        hint=f"change them for this engine alone under `[engine.{profile.engine}]`,"
        f" or see what it accepts with `orch engines probe {profile.engine}`",
    )
