"""Where an engine's fit says that it put the layers, until the first weights are there. Pure.

Upstream prints no line for each layer at the verbosity that orch sets: what its fit tried and took, and how many layers
the devices have, tells the same. What is printed after the model's weights is of a drafter, or of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.engine_log.events import (
    BufferAllocated,
    Degraded,
    FitTook,
    FitTried,
    ForkFitSum,
    LayerFitted,
    LayersOffloaded,
    LogEvent,
)


@dataclass(frozen=True, slots=True)
class FittedLayers:
    """What was said so far.

    :param tried: by device, what upstream's fit tried last
    :param taken: what of this it took last; empty where it changed nothing
    :param done: upstream's fit says that it went well
    :param offloaded: layers on devices, and all layers; of the fork, which counts what it was asked for, no measure
    :param named: layers that the fork's fit put on devices
    :param sums_mib: what the fork needs for everything on devices, and what it has there
    :param closed: the weights are there
    """

    tried: Mapping[int, FitTried] = field(default_factory=dict)
    taken: Mapping[int, FitTried] = field(default_factory=dict)
    done: bool = False
    offloaded: tuple[int, int] | None = None
    named: frozenset[int] = frozenset()
    sums_mib: Mapping[str, int] = field(default_factory=dict)
    closed: bool = False

    def after(self, event: LogEvent) -> FittedLayers:
        """Return what is known after an event."""
        if self.closed:
            return self

        match event:
            case FitTried(device):
                return replace(self, tried={**self.tried, device: event})
            case FitTook():
                return replace(self, taken=self.tried)
            case Degraded("fit_given_up", mended):
                return replace(self, done=mended)
            case LayersOffloaded(count, of):
                return replace(self, offloaded=(count, of))
            case LayerFitted(layer):
                return replace(self, named=self.named | {layer})
            case ForkFitSum(which, mib):
                return replace(self, sums_mib={**self.sums_mib, which: mib})
            case BufferAllocated(kind="weights"):
                return replace(self, closed=True)
            case _:
                return self
