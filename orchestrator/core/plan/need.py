"""The memory that a start needs, on each device and on the host, by component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from orchestrator.core.plan.amounts import NOTHING, Amount, exact, total, unknown
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory import upstream
from orchestrator.core.plan.memory.caches import (
    Cells,
    cells_of,
    kv_padding,
    layer_kv_bytes,
    layer_state_bytes,
    quantised,
)
from orchestrator.core.plan.memory.drafts import mtp_compute
from orchestrator.core.plan.memory.fork import fork_compute
from orchestrator.core.plan.memory.placement import HOST, Placement, place
from orchestrator.core.plan.memory.weights import layers_by_device, weights_by_device
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.quantities import MIB

Component = Literal[
    "weights", "kv", "state", "draft_weights", "draft_kv", "projector", "compute", "draft_compute", "output",
    "overhead", "growth", "prompt_cache", "checkpoints",
]  # fmt: skip

COMPONENTS: tuple[Component, ...] = (
    "weights", "kv", "state", "draft_weights", "draft_kv", "projector", "compute", "draft_compute", "output",
    "overhead", "growth", "prompt_cache", "checkpoints",
)  # fmt: skip

BESIDE_THE_ENGINE: frozenset[Component] = frozenset({"overhead", "growth"})
"""Device memory that no line of an engine's log tells of."""

COLD_OVERHEAD_MIB = 700
"""A CUDA context with its modules, until it was measured on the card: 450 to 700 are reported."""

COLD_GROWTH_MIB = 300
"""What CUDA's pools and graphs may take after the load, until it was measured."""


class PlanBuild(NamedTuple):
    """What of a build decides memory: its kind, and the number of an upstream build (11434 for b11434)."""

    kind: Literal["upstream", "ik"]
    number: int | None = None

    @property
    def reduced(self) -> bool:
        """True for the builds of upstream that the formulas are of; one without a number is new."""
        return self.kind == "upstream" and (self.number is None or self.number >= upstream.FIRST_REDUCED)


@dataclass(frozen=True)
class Need:
    """Amounts by component, for each device and for the host."""

    devices: tuple[Mapping[Component, Amount], ...]
    host: Mapping[Component, Amount]

    def device_total(self, index: int = 0) -> Amount:
        """Return all that a device needs."""
        return total(self.devices[index].values())

    def engine_total(self, index: int = 0) -> Amount:
        """Return what the engine itself reports for a device: without overhead and growth."""
        return _sum(self.devices[index], BESIDE_THE_ENGINE)

    def host_total(self) -> Amount:
        return total(self.host.values())


def _sum(parts: Mapping[Component, Amount], without: Iterable[Component]) -> Amount:
    left_out = set(without)
    return total(amount for name, amount in parts.items() if name not in left_out)


def need_of(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    *,
    overhead_mib: int = COLD_OVERHEAD_MIB,
    growth_mib: int = COLD_GROWTH_MIB,
    free: Sequence[float] = (),
    dry_run: bool = False,
) -> Need:
    """Return what a start of this shape needs.

    :param free: free memory of each device, by which an engine shares out layers where no split is given
    :param dry_run: as the fork's `--dry-run` reports it
    """
    cells = cells_of(geometry, shape, build.kind)
    placement = place(geometry, shape, build.kind, free)
    devices: list[dict[Component, Amount]] = [{} for _ in range(max(0, shape.devices))]
    host: dict[Component, Amount] = {}
    where = {HOST: host, **dict(enumerate(devices))}
    mtp = shape.draft_max > 0 and geometry.mtp_blocks > 0

    _add_weights(geometry, shape, build, placement, where, mtp=mtp)
    _add_caches(geometry, shape, build, cells, placement, where, mtp=mtp)
    if build.kind == "ik":
        main = fork_compute(geometry, shape, cells, placement, dry_run=dry_run)
    else:
        main = upstream.main_compute(geometry, shape, cells, placement)
        if not build.reduced:
            main = upstream.before_it_was_reduced(main, geometry, shape, cells)

    host["compute"] = main.host
    for index, amount in enumerate(main.devices):
        devices[index]["compute"] = amount

    outputs = shape.outputs or max(1, shape.slots) * (1 + shape.draft_max)
    host["output"] = exact(4 * geometry.vocabulary * outputs)
    if mtp:
        _add_draft_compute(geometry, shape, build, cells, placement, where)

    for each in devices:
        each["overhead"] = Amount(0, overhead_mib * MIB, "learned")
        each["growth"] = Amount(0, growth_mib * MIB + _copies(geometry, shape, build, cells), "learned")

    _add_host_caches(geometry, shape, build, host)
    if geometry.gaps or geometry.unknown_types or (geometry.latent and build.kind == "ik"):
        _open(geometry, where)

    return Need(tuple(devices), host)


def _put(parts: dict[Component, Amount], name: Component, amount: Amount) -> None:
    parts[name] = parts.get(name, NOTHING).plus(amount)


def _add_weights(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    placement: Placement,
    where: Mapping[int, dict[Component, Amount]],
    *,
    mtp: bool,
) -> None:
    # The fork keeps a second copy of the biases of experts that are on the host.
    biases = build.kind == "ik"
    sums, drafts = weights_by_device(geometry, placement, shape.n_cpu_moe, shape.n_cpu_ffn, mtp=mtp, biases=biases)
    for index, parts in where.items():
        parts["weights"] = exact(sums.get(index, 0))
        if index in drafts:
            parts["draft_weights"] = exact(drafts[index])


def _add_caches(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    cells: Cells,
    placement: Placement,
    where: Mapping[int, dict[Component, Amount]],
    *,
    mtp: bool,
) -> None:
    state = layer_state_bytes(geometry, shape, build.kind)
    for parts in where.values():
        parts["kv"] = NOTHING

    widest = 0
    if build.kind == "upstream" and not shape.flash_attention:
        # Values are kept transposed then, and as wide in each layer as in the widest.
        widest = max((layer.value_width for layer in geometry.layers if layer.attends), default=0)

    for at, layer, count in layers_by_device(geometry, placement):
        device = at if shape.kv_offload else HOST
        if layer.recurrent:
            _put(where[device], "state", exact(count * state))
            continue

        size = layer_kv_bytes(layer, cells, shape.kv_k, shape.kv_v, least_value_width=widest)
        if size and device != HOST:
            size += kv_padding(layer, shape.kv_k, shape.kv_v, build.kind)

        _put(where[device], "kv", unknown() if size is None else exact(count * size))

    if not mtp:
        return

    for index, layer in enumerate(geometry.mtp, len(geometry.trunk)):
        device = placement.layers[index] if shape.kv_offload else HOST
        size = layer_kv_bytes(layer, cells, shape.draft_kv_k, shape.draft_kv_v)
        _put(where[device], "draft_kv", unknown() if size is None else exact(size))
        if build.kind == "ik":
            # Builds of the fork keep the MTP block's cache twice: in the main cache, and in the drafter's.
            twice = layer_kv_bytes(layer, cells, shape.kv_k, shape.kv_v)
            _put(where[device], "kv", unknown() if twice is None else Amount(0, twice, "interval"))


def _add_draft_compute(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    cells: Cells,
    placement: Placement,
    where: Mapping[int, dict[Component, Amount]],
) -> None:
    draft = mtp_compute(geometry, shape, cells, placement)
    if not build.reduced:
        draft = upstream.before_it_was_reduced(draft, geometry, shape, cells)

    device = max(placement.layers[-1], placement.output)
    amount = draft.devices[0]
    if build.kind == "ik":
        amount = Amount(0, amount.high_bytes, "interval")

    _put(where[device], "draft_compute", amount)
    _put(where[HOST], "draft_compute", draft.host)


def _copies(geometry: Geometry, shape: PlanShape, build: PlanBuild, cells: Cells) -> int:
    """The f16 copies of one layer's quantised keys and values, where no line of the log has them."""
    if build.reduced:
        return 0

    most = 0
    for window, key, value, _ in geometry.attention_groups:
        own = cells.window if window else cells.full
        most = max(most, 2 * own * (key * quantised(shape.kv_k) + value * quantised(shape.kv_v)))

    return most


def _add_host_caches(geometry: Geometry, shape: PlanShape, build: PlanBuild, host: dict[Component, Amount]) -> None:
    """What requests fill: prompts kept for later, and checkpoints of states that cannot be rolled back."""
    host["prompt_cache"] = Amount(0, shape.prompt_cache_mib * MIB, "interval")
    recurrent = sum(layer.recurrent for layer in geometry.trunk)
    one = 4 * geometry.state.values * recurrent if geometry.state else 0
    if one and shape.checkpoints:
        host["checkpoints"] = Amount(0, one * shape.checkpoints * max(1, shape.slots), "interval")


def _open(geometry: Geometry, where: Mapping[int, dict[Component, Amount]]) -> None:
    """What no rule covers has no upper bound."""
    for parts in where.values():
        if geometry.unknown_types:
            parts["weights"] = unknown(parts["weights"].low_bytes)

        if geometry.gaps or geometry.latent:
            parts["kv"] = unknown()
            parts["compute"] = unknown()
            parts["state"] = unknown()
