"""From a parsed TOML document to a `Profile`, collecting every problem on the way.

A file becomes a `Layer`: flat keys, only what it sets. `extends` stacks layers, the child's keys over the parent's, so
that each value of the result can be traced to the file that says it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.core.dialect.known_flags import explain_flag, explain_key
from orchestrator.core.dialect.owned_flags import find_refused_flags
from orchestrator.core.problems import Key, Problems, did_you_mean, dotted, nearest
from orchestrator.core.profile.absent import explain_absent
from orchestrator.core.profile.free_tables import ENVIRONMENT, FREE_TABLES, read_metadata, read_variable
from orchestrator.core.profile.keys import ENGINE_KEYS, HEAD, RECOVERY, RESIDENCY, TOP_KEYS
from orchestrator.core.profile.profile import (
    DEFAULT_ENGINE,
    DEMO_MODEL,
    NAME_RULE,
    SCHEMA_VERSION,
    EngineOverride,
    Profile,
    Recovery,
    is_name,
)
from orchestrator.core.profile.settings import BY_PATH, KV_TYPES, TABLES, Setting, Value
from orchestrator.core.profile.values import describe_type, read_value
from orchestrator.core.profile.variants import KEY as VARIANTS
from orchestrator.core.profile.variants import Variant, read_variants

ENGINE_DEFAULT: Key = ("engine", "default")

_NOT_INHERITED = frozenset({("schema",), ("extends",), ("description",), ("aliases",)})
"""An alias belongs to one profile, and a description is about one file."""

_FLAG_VARIABLE = "LLAMA_ARG_"

_A_SLIP = 0.85
"""How alike two words are when one is the other misspelt, and not another word (`difflib`'s ratio)."""

_STEP = re.compile(r"(kv):(\w+)|(context):([0-9]{1,9})|(n_cpu_moe):\+?([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Layer:
    """One profile file as read, before its parent comes in.

    :param values: flat keys; the default engine is `("engine", "default")` whichever way it was written
    :param variants: of this file: as an alias, a variant's name belongs to one profile
    """

    name: str
    file: str
    values: Mapping[Key, Value]
    extends: str | None
    variants: tuple[Variant, ...] = ()


def may_lack_model(name: str) -> bool:
    """Return whether a profile may have no model: one named `base-...` is there to be extended."""
    return name.startswith("base-")


def read_layer(
    document: Mapping[str, object], name: str, file: str, problems: Problems, resolve: Callable[[str], str]
) -> Layer:
    """Read the document of one profile file.

    :param resolve: turns a path as written into an absolute one
    """
    values: dict[Key, Value] = {}
    variants: tuple[Variant, ...] = ()
    _read_schema(document, problems)
    for key, raw in document.items():
        if key == "engine":
            _read_engine(raw, values, problems)
        elif key in HEAD:
            value = read_value(HEAD[key], raw, (key,), problems, allow_empty=True)
            if value is not None:
                values[(key,)] = value
        elif key == "recovery":
            _read_recovery(raw, (key,), values, problems)
        elif key == "residency":
            _read_own_table(RESIDENCY, raw, (key,), values, problems)
        elif key == VARIANTS:
            variants = read_variants(raw, problems)
        elif key in TABLES:
            _read_table(key, raw, (key,), values, problems)
        elif key in FREE_TABLES:
            _read_free_table(key, raw, (key,), values, problems)
        else:
            _add_unknown_key((key,), raw, TOP_KEYS, problems)

    _check_head(values, problems)
    extends = values.get(("extends",))
    for path, value in values.items():
        if isinstance(value, str) and _is_path(path) and value != DEMO_MODEL:
            values[path] = resolve(value)
        elif isinstance(value, tuple) and _is_path(path):
            values[path] = tuple(resolve(str(part)) for part in value)

    return Layer(name, file, values, extends if isinstance(extends, str) else None, variants)


def merge_layers(layers: Sequence[Layer]) -> tuple[dict[Key, Value], dict[Key, Layer]]:
    """Return the values of a stack of layers, child first, and the layer that each comes from."""
    values: dict[Key, Value] = {}
    origins: dict[Key, Layer] = {}
    for depth, layer in reversed(list(enumerate(layers))):
        for key, value in layer.values.items():
            if depth == 0 or key not in _NOT_INHERITED:
                values[key] = value
                origins[key] = layer

    return values, origins


def build_profile(layers: Sequence[Layer]) -> Profile | None:
    """Return the profile that a stack of valid layers makes, child first; None without a model."""
    values, _ = merge_layers(layers)
    model = values.get(("model",))
    if not isinstance(model, str):
        return None

    engines = dict.fromkeys(str(key[1]) for key in values if key[0] == "engine" and len(key) > 2)
    common = _recovery(values, ("recovery",), Recovery())
    return Profile(
        name=layers[0].name,
        file=layers[0].file,
        model=model,
        engine=str(values.get(ENGINE_DEFAULT, DEFAULT_ENGINE)),
        description=str(values.get(("description",), "")),
        aliases=cast("tuple[str, ...]", values.get(("aliases",), ())),
        settings=_settings(values, ()),
        recovery=common,
        extra_args=cast("tuple[str, ...]", values.get(("extra_args",), ())),
        overrides={engine: _override(values, engine, common) for engine in engines},
        extends=tuple(layer.name for layer in layers[1:]),
        variants=layers[0].variants,
        residency={str(key[1]): value for key, value in values.items() if key[0] == "residency"},
    )


def _read_schema(document: Mapping[str, object], problems: Problems) -> None:
    version = document.get("schema")
    if version is None:
        problems.add(("schema",), "`schema` is missing", hint=f"begin the file with `schema = {SCHEMA_VERSION}`")
    elif isinstance(version, bool) or not isinstance(version, int):
        return  # said by the table of head keys
    elif version > SCHEMA_VERSION:
        problems.add(
            ("schema",),
            f"`schema`: {version} is newer than this orch understands ({SCHEMA_VERSION})",
            hint="update orch",
        )
    elif version != SCHEMA_VERSION:
        problems.add(("schema",), f"`schema`: expected {SCHEMA_VERSION}, found {version}")


def _read_engine(raw: object, values: dict[Key, Value], problems: Problems) -> None:
    if isinstance(raw, str):
        raw = {"default": raw}

    if not isinstance(raw, dict):
        problems.add(("engine",), f"`engine`: expected a string or a table, found {describe_type(raw)}")
        return

    for engine, content in raw.items():
        key = ("engine", engine)
        if engine == "default":
            if not isinstance(content, str):
                problems.add(key, f"`engine.default`: expected a string, found {describe_type(content)}")
            elif not is_name(content):
                problems.add(key, f"`engine.default`: expected {NAME_RULE}, found `{content[:64]}`")
            else:
                values[ENGINE_DEFAULT] = content
        elif not isinstance(content, dict):
            problems.add(
                key,
                f"`{dotted(key)}`: expected a table, found {describe_type(content)}",
                hint=did_you_mean(engine, ("default",)),
            )
        elif not is_name(engine):
            problems.add(key, f"`engine`: expected {NAME_RULE}, found `{engine[:64]}`")
        else:
            _read_override(content, engine, values, problems)


def _read_override(content: Mapping[str, object], engine: str, values: dict[Key, Value], problems: Problems) -> None:
    for key, raw in content.items():
        where: Key = ("engine", engine, key)
        if key == "extra_args":
            value = read_value(HEAD["extra_args"], raw, where, problems, allow_empty=True)
            if value is not None:
                values[where] = value
                _check_extra_args(cast("tuple[str, ...]", value), where, problems)
        elif key == "recovery":
            _read_recovery(raw, where, values, problems)
        elif key in TABLES:
            _read_table(key, raw, where, values, problems)
        elif key in FREE_TABLES:
            _read_free_table(key, raw, where, values, problems)
        else:
            _add_unknown_key(where, raw, ENGINE_KEYS, problems)


def _add_unknown_key(where: Key, raw: object, allowed: Sequence[str], problems: Problems) -> None:
    """Say what is meant: of a table that is not known, each of its keys may be."""
    key = str(where[-1])
    inside = [found for name in raw if (found := _meaning(key, str(name)))] if isinstance(raw, dict) else []
    hint = explain_absent(key) or "; ".join(dict.fromkeys(inside)) or did_you_mean(key, allowed) or _meaning("", key)
    problems.add(where, f"unknown key `{dotted(where)}`", hint=hint)


def _flag_of_variable(name: str) -> str | None:
    """Return what a variable of upstream's that stands for a flag is in a profile: `LLAMA_ARG_CTX_SIZE`."""
    return explain_flag("--" + name.removeprefix(_FLAG_VARIABLE).lower().replace("_", "-"))


def _read_free_table(table: str, raw: object, where: Key, values: dict[Key, Value], problems: Problems) -> None:
    if not isinstance(raw, dict):
        problems.add(where, f"`{dotted(where)}`: expected a table, found {describe_type(raw)}")
        return

    read = read_variable if table == ENVIRONMENT else read_metadata
    for key, content in raw.items():
        value, message, hint = read(key, content)
        if message is not None:
            hint = _flag_of_variable(key) if table == ENVIRONMENT and key.startswith(_FLAG_VARIABLE) else hint
            problems.add((*where, key), f"`{dotted((*where, key))}`: {message}", hint=hint)
        elif value is not None:
            values[(*where, key)] = value


def _read_table(table: str, raw: object, where: Key, values: dict[Key, Value], problems: Problems) -> None:
    if not isinstance(raw, dict):
        problems.add(where, f"`{dotted(where)}`: expected a table, found {describe_type(raw)}")
        return

    allowed = [setting.key for setting in BY_PATH.values() if setting.table == table]
    for key, content in raw.items():
        setting = BY_PATH.get(f"{table}.{key}")
        if setting is None:
            problems.add(
                (*where, key), f"unknown key `{dotted((*where, key))}`", hint=_spelling_hint(key, table, allowed)
            )
            continue

        value = read_value(setting, content, (*where, key), problems)
        if value is not None:
            values[(*where, key)] = value


def _spelling_hint(key: str, table: str, allowed: Sequence[str]) -> str | None:
    """Return the nearest meaning of a key, before its nearest spelling."""
    elsewhere = [setting.path for setting in BY_PATH.values() if setting.key == key and setting.table != table]
    if len(elsewhere) == 1:
        return f"did you mean `{elsewhere[0]}`?"

    close = nearest(key, allowed, cutoff=_A_SLIP)
    return did_you_mean(close, allowed) if close else _meaning(table, key) or did_you_mean(key, allowed)


def _meaning(table: str, key: str) -> str | None:
    whole = BY_PATH.get(f"{table}.{key}") if table else None
    return f"did you mean `{whole.path}`?" if whole is not None else explain_key(table, key)


def _read_own_table(
    allowed: Mapping[str, Setting], raw: object, where: Key, values: dict[Key, Value], problems: Problems
) -> None:
    """Read a table that is orch's own, not an engine's."""
    if not isinstance(raw, dict):
        problems.add(where, f"`{dotted(where)}`: expected a table, found {describe_type(raw)}")
        return

    for key, content in raw.items():
        setting = allowed.get(key)
        if setting is None:
            problems.add((*where, key), f"unknown key `{dotted((*where, key))}`", hint=did_you_mean(key, allowed))
            continue

        value = read_value(setting, content, (*where, key), problems, allow_empty=True)
        if value is not None:
            values[(*where, key)] = value


def _read_recovery(raw: object, where: Key, values: dict[Key, Value], problems: Problems) -> None:
    _read_own_table(RECOVERY, raw, where, values, problems)
    margins, steps = values.get((*where, "margins")), values.get((*where, "then"))
    if margins is not None:
        _check_margins(cast("tuple[int, ...]", margins), (*where, "margins"), problems)

    if steps is not None:
        _check_steps(cast("tuple[str, ...]", steps), (*where, "then"), problems)


def _check_margins(margins: tuple[int, ...], where: Key, problems: Problems) -> None:
    for at, (before, after) in enumerate(itertools.pairwise(margins), start=1):
        if after <= before:
            problems.add(
                (*where, at),
                f"`{dotted(where)}`: each must be greater than the one before, found {before} then {after}",
            )


def _check_steps(steps: tuple[str, ...], where: Key, problems: Problems) -> None:
    for at, step in enumerate(steps):
        name = dotted((*where, at))
        match = _STEP.fullmatch(step)
        if match is None:
            problems.add(
                (*where, at),
                f"`{name}`: expected `kv:TYPE`, `context:N`, `n_cpu_moe:+N` or `n_cpu_moe:N`, found `{step[:60]}`",
            )
        elif match[1] and match[2] not in KV_TYPES:
            problems.add((*where, at), f"`{name}`: unknown KV type `{match[2]}`", hint=did_you_mean(match[2], KV_TYPES))
        elif match[3] and int(match[4]) < 1:
            problems.add((*where, at), f"`{name}`: expected a context of at least 1 token, found 0")
        elif match[5] and int(match[6]) < 1:
            problems.add((*where, at), f"`{name}`: expected at least 1 layer, found 0")


def _check_head(values: Mapping[Key, Value], problems: Problems) -> None:
    aliases = cast("tuple[str, ...]", values.get(("aliases",), ()))
    for at, alias in enumerate(aliases):
        if not alias.isprintable() or len(alias) > 200:
            problems.add(("aliases", at), f"`aliases[{at}]`: expected at most 200 printable characters")
        elif alias in aliases[:at]:
            problems.add(("aliases", at), f"`aliases[{at}]`: `{alias}` is there twice")

    _check_extra_args(cast("tuple[str, ...]", values.get(("extra_args",), ())), ("extra_args",), problems)
    extends = values.get(("extends",))
    if isinstance(extends, str) and not is_name(extends):
        problems.add(("extends",), f"`extends`: expected the name of a profile ({NAME_RULE}), found `{extends[:64]}`")

    model = values.get(("model",))
    if model == "":
        problems.add(("model",), "`model`: expected the path of a GGUF file, found nothing")
    elif isinstance(model, str) and model.startswith("hf:"):
        problems.add(
            ("model",),
            f"`model`: expected the path of a GGUF file, found the repository `{model[:100]}`",
            hint="`orch pull` fetches it and says its path",
        )
    elif isinstance(model, str) and model.startswith("orch:") and model != DEMO_MODEL:
        problems.add(
            ("model",), f"`model`: unknown special model `{model[:60]}`", hint=f"`{DEMO_MODEL}` is the only one"
        )


def _check_extra_args(extra_args: tuple[str, ...], where: Key, problems: Problems) -> None:
    for index, flag, reason in find_refused_flags(extra_args):
        problems.add((*where, index), f"`{dotted(where)}`: `{flag}` belongs to orch: {reason}")


def _is_path(key: Key) -> bool:
    if key == ("model",):
        return True

    setting = BY_PATH.get(".".join(str(part) for part in key[-2:]))
    return setting is not None and ("path" in setting.types or "paths" in setting.types)


def _settings(values: Mapping[Key, Value], prefix: Key) -> dict[str, Value]:
    depth = len(prefix)
    return {
        f"{key[depth]}.{key[depth + 1]}": value
        for key, value in values.items()
        if len(key) == depth + 2 and key[:depth] == prefix and (key[depth] in TABLES or key[depth] in FREE_TABLES)
    }


def _recovery(values: Mapping[Key, Value], where: Key, base: Recovery) -> Recovery:
    return Recovery(
        margins=cast("tuple[int, ...]", values.get((*where, "margins"), base.margins)),
        then=cast("tuple[str, ...]", values.get((*where, "then"), base.then)),
        max_attempts=cast(int, values.get((*where, "max_attempts"), base.max_attempts)),
    )


def _override(values: Mapping[Key, Value], engine: str, common: Recovery) -> EngineOverride:
    prefix: Key = ("engine", engine)
    own_recovery = any(key[:3] == (*prefix, "recovery") for key in values)
    return EngineOverride(
        settings=_settings(values, prefix),
        recovery=_recovery(values, (*prefix, "recovery"), common) if own_recovery else None,
        extra_args=cast("tuple[str, ...]", values.get((*prefix, "extra_args"), ())),
    )
