"""The memory that a start could take, that it needs, and that loaded ones give back: MiB by place. Pure.

What a profile needs is the most that its start may take: a plan goes by what its last start with the same settings
took. A start whose layers the engine places by what is free is counted whole all the same, as much as a device has at
all: fitted into what others leave it would run on the host instead, which nobody wanted when he wrote its profile. What
a device is too small for is counted on the host.

Host memory is what programs can still take, less what loaded ones have mapped from their files: that counts as
available, and they would read it again from the disk for each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.fleet.admission import Amounts, MemoryLook
from orchestrator.core.fleet.ladder import first_rung
from orchestrator.core.plan.amounts import Amount, total
from orchestrator.core.plan.verdict import FILLED_LATER
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.quantities import MIB
from orchestrator.core.residency.placement import DEFAULT_MARGIN_MIB, DEVICE_OVERHEAD_MIB, HOST_OVERHEAD_MIB
from orchestrator.core.residency.places import HOST_PLACE, is_remote
from orchestrator.core.starts.start import StartPlan


@dataclass(frozen=True, slots=True)
class ProfileNeed:
    """What a start needs, before it is known what its devices have.

    :param devices: place and MiB; None for the device that has most free
    :param host_mib: host memory
    :param fitted: the engine places the layers by what is free
    """

    devices: tuple[tuple[str | None, int], ...] = ()
    host_mib: int = 0
    fitted: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What the processes of a profile have.

    :param devices: MiB by place, as it was measured
    :param told: MiB by place, the host as well, as its engine said while it loaded
    :param host_mib: resident in host memory; None where that could not be read
    :param mapped_mib: the part of it that is mapped from files
    """

    devices: Amounts = field(default_factory=dict)
    told: Amounts = field(default_factory=dict)
    host_mib: int | None = None
    mapped_mib: int = 0

    @property
    def host_held_mib(self) -> int:
        """What it has to have in host memory: pages of its file that are not there at the moment as well."""
        return max(self.host_mib or 0, self.told.get(HOST_PLACE, 0))

    @property
    def host_reclaimable_mib(self) -> int:
        """The part of that which counts as available."""
        private_mib = max(0, (self.host_mib or 0) - self.mapped_mib)
        return max(0, self.host_held_mib - private_mib) if self.host_mib is not None else 0


@dataclass(frozen=True, slots=True)
class DeviceSpace:
    """One device that orch reads."""

    place: str
    free_mib: int
    total_mib: int


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """The memory at one moment.

    :param told_totals: MiB by place of devices that only engines tell of, with nothing loaded there
    :param host_available_mib: None where it could not be read
    :param holdings: by profile, of those that have processes
    """

    devices: tuple[DeviceSpace, ...] = ()
    told_totals: Amounts = field(default_factory=dict)
    host_available_mib: int | None = None
    holdings: Mapping[str, Holding] = field(default_factory=dict)


def planned_need(plan: StartPlan | None, profile: EngineProfile, model_mib: int, places: Sequence[str]) -> ProfileNeed:
    """Return what a start needs.

    :param plan: with what earlier starts took; None where it is not known
    :param model_mib: size of the model's files: what is gone by where a plan has no upper bound
    :param places: of its devices, in the order of the plan; empty where that is not known
    """
    if plan is None:
        on_device = bool(places) and profile.settings.get("memory.gpu_layers") != 0
        return _by_size(model_mib, places if on_device else ())

    known: list[str | None] = [*places, *[None] * len(plan.whole.devices)]
    amounts: list[tuple[str | None, Amount]] = []
    for index in range(len(plan.whole.devices)):
        place = known[index]
        # A remote device's context is its server's, and not in what that says is free.
        amount = plan.whole.engine_total(index) if place and is_remote(place) else plan.whole.device_total(index)
        amounts.append((place, amount))

    host = total(amount for name, amount in plan.whole.host.items() if name not in FILLED_LATER)
    if any(amount.is_open for _, amount in amounts):
        by_size = _by_size(model_mib, [place for place, _ in amounts])
        return ProfileNeed(by_size.devices, 0 if host.is_open else _mib(host), plan.fitted)

    by_file = 0 if amounts else model_mib
    host_mib = max(by_file, _low_mib(host)) if host.is_open else _mib(host)
    return ProfileNeed(tuple((place, _mib(amount)) for place, amount in amounts), host_mib, plan.fitted)


def margins_of(profile: EngineProfile, places: Sequence[str]) -> dict[str, int]:
    """Return the device memory that a profile keeps free, MiB by place: the margin of its first start."""
    margin = first_rung(profile).margins or profile.settings.get("memory.fit_margin", DEFAULT_MARGIN_MIB)
    if isinstance(margin, tuple):
        return {place: int(margin[min(index, len(margin) - 1)]) for index, place in enumerate(places) if margin}

    return dict.fromkeys(places, margin if isinstance(margin, int) else DEFAULT_MARGIN_MIB)


def memory_look(figures: MemoryFigures, needs: Mapping[str, ProfileNeed], margins: Amounts) -> MemoryLook:
    """Return what admission goes by.

    :param needs: by profile, of those that wait, start or are loaded
    :param margins: device memory that those that wait keep free, MiB by place; the default where nobody says
    """
    totals = {**{each.place: each.total_mib for each in figures.devices}, **figures.told_totals}
    before = {each.place: each.free_mib for each in figures.devices}
    for place, total_mib in figures.told_totals.items():
        before[place] = total_mib - sum(each.told.get(place, 0) for each in figures.holdings.values())

    free = {place: mib - margins.get(place, DEFAULT_MARGIN_MIB) for place, mib in before.items()}
    whole = {place: mib - margins.get(place, DEFAULT_MARGIN_MIB) for place, mib in totals.items()}
    if figures.host_available_mib is not None:
        mapped = sum(each.host_reclaimable_mib for each in figures.holdings.values())
        free[HOST_PLACE] = figures.host_available_mib - mapped - HOST_OVERHEAD_MIB

    placed = {profile: _placed(need, free, whole) for profile, need in needs.items()}
    holds = {profile: _held(each, placed.get(profile, {}), free) for profile, each in figures.holdings.items()}
    return MemoryLook(free, placed, holds)


def _placed(need: ProfileNeed, free: Amounts, whole: Amounts) -> dict[str, int]:
    """Return a need with every part at a place: what a fitted one's devices are too small for is on the host."""
    found: dict[str, int] = {}
    host_mib = need.host_mib
    for wanted, mib in need.devices:
        place = wanted or max((each for each in free if each != HOST_PLACE), key=lambda each: free[each], default=None)
        if place is None:  # no device is known: nothing to hold it against
            continue

        most = max(0, whole.get(place, mib) - found.get(place, 0))
        found[place] = found.get(place, 0) + (min(mib, most) if need.fitted else mib)
        host_mib += max(0, mib - most) if need.fitted else 0

    return {place: mib for place, mib in {**found, HOST_PLACE: host_mib}.items() if mib}


def _held(holding: Holding, need: Amounts, free: Amounts) -> dict[str, int]:
    """Return what a loaded profile gives back: as it was measured, else as its engine said, else what it needs."""
    held: dict[str, int] = {}
    for place in free:
        if place == HOST_PLACE:
            mib = holding.host_held_mib if holding.host_mib is not None or HOST_PLACE in holding.told else None
        else:
            mib = holding.devices.get(place, holding.told.get(place))
            if mib is None and holding.told:
                mib = 0  # its engine has told of all that it uses

        mib = need.get(place, 0) if mib is None else mib
        if mib:
            held[place] = mib

    return held


def _by_size(model_mib: int, places: Sequence[str | None]) -> ProfileNeed:
    if not places:
        return ProfileNeed(host_mib=model_mib)

    share = -(-model_mib // len(places)) + DEVICE_OVERHEAD_MIB
    return ProfileNeed(tuple((place, share) for place in places))


def _mib(amount: Amount) -> int:
    return -(-amount.high_bytes // MIB)


def _low_mib(amount: Amount) -> int:
    return -(-amount.low_bytes // MIB)
