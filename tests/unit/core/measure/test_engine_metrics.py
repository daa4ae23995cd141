from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.measure.engine_metrics import MAX_SAMPLES, read_families

UPSTREAM = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 70
# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s.
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds 8.1
# HELP llamacpp:spec_decode_num_accepted_tokens_per_pos_total Accepted, by position.
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 20
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 14
"""


def test_an_engine_s_page_is_read() -> None:
    prompt, accepted = read_families(UPSTREAM)
    assert (prompt.name, prompt.kind) == ("llamacpp:prompt_tokens_total", "counter")
    assert prompt.help == "Number of prompt tokens processed."
    assert prompt.samples == {(): 70.0}
    assert accepted.samples == {(("position", "0"),): 20.0, (("position", "1"),): 14.0}


def test_rates_that_each_reader_resets_are_left_out() -> None:
    assert "llamacpp:predicted_tokens_seconds" not in [family.name for family in read_families(UPSTREAM)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "<html>502</html>",
        "llamacpp:x",
        "llamacpp:x nan",
        "llamacpp:x 0x10",
        "llamacpp:x 1 2 3",
        "llamacpp:x} 1",
        'llamacpp:x{a="1} 1',
        'llamacpp:x{a="1\\"} 1',
        'llamacpp:x{a="1",a="2"} 1',
        'llamacpp:x{profile="stolen"} 1',
        'llamacpp:x{engine="stolen"} 1',
        'llamacpp:x{a="' + "v" * 1000 + '"} 1',
        "orch_ready 0",
        "# TYPE llamacpp:x histogram",
        "# TYPE llamacpp:x counter",
        "llamacpp:x\u0000 1",
    ],
)
def test_what_is_no_valid_sample_is_left_out_alone(line: str) -> None:
    families = read_families(f"llamacpp:before 1\n{line}\nllamacpp:after 2\n")
    assert [(family.name, family.samples) for family in families] == [
        ("llamacpp:before", {(): 1.0}),
        ("llamacpp:after", {(): 2.0}),
    ]


def test_a_sample_that_comes_twice_counts_once() -> None:
    assert read_families("llamacpp:x 1\nllamacpp:x 2\n")[0].samples == {(): 1.0}


def test_the_number_of_samples_is_bounded() -> None:
    text = "".join(f'llamacpp:x{{position="{number}"}} 1\n' for number in range(10 * MAX_SAMPLES))
    assert sum(len(family.samples) for family in read_families(text)) == MAX_SAMPLES


@given(st.text(st.sampled_from('llamacpp:x{}="\\,# TYPEHLcounter1.9e-+\n\r\x85 ')))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    for family in read_families(text):
        assert family.name.startswith("llamacpp:")
