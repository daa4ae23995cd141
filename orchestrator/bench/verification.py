"""What is known of whether a target computes the right thing: the one place where a bench asks for it."""

from __future__ import annotations

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.bench.targets import BenchTarget
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import EngineRegistry


def verification_of(paths: Paths, target: BenchTarget) -> str | None:
    """Return `wrong` where the build, or the model on it with these settings, was found wrong; `right` where the build
    was found right; None while nobody has verified it.
    """
    engine = EngineRegistry(paths).resolve(target.engine)
    profile = ProfileStore(paths).load(target.profile).for_engine(engine.id)
    build = build_key(engine.sha256, engine.path)
    store = VerificationStore(paths.verifications_file)
    keys = (build, model_key(build, model_file(paths, profile.model).path, profile))
    verdicts = [found.verdict if (found := store.find(key)) is not None else None for key in keys]
    return "wrong" if "wrong" in verdicts else "right" if verdicts[0] == "right" else None
