"""What benches that are kept here measured of MTP for a profile on an engine, as both are now."""

from __future__ import annotations

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.mtp_benches import MtpStart, measured_mtp
from orchestrator.core.bench.mtp_gain import MtpMeasurement
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import Engine, engine_key


def measured_for(paths: Paths, profile: EngineProfile, engine: Engine) -> MtpMeasurement | None:
    """Return what the newest bench measured; None where none did with these settings, this build and this model.

    :raises OSError: when the model is not there
    :raises OrchError: when what is kept cannot be read
    """
    [found] = measured_mtp(paths.bench_file, [mtp_start(paths, profile, engine)])
    return found


def mtp_start(paths: Paths, profile: EngineProfile, engine: Engine) -> MtpStart:
    """Return what a measurement has to be of to hold for a profile on an engine, as both are now.

    :raises OSError: when the model is not there
    """
    return MtpStart(engine_key(engine), file_identity(model_file(paths, profile.model).path), profile.settings)
