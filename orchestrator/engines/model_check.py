"""Reads the headers of a profile's files and refuses what cannot be started, before anything is started."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader
from orchestrator.adapters.gguf.splits import has_mtp, read_splits
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.dialect.model_fit import (
    Misfit,
    adapter_misfit,
    drafter_misfit,
    model_misfit,
    mtp_drafter_misfit,
    projector_misfit,
)
from orchestrator.core.dialect.model_limits import refuse_embeddings
from orchestrator.core.dialect.tensor_types import type_name
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import RepositoryFile, sort_files
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.speculation import drafts_with_mtp, speculation_types
from orchestrator.core.verify.relevance import kv_types_of, relevant_failures
from orchestrator.engines.registry import Engine

MOST_HEADS = 8
"""Files beside a model whose headers are read to find its head."""


class MissingModelError(UsageError):
    """Raised when a model's file is not there."""


class BrokenModelError(OrchError):
    """Raised when a model's file cannot be what it should be."""


class UnfitModelError(UsageError):
    """Raised when whole files do not fit the build, or each other."""


def read_model(profile: EngineProfile, path: str, key: str = "model") -> tuple[GgufHeader, ...]:
    """Read the headers of every file of a model.

    :param key: of the profile, that names it
    :raises OrchError: when it is not there, is cut short, or is no model
    """
    if not os.path.exists(path):
        names = {"model": "the model file", "speculative.draft_model": "the drafter's file"}
        what = names.get(key, f"the file of `{key}`")
        hint = f"`orch profile set {profile.name} {key}=PATH`"
        raise MissingModelError(f"profile `{profile.name}`: {what} does not exist", details=(path,), hint=hint)

    try:
        return read_splits(path)
    except GgufError as error:
        raise BrokenModelError(
            f"profile `{profile.name}`: {error.message}", details=error.details, hint=error.hint
        ) from error


def check_fit(profile: EngineProfile, parts: tuple[GgufHeader, ...], kind: Kind) -> None:
    """Check a model's headers against the build, and those of the files beside it against the model's.

    :raises OrchError: with what to use instead
    """
    _refuse(profile, model_misfit(parts, kind))
    settings = profile.settings
    _check_beside(profile, parts[0], "multimodal.mmproj", settings.get("multimodal.mmproj"), projector_misfit)
    if "draft" in speculation_types(settings):
        _check_beside(
            profile, parts[0], "speculative.draft_model", settings.get("speculative.draft_model"), drafter_misfit
        )

    adapters = settings.get("lora.adapters")
    for adapter in adapters if isinstance(adapters, tuple) else ():
        _check_beside(profile, parts[0], "lora.adapters", adapter, adapter_misfit)


def check_verified(profile: EngineProfile, parts: tuple[GgufHeader, ...], engine: Engine, paths: Paths) -> None:
    """Check that nothing is known to be computed wrongly of what this start would use.

    :raises OrchError: when a check of `orch verify` failed that is about it
    """
    store, build = VerificationStore(paths.verifications_file), build_key(engine.sha256, engine.path)
    read = store.find(model_key(build, parts[0].path, profile))
    if read is not None and read.verdict == "wrong":
        raise _computed_wrongly(profile, engine, f"{read.how} verification of {read.when[:10]}: {read.summary}")

    known = store.find(build)
    if known is None or not known.failed:
        return

    settings = profile.settings
    parallel = settings.get("context.parallel")
    failed = relevant_failures(
        known.failed,
        weight_types={type_name(tensor.type) for part in parts for tensor in part.tensors},
        kv_types=kv_types_of(settings),
        slots=parallel if isinstance(parallel, int) else 1,
        mtp=drafts_with_mtp(settings),
    )
    if failed:
        said = f"`orch verify {engine.id}` failed on {known.when[:10]}: {'; '.join(failed[:4])}"
        raise _computed_wrongly(profile, engine, said)


def _computed_wrongly(profile: EngineProfile, engine: Engine, said: str) -> OrchError:
    return OrchError(
        f"profile `{profile.name}`: `{engine.id}` {engine.build} computes wrongly what it needs",
        details=(said,),
        hint="take the other engine, another build or another quantisation; `--unverified` starts it all the same",
    )


def check_mtp(profile: EngineProfile, parts: tuple[GgufHeader, ...]) -> None:
    """Check that there is a head where the profile asks for MTP.

    :raises OrchError: when there is none, or one of another model
    """
    if not drafts_with_mtp(profile.settings):
        return

    drafter = profile.settings.get("speculative.draft_model")
    if drafter is not None:
        _check_beside(profile, parts[0], "speculative.draft_model", drafter, mtp_drafter_misfit)
    elif not has_mtp(parts):
        head = _head_beside(parts[0])
        given = f"`orch profile set {profile.name} speculative.draft_model={shlex.quote(head)}`" if head else ""
        raise UsageError(
            f"profile `{profile.name}` asks for MTP, and the model has no MTP head",
            details=(_missing_head(parts), *((f"{head}: a head of its width lies beside it",) if head else ())),
            hint=given
            or "take a file that keeps the MTP layers, name the head's own file as speculative.draft_model, or"
            f" `orch profile set {profile.name} speculative.type=none`",
        )


def _missing_head(parts: tuple[GgufHeader, ...]) -> str:
    header = parts[0]
    if header.nextn_predict_layers:
        count = header.nextn_predict_layers
        return f"{header.path}: {header.architecture}, nextn_predict_layers is {count}, and their tensors were left out"

    return f"{header.path}: {header.architecture}, nextn_predict_layers is 0 or absent"


def _head_beside(model: GgufHeader) -> str | None:
    """Return a file in the model's directory that can draft with MTP for it; None where there is none."""
    directory = os.path.dirname(model.path)
    with contextlib.suppress(OSError):
        drafters = sort_files(map(RepositoryFile, os.listdir(directory))).drafters
        for file in drafters[:MOST_HEADS]:
            path = os.path.join(directory, file.path)
            with contextlib.suppress(OrchError):
                if mtp_drafter_misfit(model, read_splits(path)[0]) is None:
                    return path

    return None


def check_embeddings(profile: EngineProfile, header: GgufHeader) -> None:
    """Check that the engine knows how to make an embedding where the profile asks for them.

    :raises OrchError: when neither the profile nor the file names the pooling
    """
    reason = refuse_embeddings(profile.settings, header.number("pooling_type"))
    if reason is not None:
        raise UsageError(
            f"profile `{profile.name}` asks for embeddings, and the model does not say how",
            details=(f"{header.path}: {reason}",),
            hint=f"`orch profile set {profile.name} server.pooling=last`, or what the model's card says",
        )


def _check_beside(
    profile: EngineProfile,
    model: GgufHeader,
    key: str,
    path: object,
    misfit: Callable[[GgufHeader, GgufHeader], Misfit | None],
) -> None:
    if isinstance(path, str):
        _refuse(profile, misfit(model, read_model(profile, path, key)[0]))


def _refuse(profile: EngineProfile, misfit: Misfit | None) -> None:
    if misfit is not None:
        hint = misfit.hint.replace("NAME", profile.name)
        raise UnfitModelError(f"profile `{profile.name}`: {misfit.message}", details=(misfit.detail,), hint=hint)
