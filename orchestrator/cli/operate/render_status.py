"""The status as lines for people, as `orch status` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.api.types import AttemptStatus, InstanceStatus, LeaseStatus, Status
from orchestrator.api.wording import STATE_SYMBOLS, instance_state, instance_use, memory_texts, page_cache_text


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

    lease = status.get("lease")
    if lease is not None:
        yield f"  {'lease' if lease['state'] in ('held', 'restoring') else lease['state']:<9} {lease_text(lease)}"

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

    page_cache = status.get("page_cache")
    if page_cache is not None:
        yield f"  cached    {page_cache_text(page_cache)}"

    if len(status["attempts"]) > 1 or status["state"] in ("failed", "backoff"):
        yield "  attempts"
        for attempt in status["attempts"]:
            yield from _attempt(attempt)

    if len(status.get("instances", ())) > 1:
        yield ""
        yield from resident_lines(status["instances"])


def lease_text(lease: LeaseStatus) -> str:
    """Return who tries other targets, and what comes after it; or what became of it."""
    serves = f"{lease['serves']['profile']}@{lease['serves']['engine']}" if lease["serves"] else ""
    match lease["state"]:
        case "held":
            after = f"{serves} serves again at its end" if serves else "nothing runs after it, as before it"
            return f"{lease['title']}, since {lease['since']}; {after}"
        case "restoring":
            return f"{lease['title']} is over; {serves or 'what was tried'} {'comes back' if serves else 'ends'}"
        case _:
            go_on = f"; `{lease['resume']}` goes on" if lease["resume"] else ""
            return f"{lease['title']}: {lease['cause']}{go_on}"


def resident_lines(rows: Sequence[InstanceStatus]) -> Iterator[str]:
    """Return a table of what is loaded, a row each; what requests without a model go to has the mark `focus`."""
    table = [("profile", "engine", "state", "device", "host", "use", "")]
    for row in rows:
        marks = " ".join(name for name, is_set in (("focus", row["focus"]), ("pinned", row["pinned"])) if is_set)
        sizes = (_mib(row["device_mib"]), _mib(row["host_mib"]))
        state = f"{STATE_SYMBOLS[row['state']]} {instance_state(row)}"
        table.append((row["profile"], row["engine"], state, *sizes, instance_use(row), marks))

    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        aligned = (
            text.rjust(width) if 3 <= number <= 4 else text.ljust(width)
            for number, (text, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield f"  {'  '.join(aligned)}".rstrip()

    for row in rows:
        if row["waits"]:
            yield f"  {row['profile']} waits: {row['waits']}"
        elif row["cause"] and not row["focus"]:
            yield f"  {row['profile']}: {row['cause']}"


def _mib(mib: int | None) -> str:
    return "-" if mib is None else f"{mib} MiB"


def _attempt(attempt: AttemptStatus) -> Iterator[str]:
    margin = "" if attempt["margin_mib"] is None else f", margin {attempt['margin_mib']} MiB"
    steps = "".join(f", {step}" for step in attempt["steps"])
    yield f"    {attempt['number']}. {attempt['outcome']}{margin}{steps}"
    if attempt["evidence"]:
        yield f"       {attempt['evidence']}"

    if attempt["next"]:
        yield f"       next: {attempt['next']}"
