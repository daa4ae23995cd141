"""The check of `orch doctor` on MTP: what benches measured of it here for the profiles that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.config.trial_profiles import is_trial_profile
from orchestrator.adapters.store.mtp_benches import measured_mtp
from orchestrator.core.bench.mtp_gain import MtpMeasurement, describe_gain, mtp_findings
from orchestrator.core.errors import OrchError
from orchestrator.core.profile.speculation import drafts_with_mtp
from orchestrator.core.setup.doctor import CheckResult, Level
from orchestrator.doctor.examine import DoctorContext
from orchestrator.doctor.files import is_shipped
from orchestrator.engines.mtp_measured import mtp_start
from orchestrator.engines.registry import EngineRegistry


def check_mtp(context: DoctorContext) -> Iterator[CheckResult]:
    """Yield what is known of each of the user's profiles that drafts with MTP on its engine."""
    registry, starts = EngineRegistry(context.paths, context.environment), {}
    for profile in ProfileStore(context.paths).load_all()[0]:
        chosen = profile.for_engine(profile.engine)
        if is_shipped(profile) or is_trial_profile(profile.name) or not drafts_with_mtp(chosen.settings):
            continue

        try:
            starts[profile.name] = mtp_start(context.paths, chosen, registry.resolve(profile.engine))
        except (OSError, OrchError):
            continue  # no engine or no model: the other checks say so

    try:
        measured = measured_mtp(context.paths.bench_file, list(starts.values()))
    except OrchError:
        return  # no benches that can be read: the other checks say so

    for name, found in zip(starts, measured, strict=True):
        yield from _judged(name, found)


def _judged(name: str, found: MtpMeasurement | None) -> Iterator[CheckResult]:
    if found is None:
        text = f"`{name}`: whether MTP pays on this machine was not measured"
        yield CheckResult("note", "mtp", text, f"`orch bench {name} {name}+speculative.type=none`")
        return

    findings = mtp_findings(found, name)
    for each in findings:
        level: Level = "warning" if each.kind == "mtp_slower" else "note"
        yield CheckResult(level, "mtp", f"`{name}`: {each.message}", each.hint)

    if not findings:
        yield CheckResult("ok", "mtp", f"`{name}`: {describe_gain(found)}")
