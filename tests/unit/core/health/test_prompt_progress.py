"""A prompt's progress from upstream's log lines, as its versions write them."""

from __future__ import annotations

import pytest

from orchestrator.core.health.prompt_progress import told_progress

AUTUMN = (
    "0.1.2 I slot print_timings_pp: id  0 | task 7 | prompt processing, n_tokens =   4096, progress = 0.26, "
    "t =   3.20 s / 1280.00 tokens per second"
)
SUMMER = "0.1.2 I slot update_slots: id  1 | task 8 | prompt processing, n_tokens = 2048, progress = 0.13"
SPRING = (
    "slot update_slots: id  2 | task 9 | prompt processing progress, n_tokens = 512, batch.n_tokens = 512, "
    "progress = 0.500000"
)


@pytest.mark.parametrize(("line", "told"), [(AUTUMN, {7: 0.26}), (SUMMER, {8: 0.13}), (SPRING, {9: 0.5})])
def test_each_wording_is_read(line: str, told: dict[int, float]) -> None:
    assert told_progress([line]) == told


def test_the_newest_line_about_a_task_counts() -> None:
    later = AUTUMN.replace("0.26", "0.91")
    assert told_progress([AUTUMN, SUMMER, later, "slot release: id  0 | task 7 | stop processing"]) == {
        7: 0.91,
        8: 0.13,
    }


@pytest.mark.parametrize(
    "line",
    [
        "slot update_slots: id  0 | task 7 | prompt processing done, n_tokens = 72, batch.n_tokens = 4",
        "slot update_slots: id  0 | task x | prompt processing, n_tokens = 2048, progress = 0.13",
        'text: "prompt processing, n_tokens = 1, progress = 0.5"',
    ],
)
def test_other_lines_say_nothing(line: str) -> None:
    assert told_progress([line]) == {}
