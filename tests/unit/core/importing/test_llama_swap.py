"""llama-swap's configuration as profiles, variants and rules for what stays loaded."""

from __future__ import annotations

from orchestrator.adapters.config.yaml_file import read_yaml
from orchestrator.core.importing.findings import ImportEntry, ImportResult
from orchestrator.core.importing.sources import import_text, settle_names

TEXT = """\
healthCheckTimeout: 60
globalTTL: 300
apiKeys: [sk-none-of-it]
unheard: 1
macros:
  server: /opt/llama-server --port ${PORT} --host 0.0.0.0
  fa: on
  both: ${server} -fa ${fa}
models:
  "Big-Model:27B":
    name: Big
    description: the big one
    aliases: [big]
    env: [CUDA_VISIBLE_DEVICES=0, "HF_TOKEN=hf_none"]
    macros: {ctx: 8192}
    cmd: |
      # a comment
      ${both} -m /m/big.gguf \\
      -c ${ctx} --alias ${MODEL_ID}
      --temp 0.7
    filters:
      setParamsByID:
        "${MODEL_ID}:think": {chat_template_kwargs: {enable_thinking: true}, temperature: 1.0}
  small:
    ttl: 0
    concurrencyLimit: 2
    cmd: >
      ${server}
      -m ${env.MODELS}/small.gguf
      -c 4096
    filters: {stripParams: "temperature, top_p"}
  hear:
    cmd: whisper-server --port ${PORT}
hooks: {on_startup: {preload: [small, hear]}}
groups:
  one: {swap: true, exclusive: false, members: [small, big]}
"""


def run(text: str = TEXT) -> ImportResult:
    result = import_text(text, {"MODELS": "/m"}, lambda each: read_yaml(each, "x.yaml"))
    settle_names(result, {})
    return result


def entries(text: str = TEXT) -> dict[str, ImportEntry]:
    return {each.name: each for each in run(text).entries}


def test_macros_environment_and_words_are_what_llama_swap_makes_of_them() -> None:
    big = entries()["big-model-27b"].document
    assert big["model"] == "/m/big.gguf"
    assert big["description"] == "Big: the big one"
    assert big["aliases"] == ["Big-Model:27B", "big"]
    assert (big["context"], big["attention"]) == ({"size": 8192}, {"flash": True})
    assert big["environment"] == {"CUDA_VISIBLE_DEVICES": "0"}


def test_filters_are_variants_of_one_model() -> None:
    found = entries()
    assert found["big-model-27b"].document["variants"] == [
        {"name": "Big-Model:27B:think", "set": {"temperature": 1.0}, "template_kwargs": {"enable_thinking": True}}
    ]
    assert found["small-plain"].document["variants"] == [{"name": "small", "strip": ["temperature", "top_p"]}]


def test_what_stays_loaded_is_a_rule_of_residency() -> None:
    result = run()
    found = {each.name: each.document["residency"] for each in result.entries if not each.refusal}
    assert found == {
        "big-model-27b": {"idle_unload_s": 300},
        "small-plain": {"idle_unload_s": 0, "max_in_flight": 2},
    }
    assert result.config == {
        "residency.preload": ["small-plain"],
        "residency.exclusive": [["small-plain", "big-model-27b"]],
    }


def test_without_groups_one_model_is_loaded_at_a_time() -> None:
    text = "models:\n  a: {cmd: llama-server -m /m/a.gguf}\n  b: {cmd: llama-server -m /m/b.gguf}\n"
    assert run(text).config == {"residency.policy": "one"}


def test_each_finding_has_its_line() -> None:
    found = {each.source: each.line for each in entries()["big-model-27b"].findings}
    assert (found["--temp 0.7"], found["-c 8192"], found["aliases: big"]) == (20, 19, 13)
    assert {each.source: each.line for each in run().findings}["unheard: 1"] == 4


def test_what_is_no_llama_server_is_said_and_secrets_are_not() -> None:
    result = run()
    assert "whisper-server" in {each.name: each for each in result.entries}["hear"].refusal
    assert {"apiKeys", "unheard: 1", "healthCheckTimeout: 60"} <= {each.source for each in result.findings}
    assert "sk-none" not in repr(result) and "hf_none" not in repr(result)


def test_names_that_mean_another_profile_are_taken_away() -> None:
    text = (
        "models:\n  a: {aliases: [x, y], cmd: llama-server -m /m/a.gguf}\n"
        "  b: {aliases: [x], cmd: llama-server -m /m/b.gguf}"
    )
    result = import_text(text, {}, lambda each: read_yaml(each, "x.yaml"))
    settle_names(result, {"y": "other"})
    first, second = result.entries
    assert first.document["aliases"] == ["x"]
    assert "aliases" not in second.document
    assert "alias x" in {each.source for each in second.findings}


def test_a_script_with_variables_of_flags_counts_as_a_server() -> None:
    env = "[LLAMA_ARG_MODEL=/m/a.gguf, LLAMA_ARG_CTX_SIZE=4096]"
    text = f"models:\n  a:\n    cmd: run-in-docker a --no-warmup\n    env: {env}"
    document = entries(text)["a"].document
    assert (document["model"], document["context"], document["server"]) == (
        "/m/a.gguf",
        {"size": 4096},
        {"warmup": False},
    )


def test_of_a_group_one_is_loaded_at_the_start() -> None:
    result = run(TEXT.replace("[small, hear]", "[small, big]"))
    assert result.config["residency.preload"] == ["small-plain"]
    assert "preload: big-model-27b" in {each.source for each in result.findings if each.fate == "lost"}
