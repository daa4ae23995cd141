"""What `orch init` starts: the machine looked at, the models found, and one of them chosen."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.cli import diagnostics, output
from orchestrator.cli.setup.first_run import view
from orchestrator.cli.setup.pull import fetch_model
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.plan import HostRoom
from orchestrator.core.setup.first_profile import USES, Use
from orchestrator.core.setup.found_models import FoundModel
from orchestrator.engines.models.examine import examine
from orchestrator.engines.models.first_profile import Proposal
from orchestrator.engines.models.offer import EngineHere, engines_here, offer, proposal_of
from orchestrator.engines.models.search import find_below, find_models, find_pulled
from orchestrator.engines.plan import measure_devices, measure_host

SMALL_MODEL = "hf:unsloth/Qwen3-4B-Instruct-2507-GGUF"
"""A model that nearly every machine can run, of a repository with all quantisations."""


class NotFetched(Exception):
    """Raised in a dry run where a model is to be fetched first."""


@dataclass(frozen=True)
class InitRun:
    """One `orch init`: what was asked for, and what is here.

    :param asks: somebody is there to answer
    :param document: what `--json` prints, as far as it is known
    """

    args: argparse.Namespace
    paths: Paths
    store: ProfileStore
    engines: tuple[EngineHere, ...]
    host: HostRoom
    asks: bool
    document: dict[str, object]

    @property
    def use(self) -> Use:
        use: Use = self.args.use or "chat"
        return use

    def proposal(self, model: FoundModel) -> Proposal:
        return proposal_of(examine(model), self.engines, self.host, self.use)


def look_at_machine(paths: Paths) -> tuple[tuple[EngineHere, ...], HostRoom]:
    """:raises OrchError: when no engine is found"""
    diagnostics.progress("looking for engines and devices")
    measured = measure_devices()
    engines = engines_here(paths, measured)
    diagnostics.clear_progress()
    if not engines:
        raise OrchError(
            "no engine is on this machine",
            details=("looked for: llama-server of llama.cpp and of ik_llama.cpp, and the embedded engine",),
            hint='`pip install "llama-orch[embedded]"` is the quickest, for the processor; '
            "`orch engines build upstream --pypi` builds one for the graphics card",
        )

    if engines[0].blind:
        names = ", ".join(room.name for room in measured)
        diagnostics.warn(
            f"{engines[0].engine.id} does not use {names}: it runs on the processor; "
            "`orch engines build upstream --pypi` builds one that does"
        )

    return engines, measure_host()


def choose_model(here: InitRun) -> Proposal | None:
    """Return what is to be started; None for the demo's model, where no other one is found.

    :raises OrchError: when it cannot be started
    :raises NotFetched: in a dry run
    """
    target = here.args.target
    if target is not None and target.startswith("hf:"):
        found: Proposal | None = here.proposal(_pulled(here, target))
        here.document["models"] = [view.model_words(each) for each in (found,) if each]
    else:
        found = _one_of_those_here(here)

    if found is not None:
        for note in found.examined.notes:
            diagnostics.note(note)

        if found.plan.judgement.verdict == "does_not_fit":
            raise OrchError(
                f"{found.examined.model.title} does not fit: {found.plan.judgement.reason}",
                hint="take a smaller model or quantisation: `orch plan FILE.gguf --matrix` compares them",
            )

    return found


def _one_of_those_here(here: InitRun) -> Proposal | None:
    target = here.args.target
    diagnostics.progress("looking for models")
    profiles, _ = here.store.load_all()
    finds = find_below(target) if target is not None else find_models(here.paths, os.environ, profiles)
    diagnostics.progress("reading headers")
    offered = offer(finds.models, here.engines, here.host, here.use)
    diagnostics.clear_progress()
    notes = (*offered.notes, *finds.notes)
    here.document["found"] = len(finds.models)
    here.document["models"] = [view.model_words(each) for each in offered.proposals]
    here.document["notes"] = list(notes)
    if not here.args.json:
        if offered.proposals:
            view.show_models(offered.proposals, len(finds.models))

        view.show_notes(notes)

    if not offered.proposals:
        return _without_model(here, notes)

    place = 0
    if here.asks:
        output.line()
        if len(offered.proposals) > 1:
            names = [f"{each.examined.model.title} {each.examined.model.quant}" for each in offered.proposals]
            place = view.choose("which model?", names)

    proposal = offered.proposals[place]
    if here.asks and here.args.use is None and proposal.examined.kind == "chat":
        use = _ask_use()
        if use != here.use:
            return proposal_of(proposal.examined, here.engines, here.host, use)

    return proposal


def _ask_use() -> Use:
    uses = list(USES)
    for number, use in enumerate(uses, 1):
        diagnostics.note(f"  {number}  {use}: {USES[use]}")

    return uses[view.choose("what for?", uses)]


def _without_model(here: InitRun, notes: tuple[str, ...]) -> Proposal | None:
    if here.args.target is not None:
        raise OrchError(f"no model that can be started in {here.args.target}", details=notes[:8])

    if not here.asks:
        diagnostics.note("no model was found: the demo's is taken, a toy that recites a text")
        diagnostics.note(f"a real one is fetched by `orch init {SMALL_MODEL}`")
        return None

    output.line()
    diagnostics.note("no model was found. Either of these:")
    diagnostics.note(f"  1  fetch a small one: {SMALL_MODEL}")
    diagnostics.note("  2  demo: a toy that orch generates, which recites a text")
    fetches = view.choose("which?", ["fetch", "demo"]) == 0
    return here.proposal(_pulled(here, SMALL_MODEL)) if fetches else None


def _pulled(here: InitRun, text: str) -> FoundModel:
    """Fetch a model and return it.

    :raises NotFetched: of a dry run, where it is not here yet
    """
    pull, received = fetch_model(text, dry_run=here.args.dry_run, quiet=here.args.json)
    if received is None and any(each.there != "whole" for each in pull.files):
        raise NotFetched

    return find_pulled(here.paths, pull.path_of("model") or "")
