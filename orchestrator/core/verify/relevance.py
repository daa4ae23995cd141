"""Which failed checks of a build matter to a start: a wrong kernel hurts whoever uses it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from orchestrator.core.profile.settings import Value

WEIGHTS = "weights in "
CACHE = "cache in "
SLOTS = "slots side by side"
DRAFTS = "MTP on"


def kv_types_of(settings: Mapping[str, Value]) -> tuple[str, str]:
    """Return the types of the K and the V cache that a profile's settings ask for."""
    return str(settings.get("kv.k", "f16")), str(settings.get("kv.v", "f16"))


def relevant_failures(
    failed: Iterable[str], *, weight_types: Collection[str], kv_types: Collection[str], slots: int, mtp: bool
) -> list[str]:
    """Return the checks of the known truth that failed and are about what a start would use.

    :param failed: names of checks, as `engines/verify/known_truth.py` gives them
    :param weight_types: of the model's tensors; `kv_types` of the cache
    """
    found = []
    for name in failed:
        about = name.partition(",")[0].partition(":")[0]
        if about.startswith(WEIGHTS):
            matters = about.removeprefix(WEIGHTS) in weight_types
        elif about.startswith(CACHE):
            matters = about.removeprefix(CACHE) in kv_types
        else:
            matters = {SLOTS: slots > 1, DRAFTS: mtp}.get(about, True)

        if matters:
            found.append(name)

    return found
