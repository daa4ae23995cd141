"""Combinations of settings that cannot work, each with its reason.

Only what is knowable without a build stands here: what one build cannot express is the dialect's business, and whether
the model has an MTP head is the GGUF's. Evidence for each rule: the engines' own checks and messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import Key
from orchestrator.core.profile.facts import DEFAULT_BATCH, Check, ProfileFacts
from orchestrator.core.profile.input_rules import INPUT_RULES
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.core.profile.speculation import DRAFTERS, NEED_DRAFT_MODEL, speculates

_KINDS: Mapping[str, Kind] = {"upstream": "upstream", "embedded": "upstream", "ik-fork": "ik"}

_CONTEXT_STEP = re.compile(r"context:([0-9]{1,9})")
_PLAIN_TYPES = ("f32", "f16", "bf16")


def engine_kind(engine: str) -> Kind:
    """Return the dialect of a built-in engine by its name; of one that the user added, only a probe can tell."""
    return _KINDS.get(engine, "unknown")


@dataclass(frozen=True, slots=True)
class Conflict:
    """One combination that cannot work.

    :param keys: the settings concerned, the one to report first; keys of the profile as it stands for its engine
    :param missing: it is about something that is not set, which a misspelt key would explain
    """

    keys: tuple[Key, ...]
    message: str
    missing: bool = False


def find_conflicts(profile: EngineProfile, kind: Kind) -> list[Conflict]:
    """Return the combinations of a profile that cannot work on an engine of this kind.

    :param kind: `unknown` leaves out the rules that hold for one engine only
    """
    facts = ProfileFacts(profile, kind)
    found = []
    for paths, check in _RULES:
        message = check(facts)
        if message is not None:
            found.append(Conflict(tuple(_key(path) for path in paths), message, check in _ABOUT_MISSING))

    return found


def named_engines(profile: Profile) -> tuple[str, ...]:
    """Return the engines that a profile names itself: its own, and those it says something different for."""
    return tuple(dict.fromkeys((profile.engine, *profile.overrides)))


def checked_when_read(profile: Profile, engine: str, kind: Kind) -> bool:
    """Return whether reading the profile has already checked it for this engine.

    Left for later are the engines that a profile does not name, and those whose kind only a probe can tell.
    """
    return engine in named_engines(profile) and engine_kind(engine) == kind


def refuse_combinations(profile: EngineProfile, kind: Kind) -> None:
    """Check the combinations for an engine whose kind is known by now.

    :raises UsageError: with every combination that cannot work there
    """
    found = find_conflicts(profile, kind)
    if found:
        raise UsageError(
            f"profile `{profile.name}` cannot work on the engine `{profile.engine}`",
            details=tuple(finding.message for finding in found),
            hint=f"say what differs there in a table `[engine.{profile.engine}]`",
        )


def _key(path: str) -> Key:
    return tuple(path.split("."))


def _draft_model_unused(facts: ProfileFacts) -> str | None:
    if facts.get("speculative.draft_model") is None or {*facts.types} & {*DRAFTERS}:
        return None

    if facts.get("speculative.type") == "none":
        return None  # a child may turn off what its parent set up

    what = f"is `{facts.type_text}`" if facts.get("speculative.type") else "is not set"
    return f'`speculative.draft_model` would be loaded and never used: `speculative.type` {what}, not `"draft"`'


def _draft_model_missing(facts: ProfileFacts) -> str | None:
    if {*facts.types} & {*NEED_DRAFT_MODEL} and facts.get("speculative.draft_model") is None:
        return f"`speculative.type = {facts.type_text}` needs `speculative.draft_model`"

    return None


def _quantised_v_without_flash(facts: ProfileFacts) -> str | None:
    if facts.get("attention.flash") not in (False, "off"):
        return None

    kv_type = facts.get("kv.v")
    if isinstance(kv_type, str) and kv_type not in _PLAIN_TYPES:
        return f'`kv.v = "{kv_type}"` needs flash attention, which `attention.flash` turns off: no engine starts'

    for step in facts.profile.recovery.then:
        kv_type = step.removeprefix("kv:")
        if kv_type != step and kv_type not in _PLAIN_TYPES:
            return f"the recovery step `{step}` needs flash attention, which `attention.flash` turns off"

    return None


def _fit_with_placement(facts: ProfileFacts) -> str | None:
    if not facts.on("memory.fit"):
        return None

    if not facts.placed:
        return None

    names = ", ".join(f"`{path}`" for path in facts.placed)
    effect = {
        "ik": "the fork refuses to load, or ignores it",
        "upstream": "upstream gives up the fit with no more than a warning, and no margin is kept",
    }.get(facts.kind, "the engine gives up the fit, or refuses to load")
    return f"`memory.fit = true` cannot go with {names}: {effect}; keep one of the two"


def _fit_with_split(facts: ProfileFacts) -> str | None:
    if facts.on("memory.fit") and facts.get("memory.split") in ("row", "tensor"):
        return f'`memory.fit = true` is given up with `memory.split = "{facts.get("memory.split")}"`: not implemented'

    return None


def _margin_without_fit(facts: ProfileFacts) -> str | None:
    if facts.fits is not False or facts.get("memory.fit") is not None:
        return None

    if facts.kind == "ik":
        return "a margin has no effect here: this engine fits only with `memory.fit = true`"

    names = ", ".join(f"`{path}`" for path in facts.placed)
    return f"a margin has no effect here: the engine fits by default, and gives that up for {names}"


def _fit_margin_without_fit(facts: ProfileFacts) -> str | None:
    return _margin_without_fit(facts) if facts.get("memory.fit_margin") is not None else None


def _margins_without_fit(facts: ProfileFacts) -> str | None:
    return _margin_without_fit(facts) if facts.profile.recovery.margins else None


def _step_against_fit(facts: ProfileFacts) -> str | None:
    step = next((step for step in facts.profile.recovery.then if step.startswith("n_cpu_moe:")), None)
    if step is not None and facts.on("memory.fit"):
        return f"the recovery step `{step}` cannot go with `memory.fit = true`, which places the experts itself"

    return None


def _step_does_not_shrink(facts: ProfileFacts) -> str | None:
    size = facts.get("context.size")
    for step in facts.profile.recovery.then:
        context = _CONTEXT_STEP.fullmatch(step)  # a step that cannot be read was said to be wrong where it was read
        if context is not None and isinstance(size, int) and 0 < size <= int(context[1]):
            return f"the recovery step `{step}` saves nothing: `context.size` is {size}"

    return None


def _slots_with_speculation(facts: ProfileFacts) -> str | None:
    parallel = facts.get("context.parallel")
    if facts.kind == "ik" and isinstance(parallel, int) and parallel > 1 and speculates(facts.profile.settings):
        return f"`context.parallel = {parallel}`: the fork speculates with a single slot only, and refuses to load"

    return None


def _drafter_cache_ignored(facts: ProfileFacts) -> str | None:
    if facts.kind != "ik" or "mtp" not in facts.types or facts.get("speculative.draft_model") is not None:
        return None

    for own, main in (("speculative.kv_k", "kv.k"), ("speculative.kv_v", "kv.v")):
        if facts.get(own) is not None and facts.get(own) != facts.get(main):
            return f"`{own}` has no effect: the fork's MTP cache takes the type of `{main}`"

    return None


def _direct_io_with(path: str) -> Check:
    def check(facts: ProfileFacts) -> str | None:
        if facts.on("memory.direct_io") and facts.on(path):
            return f"`memory.direct_io` and `{path}` are two ways of loading: the engine takes one"

        return None

    return check


def _prefetch_with_direct_io(facts: ProfileFacts) -> str | None:
    if facts.on("memory.prefetch") and facts.on("memory.direct_io"):
        return "`memory.prefetch` has no effect with `memory.direct_io`: the engine reads past the page cache"

    return None


def _both_experts(facts: ProfileFacts) -> str | None:
    if facts.on("memory.cpu_moe") and facts.get("memory.n_cpu_moe") is not None:
        return "`memory.cpu_moe` keeps every layer's experts in host memory, `memory.n_cpu_moe` some: keep one"

    return None


def _pin_with_numa(facts: ProfileFacts) -> str | None:
    pin, numa = facts.get("cpu.pin"), facts.get("cpu.numa")
    if pin in (None, "none") or numa in (None, "numactl"):
        return None

    return (
        f'`cpu.pin = "{pin}"` would be undone: `cpu.numa = "{numa}"` has the engine bind its threads itself; keep one'
    )


def _draft_bounds(facts: ProfileFacts) -> str | None:
    low, high = facts.get("speculative.draft_min"), facts.get("speculative.draft_max")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        return f"`speculative.draft_min` ({low}) is greater than `speculative.draft_max` ({high}): nothing is drafted"

    return None


def _ubatch_above_batch(facts: ProfileFacts) -> str | None:
    size, ubatch = facts.get("batch.size") or DEFAULT_BATCH, facts.get("batch.ubatch")
    if isinstance(size, int) and isinstance(ubatch, int) and ubatch > size:
        return f"`batch.ubatch` ({ubatch}) is greater than `batch.size` ({size}), and would be cut to it"

    return None


def _two_templates(facts: ProfileFacts) -> str | None:
    if facts.get("chat.template") is not None and facts.get("chat.template_file") is not None:
        return "`chat.template` and `chat.template_file` both name the chat template: keep one"

    return None


_RULES: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("speculative.draft_model", "speculative.type"), _draft_model_unused),
    (("speculative.type",), _draft_model_missing),
    (("speculative.draft_min", "speculative.draft_max"), _draft_bounds),
    (("speculative.kv_k", "speculative.kv_v"), _drafter_cache_ignored),
    (("kv.v", "recovery.then", "attention.flash"), _quantised_v_without_flash),
    (("memory.fit",), _fit_with_placement),
    (("memory.split", "memory.fit"), _fit_with_split),
    (("memory.fit_margin",), _fit_margin_without_fit),
    (("recovery.margins",), _margins_without_fit),
    (("recovery.then", "memory.fit"), _step_against_fit),
    (("recovery.then", "context.size"), _step_does_not_shrink),
    (("context.parallel", "speculative.type"), _slots_with_speculation),
    (("memory.direct_io", "memory.mlock"), _direct_io_with("memory.mlock")),
    (("memory.direct_io", "memory.mmap"), _direct_io_with("memory.mmap")),
    (("memory.prefetch", "memory.direct_io"), _prefetch_with_direct_io),
    (("memory.n_cpu_moe", "memory.cpu_moe"), _both_experts),
    (("cpu.pin", "cpu.numa"), _pin_with_numa),
    (("batch.ubatch", "batch.size"), _ubatch_above_batch),
    (("chat.template_file", "chat.template"), _two_templates),
    *INPUT_RULES,
)

_ABOUT_MISSING = (_draft_model_unused, _draft_model_missing, _fit_margin_without_fit, _margins_without_fit)
