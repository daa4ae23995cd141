"""The model of the profile `demo`: generated when it is first needed."""

from __future__ import annotations

import os

from orchestrator.adapters.paths import Paths
from orchestrator.core.profile.profile import DEMO_MODEL
from orchestrator.engines.render import model_path


def ensure_demo_model(paths: Paths) -> str:
    """Write the demo's model unless it is there, which takes a second or two.

    :return: its path
    """
    path = model_path(paths, DEMO_MODEL)
    if not os.path.exists(path):
        from orchestrator.engines.known.model import write_known_model

        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_known_model(path)

    return path
