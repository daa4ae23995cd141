"""The first settings of a profile for a model's file, from its header and this machine's devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.amounts import MIB
from orchestrator.core.plan.plan import DeviceRoom
from orchestrator.core.plan.solve import largest_context
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.engines.plan import gather

USUAL_CONTEXT = 32768
LEAST_CONTEXT = 4096
MARGINS_MIB = (1024, 1280, 1536, 2048)


class FirstSettings(NamedTuple):
    """Dotted keys of a new profile, and why, for people."""

    settings: Mapping[str, Value]
    why: str


def first_settings(path: str, engine: str, devices: Sequence[DeviceRoom]) -> FirstSettings | None:
    """Return the settings; None where the header cannot be read, or says too little.

    The context is named: upstream's fit cuts one that is not to 4096 tokens before it moves anything to the host. One
    slot: each further one has a recurrent state of its own. A dense model gets the largest context up to the usual one
    with which all of it is on the devices.
    """
    settings: dict[str, Value] = {
        "context.size": USUAL_CONTEXT,
        "context.parallel": 1,
        "memory.fit": True,
        "memory.fit_margin": MARGINS_MIB[0],
    }
    try:
        profile = EngineProfile("new", engine, path, (), settings, Recovery(), ())
        subject = gather(profile, None, read_splits(path))
    except OrchError:
        return None

    geometry = subject.geometry
    size = min(USUAL_CONTEXT, geometry.trained_context or USUAL_CONTEXT)
    why = f"a context of {size} tokens of the {geometry.trained_context} that the model was made for"
    totals = [room.total_mib * MIB for room in devices if room.total_mib is not None]
    if totals and len(totals) == len(devices) and not geometry.expert_layers:
        shape = replace(subject.shape, devices=len(devices))
        fitting = largest_context(geometry, shape, subject.build, totals, MARGINS_MIB[0] * MIB, limit=size)
        if fitting is not None and LEAST_CONTEXT <= fitting < size:
            size, why = fitting, f"a context of {fitting} tokens: the largest with which all of it is on the device"

    return FirstSettings({**settings, "context.size": size, "recovery.margins": MARGINS_MIB}, why)
