"""Bytes of weights on each device and on the host, and which layers are there."""

from __future__ import annotations

from collections import Counter, defaultdict

from orchestrator.core.plan.geometry import Geometry, LayerGeometry, kept_of_geometry
from orchestrator.core.plan.memory.placement import HOST, Placement


@kept_of_geometry
def weights_by_device(
    geometry: Geometry, placement: Placement, n_cpu_moe: int, n_cpu_ffn: int, *, mtp: bool, biases: bool
) -> tuple[dict[int, int], dict[int, int]]:
    """Return the bytes of weights of each device and the host, and those of MTP's blocks apart.

    :param biases: whether devices keep a copy of the biases of experts that are on the host
    """
    sums: dict[int, int] = defaultdict(int)
    drafts: dict[int, int] = defaultdict(int)
    trunk = len(geometry.trunk)
    for index, layer in enumerate(geometry.layers if mtp else geometry.trunk):
        into = drafts if index >= trunk else sums
        device = placement.layers[index]
        experts, ffn = index < n_cpu_moe, index < n_cpu_ffn
        away = layer.expert_bytes * experts + layer.ffn_bytes * ffn
        into[device] += layer.weights_bytes - away
        if away:
            into[HOST] += away

        if device != HOST:
            into[device] += layer.weights_padding - layer.expert_padding * experts - layer.ffn_padding * ffn
            into[device] += layer.expert_bias_bytes * (experts and biases)

    sums[HOST] += geometry.input_bytes
    if placement.output == HOST:
        sums[HOST] += geometry.output_bytes - geometry.tied_bytes
    else:
        sums[placement.output] += geometry.output_bytes + geometry.output_padding

    for device in set(placement.layers[:trunk]):
        sums[device] += geometry.shared_bytes

    return dict(sums), dict(drafts)


@kept_of_geometry
def layers_by_device(geometry: Geometry, placement: Placement) -> tuple[tuple[int, LayerGeometry, int], ...]:
    """Return the trunk's layers with caches or states: device, one of those that are alike, how many they are."""
    counts: Counter[tuple[int, bool, bool, int, int]] = Counter()
    examples = {}
    for device, layer in zip(placement.layers, geometry.trunk, strict=False):
        if layer.recurrent or layer.attends:
            key = (device, layer.recurrent, layer.window, layer.key_width, layer.value_width)
            counts[key] += 1
            examples[key] = layer

    return tuple((key[0], examples[key], count) for key, count in counts.items())
