"""The settings of a start that decide its memory, with the engine's defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.speculation import drafts_with_mtp

ALL = 1 << 30
"""More layers than a model has: all of them."""

UBATCH = 512
"""Tokens of a physical batch, both engines' default."""

BATCH = 2048
MTP_DRAFT_MAX = 3
"""Tokens drafted at most where the profile is silent: what orch then passes to both engines."""

PROMPT_CACHE_MIB = 8192
"""Both engines' default for prompts kept in host memory."""

CHECKPOINTS = 32
"""Both engines' default of checkpoints kept for each slot."""


@dataclass(frozen=True, slots=True)
class PlanShape:
    """The shape of a start.

    :param context_tokens: over all slots
    :param draft_max: tokens drafted by the model's own MTP blocks; 0 without MTP
    :param n_cpu_moe: the first so many blocks have their experts on the host
    :param n_cpu_ffn: the first so many blocks have their dense feed-forward networks on the host
    :param gpu_layers: blocks on devices, None for all
    :param kv_offload: whether the KV cache is on the devices
    :param op_offload: whether big operations on weights of the host are run on the device
    :param tensor_split: share of each device; empty for equal shares of free memory
    :param checkpoints: most that are kept for a slot
    :param remote: whether the devices are reached over RPC
    :param outputs: tokens whose logits are reserved; None for what a server reserves
    """

    context_tokens: int
    kv_k: str = "f16"
    kv_v: str = "f16"
    ubatch: int = UBATCH
    batch: int = BATCH
    slots: int = 1
    unified_kv: bool = False
    draft_max: int = 0
    draft_kv_k: str = "f16"
    draft_kv_v: str = "f16"
    n_cpu_moe: int = 0
    n_cpu_ffn: int = 0
    gpu_layers: int | None = None
    flash_attention: bool = True
    kv_offload: bool = True
    op_offload: bool = True
    swa_full: bool = False
    tensor_split: tuple[float, ...] = ()
    devices: int = 1
    prompt_cache_mib: int = PROMPT_CACHE_MIB
    checkpoints: int = CHECKPOINTS
    outputs: int | None = None
    remote: bool = False

    def ubatch_in(self, context_tokens: int) -> int:
        """Return the tokens of a physical batch: never more than the logical batch and the context."""
        return max(1, min(self.ubatch, self.batch, context_tokens))


def shape_of(settings: Mapping[str, Value], kind: Kind, geometry: Geometry) -> PlanShape:
    """Return the shape of a start with a profile's settings on an engine of a kind."""
    batch = _int(settings, "batch.size", BATCH)
    context = _int(settings, "context.size", 0) or geometry.trained_context
    mtp = drafts_with_mtp(settings) and geometry.mtp_blocks > 0
    split = _floats(settings.get("memory.tensor_split"))
    devices = settings.get("memory.devices")
    count = len(devices) if isinstance(devices, tuple | list) and devices else max(1, len(split))
    layers = settings.get("memory.gpu_layers")
    cache_mib = _int(settings, "cache.prompt_ram_mib", PROMPT_CACHE_MIB)
    return PlanShape(
        context_tokens=context,
        kv_k=_text(settings, "kv.k", "f16"),
        kv_v=_text(settings, "kv.v", "f16"),
        ubatch=_int(settings, "batch.ubatch", UBATCH),
        batch=batch,
        slots=_int(settings, "context.parallel", 1),
        unified_kv=kind == "ik" or settings.get("context.unified_kv") is True,
        draft_max=_int(settings, "speculative.draft_max", MTP_DRAFT_MAX) if mtp else 0,
        draft_kv_k=_text(settings, "speculative.kv_k", "f16"),
        draft_kv_v=_text(settings, "speculative.kv_v", "f16"),
        n_cpu_moe=ALL if settings.get("memory.cpu_moe") is True else _int(settings, "memory.n_cpu_moe", 0),
        n_cpu_ffn=_int(settings, "memory.n_cpu_ffn", 0),
        gpu_layers=layers if isinstance(layers, int) else None,
        flash_attention=settings.get("attention.flash") not in (False, "off"),
        kv_offload=settings.get("kv.offload") is not False,
        op_offload=settings.get("memory.op_offload") is not False,
        swa_full=settings.get("context.swa_full") is True,
        tensor_split=split,
        devices=count,
        prompt_cache_mib=ALL if cache_mib < 0 else cache_mib,
        checkpoints=_int(settings, "context.checkpoints", CHECKPOINTS),
        remote=bool(settings.get("memory.rpc")),
    )


def _int(settings: Mapping[str, Value], key: str, absent: int) -> int:
    value = settings.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else absent


def _text(settings: Mapping[str, Value], key: str, absent: str) -> str:
    value = settings.get(key)
    return value if isinstance(value, str) else absent


def _floats(value: object) -> tuple[float, ...]:
    return tuple(float(each) for each in value) if isinstance(value, tuple | list) else ()
