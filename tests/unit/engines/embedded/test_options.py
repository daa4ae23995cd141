from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.core.dialect.help_text import parse_help
from orchestrator.engines.embedded.help_layout import entry, help_text
from orchestrator.engines.embedded.option_table import CACHE_TYPES, OPTIONS, SPECULATIVE_TYPES, completed
from orchestrator.engines.embedded.options import ArgumentError, Option, apply, parse, text
from tests.support import FIXTURES

FIXTURE = FIXTURES / "help" / "upstream-b11434.help.txt"


A_VALUE = {
    "N": "3", "P": "0.5", "SIMILARITY": "0.5", "SECONDS": "5", "INDEX": "0", "SEED": "-1", "PORT": "1234",
    "TYPE": "q8_0", "MODE": "auto", "FORMAT": "deepseek-legacy", "[on|off|auto]": "on", "[on|off]": "off",
    "[off|auto]": "off", "<none>": "none", "<dev1,dev2,..>": "none",
    "<tensor name pattern>=<buffer type>,...": "exps=CPU",
    "N0,N1,N2,...": "3,1", "MiB0,MiB1,MiB2,...": "512,256", "{none,layer,row,tensor}": "none",
    "{none,linear,yarn}": "yarn", "MESSAGE": "Time is up.",
    "{none,mean,cls,last,rank}": "mean", "HOST": "127.0.0.1", "KEY": "k", "STRING": '{"a": 1}', "SAMPLERS": "top_k",
    "FNAME": __file__, "FILE": __file__, "JINJA_TEMPLATE": "chatml", "JINJA_TEMPLATE_FILE": __file__,
    ",".join(SPECULATIVE_TYPES): "draft-mtp,ngram-mod",
}  # fmt: skip
"""A value that is allowed, for each hint of the help."""

LOG_LINES = {"--no-log-prefix", "--no-log-timestamps"}
"""The wheel's log cannot be told to leave these out."""


def upstream_entries() -> dict[str, tuple[frozenset[str], str]]:
    """Spelling to (all its spellings, the value hint) from a real build's help."""
    found = {}
    for line in FIXTURE.read_text().splitlines():
        if not line.startswith("-") or line.startswith("-----"):
            continue

        left = line if len(line) <= 40 or line[37:40].strip() else line[:40]
        match = re.match(r"((?:-[\w.-]+)(?:, +-[\w.-]+)*)(?: (\S.*))?", left.rstrip())
        assert match is not None, line
        spellings = frozenset(re.split(r", +", match[1]))
        for spelling in spellings:
            found[spelling] = (spellings, (match[2] or "").strip())

    return found


def refusal(*argv: str) -> str:
    with pytest.raises(ArgumentError) as caught:
        parse(argv, OPTIONS)

    return caught.value.message


def assigned(*argv: str) -> dict[str, object]:
    return {assignment.path: assignment.value for assignment in parse(argv, OPTIONS).assignments}


def test_every_flag_is_upstreams_with_the_same_spellings_and_arity() -> None:
    upstream = upstream_entries()
    for option in OPTIONS:
        spellings, hint = upstream[option.flags[0]]
        assert frozenset((*option.flags, *option.off)) == spellings - LOG_LINES, option.flags
        assert bool(option.hint) == bool(hint), option.flags


def test_no_spelling_belongs_to_two_options() -> None:
    spellings = [flag for option in OPTIONS for flag in (*option.flags, *option.off)]
    assert len(spellings) == len(set(spellings))


def test_an_entry_looks_as_upstreams() -> None:
    upstream = FIXTURE.read_text()
    by_flag = {option.flags[0]: option for option in OPTIONS}
    for flag in ("-n", "-c", "-b", "--keep", "-lv", "-kvo", "--spec-type", "-ot"):
        ours = entry(by_flag[flag]).splitlines()[0]
        assert ours in upstream.splitlines(), ours


def test_the_help_has_upstreams_sections_in_its_order() -> None:
    lines = help_text(OPTIONS).splitlines()
    assert lines[0] == "----- common params -----"
    assert [line for line in lines if line.startswith("-----")] == [
        line for line in FIXTURE.read_text().splitlines() if line.startswith("-----")
    ]
    assert all(len(line) <= 40 + 70 for line in lines if line.startswith(" " * 40))


def test_the_probe_reads_the_help_as_upstreams() -> None:
    kind, flags = parse_help(help_text(OPTIONS))
    assert kind == "upstream"
    for option in OPTIONS:
        for spelling in (*option.flags, *option.off):
            assert flags[spelling].value is (option.hint is not None), spelling

    assert flags["-ctk"].choices == CACHE_TYPES
    assert not any(flag.removed for flag in flags.values())


def test_a_long_entry_puts_its_text_on_the_next_line() -> None:
    option = Option("common", ("--flag-with-a-rather-long-name",), "what it does", text("x"), "SOMETHING")
    assert entry(option) == "--flag-with-a-rather-long-name SOMETHING\n" + " " * 40 + "what it does\n"


def test_the_library_takes_every_option() -> None:
    """Each attribute exists and each enumerator is known: against the real library."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
    for option in OPTIONS:
        words = [option.flags[-1], *([] if option.hint is None else [A_VALUE[option.hint]])]
        if option.flags[0] == "--numa":
            words[1] = "isolate"

        for argv in (words, *([flag] for flag in option.off)):
            apply(completed(parse(argv, OPTIONS).assignments), xllamacpp.CommonParams(), xllamacpp)


def test_values_arrive_in_the_library() -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
    params = xllamacpp.CommonParams()
    argv = (
        "-m", "/m.gguf", "-c", "4096", "-np", "2", "-ctk", "q8_0", "-fa", "on", "-t", "3", "-fitt", "700",
        "--spec-type", "draft-mtp", "--spec-draft-n-max", "5", "-a", "one,two", "--no-warmup", "--no_jinja",
        "-ncmoe", "2", "-ot", "x=CPU", "--api-key", "a,b", "--api-key", "c",
    )  # fmt: skip
    apply(completed(parse(argv, OPTIONS).assignments), params, xllamacpp)
    assert (params.model.path, params.n_ctx, params.n_parallel) == ("/m.gguf", 4096, 2)
    assert params.cache_type_k.name == "GGML_TYPE_Q8_0"
    assert params.flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_ENABLED"
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (3, 3)
    assert params.fit_params_target == [700 << 20] * 16
    assert [kind.name for kind in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"]
    assert params.speculative.draft.n_max == 5
    assert params.model_alias == {"one", "two"}
    assert (params.warmup, params.use_jinja) == (False, False)
    assert params.tensor_buft_overrides.count("=CPU") == 3 and params.tensor_buft_overrides.endswith("x=CPU")
    assert params.api_keys == ["a", "b", "c"]


def test_llama_servers_defaults_are_used() -> None:
    defaults = {assignment.path: assignment.value for assignment in completed(())}
    assert (defaults["n_parallel"], defaults["port"]) == (-1, 8080)


def test_refusals_are_upstreams_words() -> None:
    assert refusal("--foo") == "error: invalid argument: --foo"
    assert refusal("--mlock") == "error: invalid argument: --mlock"
    assert refusal("on") == "error: invalid argument: on"
    assert refusal("-ctk", "q6_0") == 'error while handling argument "-ctk": Unsupported cache type: q6_0'
    assert (
        refusal("-fa", "-ngl") == "error while handling argument \"-fa\": error: unknown value for --flash-attn: '-ngl'"
    )
    assert refusal("-c") == 'error while handling argument "-c": expected value for argument'
    assert refusal("-c", "many") == 'error while handling argument "-c": stoi'
    assert refusal("-c", "4000000000") == 'error while handling argument "-c": stoi'
    assert refusal("--temp", "nan") == 'error while handling argument "--temp": stof'
    assert refusal("-np", "0").endswith("error: invalid value for n_parallel")
    assert refusal("-sm", "graph").endswith("invalid value")
    assert refusal("--spec-type", "mtp").endswith("unknown speculative type: mtp")
    assert refusal("-dev", "CUDA0").endswith("invalid device: CUDA0")
    assert "failed to open file '/nope'" in refusal("--api-key-file", "/nope")
    assert "valid json object" in refusal("--chat-template-kwargs", "[1]")
    assert refusal("--chat-template-kwargs", "{").startswith('error while handling argument "--chat-template-kwargs": ')


def test_reading_stops_at_a_command() -> None:
    parsed = parse(("-c", "1024", "--version", "--nonsense"), OPTIONS)
    assert parsed.command == "version"
    assert refusal("--nonsense", "--version") == "error: invalid argument: --nonsense"


def test_the_last_value_wins_and_underscores_are_dashes() -> None:
    assert assigned("-c", "1", "--ctx_size", "2")["n_ctx"] == 2
    assert assigned("--jinja", "--no-jinja")["use_jinja"] is False


def test_words_for_layers_and_removed_expert_layers() -> None:
    assert assigned("-ngl", "all")["n_gpu_layers"] == -2
    assert assigned("-ngl", "auto")["n_gpu_layers"] == -1
    overrides = [assignment.value for assignment in parse(("-ncmoe", "2"), OPTIONS).assignments]
    assert overrides == [rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU" for layer in (0, 1)]


def test_margins_are_padded_with_the_default(tmp_path: Path) -> None:
    targets = assigned("-fitt", "100,200")["fit_params_target"]
    assert isinstance(targets, list)
    assert targets[:3] == [100 << 20, 200 << 20, 1024 << 20]


def test_key_files_skip_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# mine\nfirst\n\nsecond\n")
    assert assigned("--api-key-file", str(path))["api_keys"] == ["first", "second"]


def test_reasoning_off_tells_the_template_too() -> None:
    assert assigned("-rea", "off") == {"enable_reasoning": 0, "default_template_kwargs": {"enable_thinking": "false"}}


def test_template_arguments_are_kept_as_json() -> None:
    assert assigned("--chat-template-kwargs", '{"a": true, "b": "x"}')["default_template_kwargs"] == {
        "a": "true",
        "b": '"x"',
    }


def test_the_fork_s_cache_types_are_not_offered() -> None:
    assert {"q6_0", "q8_KV"}.isdisjoint(CACHE_TYPES)


def test_a_stretched_context_is_a_frequency_scale_as_in_upstream() -> None:
    found = assigned("--rope-scaling", "yarn", "--rope-scale", "2", "--yarn-orig-ctx", "262144")
    assert found["rope_freq_scale"] == 0.5
    assert found["yarn_orig_ctx"] == 262144
    assert "invalid value" in refusal("--rope-scale", "0")
