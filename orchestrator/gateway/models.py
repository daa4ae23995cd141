"""Model names: which profile a request means, and the lists that clients read. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from orchestrator.core.problems import nearest
from orchestrator.core.profile.variants import Variant
from orchestrator.core.terminal import quote_text
from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import GatewayError

ANY_NAME = "*"
"""The alias of the profile that answers to names which nobody else has."""

MAX_QUOTED = 100
"""Characters of a name that a message shows."""

MAX_NAME = 256
"""Characters: no profile and no alias has a longer name, and comparing one costs its length."""

_LONGEST_LETTER = 12
"""Bytes that one letter of a name may take in a path: four of UTF-8, three of the path for each."""


def is_known(name: str | None, models: Sequence[Model]) -> bool:
    """Return whether a name needs no look for it: a model has it, or it names none, or none could have it."""
    return not name or len(name) > MAX_NAME or _named(name, models) is not None


def names_in_front(rest: str, models: Sequence[Model]) -> Iterator[tuple[str, str]]:
    """Yield each name of a model that the beginning of a path is, the shortest first, and what follows it.

    Names may hold slashes, so where one ends is known from the names, not from the first slash. The look-up is bounded
    by the names: a path may be all slashes.

    :param rest: of a path, without a slash in front
    """
    names = {name for model in models for name in model.names}
    longest = max(map(len, names), default=0) * _LONGEST_LETTER
    end = -1
    for _ in range(1 + max((name.count("/") for name in names), default=0)):
        end = rest.find("/", end + 1)
        name = rest if end < 0 else rest[:end]
        if len(name) > longest:
            return

        if unquote(name, errors="replace") in names:
            yield unquote(name, errors="replace"), rest[len(name) :]

        if end < 0:
            return


def default_profile(models: Sequence[Model], default: str) -> str | None:
    """Return the profile that answers to names which nobody has; None where there is none.

    :param default: as configured; a profile with the alias `*` otherwise
    """
    return _named(default or ANY_NAME, models)


def profile_for(name: str | None, models: Sequence[Model], default: str = "") -> str | None:
    """Return the profile that a name stands for; None when the request names none and takes what is there.

    :param default: the profile for names that nobody has, `gateway.default_model`
    :raises GatewayError: `model_not_found`, with the nearest name and the list
    """
    if not name:
        return None

    profile = _named(name[: MAX_NAME + 1], models) or default_profile(models, default)
    if profile is None:
        raise GatewayError("model_not_found", _unknown(name, models, default), param="model")

    return profile


def _named(name: str, models: Sequence[Model]) -> str | None:
    for model in models:  # each request comes by here: nothing is built
        if name == model.name or name in model.aliases or (model.variants and _variant(name, model)):
            return model.name

    return None


def variant_of(name: str | None, models: Sequence[Model]) -> Variant | None:
    """Return the variant that a name stands for; None where it is a profile's own, an alias, or nobody's."""
    if not name or len(name) > MAX_NAME:
        return None

    for model in models:
        if model.variants and (found := _variant(name, model)):
            return found

    return None


def _variant(name: str, model: Model) -> Variant | None:
    return next((each for each in model.variants if each.name == name), None)


def _unknown(name: str, models: Sequence[Model], default: str) -> str:
    known = [word for model in models for word in model.names if word != ANY_NAME]
    match = _nearest(name[:MAX_NAME], known)
    hint = f"did you mean `{match}`? " if match else ""
    listed = ", ".join(model.name for model in models) or "none"
    text = f"there is no model `{quote_text(name, MAX_QUOTED)}`; {hint}known models: {listed}"
    if default:
        return f"{text}; there is no `{default}` either, which `gateway.default_model` names"

    return f'{text}; `gateway.default_model` in orch.toml, or the alias "*" of a profile, gives one for any other name'


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the name that is meant: without a vendor before it and a tag behind it, as routers write them, or the
    nearest in spelling.
    """
    bare = name.rpartition("/")[2].partition(":")[0].casefold()
    return next((word for word in known if word.casefold() == bare), None) or nearest(name, known)


def model_entry(model: Model, now: float) -> dict[str, object]:
    """Return one model as OpenAI's clients, llama-swap's and the router's read it.

    :param now: monotonic
    """
    idle_s = None if model.unloaded_since is None or model.status != "unloaded" else now - model.unloaded_since
    detail = None if idle_s is None else f"idle {_duration(idle_s)}"
    figures = model.figures
    meta = {
        "n_ctx": figures.context_tokens,
        "n_ctx_train": figures.trained_tokens,
        "n_params": figures.parameters,
        "size": figures.size_bytes,
    }
    said = {key: value for key, value in meta.items() if value is not None}
    more: dict[str, object] = {"meta": {**said, "planned": figures.planned}} if said else {}
    if figures.context_tokens is not None:
        more["context_length"] = figures.context_tokens

    architecture: dict[str, object] = {"name": figures.architecture} if figures.architecture else {}
    if figures.inputs is not None:
        architecture |= {"input_modalities": figures.inputs, "output_modalities": ["text"]}

    if architecture:
        more["architecture"] = architecture

    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "orch",
        "name": model.name,
        "description": model.description,
        "aliases": [alias for alias in model.aliases if alias != ANY_NAME],
        "status": {"value": model.status, **({"detail": detail} if detail else {})},
        **more,
    }


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"

    return f"{seconds // 60:.0f} min" if seconds < 3600 else f"{seconds // 3600:.0f} h"


def variant_entry(model: Model, variant: Variant, now: float) -> dict[str, object]:
    """Return one variant, as a model of its own: clients choose by that."""
    own = {"id": variant.name, "name": variant.name, "aliases": [], "variant_of": model.name}
    return {**model_entry(model, now), "description": variant.description or model.description, **own}


def props_json(model: Model) -> bytes | None:
    """What `/props` says of a model that is not loaded: the context that a request would have. None if nobody knows."""
    if model.figures.context_tokens is None:
        return None

    page = {
        "model_alias": model.name,
        "default_generation_settings": {"n_ctx": model.figures.context_tokens},
        "status": model.status,
        "planned": True,
    }
    return json.dumps(page).encode()


def about_json(host: bytes | None) -> bytes:
    """What this is, for who opens the address itself.

    :param host: as the client names this address
    """
    base = f"http://{host.decode('latin-1')}" if host else ""
    page = {
        "name": "orch",
        "message": f"orch serves OpenAI's API at {base}/v1, Anthropic's at {base}, and llama-server's routes",
        "models": "/v1/models",
        "health": "/health",
        "metrics": "/metrics",
    }
    return json.dumps(page).encode()


def models_json(models: Sequence[Model], now: float) -> bytes:
    """
    :param now: monotonic
    """
    data = []
    for model in sorted(models, key=lambda model: model.name):
        data += [model_entry(model, now), *(variant_entry(model, variant, now) for variant in model.variants)]

    return json.dumps({"object": "list", "data": data}).encode()


def model_json(name: str, models: Sequence[Model], default: str, now: float) -> bytes:
    """
    :param now: monotonic
    :raises GatewayError: `model_not_found`
    """
    profile, variant = profile_for(name, models, default), variant_of(name, models)
    for model in models:
        if model.name == profile:
            entry = model_entry(model, now) if variant is None else variant_entry(model, variant, now)
            return json.dumps(entry).encode()

    raise GatewayError("model_not_found", "the model has no name", param="model")


def running_json(models: Sequence[Model]) -> bytes:
    """llama-swap's `/running`: what is loaded or loads. `cmd` and `proxy` stay empty, they are nobody's business."""
    states = {"loaded": "ready", "loading": "starting"}
    running = [
        {
            "model": model.name,
            "state": states[model.status],
            "cmd": "",
            "proxy": "",
            "ttl": round(model.idle_limit_s),
            "name": model.name,
            "description": model.description,
        }
        for model in models
        if model.status in states
    ]
    return json.dumps({"running": running}).encode()
