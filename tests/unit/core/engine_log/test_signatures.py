"""Each row is reached: no quick look keeps a line from the row that matches it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.engine_log.signatures import FAILURE_WORDS, INNER_WORDS, SIGNATURES, Signature

LINES = (
    "stoi",
    "Killed",
    "Segmentation fault (core dumped)",
    "legacy speculative option '-mtp' is disabled",
    "cuMemCreate(&handle, reserve_size, &prop, 0)",
    "dyld[1]: Library not loaded: @rpath/libllama.dylib",
    "llama_init_from_model: failed to allocate compute buffers",
    "common_params_x: MTP speculative stage requested, but the target package is not a complete embedded MTP model",
    "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
    "Memory access fault by GPU node-1 on address 0x9000",
    "NVRM: Xid (PCI:0000:01:00): 79",
    "RPC handshake failed for host:50052",
    "double free or corruption (out)",
    "munmap_chunk(): invalid pointer",
    "*** stack smashing detected ***",
    "Trace/BPT trap: 5",
    "Discarded (victim of GPU error/recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)",
    "Compute error.",
    "rocBLAS error: Cannot read /opt/TensileLibrary.dat",
    "main: error: the supplied chat template is not supported: x",
    "Speculative decoding is currently limited to a single server slot (-np 1).",
    "D:/x/ggml-cuda.cu(107): fatal",
    "/x/ggml/src/ggml.c:1: GGML_ABORT",
)


@pytest.mark.parametrize("line", LINES)
def test_the_quick_look_lets_every_failure_through(line: str) -> None:
    (read,) = parse_log([line])

    assert read.failure is not None
    assert any(word in line.lower() for word in FAILURE_WORDS)


@settings(deadline=None, max_examples=1000)
@given(st.data())
def test_whatever_an_inner_row_matches_has_the_words_that_are_looked_for(data: st.DataObject) -> None:
    row: Signature = data.draw(st.sampled_from([row for row in SIGNATURES if row.inner]))
    line = data.draw(st.from_regex(row.pattern)).lower()

    assert any(word in line for word in INNER_WORDS)
