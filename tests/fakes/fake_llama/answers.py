"""The bodies of the engines' answers: OpenAI's chat and completions, llama-server's own, Anthropic's messages."""

from __future__ import annotations

import json
from typing import Any

ROUTES = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "text",
    "/completion": "own",
    "/completions": "own",
    "/v1/messages": "anthropic",
}


def tokens_wanted(body: dict[str, Any]) -> int:
    return int(body.get("n_predict") or body.get("max_tokens") or 16)


def timings(
    count: int, prompt_s: float, took_s: float, *, upstream: bool, drafted: int | None, right: float, cached: int = 0
) -> dict[str, object]:
    made: dict[str, object] = {
        "prompt_n": 7,
        "prompt_ms": round(prompt_s * 1000, 3),
        "prompt_per_token_ms": round(prompt_s * 1000 / 7, 3),
        "prompt_per_second": 7 / prompt_s if prompt_s else None,
        "predicted_n": count,
        "predicted_ms": round(took_s * 1000, 3),
        "predicted_per_token_ms": round(took_s * 1000 / max(count, 1), 3),
        "predicted_per_second": count / took_s if took_s else None,
    }
    if upstream:
        made = {"cache_n": cached, **made}
    else:
        made |= {"n_ctx": 4096, "n_past": cached + 7 + count}

    if drafted:
        made |= {"draft_n": drafted, "draft_n_accepted": int(drafted * right)}

    return made


def whole(family: str, text: str, count: int, model: str, figures: dict[str, object]) -> dict[str, object]:
    """The answer to a request that does not stream."""
    usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": count + 7}
    match family:
        case "chat":
            message = {"role": "assistant", "content": text}
            choice: dict[str, object] = {"index": 0, "finish_reason": "length", "message": message}
            return _openai("chat.completion", model, choice) | {"usage": usage, "timings": figures}
        case "text":
            choice = {"index": 0, "finish_reason": "length", "text": text}
            return _openai("text_completion", model, choice) | {"usage": usage, "timings": figures}
        case "anthropic":
            return _message(model) | {
                "content": [{"type": "text", "text": text}],
                "stop_reason": "max_tokens",
                "usage": {"input_tokens": 7, "output_tokens": count},
            }
        case _:
            own = {"index": 0, "content": text, "id_slot": 0, "stop": True, "model": model, "stop_type": "limit"}
            return own | {"tokens_predicted": count, "tokens_evaluated": 7, "truncated": False, "timings": figures}


def opening(family: str, model: str) -> list[bytes]:
    """The events before the first token."""
    if family == "chat":
        role = {"role": "assistant", "content": None}
        choice: dict[str, object] = {"index": 0, "finish_reason": None, "delta": role}
        return [_data(_openai("chat.completion.chunk", model, choice))]

    if family == "anthropic":
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return [_event({"type": "message_start", "message": _message(model)}), _event(block)]

    return []


def token(family: str, text: str, model: str) -> bytes:
    match family:
        case "chat":
            choice: dict[str, object] = {"index": 0, "finish_reason": None, "delta": {"content": text}}
            return _data(_openai("chat.completion.chunk", model, choice))
        case "text":
            choice = {"index": 0, "finish_reason": None, "text": text}
            return _data(_openai("text_completion", model, choice))
        case "anthropic":
            delta = {"type": "text_delta", "text": text}
            return _event({"type": "content_block_delta", "index": 0, "delta": delta})
        case _:
            return _data({"index": 0, "content": text, "tokens": [1], "stop": False, "id_slot": 0})


def closing(family: str, count: int, model: str, figures: dict[str, object]) -> list[bytes]:
    """The events that say that the answer is complete."""
    match family:
        case "chat":
            choice: dict[str, object] = {"index": 0, "finish_reason": "length", "delta": {}}
            last = _openai("chat.completion.chunk", model, choice) | {"timings": figures}
            return [_data(last), b"data: [DONE]\n\n"]
        case "text":
            choice = {"index": 0, "finish_reason": "length", "text": ""}
            last = _openai("text_completion", model, choice) | {"timings": figures}
            return [_data(last), b"data: [DONE]\n\n"]
        case "anthropic":
            delta = {"stop_reason": "max_tokens", "stop_sequence": None}
            return [
                _event({"type": "content_block_stop", "index": 0}),
                _event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": count}}),
                _event({"type": "message_stop"}),
            ]
        case _:
            return [_data(whole("own", "", count, model, figures))]


def error(code: int, kind: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind}}).encode()


def failing(family: str, message: str) -> bytes:
    """The event in which a stream ends that cannot go on, as upstream writes it."""
    failed: dict[str, object] = {"code": 500, "message": message, "type": "server_error"}
    if family == "anthropic":
        return b"event: error\ndata: " + compact(failed) + b"\n\n"

    return _data({"error": failed})


def compact(value: dict[str, object]) -> bytes:
    """As both engines write it: the gateway looks for `"timings":{`."""
    return json.dumps(value, separators=(",", ":")).encode()


def _openai(kind: str, model: str, choice: dict[str, object]) -> dict[str, object]:
    return {"id": "chatcmpl-fake", "object": kind, "created": 1750000000, "model": model, "choices": [choice]}


def _message(model: str) -> dict[str, object]:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 0},
    }


def _data(value: dict[str, object]) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def _event(value: dict[str, object]) -> bytes:
    return f"event: {value['type']}\n".encode() + _data(value)
