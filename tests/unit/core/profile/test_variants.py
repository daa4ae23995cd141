"""More names for one loaded model: what they change of a request, and what a profile may not say of them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from orchestrator.core.problems import Problems
from orchestrator.core.profile.profile import Profile
from orchestrator.core.profile.reading import build_profile, read_layer
from orchestrator.core.profile.variants import Variant


def read(text: str) -> tuple[Profile | None, list[str]]:
    problems = Problems()
    document = tomllib.loads("schema = 1\nmodel = 'm.gguf'\n" + text)
    layer = read_layer(document, "qwen", "qwen.toml", problems, lambda path: path)
    return build_profile([layer]), [str(problem) for problem in problems.found]


def test_a_profile_has_variants_with_what_they_set_and_strip() -> None:
    profile, problems = read(
        """
        aliases = ["q"]
        [[variants]]
        name = "qwen:thinking"
        description = "slow and careful"
        set = { temperature = 0.6 }
        default = { max_tokens = 4096 }
        strip = ["top_k"]
        template_kwargs = { enable_thinking = true }
        [[variants]]
        name = "qwen:fast"
        """
    )
    assert problems == []
    assert profile is not None
    thinking, fast = profile.variants
    assert thinking == Variant(
        "qwen:thinking", "slow and careful", {"temperature": 0.6}, {"max_tokens": 4096}, ("top_k",),
        {"enable_thinking": True},
    )  # fmt: skip
    assert fast == Variant("qwen:fast")
    assert profile.names == ("qwen", "q", "qwen:thinking", "qwen:fast")


@pytest.mark.parametrize(
    ("variant", "body", "made"),
    [
        (Variant("v"), {"a": 1}, {"a": 1}),
        (Variant("v", always={"a": 2}), {"a": 1}, {"a": 2}),
        (Variant("v", absent={"a": 2, "b": 3}), {"a": 1}, {"a": 1, "b": 3}),
        (Variant("v", absent={"a": 2}), {"a": None}, {"a": None}),
        (Variant("v", strip=("a",)), {"a": 1, "b": 2}, {"b": 2}),
        (Variant("v", strip=("a",), absent={"a": 5}), {"a": 1}, {"a": 5}),
        (Variant("v", template_kwargs={"t": True}), {}, {"chat_template_kwargs": {"t": True}}),
        (
            Variant("v", template_kwargs={"t": True}),
            {"chat_template_kwargs": {"t": False, "u": 1}},
            {"chat_template_kwargs": {"t": True, "u": 1}},
        ),
        (
            Variant("v", template_kwargs={"t": True}),
            {"chat_template_kwargs": "odd"},
            {"chat_template_kwargs": {"t": True}},
        ),
    ],
)
def test_a_variant_makes_a_body(variant: Variant, body: dict[str, Any], made: dict[str, Any]) -> None:
    before = dict(body)
    assert variant.applied(body) == made
    assert body == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants = 5", "`variants`: expected tables `[[variants]]`"),
        ("[variants]\nname = 'x'", "`variants`: expected tables `[[variants]]`"),
        ("[[variants]]", "`variants[0].name`: expected a name"),
        ("[[variants]]\nname = ''", "`variants[0].name`: expected a name"),
        ("[[variants]]\nname = 'a,b'", "without a comma"),
        ("[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'", "`variants[1].name`: `a` is there twice"),
        ("[[variants]]\nname = 'a'\nsets = {}", "unknown key `variants[0].sets`"),
        ("[[variants]]\nname = 'a'\nset = 5", "`variants[0].set`: expected a table of fields"),
        ("[[variants]]\nname = 'a'\nset = {model = 'b'}", "`variants[0].set.model`: a variant does not change"),
        ("[[variants]]\nname = 'a'\nstrip = ['messages']", "a variant does not change `messages`"),
        ("[[variants]]\nname = 'a'\nstrip = 'x'", "expected a list of names"),
        ("[[variants]]\nname = 'a'\nset = {x = 2020-01-01}", "`variants[0].set.x`: expected a value that JSON has"),
        ("[[variants]]\nname = 'a'\nset = {x = inf}", "expected a value that JSON has"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    _, problems = read(text)
    assert any(message in problem for problem in problems), problems


def test_an_unknown_key_is_answered_with_the_one_that_is_meant() -> None:
    _, problems = read("[[variants]]\nname = 'a'\nstripp = []")
    assert any("strip" in problem and "did you mean" in problem for problem in problems), problems
