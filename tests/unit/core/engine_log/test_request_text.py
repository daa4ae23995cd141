from __future__ import annotations

import pytest

from orchestrator.core.engine_log.request_text import LEFT_OUT, MAX_PASSAGE_LINES, RequestTextRemover

TID = 'tid="139687860142720" timestamp=1796057465'

# As the fork 0.1.5 has printed it, but for the clients' words.
FORK_PARTS = f"""\
======== Cache: cache_size = 45, n_past0 =  24, n_past1 =  24, n_past_prompt1 = 24,  n_past2 =  24, n_past_prompt2 =  24
Common part does not match fully
cache :\x20
<|im_start|>user
SECRET of the one client<|im_end|>
<|im_start|>assistant
HASN-B
prompt:\x20
<|im_start|>user
SECRET of the other<|im_end|>

INFO [    batch_pending_prompt] kv cache rm [p0, end) | {TID} id_slot=0 id_task=44 p0=24
INFO [           release_slots] slot released | {TID} id_slot=0 id_task=44 n_ctx=2048 n_past=46"""

FORK_LAUNCH = f"""\
 ERR [              send_error] task error | {TID} id_multi=-1 id_task=49 error="dry_sequence_breakers must be an array"
 ERR [     process_single_task] error while launching slot | {TID} model="m" prompt="SECRET" n_predict=2
INFO [              slots_idle] all slots are idle | {TID}"""

FORK_GRAMMAR = f"""\
prompt cache load took 0.05 ms
parse: error parsing grammar: expecting ')' at ::= "SECRET"

root ::= [a-z] SECRET (
other ::= "SECRET"
llama_grammar_init_impl: failed to parse grammar
INFO [   launch_slot_with_task] slot is processing task | {TID} id_slot=0 id_task=31"""

FORK_DEATH = """\
terminate called after throwing an instance of 'std::runtime_error'
  what():  "json_schema": JSON schema conversion failed:
Unrecognized schema: {"type":"SECRET"}"""

# As upstream b11434 has printed it.
UPSTREAM_GRAMMAR = """\
1.52.818.741 I slot get_availabl: id  0 | task -1 | selected slot by LCP similarity, f_sim_best = 1.000
parse: error parsing grammar: expecting ')' at\x20

root ::= ZEBRA (SECRET
1.52.818.920 E failed to parse grammar
1.52.819.010 E srv    send_error: task id = 217, error: Failed to initialize samplers: failed to parse grammar"""

# As its source has it.
UPSTREAM_SAMPLER = """\
1.52.818.920 E common_sampler_init: error initializing grammar sampler for grammar:
root ::= SECRET

Generation prompt:
'SECRET'
1.52.819.041 I srv  update_slots: all slots are idle"""

UPSTREAM_SYSTEM = """\
1.52.818.920 E anthropic string not as expected: x-anthropic-billing-header: SECRET
SECRET
1.52.819.041 I srv  update_slots: all slots are idle"""

UPSTREAM_OUTPUT = """\
1.52.818.920 W common_chat_peg_parse: unparsed peg-native output: SECRET
SECRET
1.52.819.041 I srv  update_slots: all slots are idle"""

PRINTED = {
    "the parts of two prompts": (FORK_PARTS, [0, 1, 11, 12], [2, 7]),
    "a request that cannot be started": (FORK_LAUNCH, [0, 2], [1]),
    "a grammar, the fork's words": (FORK_GRAMMAR, [0, 5, 6], [1]),
    "a schema, before a death": (FORK_DEATH, [0, 1], [2]),
    "a grammar, upstream's words": (UPSTREAM_GRAMMAR, [0, 4, 5], [1]),
    "a grammar and a prompt": (UPSTREAM_SAMPLER, [5], [0]),
    "a system prompt": (UPSTREAM_SYSTEM, [2], [0]),
    "an answer": (UPSTREAM_OUTPUT, [2], [0]),
}
"""What is printed, the lines of it that stay as they are, and those whose beginning stays."""


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "line by line"])
def test_the_text_of_requests_is_left_out_and_the_engines_own_words_stay(name: str, at_once: bool) -> None:
    text, whole, begun = PRINTED[name]
    lines = text.split("\n")
    remover = RequestTextRemover()
    shown = remover.shown(lines) if at_once else [each for line in lines for each in remover.shown([line])]
    assert len(shown) == len(whole) + len(begun)
    assert "SECRET" not in "\n".join(shown)
    assert [line for line in shown if not line.endswith(LEFT_OUT)] == [lines[at] for at in whole]
    cut = [line.removesuffix(LEFT_OUT) for line in shown if line.endswith(LEFT_OUT)]
    assert all(len(kept) >= 8 and lines[at].startswith(kept) for kept, at in zip(cut, begun, strict=True))


def test_a_crash_behind_such_a_text_is_shown() -> None:
    remover = RequestTextRemover()
    crash = "/src/ggml/src/ggml-cuda/ggml-cuda.cu:97: CUDA error"
    assert remover.shown(["prompt: SECRET", "SECRET", crash, "  current device: 0"]) == [
        f"prompt: {LEFT_OUT}", crash, "  current device: 0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "   - prompt 0x5558a5d7f3a0:      47 tokens,       0 discarded, checkpoints:  0,     1.012 MiB",
        "prompt eval time =    3398.65 ms /    19 tokens (  178.88 ms per token,     5.59 tokens per second)",
        "1.52.818.741 I slot update_slots: id  0 | task 3 | prompt processing, n_tokens = 20, progress = 1.00",
        "1.52.819.060 W srv          stop: cancel task, id_task = 217",
        "load_tensors:   CPU_Mapped model buffer size =    93.50 MiB",
        "chat template, example_format: '<|im_start|>system",
        "",
    ],
)
def test_all_else_stays_as_it_is(line: str) -> None:
    assert RequestTextRemover().shown([line]) == [line]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("0.01.000.000 I srv  process_file: downloading image from 'http://SECRET'", "downloading image from '"),
        ("0.01.000.000 W llama: unable to match sampler by name 'SECRET'", "unable to match sampler by name '"),
        ("0.01.000.000 W srv operator(): got exception: parse error; last read: '{SECRET'", "last read: '"),
    ],
)
def test_what_is_quoted_inside_a_line_is_left_out_to_its_end(line: str, shown: str) -> None:
    [kept] = RequestTextRemover().shown([line])
    assert kept.endswith(shown + LEFT_OUT)
    assert "SECRET" not in kept


def test_no_text_silences_a_log_for_good() -> None:
    lines = ["prompt: x", *["y"] * MAX_PASSAGE_LINES, "shown again"]
    assert RequestTextRemover().shown(lines) == [f"prompt: {LEFT_OUT}", "shown again"]
