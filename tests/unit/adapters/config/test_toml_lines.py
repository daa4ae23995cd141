from __future__ import annotations

import pytest

from orchestrator.adapters.config.toml_lines import line_finder, parse_toml
from orchestrator.core.problems import Key, Problems

TEXT = """\
# a comment
schema = 1
aliases = [
  "x",
  "y", # why
]
[memory]
fit = true
tensor_overrides = [ "a=b",
  "c=d" ]

[engine.upstream.memory]
fit_margin = 5

[kv]
k = "x"
[engine.ik-fork]
extra_args = [
   "-a"
]
[[many]]
q = 1
[[many]]
q = 2
[x]
y.z = 1
w = { a = 1, b = [1,
2] }
s = '''
a
b
'''
t = 1
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("schema",), 2),
        (("aliases",), 3),
        (("aliases", 1), 5),
        (("memory",), 7),
        (("memory", "fit"), 8),
        (("memory", "tensor_overrides", 1), 10),
        (("engine",), 12),
        (("engine", "upstream"), 12),
        (("engine", "upstream", "memory"), 12),
        (("engine", "upstream", "memory", "fit_margin"), 13),
        (("kv", "k"), 16),
        (("engine", "ik-fork"), 17),
        (("engine", "ik-fork", "extra_args", 0), 19),
        (("many",), 21),
        (("many", 1, "q"), 24),
        (("x", "y", "z"), 26),
        (("x", "w"), 27),
        (("x", "w", "b", 1), 28),
        (("x", "t"), 33),
        (("memory", "not there"), 7),
        (("not there",), None),
        ((), None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_of_a_key_is_found(key: Key, line: int | None, end: str) -> None:
    assert line_finder(TEXT.replace("\n", end))(key) == line


def test_a_default_engine_written_as_a_string_has_its_line() -> None:
    assert line_finder("schema = 1\nengine = 'x'\n")(("engine", "default")) == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("schema = 1\nx = = 2\n", 2, "at column 5"),
        ("a = 1\n[memory\n", 2, "at column 8"),
        ("a = 1\nb = [1,\n", 3, "at column 1"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value"),
    ],
)
def test_a_syntax_error_has_its_line_and_column(text: str, line: int, words: str) -> None:
    problems = Problems("f.toml")
    assert parse_toml(text, problems) is None
    [problem] = problems.found
    assert problem.line == line
    assert words in problem.message


def test_an_engine_named_twice_is_explained() -> None:
    """`engine = "x"` and `[engine.y]` cannot stand in one TOML document, however natural it looks."""
    problems = Problems()
    assert parse_toml("engine = 'x'\n[engine.y.memory]\nfit = true\n", problems) is None
    assert problems.found[0].hint is not None
    assert "[engine]" in problems.found[0].hint


def test_a_document_nested_without_end_is_a_problem_and_no_crash() -> None:
    problems = Problems()
    assert parse_toml("a = " + "[" * 100_000, problems) is None
    assert len(problems.found) == 1
