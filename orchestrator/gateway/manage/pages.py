"""What clients of llama-swap, of llama-server's router and of Ollama read about models and requests. Pure.

Shapes: llama-swap's `internal/server/api.go`, llama.cpp's `tools/server/README.md` (router), Ollama's `docs/api.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.gateway.contract import Finished, Model

MOST_ACTIVITY = 999

_STATES = {"loaded": "ready", "loading": "starting"}
"""llama-swap's words; anything else is `stopped`."""


def version_json(version: str) -> bytes:
    """`/api/version`, where llama-swap's clients and Ollama's look. What orch does not know is empty."""
    return _page({"version": version, "commit": "", "build_date": ""})


def ollama_tags_json(models: Sequence[Model]) -> bytes:
    """Ollama's `/api/tags`: all models, so that a client that looks for Ollama first finds names to show."""
    return _page({"models": [_ollama_entry(model) for model in models]})


def ollama_ps_json(models: Sequence[Model]) -> bytes:
    """Ollama's `/api/ps`: the models that are loaded."""
    loaded = [model for model in models if model.status == "loaded"]
    # How much of a model is on a device is not known here, and how long it stays is for the rules to say.
    return _page({"models": [{**_ollama_entry(model), "size_vram": 0, "expires_at": _NEVER} for model in loaded]})


def profiles_json() -> bytes:
    """llama-swap's `/api/profiles`: sets of pins, of which orch has none."""
    return _page({"active": None, "profiles": []})


def performance_json() -> bytes:
    """llama-swap's `/api/performance`: that its history of the host is not kept; orch's figures are at `/metrics`."""
    return _page({"enabled": False, "sys_stats": [], "gpu_stats": []})


def activity_json(recent: Sequence[Finished], *, page: int, limit: int, wall_offset_s: float) -> bytes:
    """llama-swap's `/api/metrics/activity`: the requests that ended last, the newest first.

    :param recent: oldest first
    :param page: from 1
    :param wall_offset_s: wall-clock time less monotonic time
    """
    newest = list(reversed(recent))
    begin = (page - 1) * limit
    rows = [_activity(record, wall_offset_s) for record in newest[begin : begin + limit]]
    pages = max(1, -(-len(newest) // limit))
    return _page({"data": rows, "page": page, "limit": limit, "total": len(newest), "total_pages": pages})


def metrics_json(recent: Sequence[Finished], *, wall_offset_s: float) -> bytes:
    """llama-swap's older `/api/metrics`: the rows of the activity, the newest last.

    :param recent: oldest first
    """
    return _page([_activity(record, wall_offset_s) for record in recent])


def model_states(models: Sequence[Model]) -> list[dict[str, object]]:
    """Return the models as llama-swap's event `modelStatus` has them."""
    return [
        {
            "id": model.name,
            "name": model.name,
            "description": model.description,
            "state": _STATES.get(model.status, "stopped"),
            "unlisted": False,
            "peerID": "",
            "aliases": list(model.aliases),
        }
        for model in sorted(models, key=lambda each: each.name)
    ]


def swap_event(models: Sequence[Model]) -> bytes:
    """Return llama-swap's event of all models' states; its `data` is JSON in a string."""
    data = {"type": "modelStatus", "data": json.dumps(model_states(models))}
    return b"event:message\ndata:" + _page(data) + b"\n\n"


def router_events(before: dict[str, str], models: Sequence[Model]) -> list[bytes]:
    """Return the router's events for each model whose status is another one than before.

    :param before: status by name
    """
    changed = [model for model in models if before.get(model.name, "unloaded") != model.status]
    return [
        b"data: " + _page({"model": model.name, "event": "status_change", "data": {"status": model.status}}) + b"\n\n"
        for model in changed
    ]


_NEVER = "0001-01-01T00:00:00Z"


def _ollama_entry(model: Model) -> dict[str, object]:
    figures = model.figures
    family = figures.architecture or ""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "size": figures.size_bytes or 0,
        "digest": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family] if family else [],
            "parameter_size": f"{figures.parameters / 1e9:.1f}B" if figures.parameters else "",
            "quantization_level": "",
        },
    }


def _activity(record: Finished, wall_offset_s: float) -> dict[str, object]:
    ended = record.started + record.total_s + wall_offset_s
    return {
        "id": record.id,
        "timestamp": datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds"),
        "model": record.profile or "",
        "req_path": record.route,
        "resp_status_code": record.status,
        "tokens": {
            "cache_tokens": _known(record.cached_tokens),
            "draft_tokens": _known(record.draft_tokens),
            "draft_acc_tokens": _known(record.draft_accepted),
            "input_tokens": _known(record.prompt_tokens),
            "output_tokens": _known(record.output_tokens),
            "prompt_per_second": _known(record.prompt_tok_s),
            "tokens_per_second": _known(record.decode_tok_s),
        },
        "duration_ms": round(record.total_s * 1000),
        "has_capture": False,
    }


def _known(figure: float | None) -> float:
    """llama-swap's own word for what is not known is -1."""
    return -1 if figure is None else figure


def _page(value: object) -> bytes:
    return json.dumps(value).encode()
