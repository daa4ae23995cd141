from __future__ import annotations

import tomllib

import pytest

from orchestrator.core.problems import Problems
from orchestrator.core.profile.profile import DEMO_MODEL, Profile, Recovery
from orchestrator.core.profile.reading import Layer, build_profile, merge_layers, read_layer


def read(text: str, name: str = "p") -> tuple[Layer, list[str]]:
    problems = Problems()
    layer = read_layer(tomllib.loads(text), name, f"{name}.toml", problems, lambda path: f"/abs/{path}")
    return layer, [str(problem) for problem in problems.found]


def problems_of(text: str) -> list[str]:
    return read("schema = 1\nmodel = 'm.gguf'\n" + text)[1]


def profile_of(text: str) -> Profile:
    layer, problems = read("schema = 1\nmodel = 'm.gguf'\n" + text)
    assert problems == []
    profile = build_profile([layer])
    assert profile is not None
    return profile


def test_a_profile_says_how_long_and_how_it_stays_loaded() -> None:
    text = "[residency]\nidle_unload_s = 600\npinned = true\npriority = 2\nmax_in_flight = 8"
    assert profile_of(text).residency == {"idle_unload_s": 600, "pinned": True, "priority": 2.0, "max_in_flight": 8}
    assert profile_of("").residency == {}
    assert problems_of(
        "[residency]\nidle_s = 1\nidle_unload_s = -1\npinned = 1\npriority = 0\nmax_in_flight = 0.5"
    ) == [
        "unknown key `residency.idle_s` (did you mean `idle_unload_s`?)",
        "`residency.idle_unload_s`: expected 0 to 2592000, found -1",
        "`residency.pinned`: expected a boolean, found an integer",
        "`residency.priority`: expected 0.001 to 1000, found 0",
        "`residency.max_in_flight`: expected an integer, found a float",
    ]


def test_every_part_of_a_profile_reaches_the_result() -> None:
    profile = profile_of(
        """
        description = "d"
        aliases = ["a", "b"]
        extra_args = ["--x"]
        [engine]
        default = "ik-fork"
        [engine.upstream]
        extra_args = ["--y"]
        [engine.upstream.memory]
        fit_margin = 512
        [engine.upstream.recovery]
        margins = [512, 600]
        [memory]
        fit_margin = 1664
        tensor_overrides = ["exps=CPU"]
        [chat]
        template_kwargs = { enable_thinking = false }
        [recovery]
        then = ["kv:q4_0", "context:65536", "n_cpu_moe:+4"]
        max_attempts = 3
        """
    )
    assert (profile.model, profile.engine, profile.aliases) == ("/abs/m.gguf", "ik-fork", ("a", "b"))
    assert profile.settings["chat.template_kwargs"] == {"enable_thinking": False}
    common, upstream = profile.for_engine("ik-fork"), profile.for_engine("upstream")
    assert common.settings["memory.fit_margin"] == 1664
    assert upstream.settings["memory.fit_margin"] == 512
    assert upstream.settings["memory.tensor_overrides"] == ("exps=CPU",)
    assert upstream.extra_args == ("--x", "--y")
    assert upstream.recovery == Recovery((512, 600), ("kv:q4_0", "context:65536", "n_cpu_moe:+4"), 3)
    assert common.recovery.margins == ()


def test_the_default_engine_may_be_written_as_a_string() -> None:
    assert profile_of("engine = 'ik-fork'").engine == "ik-fork"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contxt = 1", "unknown key `contxt` (did you mean `context`?)"),
        ("[memory]\nfit_margn = 1", "unknown key `memory.fit_margn` (did you mean `fit_margin`?)"),
        ("[memory]\ndraft_max = 1", "unknown key `memory.draft_max` (did you mean `speculative.draft_max`?)"),
        ("[engine.upstream.memry]\nx = 1", "unknown key `engine.upstream.memry` (did you mean `memory`?)"),
        ("[recovery]\nmargin = [1]", "unknown key `recovery.margin` (did you mean `margins`?)"),
        ("[context]\nsize = '4096'", "`context.size`: expected an integer, found a string (remove the quotes)"),
        ("[context]\nsize = true", "`context.size`: expected an integer, found a boolean"),
        ("[context]\nsize = 4096.0", "`context.size`: expected an integer, found a float"),
        ("[context]\nparallel = 0", "`context.parallel`: expected 1 to 256, found 0"),
        ("[context]\nsize = 1979-05-27", "`context.size`: expected an integer, found a date"),
        ("[context]\nsize = 1979-05-27T07:32:00Z", "`context.size`: expected an integer, found a date-time"),
        ("[speculative]\ndraft_p_min = nan", "`speculative.draft_p_min`: expected 0 to 1, found nan"),
        ("[kv]\nk = 'q8_1'", "(did you mean `q8_0`?)"),
        ("[memory]\nfit_margin = [1, 'a']", "`memory.fit_margin[1]`: expected an integer, found a string"),
        ("[memory]\nfit_margin = []", "`memory.fit_margin`: expected at least one element"),
        ("[memory]\nfit_margin = 'x'", "expected an integer or an array of integers, found a string"),
        ("[memory]\ndevices = ['-CUDA0']", "`memory.devices[0]`: expected one device's name, found `-CUDA0`"),
        ("[memory]\nrpc = ['host']", "`memory.rpc[0]`: expected `host:port`, found `host`"),
        ("[chat]\ntemplate_kwargs = { a = [1979-05-27] }", "`chat.template_kwargs.a[0]`: has no form in JSON"),
        ('[chat]\ntemplate = "a\\u0000b"', "`chat.template`: expected at most 65536 characters and no NUL"),
        ("memory = 3", "`memory`: expected a table, found an integer"),
        ("engine = 3", "`engine`: expected a string or a table, found an integer"),
        ("engine = 'Up Stream'", "`engine.default`: expected 1 to 64 of a-z"),
        ("[engine.default]\nx = 1", "`engine.default`: expected a string, found a table"),
        ("[engine]\nupstream = 'x'", "`engine.upstream`: expected a table, found a string"),
        ("aliases = ['a', 'a']", "`aliases[1]`: `a` is there twice"),
        ('aliases = ["a\\u001b[0m"]', "`aliases[0]`: expected at most 200 printable characters"),
        ("extends = '../x'", "`extends`: expected the name of a profile"),
        (
            "[recovery]\nmargins = [1, 1]",
            "`recovery.margins`: each must be greater than the one before, found 1 then 1",
        ),
        ("[recovery]\nmargins = [0]", "`recovery.margins[0]`: expected 1 to 1048576, found 0"),
        ("[recovery]\nthen = ['kv:q9']", "`recovery.then[0]`: unknown KV type `q9`"),
        ("[recovery]\nthen = ['ctx:5']", "`recovery.then[0]`: expected `kv:TYPE`, `context:N`"),
        ("[recovery]\nthen = ['context:0']", "`recovery.then[0]`: expected a context of at least 1 token"),
        ("[recovery]\nthen = ['n_cpu_moe:+0']", "`recovery.then[0]`: expected at least 1 layer"),
        ("extra_args = ['--port', '1']", "`extra_args`: `--port` belongs to orch"),
        ("[engine.x]\nextra_args = ['--port=1']", "`engine.x.extra_args`: `--port` belongs to orch"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(text: str, message: str) -> None:
    found = problems_of(text)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 'm'", "`schema` is missing (begin the file with `schema = 1`)"),
        ("schema = 2", "`schema`: 2 is newer than this orch understands (1) (update orch)"),
        ("schema = 0", "`schema`: expected 1, found 0"),
        ("schema = '1'", "`schema`: expected an integer, found a string (remove the quotes)"),
        ("schema = 1\nmodel = 'orch:dmo'", "`model`: unknown special model `orch:dmo` (`orch:demo` is the only one)"),
        ("schema = 1\nmodel = ''", "`model`: expected the path of a GGUF file, found nothing"),
    ],
)
def test_a_wrong_head_is_named(text: str, message: str) -> None:
    assert read(text)[1] == [message]


def test_all_problems_are_listed_at_once() -> None:
    assert (
        len(problems_of("x = 1\n[context]\nsize = 'a'\nparallel = 0\n[kv]\nk = 'z'\n[recovery]\nmargins = [2, 1]")) == 5
    )


def test_the_special_model_is_not_a_path() -> None:
    layer, _ = read(f"schema = 1\nmodel = '{DEMO_MODEL}'")
    assert layer.values[("model",)] == DEMO_MODEL


def test_path_settings_are_resolved_wherever_they_stand() -> None:
    profile = profile_of(
        "[engine.x.speculative]\ndraft_model = 'd'\n[multimodal]\nmmproj = 'mm'\n[chat]\ntemplate = 'chatml'"
    )
    assert profile.for_engine("x").settings["speculative.draft_model"] == "/abs/d"
    assert profile.settings["multimodal.mmproj"] == "/abs/mm"
    assert profile.settings["chat.template"] == "chatml"


def test_a_child_wins_key_by_key_and_each_value_knows_its_file() -> None:
    parent, _ = read("schema = 1\naliases = ['a']\ndescription = 'x'\n[context]\nsize = 1\nparallel = 2", "base-x")
    child, _ = read("schema = 1\nmodel = 'm'\nextends = 'base-x'\n[context]\nsize = 3", "c")
    profile = build_profile([child, parent])
    assert profile is not None
    assert profile.settings == {"context.size": 3, "context.parallel": 2}
    assert (profile.aliases, profile.description, profile.extends) == ((), "", ("base-x",))
    _, origins = merge_layers([child, parent])
    assert origins[("context", "size")] is child
    assert origins[("context", "parallel")] is parent


def test_a_profile_without_a_model_is_no_profile() -> None:
    assert build_profile([read("schema = 1")[0]]) is None
