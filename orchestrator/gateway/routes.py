"""The routes: an allowlist. What is not here does not exist, whatever the engine behind may offer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import Family, GatewayError

Kind = Literal["health", "models", "model", "metrics", "running", "monitor", "inference"]
"""The kind of a route: `monitor` and `inference` are the engine's, the one if it is there, the other held until it is;
the rest is answered by the gateway itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the allowlist.

    :param json_body: the body is JSON, so a form's content types are refused
    :param streams: a client may ask for server-sent events
    :param computes: the engine runs the model for it: its answer is a sign of life, and it may be what kills the engine
    """

    kind: Kind
    methods: tuple[str, ...]
    family: Family = "plain"
    json_body: bool = True
    streams: bool = False
    computes: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, with what its path says.

    :param path: the path at the engine; for `model` the name that was asked for
    :param model: the profile named in the path, by `/upstream/NAME/...`
    """

    route: Route
    path: str
    model: str | None = None


_OWN = ("GET", "HEAD")
_CHAT = Route("inference", ("POST",), "openai", streams=True, computes=True)
_COMPLETION = Route("inference", ("POST",), "completion", streams=True, computes=True)
_RESPONSES = Route("inference", ("POST",), "responses", streams=True, computes=True)
_MESSAGES = Route("inference", ("POST",), "anthropic", streams=True, computes=True)
_TOKENS = Route("inference", ("POST",), "anthropic")
_TEXT = Route("inference", ("POST",), "openai")
_PLAIN = Route("inference", ("POST",), "openai", computes=True)
_AUDIO = Route("inference", ("POST",), "openai", json_body=False, computes=True)
_MONITOR = Route("monitor", ("GET",))

ENGINE_ROUTES: dict[str, Route] = {
    "/v1/chat/completions": _CHAT, "/chat/completions": _CHAT,
    "/v1/completions": _COMPLETION, "/completions": _COMPLETION, "/completion": _COMPLETION, "/infill": _COMPLETION,
    "/v1/responses": _RESPONSES, "/responses": _RESPONSES,
    "/v1/messages": _MESSAGES, "/v1/messages/count_tokens": _TOKENS,
    "/v1/embeddings": _PLAIN, "/embeddings": _PLAIN, "/embedding": _PLAIN,
    "/v1/rerank": _PLAIN, "/rerank": _PLAIN, "/v1/reranking": _PLAIN, "/reranking": _PLAIN,
    "/tokenize": _TEXT, "/detokenize": _TEXT, "/apply-template": _TEXT,
    "/v1/audio/transcriptions": _AUDIO,
    "/props": _MONITOR, "/slots": _MONITOR,
}  # fmt: skip

OWN_ROUTES: dict[str, Route] = {
    "/health": Route("health", _OWN), "/v1/health": Route("health", _OWN),
    "/models": Route("models", _OWN), "/v1/models": Route("models", _OWN),
    "/metrics": Route("metrics", _OWN), "/running": Route("running", _OWN),
}  # fmt: skip

# What a client of one engine may ask of it under /upstream/NAME, beside the routes that need no name.
_UPSTREAM_ONLY: dict[str, Route] = dict.fromkeys(("/health", "/metrics", "/models", "/v1/models"), _MONITOR)

_ONE_MODEL = Route("model", _OWN)
_UPSTREAM = "/upstream/"
_MODEL = "/v1/models/"


def find_route(method: str, path: str, models: Sequence[Model]) -> Match:
    """Return the route of a request.

    :raises GatewayError: 404 or 405
    """
    match = _find(path, models)
    if match is None:
        raise GatewayError("not_found", f"there is no route {path}")

    if method not in match.route.methods:
        allowed = ", ".join(match.route.methods)
        raise GatewayError(
            "method_not_allowed", f"{path} allows {allowed}, not {method}", headers=[(b"allow", allowed.encode())]
        )

    return match


def _find(path: str, models: Sequence[Model]) -> Match | None:
    route = ENGINE_ROUTES.get(path) or OWN_ROUTES.get(path)
    if route is not None:
        return Match(route, path)

    if path.startswith(_UPSTREAM):
        return _find_upstream(path.removeprefix(_UPSTREAM), models)

    if path.startswith(_MODEL):
        return Match(_ONE_MODEL, unquote(path.removeprefix(_MODEL), errors="replace"))

    return None


def _find_upstream(rest: str, models: Sequence[Model]) -> Match | None:
    # Aliases may hold slashes, so where the name ends is known from the names, not from the first slash.
    names = [name for model in models for name in (model.name, *model.aliases)]
    for at in range(len(rest)):
        if rest[at] == "/" and unquote(rest[:at], errors="replace") in names:
            path = rest[at:]
            route = ENGINE_ROUTES.get(path) or _UPSTREAM_ONLY.get(path)
            if route is not None:
                return Match(route, path, unquote(rest[:at]))

    return None
