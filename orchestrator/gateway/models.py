"""Model names: which profile a request means, and the lists that clients read. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.core.problems import nearest
from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import GatewayError


def profile_for(name: str | None, models: Sequence[Model]) -> str | None:
    """Return the profile that a name stands for; None when the request names none and takes what is there.

    :raises GatewayError: `model_not_found`, with the nearest name and the list
    """
    if not name:
        return None

    for model in models:
        if name == model.name or name in model.aliases:
            return model.name

    known = [word for model in models for word in (model.name, *model.aliases)]
    match = nearest(name, known)
    hint = f"did you mean `{match}`? " if match else ""
    listed = ", ".join(model.name for model in models) or "none"
    raise GatewayError("model_not_found", f"there is no model `{name}`; {hint}known models: {listed}", param="model")


def model_entry(model: Model) -> dict[str, object]:
    """Return one model as OpenAI's clients, llama-swap's and the router's read it."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "orch",
        "name": model.name,
        "description": model.description,
        "aliases": list(model.aliases),
        "status": {"value": model.status},
    }


def models_json(models: Sequence[Model]) -> bytes:
    data = [model_entry(model) for model in sorted(models, key=lambda model: model.name)]
    return json.dumps({"object": "list", "data": data}).encode()


def model_json(name: str, models: Sequence[Model]) -> bytes:
    """
    :raises GatewayError: `model_not_found`
    """
    profile = profile_for(name, models)
    for model in models:
        if model.name == profile:
            return json.dumps(model_entry(model)).encode()

    raise GatewayError("model_not_found", "the model has no name", param="model")


def running_json(models: Sequence[Model]) -> bytes:
    """llama-swap's `/running`; `cmd` and `proxy` stay empty, they are nobody's business."""
    states = {"loaded": "ready", "loading": "starting"}
    running = [
        {
            "model": model.name,
            "state": states[model.status],
            "cmd": "",
            "proxy": "",
            "ttl": 0,
            "name": model.name,
            "description": model.description,
        }
        for model in models
        if model.status in states
    ]
    return json.dumps({"running": running}).encode()
