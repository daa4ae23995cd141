"""The routes: an allowlist. What is not here does not exist, whatever the engine behind may offer. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from orchestrator.adapters.http1 import Headers, first
from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import Family, GatewayError
from orchestrator.gateway.models import is_known, names_in_front, profile_for

Kind = Literal[
    "about", "health", "models", "model", "metrics", "running", "requests", "cancel", "monitor", "inference",
    "manage", "page", "moved",
]  # fmt: skip
"""The kind of a route: `monitor` and `inference` are the engine's; the one is answered by what is loaded and never has
anything loaded, the other is held until its model is. The rest is answered by the gateway itself."""


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

    :param path: the path at the engine; for `model` the name that was asked for, for `cancel` the request's id
    :param model: the model named in the path, by `/upstream/NAME/...`; there need be none of this name
    :param named_in_path: for a look at an engine: its model was named in the path, not in the query
    """

    route: Route
    path: str
    model: str | None = None
    named_in_path: bool = False


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
    "/v1/chat/completions/input_tokens": _TEXT, "/chat/completions/input_tokens": _TEXT,
    "/v1/completions": _COMPLETION, "/completions": _COMPLETION, "/completion": _COMPLETION, "/infill": _COMPLETION,
    "/v1/responses": _RESPONSES, "/responses": _RESPONSES,
    "/v1/responses/input_tokens": _TEXT, "/responses/input_tokens": _TEXT,
    "/v1/messages": _MESSAGES, "/v1/messages/count_tokens": _TOKENS,
    "/v1/embeddings": _PLAIN, "/embeddings": _PLAIN, "/embedding": _PLAIN,
    "/v1/rerank": _PLAIN, "/rerank": _PLAIN, "/v1/reranking": _PLAIN, "/reranking": _PLAIN,
    "/tokenize": _TEXT, "/detokenize": _TEXT, "/apply-template": _TEXT,
    "/v1/audio/transcriptions": _AUDIO, "/audio/transcriptions": _AUDIO,
    "/props": _MONITOR, "/slots": _MONITOR, "/lora-adapters": _MONITOR,
}  # fmt: skip

OWN_ROUTES: dict[str, Route] = {
    "/": Route("about", _OWN),
    "/health": Route("health", _OWN), "/v1/health": Route("health", _OWN),
    "/models": Route("models", _OWN), "/v1/models": Route("models", _OWN),
    "/metrics": Route("metrics", _OWN), "/running": Route("running", _OWN),
    "/v1/requests": Route("requests", _OWN),
    "/ui": Route("moved", _OWN), "/ui/": Route("moved", _OWN),
    "/page/feed": Route("page", ("GET",)), "/page/switch": Route("page", ("POST",)),
}  # fmt: skip

_READ = Route("manage", _OWN)
_ASK = Route("manage", ("POST",))
_UNLOAD = Route("manage", ("POST",), json_body=False)

MANAGE_ROUTES: dict[str, Route] = {
    # llama-swap's
    "/unload": _READ, "/api/models/unload": _UNLOAD, "/api/events": _READ, "/api/version": _READ,
    "/api/profiles": _READ, "/api/performance": _READ, "/api/metrics/activity": _READ, "/wol-health": _READ,
    "/api/metrics": _READ, "/api/activity": _READ, "/logs": _READ, "/logs/stream": _READ,
    # of llama-server's router
    "/models/load": _ASK, "/models/unload": _ASK, "/models/sse": _READ,
    # Ollama's that only look
    "/api/tags": _READ, "/api/ps": _READ,
}  # fmt: skip
"""What clients of others ask to see what is loaded, and to have models loaded and unloaded (`manage`)."""

# What a client of one engine may ask of it under /upstream/NAME, beside the routes that need no name.
_UPSTREAM_ONLY: dict[str, Route] = dict.fromkeys(
    ("/health", "/v1/health", "/metrics", "/models", "/v1/models", "/v1/props", "/version"), _MONITOR
)

_ONE_MODEL = Route("model", _OWN)
_CANCEL = Route("cancel", ("POST",), json_body=False)
_CANCEL_PATH = re.compile(r"(?:/v1/requests|/api/inflight)/([^/]{1,192})/cancel")
_UPSTREAM = "/upstream/"
_MODEL = "/v1/models/"
_UNLOAD_ONE = "/api/models/unload/"
_LOG_OF_ONE = "/logs/stream/"

_OLLAMA = frozenset(
    f"/api/{word}"
    for word in (
        "blobs", "chat", "copy", "create", "delete", "embed", "embeddings", "generate", "me", "pull", "push", "show",
        "signin", "signout",
    )
)  # fmt: skip
"""What Ollama's clients ask for, beside what only looks."""

_HERE = "`/` says what this is, `/v1/models` what it serves"
_ELSEWHERE = (
    (("/api/models/load", "/v1/load"),
     "a model is loaded when a request names it, by `orch load NAME`, or by `orch switch NAME`"),
    (("/logs",), "`/logs` is the engines' log, `/logs/stream` goes on with it, /logs/stream/NAME with one model's"),
    (("/api/metrics", "/api/hardware"), "figures are at `/metrics`"),
    (("/slots",), "`/slots` shows all slots, and clients change none"),
    (("/api/profiles",), "`/v1/models` lists the profiles, and a request that names one has it loaded"),
    (("/v1/chat/completions/control", "/v1/streams", "/v1/stream", "/api/inflight"),
     "`/v1/requests` lists what runs, and POST /v1/requests/ID/cancel ends one"),
    (("/upstream",), "after /upstream/NAME comes a route for models, such as /health, /props or /v1/chat/completions"),
    (("/v1", "/version"), _HERE),
)  # fmt: skip
"""Where clients of llama-swap and of llama-server's router find what they ask for; the beginnings of their routes."""


def find_route(method: str, path: str, models: Sequence[Model], headers: Headers | None = None) -> Match:
    """Return the route of a request.

    :param headers: the request's, for what is said of a route that there is not: the address as the client writes it
    :raises GatewayError: 404 or 405
    """
    match = _find(path, models)
    if match is None:
        if path.startswith(_UPSTREAM):
            _check_upstream_name(path.removeprefix(_UPSTREAM), models)

        raise GatewayError("not_found", f"there is no route {path}{_hint(path, first(headers or [], b'host'))}")

    if method not in match.route.methods:
        allowed = ", ".join(match.route.methods)
        more = "; gateway.allowed_origins names the pages that have permission (CORS)" if method == "OPTIONS" else ""
        raise GatewayError(
            "method_not_allowed", f"{path} allows {allowed}, not {method}{more}", headers=[(b"allow", allowed.encode())]
        )

    return match


def _check_upstream_name(rest: str, models: Sequence[Model]) -> None:
    """:raises GatewayError: `model_not_found`, with the list, where nobody has a name that the path begins with"""
    name = unquote(rest.partition("/")[0], errors="replace")
    if not any(names_in_front(rest, models)) and not is_known(name, models):
        profile_for(name, models)


def _hint(path: str, host: bytes | None) -> str:
    if path in _OLLAMA or path.startswith("/api/blobs/"):
        address = f"http://{host.decode('latin-1')}" if host else "this address with "
        return f"; orch speaks OpenAI's and Anthropic's API, not Ollama's: give the client {address}/v1"

    for paths, said in _ELSEWHERE:
        if path.rstrip("/") in paths or (said is not _HERE and path.startswith(tuple(f"{each}/" for each in paths))):
            return f"; {said}"

    asked = path.rstrip("/")
    meant = [route for route in (*ENGINE_ROUTES, *OWN_ROUTES) if route == f"/v1{asked}" or asked.endswith(route)]
    return f"; did you mean {max(meant, key=len)}?" if meant else ""


def _find(path: str, models: Sequence[Model]) -> Match | None:
    route = ENGINE_ROUTES.get(path) or OWN_ROUTES.get(path) or MANAGE_ROUTES.get(path)
    if route is not None:
        return Match(route, path)

    if path.startswith(_UNLOAD_ONE):
        return Match(_UNLOAD, _UNLOAD_ONE.rstrip("/"), unquote(path.removeprefix(_UNLOAD_ONE), errors="replace"))

    if path.startswith(_LOG_OF_ONE):
        return Match(_READ, _LOG_OF_ONE.rstrip("/"), unquote(path.removeprefix(_LOG_OF_ONE), errors="replace"))

    if path.startswith(_UPSTREAM):
        return _find_upstream(path.removeprefix(_UPSTREAM), models)

    cancelled = _CANCEL_PATH.fullmatch(path)
    if cancelled is not None:
        return Match(_CANCEL, unquote(cancelled[1], errors="replace"))

    if path.startswith(_MODEL):
        return Match(_ONE_MODEL, unquote(path.removeprefix(_MODEL), errors="replace"))

    return None


def _find_upstream(rest: str, models: Sequence[Model]) -> Match | None:
    """Return the route of what follows `/upstream/`; that of a name that nobody has where a route follows it."""
    known = False
    for name, path in names_in_front(rest, models):
        known = True
        route = ENGINE_ROUTES.get(path) or _UPSTREAM_ONLY.get(path)
        if route is not None:
            return Match(route, path, name)

    if known:
        return None

    for path, route in (*ENGINE_ROUTES.items(), *_UPSTREAM_ONLY.items()):
        name = rest.removesuffix(path)
        # The longest route is meant: `/v1/models` ends in `/models`, and `v1` is a part of no name.
        if name and name != rest and not name.endswith("/v1"):
            return Match(route, path, unquote(name, errors="replace"))

    return None
