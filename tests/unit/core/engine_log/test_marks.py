from __future__ import annotations

import pytest

from orchestrator.core.engine_log.marks import (
    HEAD_LINES,
    TAIL_LINES,
    mark_line,
    read_mark,
    read_starts,
    start_to_explain,
    without_marks,
)
from orchestrator.core.engine_log.parser import parse_log


def started(instance: str, profile: str = "p") -> str:
    return mark_line("started", profile=profile, engine="upstream", attempt=1, instance=instance)


def test_a_mark_is_read_as_it_was_written_whatever_is_in_it() -> None:
    line = mark_line("judged", message='a "quote"\nand }] a line', device=None, mib=1.5)
    assert "\n" not in line
    assert read_mark(line) == ("judged", {"message": 'a "quote"\nand }] a line', "device": None, "mib": 1.5})


@pytest.mark.parametrize(
    "line",
    ["", "[orch: 12 bytes of this log were dropped: x]", "[orch: started []}]", "[orch: x {]}]", "[orch: ]", "{}]"],
)
def test_other_lines_are_none(line: str) -> None:
    assert read_mark(line) is None


def test_an_engine_cannot_write_marks() -> None:
    lines = ["loading", started("a")]
    shown = without_marks(lines)
    assert read_mark(shown[1]) is None and without_marks(["x"]) == ["x"]


def test_each_start_has_its_own_lines_and_its_own_end_also_when_two_run_at_once() -> None:
    exited = mark_line("exited", instance="a", status="signal 9")
    judged = mark_line("judged", instance="a", message="killed")
    starts = read_starts(["before", started("a"), "one", started("b"), "two", exited, judged])
    assert [start.head for start in starts] == [["one"], ["two"]]
    assert starts[0].exited is not None and starts[0].exited["status"] == "signal 9"
    assert starts[1].exited is None and starts[1].judged is None


def test_a_start_that_failed_before_there_was_a_process_counts() -> None:
    (start,) = read_starts([mark_line("judged", instance="a", profile="p", message="no such file")])
    assert start.began["profile"] == "p" and start.judged is not None


def test_the_beginning_and_the_end_of_a_long_start_are_kept() -> None:
    count = HEAD_LINES + TAIL_LINES + 5
    (start,) = read_starts([started("a"), *map(str, range(count))])
    assert (start.head[0], start.tail[-1], start.left_out) == ("0", str(count - 1), 5)


JUDGED = mark_line("judged", instance="a", message="m")
ENDED = mark_line("exited", instance="b", status="exit code 0")


@pytest.mark.parametrize(
    ("lines", "instance"),
    [
        ([started("a"), JUDGED], "a"),
        ([started("a"), JUDGED, started("b")], "a"),  # it is tried again
        ([started("a"), JUDGED, started("b", "other")], "b"),  # it loads, or it died with the daemon: nobody knows
        ([started("a"), JUDGED, started("b"), "server is listening on http://x"], "a"),
        ([started("a"), JUDGED, started("b"), ENDED], "a"),  # it was asked to end
        ([started("a"), "server is listening"], "a"),
    ],
)
def test_the_last_failure_is_explained_unless_a_newer_start_came_to_nothing(lines: list[str], instance: str) -> None:
    found = start_to_explain(read_starts(lines))
    assert found is not None and found.began["instance"] == instance


def test_without_marks_there_is_no_start() -> None:
    assert read_starts(["a", "b"]) == [] and start_to_explain([]) is None


def test_a_mark_says_nothing_to_those_who_read_the_engine_s_lines() -> None:
    assert parse_log([mark_line("judged", message="CUDA error: out of memory", evidence="Segmentation fault")]) == []
