"""Margins that survived: what the ladder learned, kept across restarts.

A margin holds for one build, model, context, KV type, parallelism, speculation and set of devices. It is one number, or
one per device where the profile has a list; it is written only after a start proved healthy, or was seen to spill (then
it is the next larger one); and none of its numbers ever shrinks. `forget` is the one way back.

What is kept is the profile's margin, and beside it how much less (or, negative, more) the engine was given: where that
has changed since, and for what was learned before there was such a difference, the engine is given the same as then.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.fleet.ladder import Margins, raise_margins
from orchestrator.core.profile.free_tables import FREE_TABLES
from orchestrator.core.profile.profile import EngineProfile

_log = logging.getLogger(__name__)

KEYED_SETTINGS = (
    "context.size", "context.parallel", "context.unified_kv", "batch.size", "batch.ubatch", "kv.k", "kv.v",
    "kv.offload", "attention.flash", "speculative.type", "speculative.draft_max", "speculative.draft_model",
    "speculative.kv_k", "speculative.kv_v", "memory.split", "memory.devices", "memory.rpc", "multimodal.mmproj",
    "context.swa_full", "lora.adapters", "memory.merge_qkv", "memory.merge_experts", "multimodal.device",
    "multimodal.image_max_tokens", "sampling.backend",
)  # fmt: skip
"""The settings that device memory depends on, beside the placement that the margin is for."""


@dataclass(frozen=True, slots=True)
class MarginKey:
    """The start that a margin was learned for; `digest` names it."""

    build: str
    model: str
    settings: Mapping[str, object]
    devices: tuple[str, ...]

    @property
    def digest(self) -> str:
        text = json.dumps([self.build, self.model, sorted(self.settings.items()), self.devices], default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def margin_key(profile: EngineProfile, model_path: str, build: str, devices: tuple[str, ...]) -> MarginKey:
    """Return the key of a start.

    :param build: names the binary, not its version alone (two builds of one commit differ in their flags)
    """
    free = [path for path in profile.settings if path.startswith(tuple(f"{table}." for table in FREE_TABLES))]
    settings = {path: profile.settings[path] for path in (*KEYED_SETTINGS, *free) if path in profile.settings}
    return MarginKey(build, file_identity(model_path), settings, devices)


class MarginStore:
    """Reads and writes the file of learned margins."""

    def __init__(self, path: str) -> None:
        self._path = path

    def entries(self) -> dict[str, dict[str, object]]:
        """Return what was learned by digest: profile, engine, model, margin_mib (the largest), learned (RFC 3339).

        With a margin per device there is also margins_mib.
        """
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        entries = state.get("margins")
        if not isinstance(entries, dict):
            return {}

        return {digest: entry for digest, entry in entries.items() if isinstance(entry, dict)}

    def learned(self, key: MarginKey, offset_mib: int = 0) -> Margins | None:
        """Return the margins that survived, MiB; None without any.

        :param offset_mib: how much less than its margin the engine is given now
        """
        entry = self.entries().get(key.digest, {})
        listed, margin, offset = (entry.get(name) for name in ("margins_mib", "margin_mib", "offset_mib"))
        since = offset_mib - (offset if isinstance(offset, int) else 0)
        if isinstance(listed, list) and listed and all(isinstance(each, int) for each in listed):
            return tuple(max(0, each + since) for each in listed)

        return max(0, margin + since) if isinstance(margin, int) else None

    def remember(
        self, key: MarginKey, margins_mib: Margins, profile: EngineProfile, now: str, offset_mib: int = 0
    ) -> bool:
        """Keep margins unless as large ones are kept already.

        :param offset_mib: how much less than its margin the engine was given
        :return: whether anything was new
        """
        entries = self.entries()
        before = self.learned(key, offset_mib)
        kept = margins_mib
        if before is not None:
            kept = raise_margins(margins_mib, before)
            nothing = (0,) * len(margins_mib) if isinstance(margins_mib, tuple) else 0
            if kept == raise_margins(nothing, before):
                return False

        entries[key.digest] = {
            "profile": profile.name,
            "engine": profile.engine,
            "build": key.build,
            "model": key.model.partition(":")[0],
            "settings": dict(key.settings),
            "devices": list(key.devices),
            "margin_mib": max(kept) if isinstance(kept, tuple) else kept,
            **({"margins_mib": list(kept)} if isinstance(kept, tuple) else {}),
            **({"offset_mib": offset_mib} if offset_mib else {}),
            "learned": now,
        }
        save_state(self._path, {"margins": entries})
        return True

    def forget(self, digest: str | None = None) -> int:
        """Drop one entry, or all of them.

        :return: how many
        """
        entries = self.entries()
        kept = {} if digest is None else {name: entry for name, entry in entries.items() if name != digest}
        if len(kept) != len(entries):
            save_state(self._path, {"margins": kept})

        return len(entries) - len(kept)
