"""The argv of a profile on recorded builds."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.capabilities import Capabilities, Flag
from orchestrator.core.dialect.render import UnsupportedError, render
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.settings import Value
from tests.unit.core.dialect.fixture_builds import (
    BUILDS,
    FORK_SDIST,
    FORK_STAGES,
    UPSTREAM,
    UPSTREAM_BARE_FLASH,
    argv,
    dotted,
    notes,
    profile,
    refusal,
    rendered,
)

RECIPE: dict[str, Value] = {
    "context.size": 131072,
    "context.parallel": 1,
    "kv.k": "q8_0",
    "kv.v": "q8_0",
    "memory.fit": True,
    "memory.fit_margin": 1664,
    "speculative.type": "mtp",
    "speculative.draft_max": 3,
    "speculative.draft_p_min": 0.75,
}


@pytest.mark.parametrize(
    ("on", "words"),
    [
        (
            UPSTREAM,
            (
                "--fit on --fit-target 1664 --spec-type draft-mtp --spec-draft-n-max 3 --spec-draft-p-min 0.75"
                " --cache-type-k q8_0 --cache-type-v q8_0"
            ),
        ),
        (FORK_SDIST, "--fit --fit-margin 1664 -mtp --draft-max 3 --draft-p-min 0.75"),
        (FORK_STAGES, "--fit --fit-margin 1664 --spec-type mtp:n_max=3,p_min=0.75"),
    ],
)
def test_the_recipe_for_12_gb_reads_as_its_author_wrote_it(on: str, words: str) -> None:
    line = " ".join(rendered(on, profile(RECIPE)).argv)

    assert f" {words} " in f" {line} "
    assert "--ctx-size 131072" in line
    assert "--parallel 1" in line


def test_every_setting_that_a_build_lacks_is_in_one_error() -> None:
    text = refusal(
        FORK_SDIST,
        memory__fit_min_context=8192,
        memory__n_cpu_ffn=4,
        memory__split="row",
        reasoning__mode="off",
        reasoning__budget=500,
        speculative__type="mtp",
        speculative__checkpoint_mode="per-step",
        context__parallel=2,
    )

    lines = text.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        "memory.n_cpu_ffn",
        "memory.split",
        "memory.fit_min_context",
        "speculative.checkpoint_mode",
        "reasoning.mode",
        "reasoning.budget",
        "context.parallel",
    ]
    assert all(FORK_SDIST in line for line in lines)
    assert "this build's fit never changes the context; drop it or use upstream" in text
    assert "only upstream has it" in text
    assert "nearest here layer" in text
    assert "one slot only; nearest here 1" in text


def test_the_error_is_a_usage_error_with_a_command_to_run() -> None:
    with pytest.raises(UsageError) as caught:
        rendered(UPSTREAM, profile({"attention.mla": 1}))

    assert caught.value.message == "upstream-b11434 cannot do what profile `qwen` asks for: 1 setting"
    assert "`orch engines probe upstream`" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("value", "near"),
    [("q6_0", "q5_1"), ("q8_KV", "q8_0")],
)
def test_a_cache_type_of_the_fork_is_refused_upstream_with_the_nearest(value: str, near: str) -> None:
    text = refusal(UPSTREAM, kv__k=value)

    assert text.startswith(f'kv.k = "{value}": {UPSTREAM} cannot: only the fork has it; ')
    assert text.endswith(f"nearest here {near}")
    assert f"--cache-type-k {value} " in argv(FORK_SDIST, kv__k=value)


def test_a_context_of_0_is_passed_and_an_unset_one_is_not() -> None:
    assert " --ctx-size 0 " in argv(UPSTREAM, context__size=0)
    assert "keeps fitting from reducing the context" in notes(UPSTREAM, context__size=0)
    assert "--ctx-size" not in argv(UPSTREAM)


@pytest.mark.parametrize("on", BUILDS)
def test_one_slot_is_asked_for_by_default(on: str) -> None:
    assert " --parallel 1 " in argv(on)


def test_the_fork_is_brought_to_upstreams_defaults() -> None:
    assert " --jinja " in argv(FORK_SDIST)
    assert " --context-shift off " in argv(FORK_SDIST)
    assert "jinja" not in argv(UPSTREAM)
    assert "context-shift" not in argv(UPSTREAM)
    assert " --no-context-shift " in argv(UPSTREAM_BARE_FLASH)
    assert "jinja" not in argv(FORK_SDIST, chat__jinja=False)
    assert "chat.jinja is unset" in notes(FORK_SDIST)


def test_only_builds_that_split_names_at_commas_get_several() -> None:
    what = profile(aliases=("a", "b,c", "qwen"))

    def alias(on: str) -> str:
        line = rendered(on, what).argv
        return line[line.index("--alias") + 1]

    assert alias(UPSTREAM) == "qwen,a"
    assert alias(UPSTREAM_BARE_FLASH) == "qwen"
    assert alias(FORK_STAGES) == "qwen"


def test_thinking_budgets_other_than_all_or_nothing_need_a_newer_build() -> None:
    assert " --reasoning-budget 500 " in argv(FORK_STAGES, reasoning__budget=500)
    assert " --reasoning-budget -1 " in argv(FORK_SDIST, reasoning__budget=-1)
    assert "-1 (no limit) or 0" in refusal(UPSTREAM_BARE_FLASH, reasoning__budget=500)


def test_template_values_are_one_json_argument() -> None:
    line = rendered(UPSTREAM, profile({"chat.template_kwargs": {"enable_thinking": False, "name": "é"}})).argv

    assert line[line.index("--chat-template-kwargs") + 1] == '{"enable_thinking":false,"name":"é"}'


def test_a_value_that_would_be_read_as_a_flag_is_refused() -> None:
    assert "would be read as two flags" in refusal(UPSTREAM, chat__template="--port")
    assert " --presence-penalty -1.5 " in argv(UPSTREAM, sampling__presence_penalty=-1.5)


def test_a_list_element_with_a_comma_is_refused() -> None:
    assert "no element may hold `,`" in refusal(UPSTREAM, memory__tensor_overrides=("blk.[1,2]=CPU",))
    assert "no element may hold `-`" in refusal(FORK_SDIST, memory__devices=("GPU-1",))


def test_extra_arguments_come_last() -> None:
    assert rendered(FORK_SDIST, profile(extra_args=("-cuda", "fusion=1"))).argv[-2:] == ("-cuda", "fusion=1")


def test_a_flag_without_its_value_does_not_end_the_command_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        rendered(FORK_SDIST, profile(extra_args=("-ctkd",)))

    assert "`-ctkd` comes last and lacks its value" in caught.value.details[0]
    assert rendered(FORK_SDIST, profile(extra_args=("-no-fug",))).argv[-1] == "-no-fug"


def test_the_fork_does_not_listen_on_a_unix_socket() -> None:
    with pytest.raises(UnsupportedError) as caught:
        rendered(FORK_SDIST, profile(), host="/run/orch/engine.sock")

    assert "TCP only" in caught.value.details[0]
    assert "/run/orch/engine.sock" in rendered(UPSTREAM, profile(), host="/run/orch/engine.sock").argv


def test_a_build_with_few_flags_errs_only_for_what_the_profile_sets() -> None:
    flags = {name: Flag(name, value=True) for name in ("--model", "--host", "--port", "--ctx-size")}
    small = Capabilities("upstream", "small", None, None, flags)

    def line(**settings: Value) -> tuple[str, ...]:
        return render(
            profile(dotted(settings)), small, build="small", model="/m", host="::1", port="1", api_key_file=None
        ).argv

    assert line() == ("--model", "/m", "--host", "::1", "--port", "1")
    assert line(context__size=512)[:2] == ("--ctx-size", "512")
    with pytest.raises(UnsupportedError):
        line(batch__size=512)


@pytest.mark.parametrize("missing", ["--model", "--host", "--port", "--api-key-file"])
def test_a_build_that_cannot_be_supervised_is_refused(missing: str) -> None:
    flags = {
        name: Flag(name, value=True) for name in ("--model", "--host", "--port", "--api-key-file") if name != missing
    }
    small = Capabilities("upstream", "small", None, None, flags)

    with pytest.raises(UnsupportedError) as caught:
        render(profile(), small, build="small", model="/m", host="::1", port="1", api_key_file="/k")

    assert caught.value.details[0].startswith(missing.strip("-").replace("-", "_"))


def test_a_removed_flag_is_not_used() -> None:
    flags = {
        name: Flag(name, value=True, removed=name == "--ctx-size")
        for name in ("--model", "--host", "--port", "--ctx-size")
    }
    small = Capabilities("upstream", "small", None, None, flags)

    with pytest.raises(UnsupportedError):
        render(profile({"context.size": 1}), small, build="b", model="/m", host="h", port="1", api_key_file=None)
