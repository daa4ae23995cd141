from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from orchestrator.core.problems import Problems
from orchestrator.core.profile.settings import Setting
from orchestrator.core.profile.values import MAX_STRING, describe_type, range_words, read_value

KEY = ("table", "key")
NUMBER = Setting("table.key", ("int",), "", minimum=1, maximum=10)
SHARE = Setting("table.key", ("float",), "")
WORD = Setting("table.key", ("string",), "", choices=("low", "high"))
FORM = Setting("table.key", ("string",), "", form=(r"[a-z]+", "small letters"))
LIST = Setting("table.key", ("int", "ints"), "", minimum=0)
TABLE = Setting("table.key", ("table",), "")
FREE = Setting("table.key", ("string",), "")


def read(setting: Setting, raw: object, *, allow_empty: bool = False) -> tuple[Any, list[str]]:
    problems = Problems()
    value = read_value(setting, raw, KEY, problems, allow_empty=allow_empty)
    return value, [str(each) for each in problems.found]


@pytest.mark.parametrize(
    ("setting", "raw", "value"),
    [
        (NUMBER, 1, 1),
        (NUMBER, 10, 10),
        (SHARE, 0.5, 0.5),
        (SHARE, 2, 2.0),
        (WORD, "low", "low"),
        (FORM, "abc", "abc"),
        (LIST, 3, 3),
        (LIST, [3, 0], (3, 0)),
        (TABLE, {"a": [1, {"b": "c"}]}, {"a": [1, {"b": "c"}]}),
    ],
)
def test_what_a_setting_allows_is_taken_as_the_setting_holds_it(setting: Setting, raw: object, value: object) -> None:
    found, problems = read(setting, raw)
    assert (found, type(found), problems) == (value, type(value), [])


@pytest.mark.parametrize(
    ("setting", "raw", "message"),
    [
        (NUMBER, 0, "`table.key`: expected 1 to 10, found 0"),
        (NUMBER, True, "`table.key`: expected an integer, found a boolean"),
        (NUMBER, 1.5, "`table.key`: expected an integer, found a float"),
        (NUMBER, "3", "`table.key`: expected an integer, found a string (remove the quotes)"),
        (SHARE, math.inf, "`table.key`: expected a finite number, found inf"),
        (SHARE, math.nan, "`table.key`: expected a finite number, found nan"),
        (WORD, "hihg", "`table.key`: expected one of `low`, `high`, found `hihg` (did you mean `high`?)"),
        (FORM, "ABC", "`table.key`: expected small letters, found `ABC`"),
        (FREE, "a\0b", f"`table.key`: expected at most {MAX_STRING} characters and no NUL"),
        (FREE, "x" * (MAX_STRING + 1), f"`table.key`: expected at most {MAX_STRING} characters and no NUL"),
        (LIST, [], "`table.key`: expected at least one element"),
        (LIST, "x", "`table.key`: expected an integer or an array of integers, found a string"),
        (TABLE, {"a": {"at": datetime.date(2026, 1, 1)}}, "`table.key.a.at`: has no form in JSON"),
        (TABLE, {"a": [0.5, math.inf]}, "`table.key.a[1]`: has no form in JSON"),
    ],
)
def test_what_a_setting_does_not_allow_is_named(setting: Setting, raw: object, message: str) -> None:
    found, problems = read(setting, raw)
    assert found is None
    assert [each[: len(message)] for each in problems] == [message]


def test_every_wrong_element_of_an_array_is_named_with_its_position() -> None:
    found, problems = read(LIST, [1, -1, "x", 2])
    assert found is None
    assert problems == [
        "`table.key[1]`: expected at least 0, found -1",
        "`table.key[2]`: expected an integer, found a string",
    ]


def test_an_empty_array_is_allowed_only_where_it_means_something() -> None:
    assert read(LIST, [], allow_empty=True) == ((), [])


def test_a_long_or_unprintable_value_is_shortened_in_the_message() -> None:
    _, [problem] = read(WORD, "x" * 100)
    assert "x" * 57 + "...`" in problem and "x" * 58 not in problem
    _, [problem] = read(FORM, "a\x1b[31m")
    assert "\x1b" not in problem


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (True, "a boolean"),
        (1, "an integer"),
        (1.0, "a float"),
        ("", "a string"),
        ([], "an array"),
        ({}, "a table"),
        (datetime.datetime(2026, 1, 1), "a date-time"),
        (datetime.date(2026, 1, 1), "a date"),
        (datetime.time(), "a time"),
    ],
)
def test_types_have_the_names_of_toml(raw: object, words: str) -> None:
    assert describe_type(raw) == words


def test_ranges_are_put_into_words() -> None:
    assert [range_words(1, 2), range_words(1, None), range_words(None, 2), range_words(None, None)] == [
        "1 to 2",
        "at least 1",
        "at most 2",
        "a finite number",
    ]
