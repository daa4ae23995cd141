"""What a command line means where its flags contradict one another, or where orch would take them otherwise."""

from __future__ import annotations

from typing import Any

from orchestrator.core.importing.findings import ImportEntry, drop, look, put
from orchestrator.core.problems import Problems
from orchestrator.core.profile.facts import DEFAULT_BATCH, DEFAULT_UBATCH
from orchestrator.core.profile.profile import Profile
from orchestrator.core.profile.reading import build_profile, read_layer
from orchestrator.core.profile.rules import engine_kind, find_conflicts
from orchestrator.core.profile.speculation import NEED_DRAFT_MODEL

_PLACED = ("memory.gpu_layers", "memory.cpu_moe", "memory.n_cpu_moe", "memory.n_cpu_ffn", "memory.tensor_overrides")
_MOST_ROUNDS = 40


def settle(entry: ImportEntry) -> Profile | None:
    """Make the entry's document one that is valid; whatever is changed for that is said.

    Return the profile; None where there is none to be made, with the reason in `refusal`.
    """
    document = entry.document
    if not document.get("model"):
        entry.refusal = entry.refusal or "no model: there is neither `--model` nor a repository"
        return None

    _settle_intents(entry, document)
    for _ in range(_MOST_ROUNDS):
        problems = Problems()
        layer = read_layer(_full(entry), entry.name, "", problems, str)
        if problems.found:
            if not _drop_problem(entry, problems):
                return None

            continue

        profile = build_profile([layer])
        conflicts = find_conflicts(profile.for_engine(entry.engine), engine_kind(entry.engine)) if profile else []
        if not conflicts:
            return profile

        keys = [".".join(str(part) for part in key) for key in conflicts[0].keys]
        key = next((key for key in keys if look(document, key) is not None), None)
        if key is None:
            entry.refusal = conflicts[0].message
            return None

        entry.add("lost", f"{key} = {drop(document, key)}", conflicts[0].message)

    entry.refusal = "its flags contradict one another"
    return None


def _full(entry: ImportEntry) -> dict[str, Any]:
    engines = entry.document.get("engine", {})
    return {"schema": 1, **entry.document, "engine": {"default": entry.engine, **engines}}


def _drop_problem(entry: ImportEntry, problems: Problems) -> bool:
    """Remove the first value that a profile does not take; return whether that was possible."""
    problem = problems.found[0]
    key = (problem.key or "").partition("[")[0]
    value = drop(entry.document, key) if key not in ("", "model", "schema") else None
    if value is None:
        entry.refusal = problem.message
        return False

    entry.add("lost", f"{key} = {value}", problem.message)
    return True


def _settle_intents(entry: ImportEntry, document: dict[str, Any]) -> None:
    _settle_drafts(entry, document)
    _settle_fit(entry, document)
    batch, ubatch = look(document, "batch.size") or DEFAULT_BATCH, look(document, "batch.ubatch")
    if ubatch is not None and ubatch > batch:
        put(document, "batch.ubatch", batch)
        entry.add("changed", f"batch.ubatch = {ubatch}", f"written {batch}: the engine cuts it to `batch.size`")

    if look(document, "memory.cpu_moe") and drop(document, "memory.n_cpu_moe") is not None:
        entry.add("changed", "memory.n_cpu_moe", "left out: `memory.cpu_moe` means every layer")

    if look(document, "chat.template_file") and drop(document, "chat.template") is not None:
        entry.add("changed", "chat.template", "left out: `chat.template_file` wins")

    if look(document, "memory.direct_io") and (look(document, "memory.mlock") or look(document, "memory.mmap")):
        drop(document, "memory.direct_io")
        entry.add("changed", "memory.direct_io", "left out: the engine takes one way of loading")

    if look(document, "context.parallel") is None and entry.engine != "ik-fork":
        text = "orch opens one slot; a recent build opens 4 that share one KV buffer (`context.parallel = 4`,"
        if not any(each.source == "no --parallel" for each in entry.findings):
            entry.add("guessed", "no --parallel", f"{text} `context.unified_kv = true`)", entry.line)

    _settle_inputs(entry, document)


def _settle_drafts(entry: ImportEntry, document: dict[str, Any]) -> None:
    if look(document, "speculative.draft_model") and look(document, "speculative.type") is None:
        put(document, "speculative.type", "draft")
        entry.add("changed", "--model-draft", '`speculative.type = "draft"` is written: the file alone meant that')

    kinds = look(document, "speculative.type")
    needing = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind in NEED_DRAFT_MODEL]
    if needing and look(document, "speculative.draft_model") is None:
        put(document, "speculative.draft_model", "~/models/draft.gguf")
        said = "speculative.draft_model: the source names no file for it: put the drafter's path here"
        entry.add("guessed", f"speculative.type = {needing[0]}", said, entry.line)

    if entry.engine == "ik-fork" and look(document, "speculative.type") not in (None, "none"):
        parallel = look(document, "context.parallel")
        if isinstance(parallel, int) and parallel > 1:
            put(document, "context.parallel", 1)
            entry.add("changed", f"context.parallel = {parallel}", "written 1: the fork speculates with one slot")

    low, high = look(document, "speculative.draft_min"), look(document, "speculative.draft_max")
    if low is not None and high is not None and low > high:
        drop(document, "speculative.draft_min")
        entry.add("changed", f"speculative.draft_min = {low}", "left out: nothing would be drafted")


def _settle_fit(entry: ImportEntry, document: dict[str, Any]) -> None:
    """A fit and a placement by hand exclude one another: what the engine does with both is kept."""
    placed = [key for key in _PLACED if look(document, key) not in (None, False, 0, "auto")]
    if look(document, "memory.gpu_layers") == 0:
        placed.append("memory.gpu_layers")

    if entry.engine != "ik-fork" and look(document, "memory.tensor_split") is not None:
        placed.append("memory.tensor_split")

    if look(document, "memory.fit") is True and placed:
        if entry.engine == "ik-fork" and placed == ["memory.gpu_layers"]:
            value = drop(document, "memory.gpu_layers")
            said = "left out: with its fit, the fork places the layers itself"
            entry.add("changed", f"memory.gpu_layers = {value}", said)
        else:
            drop(document, "memory.fit")
            entry.add("changed", "memory.fit = true", f"left out: with `{placed[0]}` the engine does not fit")

    fits = look(document, "memory.fit")
    without = fits is False or (fits is None and (entry.engine == "ik-fork" or bool(placed)))
    for key in ("memory.fit_margin", "memory.fit_min_context"):
        if without and look(document, key) is not None:
            value = drop(document, key)
            entry.add("changed", f"{key} = {value}", "left out: nothing is fitted, so it has no effect")


def _settle_inputs(entry: ImportEntry, document: dict[str, Any]) -> None:
    """An embedding is made in one piece, so that the micro-batch bounds the input."""
    embeds, reranks = look(document, "server.embeddings") is True, look(document, "server.reranking") is True
    if not embeds and not reranks:
        if drop(document, "server.pooling") is not None:
            entry.add("changed", "server.pooling", "left out: nothing is embedded")

        return

    size, parallel = look(document, "context.size"), look(document, "context.parallel")
    if not isinstance(size, int) or size == 0 or look(document, "server.pooling") == "last":
        return

    longest = size // parallel if isinstance(parallel, int) and not look(document, "context.unified_kv") else size
    held = look(document, "batch.ubatch") or DEFAULT_UBATCH
    if longest > held:
        need = -(-longest // parallel) * parallel if isinstance(parallel, int) else longest
        put(document, "batch.ubatch", need)
        put(document, "batch.size", max(need, look(document, "batch.size") or DEFAULT_BATCH))
        said = f"{need} so that the longest input of {longest} tokens goes through; longer ones than {held} were errors"
        entry.add("changed", "batch.size, batch.ubatch", said)
