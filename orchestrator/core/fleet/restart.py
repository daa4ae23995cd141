"""The restart policy for a crashed engine: exponential backoff, a bounded budget, then a cooldown.

Two knobs for two rates (Erlang/OTP's "Tuning the intensity and period"): the delay grows with each crash in a row, and
the crash that is the `intensity`-th within `window_s` is answered with a rest. From then on there are only single
tries, each after a longer rest. All of it is forgotten only after the engine has stayed ready for `stable_s`, so that a
crash soon after each start does not look like a fresh one. Starts that a person asks for are not counted.

Crashes that come slower than `intensity` in `window_s` never lead to a rest, however long they go on. That is meant:
such an engine serves most of the time, a rest would only take that away, and each crash is an event and is counted in
the metrics. The delay still grows with them to `max_delay_s`, until the engine stays ready for `stable_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS = 64
"""Further ones change nothing, and a float overflows at 1024: slow crashes reach that in days."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The limits of restarting. All times in seconds.

    :param first_delay_s: wait after the first crash; doubles with each further one
    :param max_delay_s: the wait grows no longer than this
    :param stable_s: ready for this long, and earlier crashes are forgotten
    :param healthy_s: ready for this long, and the margin that survived is kept for later starts
    :param intensity: starts within `window_s`, the first one included; when the last of them crashes, a rest is due
    :param cooldown_s: rest after the budget is spent, before one more try; doubles while that fails, up to tenfold
    :param settle_s: wait before a start is repeated that met device memory which a dead engine still held
    """

    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    stable_s: float = 60.0
    healthy_s: float = 30.0
    intensity: int = 5
    window_s: float = 300.0
    cooldown_s: float = 60.0
    settle_s: float = 10.0


@dataclass(frozen=True, slots=True)
class CrashRecord:
    """Crashes in a row (`count`), their monotonic times within the window, and cooldowns in a row."""

    count: int = 0
    times: tuple[float, ...] = ()
    cooldowns: int = 0


@dataclass(frozen=True, slots=True)
class Retry:
    """Start again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The budget is spent: one more try after `cooldown_s`."""

    cooldown_s: float


def after_crash(
    record: CrashRecord, ready_for_s: float, now: float, policy: RestartPolicy
) -> tuple[CrashRecord, Retry | GiveUp]:
    """Return the record with this crash in it, and the decision.

    :param ready_for_s: time for which the engine had been ready; 0 when it never was
    """
    if ready_for_s >= policy.stable_s:
        record = CrashRecord()

    times = (*(time for time in record.times if now - time < policy.window_s), now)
    count = record.count + 1
    # The one try after a rest is answered with the next, longer rest, also when the rest outlasted the window.
    if record.cooldowns or len(times) >= policy.intensity:
        rest = policy.cooldown_s * min(2.0**record.cooldowns, 10.0)
        return CrashRecord(count, times[-policy.intensity :], min(record.cooldowns + 1, _DOUBLINGS)), GiveUp(rest)

    delay = min(policy.first_delay_s * 2.0 ** min(count - 1, _DOUBLINGS), policy.max_delay_s)
    return CrashRecord(count, times, record.cooldowns), Retry(delay)
