"""Nothing that a profile says is lost, and nothing is passed that a build does not accept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.render import Rendered, UnsupportedError, render
from orchestrator.core.dialect.speculative import STAGE_KEYS
from orchestrator.core.profile.settings import BY_PATH, SETTINGS, Setting, Value
from tests.unit.core.dialect.fixture_builds import BUILDS, ROWS, build, flags_of, profile

SAMPLES: dict[str, Value] = {
    "memory.tensor_overrides": ("exps=CPU", "blk.1=CPU"),
    "memory.devices": ("CUDA0", "CUDA1"),
    "memory.rpc": ("127.0.0.1:50052",),
    "speculative.draft_devices": ("CUDA0",),
    "lora.adapters": ("/models/a.gguf",),
    "lora.scales": (0.5,),
    "sampling.samplers": ("top_k", "temperature"),
    "multimodal.device": "CUDA0",
    "chat.template": "chatml",
    "chat.template_kwargs": {"enable_thinking": False},
    "reasoning.effort": "low",
}


def values(setting: Setting) -> st.SearchStrategy[Value]:
    if setting.path in SAMPLES:
        return st.just(SAMPLES[setting.path])

    low = int(setting.minimum) if setting.minimum is not None else -1
    high = int(setting.maximum) if setting.maximum is not None else 2**31 - 1
    of: dict[str, st.SearchStrategy[Value]] = {
        "bool": st.booleans(),
        "int": st.integers(low, high),
        "float": st.floats(low, high, allow_nan=False),
        "ints": st.lists(st.integers(low, high), min_size=1, max_size=3).map(tuple),
        "floats": st.lists(st.floats(0, 10), min_size=1, max_size=3).map(tuple),
        "path": st.just("/models/other.gguf"),
        "string": st.sampled_from(setting.choices or ("word",)),
        "strings": st.just(("ngram-mod", "mtp")),
    }
    return st.one_of([of[kind] for kind in setting.types])


@st.composite
def some_settings(draw: st.DrawFn) -> dict[str, Value]:
    paths = draw(st.sets(st.sampled_from(sorted(BY_PATH)), max_size=len(SETTINGS)))
    return {path: draw(values(BY_PATH[path])) for path in sorted(paths)}


def rendered(on: str, chosen: dict[str, Value]) -> Rendered:
    return render(
        profile(chosen), build(on), build=on, model="/m.gguf", host="127.0.0.1", port="18200", api_key_file="/key"
    )


def what_it_can(on: str, chosen: dict[str, Value]) -> tuple[Rendered, set[str]]:
    """Drops what the error names until the rest renders; the error must name something that was chosen."""
    refused: set[str] = set()
    while True:
        try:
            return rendered(on, chosen), refused
        except UnsupportedError as error:
            named = {line.partition(" = ")[0] for line in error.details}
            assert named <= set(chosen)
            assert all(f": {on} cannot: " in line for line in error.details)
            refused |= named
            chosen = {path: value for path, value in chosen.items() if path not in named}


def flags_in(argv: tuple[str, ...], caps: Capabilities) -> Iterator[tuple[str, str | None]]:
    """Reads argv as the build would, asserting that it knows each flag with this arity."""
    words = iter(argv)
    for word in words:
        flag = caps.find(word)
        assert flag is not None, f"{word} is not accepted"
        if not flag.value:
            yield word, None
            continue

        value = next(words, None)
        assert value is not None, f"{word} lacks its value"
        assert caps.find(value) is None, f"{word} is followed by the flag {value}"
        if flag.name == "--lora-scaled" and "," not in value and ":" not in value:
            next(words)  # the fork's and older upstream's: file and scale are two words

        yield word, value


@pytest.mark.parametrize("on", BUILDS)
@settings(max_examples=60, deadline=None)
@given(chosen=some_settings())
def test_each_setting_is_passed_or_noted_or_refused(on: str, chosen: dict[str, Value]) -> None:
    result, refused = what_it_can(on, chosen)

    passed = list(flags_in(result.argv, build(on)))
    names = {name for name, _ in passed}
    stages = " ".join(value or "" for name, value in passed if name == "--spec-type")
    for path in chosen.keys() - refused:
        spellings = flags_of(path, build(on)) - ({"--spec-type"} if path in STAGE_KEYS else set())
        assert (
            spellings & names
            or any(note.startswith(f"{path} = ") for note in result.notes)
            or f"{STAGE_KEYS.get(path, ' ')}=" in stages
        ), f"{path} is lost"


@pytest.mark.parametrize("on", BUILDS)
@settings(max_examples=60, deadline=None)
@given(chosen=some_settings())
def test_every_flag_is_known_with_its_arity_and_given_once(on: str, chosen: dict[str, Value]) -> None:
    result, _ = what_it_can(on, chosen)

    caps = build(on)
    names = [flag.name for word, _ in flags_in(result.argv, caps) if (flag := caps.find(word)) is not None]
    assert len(names) == len(set(names)) + max(0, names.count("--spec-type") - 1)  # the fork's stages, one each


@pytest.mark.parametrize("on", BUILDS)
@settings(max_examples=30, deadline=None)
@given(chosen=some_settings())
def test_the_same_profile_gives_the_same_line(on: str, chosen: dict[str, Value]) -> None:
    result, refused = what_it_can(on, chosen)

    backwards = {path: chosen[path] for path in reversed(chosen) if path not in refused}
    assert rendered(on, backwards).argv == result.argv


def test_every_setting_has_a_row() -> None:
    assert set(ROWS) == set(BY_PATH)


def test_words_in_the_tables_are_values_of_their_setting() -> None:
    for path, row in ROWS.items():
        words = {word for form in row.forms for word in form.when or () if isinstance(word, str)}
        words |= {key for form in row.forms for key in form.spelled if isinstance(key, str)}
        words |= row.substitutes.keys() | row.only.keys()
        assert words <= set(BY_PATH[path].choices or ()), path


def test_every_spelling_in_the_tables_is_known_to_a_recorded_build() -> None:
    spellings = {flag for row in ROWS.values() for form in row.forms for flag in form.flags}

    unknown = {flag for flag in spellings if not any(build(on).find(flag) for on in BUILDS)}
    assert unknown == {"--fused-moe"}  # the fork from February to October 2025
