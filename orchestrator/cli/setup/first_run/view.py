"""What `orch init` shows and asks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from orchestrator.cli import diagnostics, output
from orchestrator.core.errors import UsageError
from orchestrator.core.plan.plan import HostRoom
from orchestrator.core.plan.verdict import Verdict
from orchestrator.core.setup.pulls import size_words
from orchestrator.engines.models.first_profile import Proposal
from orchestrator.engines.models.offer import EngineHere
from orchestrator.engines.models.places import YOURS
from orchestrator.engines.models.search import PROFILES

MOST_NOTES = 6
MOST_TRIES = 3

FITS: Mapping[Verdict, str] = {
    "fits": "",
    "fits_with_offload": "part in host memory",
    "unclear": "may not fit",
    "does_not_fit": "does not fit",
}


def show_machine(engines: Sequence[EngineHere], host: HostRoom) -> None:
    output.line("this machine")
    devices = engines[0].devices
    rows = [(f"  {room.name}", f"{room.total_mib or '?'} MiB, {room.free_mib} free") for room in devices]
    if not devices:
        rows.append(("  no graphics card that an engine uses", ""))

    rows.append(("  host memory", f"{host.total_mib} MiB, {host.free_mib} available"))
    rows += [(f"  engine {each.engine.id}", f"{each.engine.build}, {_place(each)}") for each in engines]
    _aligned(rows)


def _place(here: EngineHere) -> str:
    """Return where an engine is; its source alone where orch or pip has put it."""
    found = here.engine
    return found.source if found.source in ("installed", "package xllamacpp") else short(found.path)


def show_models(proposals: Sequence[Proposal], found: int) -> None:
    """Show what can be started, numbered; the first is what is taken without an answer."""
    output.line()
    output.line("models" if found == len(proposals) else f"models, {len(proposals)} of {found}")
    rows = [(f"  {number}", *_row(each)) for number, each in enumerate(proposals, 1)]
    _aligned(rows)


def show_notes(notes: Sequence[str]) -> None:
    """Show what was not used, and why; of many the first ones."""
    if not notes:
        return

    output.line()
    output.line("not used")
    for note in notes[:MOST_NOTES]:
        output.line(f"  {short(note)}")

    if len(notes) > MOST_NOTES:
        output.line(f"  and {len(notes) - MOST_NOTES} more: `orch init --dry-run --json` has all of them")


def show_profile(file: str, text: str, what: str) -> None:
    """:param what: is or would be done with it"""
    output.line()
    output.line(f"{what}: {short(file)}")
    for line in text.rstrip("\n").splitlines():
        output.line(f"  {line}".rstrip())


def choose(question: str, choices: Sequence[str]) -> int:
    """Ask for one of several things, and return its place.

    :param choices: words that are accepted beside the numbers; the first is what an empty answer means
    :raises UsageError: when nothing usable is answered
    """
    for _ in range(MOST_TRIES):
        answer = _answer(f"{question} [1] ").lower()
        if not answer:
            return 0

        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return int(answer) - 1

        named = [at for at, choice in enumerate(choices) if answer in choice.lower()]
        if len(named) == 1:
            return named[0]

        diagnostics.note(f"`{answer}` is none of them: a number from 1 to {len(choices)}, or nothing for 1")

    raise UsageError("no answer that means something", hint="`orch init --yes` asks nothing")


def agrees(question: str) -> bool:
    return _answer(f"{question} [y/N] ").lower() in ("y", "yes")


def _answer(question: str) -> str:
    diagnostics.ask(question)
    line = sys.stdin.readline()
    if not line:
        raise UsageError("nobody answers: nothing was written", hint="`orch init --yes` asks nothing")

    return line.strip()


def short(text: str) -> str:
    """Return a text with paths below the home directory as people write them."""
    home = os.path.expanduser("~")
    return text.replace(home + os.sep, "~/") if len(home) > 1 else text


def model_words(proposal: Proposal) -> dict[str, object]:
    """Return one model as `--json` has it."""
    model = proposal.examined.model
    judgement = proposal.plan.judgement
    return {
        "title": model.title,
        "quant": model.quant,
        "path": proposal.examined.path,
        "size_bytes": model.size_bytes,
        "parts": len(model.files),
        "from": model.owner,
        "label": model.label,
        "also": list(model.also),
        "kind": proposal.examined.kind,
        "projector": proposal.examined.projector,
        "drafter": proposal.examined.drafter,
        "draft": proposal.examined.draft or None,
        "engine": proposal.engine.id,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "notes": list(proposal.examined.notes),
    }


def _row(proposal: Proposal) -> tuple[str, ...]:
    examined, model = proposal.examined, proposal.examined.model
    words = [
        {"embedding": "embeddings", "reranker": "ranks texts", "chat": ""}[examined.kind],
        "" if examined.has_template or examined.kind != "chat" else "no chat template",
        "images" if examined.projector else "",
        {"": "", "mtp": "MTP"}.get(examined.draft, f"drafts ({examined.draft})"),
        f"{len(model.files)} parts" if len(model.files) > 1 else "",
        FITS[proposal.plan.judgement.verdict],
        f"slow: {proposal.host_gb_a_token:.0f} GB a token" if proposal.is_slow else "",
    ]
    own = model.owner in (YOURS, PROFILES)
    origin = short(os.path.dirname(examined.path)) if own else model.owner
    origin += f", {', '.join(model.also)}" if model.also else ""
    return model.title, model.quant, size_words(model.size_bytes), origin, ", ".join(filter(None, words))


def _aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        output.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def machine_words(engines: Sequence[EngineHere], host: HostRoom) -> dict[str, object]:
    """Return the machine as `--json` has it."""
    return {
        "devices": [
            {"name": room.name, "total_mib": room.total_mib, "free_mib": room.free_mib} for room in engines[0].devices
        ],
        "host": {"total_mib": host.total_mib, "free_mib": host.free_mib},
        "engines": [
            {"id": each.engine.id, "build": each.engine.build, "path": each.engine.path, "devices": len(each.devices)}
            for each in engines
        ],
    }
