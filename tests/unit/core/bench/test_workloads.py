"""The prompts: enough of them, apart from each other, and asked in a way that leaves nothing to a server's defaults."""

from __future__ import annotations

from orchestrator.core.bench.workloads import (
    MTP,
    SEED,
    TOKENS,
    WORKLOADS,
    BenchPrompt,
    chosen_rows,
    pass_body,
    request_body,
)


def test_each_workload_has_six_prompts_or_the_nine_of_mtp() -> None:
    assert {name: len(each.prompts) for name, each in WORKLOADS.items()} == {"mtp": 9, "code": 6, "chat": 6, "long": 6}
    for each in WORKLOADS.values():
        assert len({prompt.name for prompt in each.prompts}) == len({prompt.text for prompt in each.prompts})
        assert len({prompt.name for prompt in each.prompts}) == len(each.prompts)


def test_mtp_has_the_published_shape() -> None:
    assert (TOKENS, SEED) == (192, 42)
    lengths = {each.name: len(each.text) for each in MTP.prompts}
    assert 2400 <= lengths.pop("long_code_review") <= 3400
    assert max(lengths.values()) < 300


def test_long_prompts_are_long() -> None:
    assert all(len(each.text) > 6000 for each in WORKLOADS["long"].prompts)


def test_sampling_is_said_in_full_and_nothing_comes_from_the_cache() -> None:
    body = request_body("p", MTP.prompts[0], 192)
    assert body["cache_prompt"] is False
    assert {"temperature", "top_k", "top_p", "min_p", "seed", "repeat_penalty", "ignore_eos"} <= set(body)


def test_a_single_pass_leaves_sampling_to_the_server() -> None:
    assert set(pass_body("p", MTP.prompts[0], 192)) == {"model", "messages", "max_tokens", "seed", "stream"}


def test_rows_of_a_data_set_are_spread_over_it() -> None:
    rows = [BenchPrompt(str(number), "text") for number in range(100)]
    assert [each.name for each in chosen_rows(rows, 4)] == ["0", "25", "50", "75"]
    assert len(chosen_rows(rows[:3], 12)) == 3


def test_the_digest_tells_other_texts_apart() -> None:
    assert len({each.digest for each in WORKLOADS.values()}) == len(WORKLOADS)
