from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.problems import Key, Problem, Problems, ProblemsError, did_you_mean, dotted, nearest


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((), ""),
        (("memory",), "memory"),
        (("memory", "fit_margin"), "memory.fit_margin"),
        (("recovery", "margins", 2), "recovery.margins[2]"),
        (("engine", "ik-fork", "memory", "devices", 0), "engine.ik-fork.memory.devices[0]"),
    ],
)
def test_a_key_is_written_with_dots_and_list_positions(key: Key, text: str) -> None:
    assert dotted(key) == text


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("no model"), "no model"),
        (Problem("no model", file="demo.toml"), "demo.toml: no model"),
        (Problem("no model", file="demo.toml", line=3), "demo.toml:3: no model"),
        (Problem("no model", file="demo.toml", hint="set `model`"), "demo.toml: no model (set `model`)"),
    ],
)
def test_a_problem_says_where_as_far_as_it_is_known(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_all_problems_are_raised_at_once_in_the_order_found() -> None:
    problems = Problems("demo.toml")
    problems.add(("context", "size"), "`context.size` is -1, allowed 0 and more")
    problems.add(("memory", "fitt"), "unknown key `memory.fitt`", hint="did you mean `memory.fit`?")
    with pytest.raises(ProblemsError) as raised:
        problems.raise_if_any("demo.toml is not valid", hint="run `orch profile check demo`")

    assert raised.value.problems == tuple(problems.found)
    assert raised.value.message == "demo.toml is not valid"
    assert raised.value.hint == "run `orch profile check demo`"
    assert raised.value.details == (
        "demo.toml: `context.size` is -1, allowed 0 and more",
        "demo.toml: unknown key `memory.fitt` (did you mean `memory.fit`?)",
    )


def test_problems_of_a_file_are_an_error_of_usage() -> None:
    assert issubclass(ProblemsError, UsageError)


def test_without_problems_nothing_is_raised() -> None:
    problems = Problems("demo.toml")
    problems.raise_if_any("demo.toml is not valid")
    assert problems.found == []


def test_the_line_is_looked_up_when_a_problem_is_found() -> None:
    problems = Problems("demo.toml", line_of=lambda key: 4 if key == ("model",) else None)
    problems.add(("model",), "no such file")
    problems.add(("kv", "k"), "unknown type")
    assert [problem.line for problem in problems.found] == [4, None]


def test_a_line_that_is_known_is_not_looked_up() -> None:
    problems = Problems("demo.toml", line_of=lambda key: 99)
    problems.add((), "not TOML", line=7)
    assert problems.found == [Problem("not TOML", "demo.toml", 7, None, None)]


@pytest.mark.parametrize(
    ("word", "match"),
    [("fit_margn", "fit_margin"), ("fitmargin", "fit_margin"), ("mlok", "mlock"), ("xyz", None), ("", None)],
)
def test_the_nearest_spelling_is_found_only_when_it_is_near(word: str, match: str | None) -> None:
    allowed = ("fit", "fit_margin", "mlock")
    assert nearest(word, allowed) == match
    assert did_you_mean(word, allowed) == (f"did you mean `{match}`?" if match else None)
