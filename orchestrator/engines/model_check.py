"""Reads the headers of a profile's files and refuses what cannot be started, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Callable

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.dialect.model_fit import (
    Misfit,
    adapter_misfit,
    drafter_misfit,
    model_misfit,
    projector_misfit,
)
from orchestrator.core.dialect.model_limits import refuse_embeddings, refuse_mtp_drafter
from orchestrator.core.dialect.tensor_types import type_name
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.speculation import drafts_with_mtp, speculation_types
from orchestrator.core.verify.relevance import kv_types_of, relevant_failures
from orchestrator.engines.registry import Engine


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


def check_mtp(profile: EngineProfile, header: GgufHeader) -> None:
    """Check that there is a head where the profile asks for MTP.

    :raises OrchError: when there is none, or one of another model
    """
    wants_mtp = drafts_with_mtp(profile.settings)
    drafter = profile.settings.get("speculative.draft_model")
    if wants_mtp and isinstance(drafter, str):
        _check_mtp_drafter(profile, header, drafter)
    elif wants_mtp and not header.has_mtp:
        raise UsageError(
            f"profile `{profile.name}` asks for MTP, and the model has no MTP head",
            details=(f"{header.path}: {header.architecture}, nextn_predict_layers is 0 or absent",),
            hint="take a file that keeps the MTP layers, name the head's own file as speculative.draft_model,"
            ' or set speculative.type = "none"',
        )


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


def _check_mtp_drafter(profile: EngineProfile, target: GgufHeader, path: str) -> None:
    drafter = read_model(profile, path, "speculative.draft_model")[0]
    reason = refuse_mtp_drafter(
        target_width=target.number("embedding_length"),
        architecture=drafter.architecture,
        nextn_predict_layers=drafter.nextn_predict_layers,
        width=drafter.number("embedding_length"),
        backbone_width=drafter.number("embedding_length_out"),
    )
    if reason is not None:
        raise UsageError(
            f"profile `{profile.name}` asks for MTP with a file that cannot draft for its model",
            details=(f"{path}: {reason}", f"{target.path}: {target.architecture}"),
            hint="take the drafter that was published with the model, or leave speculative.draft_model out",
        )
