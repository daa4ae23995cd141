"""A card's energy as an NVIDIA card tells it, made from known power: what is true is known to the joule.

Power in watts by what the card does: 21 idle, 34 for five seconds after a request, 265 while a prompt is read, then
about 190 with a ripple, as a 12 GB card of 2020 draws. The counter is in whole millijoules, the power in whole
milliwatts. Samples are taken as the daemon does: each second with a request at work, else each ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.energy.intervals import EnergySample, Span

IDLE_W, AFTER_W, PROMPT_W, DECODE_W = 21.0, 34.0, 265.0, 190.0
STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when, and how much of it was the reading of its prompt."""

    span: Span
    prompt_s: float


REQUESTS = (
    Asked((21.37, 61.90), 4.2),
    Asked((75.11, 96.53), 1.3),
    Asked((96.61, 130.04), 2.0),  # the next turn of an agent
    Asked((150.72, 188.20), 8.0),
    Asked((160.00, 200.41), 3.0),  # together with the one before
    Asked((230.50, 290.25), 6.0),
    Asked((330.33, 345.00), 0.8),
)
END_S = 400.0


class Card:
    """The card's true energy until any moment."""

    def __init__(self, requests: Sequence[Asked] = REQUESTS) -> None:
        self._requests = requests
        self._joules = [0.0]
        for step in range(round(END_S / STEP_S)):
            self._joules.append(self._joules[-1] + self.power_w((step + 0.5) * STEP_S) * STEP_S)

    def power_w(self, at_s: float) -> float:
        at_work = [each for each in self._requests if each.span[0] <= at_s < each.span[1]]
        if any(at_s < each.span[0] + each.prompt_s for each in at_work):
            return PROMPT_W

        if at_work:
            return DECODE_W + 6 * math.sin(at_s * 1.7)

        return AFTER_W if any(0 <= at_s - each.span[1] < 5 for each in self._requests) else IDLE_W

    def joules(self, at_s: float) -> float:
        """Return the energy since the begin."""
        return self._joules[round(at_s / STEP_S)]

    def used(self, span: Span) -> float:
        return self.joules(span[1]) - self.joules(span[0])

    def sample(self, at_s: float, *, counter: bool = True, power: bool = True, zero_s: float = 0.0) -> EnergySample:
        """Return what the driver says, which was loaded at `zero_s`."""
        return EnergySample(
            at_s=at_s,
            boot_s=at_s,
            counter_j=round(self.used((zero_s, at_s)) - 0.0005, 3) if counter else None,
            power_w=round(self.power_w(at_s), 3) if power else None,
        )


def sample_times(requests: Sequence[Asked] = REQUESTS) -> list[float]:
    """Return when the daemon takes samples: each second with a request at work and once after it, else each ten."""
    times, at_s = [0.37], 0.37
    while at_s < END_S - 11:
        busy = any(each.span[0] - 0.5 <= at_s <= each.span[1] for each in requests)
        coming = [each.span[0] + 0.6 for each in requests if at_s < each.span[0] + 0.6 <= at_s + 10]
        at_s = at_s + 1.003 if busy else min([at_s + 10.02, *coming])
        times.append(round(at_s, 2))

    return times
