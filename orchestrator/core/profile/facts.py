"""A profile as the rules about combinations look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.speculation import speculation_types

DEFAULT_BATCH = 2048
"""Tokens; `-b` when it is not given, in both engines."""

DEFAULT_UBATCH = 512
"""Tokens; `-ub` when it is not given, in both engines."""


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """A profile, and the kind of engine that it is checked for."""

    profile: EngineProfile
    kind: Kind

    def get(self, path: str) -> Value | None:
        return self.profile.settings.get(path)

    def on(self, path: str) -> bool:
        return self.profile.settings.get(path) is True

    @property
    def types(self) -> tuple[str, ...]:
        return speculation_types(self.profile.settings)

    @property
    def type_text(self) -> str:
        """The type of speculation as the profile writes it."""
        types = ", ".join(f'"{kind}"' for kind in self.types)
        return types if len(self.types) == 1 else f"[{types}]"

    @property
    def placed(self) -> tuple[str, ...]:
        """What the profile places by hand, which a fit does not go with."""
        paths = [path for path in ("memory.tensor_overrides",) if self.get(path) is not None]
        paths += [path for path in ("memory.cpu_moe",) if self.on(path)]
        paths += [path for path in ("memory.n_cpu_moe", "memory.n_cpu_ffn") if self.get(path) not in (None, 0)]
        if self.get("memory.gpu_layers") not in (None, "auto"):
            paths.append("memory.gpu_layers")

        if self.kind != "ik":
            paths += [path for path in ("memory.tensor_split",) if self.get(path) is not None]

        return tuple(paths)

    @property
    def fits(self) -> bool | None:
        """True when the engine fits the model into device memory; None where that hangs on an unknown engine."""
        fit = self.get("memory.fit")
        if isinstance(fit, bool):
            return fit

        if self.kind == "upstream":
            return not self.placed

        return False if self.kind == "ik" else None

    @property
    def makes_embeddings(self) -> bool:
        """Whether an input has to go through the model in one piece: embeddings, and rerank's pairs."""
        return self.on("server.embeddings") or self.on("server.reranking")

    @property
    def slot_context(self) -> int | None:
        """The longest input of one slot, tokens; None where the model's own context decides."""
        size, parallel = self.get("context.size"), self.get("context.parallel")
        if not isinstance(size, int) or size == 0:
            return None

        shared = self.on("context.unified_kv") and self.kind != "ik"
        return size if shared or not isinstance(parallel, int) else size // parallel


Check = Callable[[ProfileFacts], str | None]
"""Returns what is wrong with a profile; None when nothing is."""
