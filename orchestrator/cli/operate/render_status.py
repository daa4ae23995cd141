"""The status as lines for people, as `orch status` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.api.types import AttemptStatus, Status
from orchestrator.api.wording import STATE_SYMBOLS, memory_texts


def lines(status: Status) -> Iterator[str]:
    what = f" {status['profile']} on {status['engine']}" if status["profile"] else ""
    unloaded = status.get("unloaded")
    if unloaded is not None:
        target = f"{unloaded['profile']} on {unloaded['engine']}"
        yield f"{STATE_SYMBOLS[status['state']]} unloaded {target} (idle since {unloaded['since']}; a request loads it)"
    else:
        yield f"{STATE_SYMBOLS[status['state']]} {status['state']}{what}"

    if status["cause"]:
        yield f"  cause     {status['cause']}"

    if status["switching"]:
        yield f"  switch    {status['progress']}"

    if status["notice"]:
        yield f"  notice    {status['notice']}"

    if status["build"]:
        yield f"  build     {status['build']}"

    if status["pid"]:
        yield f"  process   {status['pid']}, {status['state']} since {status['since']}"

    if status["margin_mib"] is not None:
        yield f"  margin    {status['margin_mib']} MiB"

    if status["stale"]:
        yield f"  stale     the profile changed: {', '.join(status['stale'])}; `orch reload` applies it"

    gateway = status["gateway"]
    yield f"  gateway   {gateway['url']} ({gateway['in_flight']} in flight, {gateway['queued']} queued)"
    if gateway["abandoned"]:
        yield f"  abandoned {gateway['abandoned']} of the engine's slots work on although their clients are gone"

    speed = status["speed"]
    figures = [
        f"{value:.{digits}f}{unit}"
        for value, digits, unit in (
            (speed["decode_tok_s"], 1, " tok/s"),
            (speed["prompt_tok_s"], 1, " tok/s prompt"),
        )
        if value is not None
    ]
    if speed["draft_acceptance"] is not None:
        figures.append(f"{speed['draft_acceptance']:.0%} of drafts accepted")

    if figures:
        yield f"  speed     {', '.join(figures)}"

    for gpu in status["gpus"]:
        yield f"  gpu {gpu['index']}     {gpu['name']}: {gpu['used_mib']} of {gpu['total_mib']} MiB"

    for text in memory_texts(status.get("memory", [])):
        yield f"  memory    {text}"

    if len(status["attempts"]) > 1 or status["state"] in ("failed", "backoff"):
        yield "  attempts"
        for attempt in status["attempts"]:
            yield from _attempt(attempt)


def _attempt(attempt: AttemptStatus) -> Iterator[str]:
    margin = "" if attempt["margin_mib"] is None else f", margin {attempt['margin_mib']} MiB"
    steps = "".join(f", {step}" for step in attempt["steps"])
    yield f"    {attempt['number']}. {attempt['outcome']}{margin}{steps}"
    if attempt["evidence"]:
        yield f"       {attempt['evidence']}"

    if attempt["next"]:
        yield f"       next: {attempt['next']}"
