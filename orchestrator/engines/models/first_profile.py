"""The first profile of a model that was found: on which engine, for which use, with numbers that the plan gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.model_fit import model_misfit
from orchestrator.core.dialect.model_limits import refuse_model
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, Plan, plan_of
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import decode_amounts
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.setup.first_profile import (
    FIT,
    GOALS,
    MARGINS_MIB,
    USES,
    Goal,
    Reasoned,
    Use,
    choose_context,
    context_reasons,
    memory_words,
    profile_text,
)
from orchestrator.engines.models.examine import Examined
from orchestrator.engines.plan import gather
from orchestrator.engines.registry import Engine
from orchestrator.engines.render import render_profile

DRAFT_MAX = 3
SLOW_GB = 4.0
"""Two channels of memory read 40 to 80 GB/s: from here on ten tokens a second or fewer."""

HOST_SHARE = 8
"""Without a device an eighth of the host's memory stays free for everything else."""

EMBEDDING_TOKENS = 2048


@dataclass(frozen=True)
class Proposal:
    """A model as it would be started."""

    examined: Examined
    engine: Engine
    use: Use
    settings: tuple[Reasoned, ...]
    plan: Plan

    @property
    def host_gb_a_token(self) -> float:
        """Return what is read of the host's memory for each token, GB: that is slow."""
        subject = self.plan.subject
        _, device, host = decode_amounts(subject.geometry, self.plan.shape, subject.build.kind)
        return host if self.plan.devices else device + host

    @property
    def is_slow(self) -> bool:
        return self.host_gb_a_token > SLOW_GB


def engine_for(examined: Examined, engines: Sequence[Engine]) -> Engine:
    """Return the first of these engines that can load a model.

    :param engines: at least one
    :raises OrchError: when none can, with the reason of the first
    """
    header = examined.parts[0]
    reasons = []
    for engine in engines:
        misfit = model_misfit(examined.parts, engine.capabilities.kind)
        refused = refuse_model(engine.capabilities, header.architecture, header.nextn_predict_layers)
        if misfit is None and refused is None:
            return engine

        reasons.append((misfit.message, misfit.detail, misfit.hint) if misfit else (refused or "", "", ""))

    message, detail, hint = reasons[0]
    raise OrchError(f"{examined.path}: {message}", details=(detail,) if detail else (), hint=hint or None)


def propose(examined: Examined, engine: Engine, devices: Sequence[DeviceRoom], host: HostRoom, use: Use) -> Proposal:
    """Return the settings of a first start, each with its reason, and its plan.

    :param devices: with what is free when nothing else runs
    :raises OrchError: when the header does not say enough
    """
    fixed = tuple(_beside(examined))
    if not devices and host.free_mib is not None:
        host = host._replace(free_mib=max(0, host.free_mib - (host.total_mib or host.free_mib) // HOST_SHARE))

    trained = examined.parts[0].context_length or 0

    goal: Goal = GOALS[use]
    measuring = _measuring(examined, trained) if examined.kind != "chat" else []
    values: dict[str, Value] = {each.key: each.value for each in (*measuring, *fixed)}
    if not measuring:
        values["context.parallel"] = goal.slots

    subject = gather(EngineProfile("new", engine.id, examined.path, (), values, Recovery(), ()), engine, examined.parts)

    def plan(shape: PlanShape) -> Plan:
        return plan_of(replace(subject, shape=shape), devices, host, advise=False)

    if measuring:
        found = plan(subject.shape)
        return Proposal(examined, engine, use, (*_said(measuring, found), *fixed), found)

    def sized(tokens: int, kv: str) -> Plan:
        return plan(replace(subject.shape, context_tokens=tokens, kv_k=kv, kv_v=kv))

    choice = choose_context(goal, trained, sized)
    settings = (*context_reasons(choice, goal, trained), *_fitting(devices), *fixed)
    return Proposal(examined, engine, use, settings, choice.plan)


def without_drafts(proposal: Proposal) -> Proposal:
    """Return a proposal for a build that cannot draft."""
    kept = tuple(each for each in proposal.settings if not each.key.startswith("speculative."))
    return Proposal(proposal.examined, proposal.engine, proposal.use, kept, proposal.plan)


class ProposedText(NamedTuple):
    """A profile that its engine takes.

    :param notes: what was left out of the proposal for that
    """

    text: str
    notes: tuple[str, ...]


def proposed_text(paths: Paths, store: ProfileStore, proposal: Proposal, name: str, verb: str) -> ProposedText:
    """Return a profile's text, with what it is for and the reason beside each number; nothing is written.

    :param verb: of orch, that makes it
    :raises OrchError: when the engine cannot express it, without drafts neither
    """
    text = _text(proposal, verb)
    try:
        profile = store.resolve(store.path_of(name), text).profile
        assert profile is not None
        render_profile(paths, profile, proposal.engine)
    except OrchError as error:
        plain = without_drafts(proposal)
        if plain.settings == proposal.settings:
            raise

        found = proposed_text(paths, store, plain, name, verb)
        return found._replace(notes=(f"without drafts: {error.message}", *found.notes))

    return ProposedText(text, ())


def _text(proposal: Proposal, verb: str) -> str:
    examined, judgement = proposal.examined, proposal.plan.judgement
    what = USES[proposal.use] if examined.kind == "chat" else f"{examined.kind}s"
    planned = f"The plan: {judgement.reason}." if judgement.verdict == "fits_with_offload" else ""
    head = (f"Made by `orch {verb}` for {what}.", planned)
    first = (("model", examined.path), ("engine", proposal.engine.id))
    return profile_text([each for each in head if each], first, proposal.settings)


def _fitting(devices: Sequence[DeviceRoom]) -> list[Reasoned]:
    if not devices:
        return []

    margin = (
        f"MiB of device memory that stay free: for a desktop, and for what no plan knows of ({MARGINS_MIB[0]} is usual)"
    )
    return [
        FIT,
        Reasoned("memory.fit_margin", MARGINS_MIB[0], margin),
        Reasoned("recovery.margins", MARGINS_MIB, "when memory runs out all the same, these are tried in turn"),
    ]


def _beside(examined: Examined) -> list[Reasoned]:
    """Return what lies beside a model, and what it drafts with."""
    found = []
    if examined.projector is not None:
        found.append(Reasoned("multimodal.mmproj", examined.projector, "the projector beside it, for images or sound"))

    if examined.draft and examined.kind == "chat":
        where = "the model's own MTP layers draft" if examined.drafter is None else "the file beside it drafts"
        said = f"{where}, and the model checks the drafts: the same answers, mostly faster (`orch bench` measures it)"
        found.append(Reasoned("speculative.type", examined.draft, said))
        if examined.drafter is not None:
            found.append(Reasoned("speculative.draft_model", examined.drafter, "what drafts"))

        found.append(Reasoned("speculative.draft_max", DRAFT_MAX, "tokens a step: further ones are seldom right"))

    return found


def _measuring(examined: Examined, trained: int) -> list[Reasoned]:
    """Return the settings of a model that turns texts into numbers."""
    size = min(EMBEDDING_TOKENS, trained or EMBEDDING_TOKENS)
    whole = "an input goes through the model in one piece"
    reranks = examined.kind == "reranker"
    key, what = ("server.reranking", "ranks texts") if reranks else ("server.embeddings", "makes embeddings")
    found = [
        Reasoned("context.size", size, "tokens, the longest input"),
        Reasoned("context.parallel", 1, "one request at a time"),
        Reasoned("batch.size", size, whole),
        Reasoned("batch.ubatch", size, whole),
        Reasoned(key, True, f"by its header it {what}, and does not chat"),
    ]
    if not reranks and not examined.parts[0].number("pooling_type"):
        found.append(Reasoned("server.pooling", "mean", "its header names none; see the model's card"))

    return found


def _said(settings: Sequence[Reasoned], plan: Plan) -> list[Reasoned]:
    return [
        each._replace(why=f"{each.why}: {memory_words(plan)}") if each.key == "context.size" else each
        for each in settings
    ]
