"""The numbers of a first profile, their reasons, and the text with both."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.plan.plan import Plan
from orchestrator.core.plan.verdict import Verdict
from orchestrator.core.profile.profile import is_name
from orchestrator.core.setup.first_profile import (
    GOALS,
    ContextChoice,
    Reasoned,
    choose_context,
    free_name,
    profile_name,
    profile_text,
)


def plan(verdict: Verdict) -> Plan:
    return cast(Plan, SimpleNamespace(judgement=SimpleNamespace(verdict=verdict)))


def choose(use: str, trained: int, fits_below: int, otherwise: Verdict = "fits_with_offload") -> ContextChoice:
    """Choose where contexts of so many bytes fit: two a token with f16, one with q8_0."""

    def planned(tokens: int, kv: str) -> Plan:
        return plan("fits" if tokens * (2 if kv == "f16" else 1) <= fits_below else otherwise)

    return choose_context(GOALS[use], trained, planned)  # type: ignore[index]


@pytest.mark.parametrize(
    ("use", "trained", "room", "tokens", "kv"),
    [
        ("chat", 262144, 1 << 30, 32768, "f16"),  # as much as is asked for
        ("chat", 8192, 1 << 30, 8192, "f16"),  # never more than the model was made for
        ("chat", 0, 1 << 30, 32768, "f16"),  # which it need not say
        ("chat", 262144, 2 * 16384, 16384, "f16"),  # fewer, so that all of it is on the device
        ("chat", 262144, 2 * 4096, 32768, "f16"),  # not so few: the device does not hold all of it anyway
        ("agent", 262144, 1 << 30, 131072, "f16"),
        ("agent", 262144, 131072, 131072, "q8_0"),  # a smaller cache before a smaller context
        ("agent", 262144, 65536, 65536, "q8_0"),
        ("agent", 262144, 2048, 131072, "f16"),
        ("several", 262144, 1 << 30, 65536, "f16"),
        ("several", 8192, 1 << 30, 32768, "f16"),  # each slot has what the model was made for
    ],
)
def test_the_context_is_the_largest_with_which_all_is_on_the_device(
    use: str, trained: int, room: int, tokens: int, kv: str
) -> None:
    choice = choose(use, trained, room)
    assert (choice.tokens, choice.kv) == (tokens, kv)


def test_where_nothing_fits_the_smallest_is_what_the_answer_is_about() -> None:
    choice = choose("chat", 262144, 0, "does_not_fit")
    assert (choice.tokens, choice.plan.judgement.verdict) == (4096, "does_not_fit")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Qwen3.6-35B-A3B", "qwen3.6-35b-a3b"),
        ("Some Model (v2)!", "some-model-v2"),
        ("A--B..C_", "a--b.c"),
        ("模型", "model"),
        ("x" * 100, "x" * 60),
        ("Phi-4-GGUF", "phi-4"),
    ],
)
def test_a_profile_is_called_after_its_model(title: str, name: str) -> None:
    assert profile_name(title) == name


@given(st.text(), st.text(max_size=12), st.sets(st.text(max_size=8), max_size=5))
def test_any_title_gives_a_name_that_is_allowed_and_free(title: str, quant: str, taken: set[str]) -> None:
    name = profile_name(title)
    assert is_name(name)
    free = free_name(name, quant, taken | {name})
    assert free not in taken | {name} and is_name(free)


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**31), 2**31),
    st.text(st.characters(codec="utf-8")),
    st.lists(st.integers(0, 9)).map(tuple),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=5)).map(tuple),
)


@given(st.dictionaries(st.sampled_from(["context.size", "memory.fit", "multimodal.mmproj", "kv.k", "kv.v"]), VALUES),
       st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))  # fmt: skip
def test_any_values_and_reasons_make_toml_that_says_the_same(values: dict[str, object], why: str, model: str) -> None:
    settings = [Reasoned(key, value, why) for key, value in values.items()]  # type: ignore[arg-type]
    document = tomllib.loads(profile_text(["Made by a test."], [("model", model)], settings))
    assert document.pop("schema") == 1 and document.pop("model") == model
    found = {f"{table}.{key}": value for table, inner in document.items() for key, value in inner.items()}
    assert found == {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def test_each_setting_has_its_reason_above_it() -> None:
    text = profile_text(["head"], [("model", "/m")], [Reasoned("a.x", 1, "one"), Reasoned("b.y", "z", "two " * 60)])
    assert text.startswith('# head\nschema = 1\nmodel = "/m"\n\n[a]\n# one\nx = 1\n\n[b]\n# two two')
    assert max(map(len, text.splitlines())) <= 112
