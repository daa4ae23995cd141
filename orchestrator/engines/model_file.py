"""The file behind a profile's `model`: the path as written, or the demo's model, which orch makes when it is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.core.profile.profile import DEMO_MODEL


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's file, which need not exist.

    :param path: of the first split
    :param generated: whether orch makes the file itself
    """

    path: str
    generated: bool

    def is_available(self) -> bool:
        """Return whether a start would find the file: it exists, or can be made."""
        return self.generated or os.path.exists(self.path)

    def ensure(self) -> str:
        """Make the file unless it exists, if it is one that orch makes; that takes a second or two.

        :return: the path, of a file that still does not exist if it is the user's to provide
        """
        if self.generated and not os.path.exists(self.path):
            from orchestrator.engines.known.model import write_known_model

            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            write_known_model(self.path, stops=True)

        return self.path


def model_file(paths: Paths, model: str) -> ModelFile:
    """Return the file that a profile's `model` stands for."""
    if model == DEMO_MODEL:
        return ModelFile(os.path.join(paths.cache, "demo", "recital.gguf"), generated=True)

    return ModelFile(model, generated=False)
