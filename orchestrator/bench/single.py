"""Benches of one target: a single pass as published figures are made, speed against depth, and against clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.bench.asking import GatewayClient
from orchestrator.bench.daemon_link import LOOK_S
from orchestrator.bench.session import BenchShell
from orchestrator.bench.targets import BenchTarget, bench_profiles, describe_target, shown_settings
from orchestrator.bench.verification import verification_of
from orchestrator.core.bench.curves import depth_summary, depths_up_to, load_summary
from orchestrator.core.bench.figures import BenchAnswer
from orchestrator.core.bench.report import summary
from orchestrator.core.bench.workloads import (
    WARM_UP,
    WARM_UP_TOKENS,
    BenchPrompt,
    Workload,
    deep_prompt,
    pass_body,
    request_body,
)
from orchestrator.core.errors import OrchError, UsageError

DEPTH_TOKENS = 64
ROUNDS = 2
"""Requests that each client of a load sends one after the other."""


def run_pass(shell: BenchShell, text: str, workload: Workload, tokens: int, command: Sequence[str]) -> dict[str, Any]:
    """Ask each prompt once, in order and without a warm-up, with the server's own sampling."""

    def work(target: BenchTarget, client: GatewayClient) -> dict[str, Any]:
        answers = []
        for number, prompt in enumerate(workload.prompts, 1):
            shell.say(f"{target.text}: prompt {number} of {len(workload.prompts)}")
            answers.append(client.ask(prompt.name, pass_body(target.profile, prompt, tokens)))

        return {"workload": workload.name, "rows": [_pass_row(each) for each in answers], "total": _pass_total(answers)}

    [target] = shell.parse([text])
    return _single(shell, "pass", target, [target], command, lambda _, each, client: work(each, client))


def run_depth(shell: BenchShell, text: str, to: int, command: Sequence[str]) -> dict[str, Any]:
    """Measure prefill and decode at depths that double, up and down again; also without drafts where there are some."""
    [target] = shell.parse([text])
    profile = ProfileStore(shell.paths).load(target.base).for_engine(target.engine)
    targets = [target]
    if profile.settings.get("speculative.type", "none") != "none" and "speculative.type" not in dict(target.settings):
        targets.append(
            BenchTarget(
                f"{text}, no drafts", target.base, target.engine, (*target.settings, ("speculative.type", "none"))
            )
        )

    def work(shell: BenchShell, each: BenchTarget, client: GatewayClient) -> dict[str, Any]:
        limit = min(to, _slot_tokens(shell) - DEPTH_TOKENS - 64)
        if limit < 512:
            raise UsageError(f"{each.text} has a context of {limit} tokens a slot", hint="depth begins at 512")

        client.ask(WARM_UP.name, request_body(each.profile, WARM_UP, WARM_UP_TOKENS))
        rate = _tokens_per_word(client, each)
        depths = depths_up_to(limit)
        rows = []
        for number, depth in enumerate([*depths, *reversed(depths)], 1):
            shell.say(f"{each.text}: depth {depth}, {number} of {2 * len(depths)}")
            prompt = deep_prompt(int(depth / rate), salt=number)
            rows.append((depth, client.ask(prompt.name, request_body(each.profile, prompt, DEPTH_TOKENS))))

        return depth_summary(rows)

    return _single(shell, "depth", target, targets, command, work)


def run_load(
    shell: BenchShell, text: str, clients: Sequence[int], workload: Workload, tokens: int, command: Sequence[str]
) -> dict[str, Any]:
    """Measure throughput and latency with several clients at once."""

    def work(shell: BenchShell, target: BenchTarget, client: GatewayClient) -> dict[str, Any]:
        client.ask(WARM_UP.name, request_body(target.profile, WARM_UP, WARM_UP_TOKENS))
        rows = []
        for count in clients:
            shell.say(f"{target.text}: {count} client{'s' if count > 1 else ''}")
            rows.append(_load(client, target, workload, tokens, count))

        return {"workload": workload.name, "tokens": tokens, "rows": rows}

    [target] = shell.parse([text])
    return _single(shell, "load", target, [target], command, work)


def _single(
    shell: BenchShell,
    kind: str,
    named: BenchTarget,
    targets: Sequence[BenchTarget],
    command: Sequence[str],
    work: Callable[[BenchShell, BenchTarget, GatewayClient], dict[str, Any]],
) -> dict[str, Any]:
    """Run each target once, keep what came out, and have what ran before run again."""
    with bench_profiles(shell.paths, targets):
        side = describe_target(shell.paths, named, verification_of(shell.paths, named))
        store = ProfileStore(shell.paths)
        settings = {each.text: shown_settings(store.load(each.profile).for_engine(each.engine)) for each in targets}

    spec: dict[str, Any] = {"command": list(command), "machine": shell.machine()}
    run = shell.store.begin(time.time(), kind, named.text, spec)
    result: dict[str, Any] = {
        "kind": kind,
        "id": run,
        "target": named.text,
        "profile": named.base,
        "engine": named.engine,
        "build": side.build,
        "sha256": side.sha256,
        "model": side.model,
        "model_bytes": side.model_bytes,
        "model_type": side.model_type,
        "verified": side.verified,
        "series": [],
        **spec,
    }
    state = "interrupted"
    try:
        with shell.staged(targets, f"bench {run} ({kind})"):
            client = shell.client(run)
            for target in targets:
                shell.link.wait_idle(client.prefix)
                shell.say(f"{target.text}: starting")
                shell.link.switch(target.switch_text)
                began_s = time.time()
                found = {
                    "target": target.text,
                    "argv": list(shell.link.argv()),
                    "all_settings": settings[target.text],
                    **work(shell, target, client),
                }
                found["strangers"] = shell.link.strangers_since(shell.link.frame(), began_s, client.prefix)
                result["series"].append(found)

            state = "done"
    finally:
        shell.store.end(run, state, result)

    return result


def _pass_row(answer: BenchAnswer) -> dict[str, Any]:
    return {"name": answer.prompt, "output_tokens": answer.output_tokens, **summary([answer])}


def _pass_total(answers: Sequence[BenchAnswer]) -> dict[str, Any]:
    return {
        **summary(answers),
        "output_tokens": sum(each.output_tokens for each in answers),
        "draft_tokens": sum(each.draft_tokens for each in answers),
        "draft_accepted": sum(each.draft_accepted for each in answers),
        "wall_s": round(sum(each.wall_s for each in answers), 3),
    }


def _slot_tokens(shell: BenchShell) -> int:
    slots = shell.link.frame()["slots"]
    return min((slot["context_tokens"] for slot in slots), default=4096)


def _tokens_per_word(client: GatewayClient, target: BenchTarget) -> float:
    """Return how many tokens the model makes of one word of our filling: tokenizers differ."""
    words = 200
    prompt = deep_prompt(words, salt=0)
    answer = client.ask(prompt.name, request_body(target.profile, prompt, 1))
    return max((answer.prompt_tokens + answer.cached_tokens) / words, 0.5)


def _load(client: GatewayClient, target: BenchTarget, workload: Workload, tokens: int, count: int) -> dict[str, Any]:
    answers: list[BenchAnswer] = []
    failed: list[str] = []
    barrier = threading.Barrier(count + 1)

    def one(number: int) -> None:
        barrier.wait()
        for k in range(ROUNDS):
            prompt = workload.prompts[(number * ROUNDS + k) % len(workload.prompts)]
            own = BenchPrompt(prompt.name, f"({number}.{k}) {prompt.text}")
            try:
                answers.append(client.ask(own.name, request_body(target.profile, own, tokens)))
            except OrchError as error:
                failed.append("; ".join((error.message, *error.details)))

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()

    barrier.wait()
    began = time.perf_counter()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK_S)
                client.check()
    except BaseException:
        client.close()
        raise

    row = load_summary(count, answers, time.perf_counter() - began, len(failed))
    return {**row, "errors": failed[:3]}
