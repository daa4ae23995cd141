"""What both engines print about themselves is read for what it is."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.capabilities import Capabilities, Flag
from orchestrator.core.dialect.help_text import FORK_TAKES_VALUE, parse_help, parse_version, read_capabilities
from tests.support import FIXTURES

HELP = FIXTURES / "help"

UPSTREAM = "upstream-b11434"
FORK_OLD = "ik-0.1.5-sdist"
FORK_NEW = "ik-b4840"


def recorded(name: str) -> Capabilities:
    return read_capabilities((HELP / f"{name}.help.txt").read_text(), (HELP / f"{name}.version.txt").read_text())


def accepted(build: Capabilities, spelling: str) -> Flag:
    flag = build.find(spelling)
    assert flag is not None, spelling
    return flag


@pytest.mark.parametrize(("name", "kind"), [(UPSTREAM, "upstream"), (FORK_OLD, "ik"), (FORK_NEW, "ik")])
def test_the_layout_tells_the_kind(name: str, kind: str) -> None:
    assert recorded(name).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "usage: grep [OPTION]... PATTERNS [FILE]...\n\n  -i, --ignore-case  ignore case\n",
        "general:\n\n  -h, --help  print usage\n",
        "ik_llama.cpp llama-server version: 4840 (8337e4cd3)\n",
        "error: unknown argument: --help\n",
    ],
)
def test_any_other_text_is_of_unknown_kind_and_has_no_flags(text: str) -> None:
    assert parse_help(text) == ("unknown", {})


def test_lines_of_a_driver_before_the_help_do_not_matter() -> None:
    noise = "ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA GeForce RTX 3060\n-- loading --\n"
    for name in (UPSTREAM, FORK_NEW):
        text = (HELP / f"{name}.help.txt").read_text()
        assert parse_help(noise + text) == parse_help(text)


def test_windows_line_ends_do_not_matter() -> None:
    text = (HELP / f"{UPSTREAM}.help.txt").read_text()
    assert parse_help(text.replace("\n", "\r\n")) == parse_help(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 4409 (67268c8fd)\nbuilt with cc\n", ("4409 (67268c8fd)", 4409, "67268c8fd")),
        ("version: 0 (sdist)\n", ("0 (sdist)", None, None)),
        ("version: 0 (unknown)\n", ("0 (unknown)", None, None)),
        ("version: 1 (79e0b68)\n", ("1 (79e0b68)", None, "79e0b68")),
        (
            "version: 0.6.0-dev (build 11434, commit 1234567)\n",
            ("0.6.0-dev (build 11434, commit 1234567)", 11434, "1234567"),
        ),
        ("version: 0.6.0-dev (build 0, commit unknown)\n", ("0.6.0-dev (build 0, commit unknown)", None, None)),
        ("ggml_cuda_init: found 1 CUDA devices\nversion: 6895 (4341dc8bc)\n", ("6895 (4341dc8bc)", 6895, "4341dc8bc")),
        ("llama-server, somewhere in 2026\n", ("unknown", None, None)),
    ],
)
def test_the_version_line_is_found(text: str, expected: tuple[str, int | None, str | None]) -> None:
    assert parse_version(text) == expected


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        (UPSTREAM, Flag("--ctx-size", ("-c",), value=True)),
        (UPSTREAM, Flag("--n-gpu-layers", ("-ngl", "--gpu-layers"), value=True)),
        (UPSTREAM, Flag("--flash-attn", ("-fa",), value=True, choices=("on", "off", "auto"))),
        (UPSTREAM, Flag("--fit", ("-fit",), value=True, choices=("on", "off"))),
        (UPSTREAM, Flag("--fit-target", ("-fitt",), value=True)),
        (UPSTREAM, Flag("--split-mode", ("-sm",), value=True, choices=("none", "layer", "row", "tensor"))),
        (UPSTREAM, Flag("--device", ("-dev",), value=True)),
        (UPSTREAM, Flag("--override-tensor", ("-ot",), value=True)),
        (UPSTREAM, Flag("--override-kv", (), value=True)),
        (UPSTREAM, Flag("--hf-repo", ("-hf", "-hfr"), value=True)),
        (UPSTREAM, Flag("--poll", (), value=True)),
        (UPSTREAM, Flag("--cpu-strict", (), value=True, choices=("0", "1"))),
        (UPSTREAM, Flag("--log-verbosity", ("-lv", "--verbosity"), value=True)),
        (UPSTREAM, Flag("--log-colors", (), value=True, choices=("on", "off", "auto"))),
        (UPSTREAM, Flag("--context-shift", ())),
        (UPSTREAM, Flag("--webui", ("--ui",))),
        (UPSTREAM, Flag("--no-webui", ("--no-ui",))),
        (UPSTREAM, Flag("--kv-offload", ("-kvo",))),
        (UPSTREAM, Flag("--no-kv-offload", ("-nkvo",))),
        (UPSTREAM, Flag("--no-repack", ("-nr",))),
        (UPSTREAM, Flag("--no-mmproj-auto", ("--no-mmproj",))),
        (UPSTREAM, Flag("--no-host", ())),
        (UPSTREAM, Flag("--metrics", ())),
        (UPSTREAM, Flag("--logit-bias", ("-l",), value=True)),
        (UPSTREAM, Flag("--control-vector-layer-range", (), value=True)),
        (UPSTREAM, Flag("--numa", (), value=True, choices=("distribute", "isolate", "numactl"))),
        (UPSTREAM, Flag("--spec-draft-sampling", (), value=True, choices=("greedy", "probabilistic"))),
        (FORK_OLD, Flag("--ctx-size", ("-c",), value=True)),
        (FORK_OLD, Flag("--fit", ())),
        (FORK_OLD, Flag("--fit-margin", (), value=True)),
        (FORK_OLD, Flag("--flash-attn", ("-fa",), value=True, choices=("auto", "on", "off", "0", "1"))),
        (FORK_OLD, Flag("--no-flash-attn", ("-no-fa",))),
        (FORK_OLD, Flag("--context-shift", (), value=True, choices=("auto", "on", "off", "0", "1"))),
        (FORK_OLD, Flag("--cache-ram-n-min", ("-cram-n-min",), value=True)),
        (FORK_OLD, Flag("--cache-ram-similarity", ("-crs",), value=True)),
        (FORK_OLD, Flag("--merge-qkv", ("-mqkv",))),
        (FORK_OLD, Flag("--k-cache-hadamard", ("-khad",))),
        (FORK_OLD, Flag("--merge-up-gate-experts", ("-muge",))),
        (FORK_OLD, Flag("--grouped-expert-routing", ("-ger",))),
        (FORK_OLD, Flag("--scheduler-async", ("-sas",))),
        (FORK_OLD, Flag("--graph-reduce-type", ("-grt",), value=True)),
        (FORK_OLD, Flag("--mla-use", ("-mla",), value=True)),
        (FORK_OLD, Flag("--attention-max-batch", ("-amb",), value=True)),
        (FORK_OLD, Flag("--smart-expert-reduction", ("-ser",), value=True)),
        (FORK_OLD, Flag("--embeddings", ("--embedding",))),
        (FORK_OLD, Flag("-l", (), value=True)),
        (FORK_OLD, Flag("--multi-token-prediction", ("-mtp",))),
        (FORK_OLD, Flag("--draft-max", ("--draft", "--draft-n"), value=True)),
        (FORK_OLD, Flag("--webui", (), value=True)),
        (FORK_OLD, Flag("--log-format", (), value=True, choices=("text", "json"))),
        (FORK_OLD, Flag("--threads", ("-t",), value=True)),
        (FORK_NEW, Flag("--ctx-checkpoints", ("-ctx-ckpt",), value=True)),
        (FORK_NEW, Flag("--reasoning", ("-rea",), value=True, choices=("on", "off", "auto"))),
        (FORK_NEW, Flag("--gpu-layers", ("-ngl",), value=True)),
        (FORK_NEW, Flag("--gpu-fit-margin", ("-gfm",), value=True)),
        (FORK_NEW, Flag("--device", ("-dev",), value=True)),
        (FORK_NEW, Flag("--max-gpu", (), value=True)),
        (FORK_NEW, Flag("--dsa", ("-dsa",))),
        (FORK_NEW, Flag("--spec-ckpt-mode", (), value=True)),
    ],
    ids=lambda value: value.name if isinstance(value, Flag) else value,
)
def test_an_entry_gives_every_spelling_the_arity_and_the_choices(name: str, flag: Flag) -> None:
    build = recorded(name)
    assert [build.find(spelling) for spelling in flag.spellings] == [flag] * len(flag.spellings)


def test_a_hint_longer_than_its_column_is_read_whole() -> None:
    choices = accepted(recorded(UPSTREAM), "--spec-type").choices
    assert choices is not None
    assert (choices[0], choices[3], choices[-1]) == ("none", "draft-mtp", "ngram-cache")


def test_spaces_inside_the_forks_words_are_not_part_of_them() -> None:
    assert accepted(recorded(FORK_OLD), "--spec-type").choices == (
        "none",
        "ngram-cache",
        "ngram-simple",
        "ngram-map-k",
        "ngram-map-k4v",
        "ngram-mod",
    )


def test_allowed_values_are_read_from_the_description() -> None:
    choices = accepted(recorded(UPSTREAM), "-ctk").choices
    assert choices == ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def test_modes_described_one_by_one_are_choices_and_so_is_the_default() -> None:
    build = recorded(UPSTREAM)
    assert accepted(build, "-lm").choices == ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")
    assert accepted(build, "--reasoning-format").choices == ("none", "deepseek", "deepseek-legacy", "auto")


def test_the_forks_described_modes_are_no_choices_because_some_are_missing() -> None:
    assert accepted(recorded(FORK_NEW), "-sm").choices is None


@pytest.mark.parametrize("spelling", ["--draft-max", "--draft", "--draft-min", "--spec-ngram-size-n"])
def test_a_removed_flag_is_not_accepted(spelling: str) -> None:
    build = recorded(UPSTREAM)
    assert build.flags[spelling].removed
    assert build.find(spelling) is None


def test_a_switch_and_its_negation_are_two_flags() -> None:
    build = recorded(UPSTREAM)
    assert accepted(build, "--jinja") == Flag("--jinja")
    assert accepted(build, "--no-jinja") == Flag("--no-jinja")


def test_underscores_in_a_long_flag_are_dashes() -> None:
    assert accepted(recorded(FORK_OLD), "--scheduler_async").name == "--scheduler-async"
    assert recorded(UPSTREAM).find("--ctx_size") == recorded(UPSTREAM).find("-c")


def test_only_the_newer_fork_takes_stages() -> None:
    assert recorded(FORK_NEW).spec_stages
    assert not recorded(FORK_OLD).spec_stages
    assert not recorded(UPSTREAM).spec_stages

    choices = accepted(recorded(FORK_NEW), "--spec-type").choices
    assert choices is not None
    assert {"none", "mtp", "draft", "ngram-mod", "suffix"} <= set(choices)


def test_what_the_fork_does_not_say_about_values_is_known_for_both_recorded_builds() -> None:
    named = {flag.name for name in (FORK_OLD, FORK_NEW) for flag in recorded(name).each()}
    assert named >= FORK_TAKES_VALUE


@pytest.mark.parametrize(("name", "count"), [(UPSTREAM, 413), (FORK_OLD, 339), (FORK_NEW, 174)])
def test_every_spelling_in_the_help_is_known(name: str, count: int) -> None:
    assert len(recorded(name).flags) == count


def test_each_flag_comes_once_and_in_the_order_of_the_help() -> None:
    names = [flag.name for flag in recorded(UPSTREAM).each()]
    assert len(names) == len(set(names))
    assert names[:3] == ["--usage", "--version", "--cache-list"]


def test_the_binarys_answers_overrule_its_help() -> None:
    text = (HELP / f"{FORK_OLD}.help.txt").read_text()
    extra = (
        Flag("--n-gpu-layers", ("-ngl",), value=True, listed=False),
        Flag("--cpu-moe", ("-cmoe",), listed=False),
    )
    build = read_capabilities(text, "", extra, refused=("-mtp",), spec_stages=True)

    assert accepted(build, "-ngl") == extra[0]
    assert accepted(build, "-cmoe") == Flag("--cpu-moe", ("-cmoe",))
    assert build.find("-mtp", "--multi-token-prediction") is None
    assert build.spec_stages
