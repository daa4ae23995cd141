# ruff: noqa: E501
"""Which tensors an engine's fit left on the host, from the lines of real starts of both engines.

What is expected is what the same builds say of each layer and each tensor at their highest verbosity.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.fitted_layers import FittedLayers
from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.memory.host_placement import HostPlacement, fitted_placement
from orchestrator.core.plan.shape import PlanShape
from tests.true_geometry import TrueHeader, header

MOE, DENSE, MTP = header("small-moe-1b"), header("small-dense-1b"), header("qwen35-4b", mtp=True)
CARD_OF_35B = header("qwen36-35b-a3b", mtp=True)
SHAPE = PlanShape(4096)

UPSTREAM_EXPERTS = """\
0.00.233.009 I common_params_fit_impl: projected to use 755 MiB of device memory vs. 700 MiB of free device memory
0.00.340.867 I common_params_fit_impl: id=0, n_layer= 0, n_part= 0, overflow_type=4, mem=     0 MiB
0.00.505.202 I common_params_fit_impl: id=0, n_layer=17, n_part=16, overflow_type=4, mem=   181 MiB
0.00.505.204 I common_params_fit_impl: set ngl_per_device[0].n_layer=17
0.00.505.205 I common_params_fit_impl:   - RPC0 (127.0.0.1:42311): 17 layers,    181 MiB used,    518 MiB free
0.00.563.599 I common_params_fit_impl: id=0, n_layer=17, n_part= 0, overflow_type=4, mem=   755 MiB
0.00.645.138 I common_params_fit_impl: id=0, n_layer=17, n_part= 5, overflow_type=4, mem=   602 MiB
0.00.645.140 I common_params_fit_impl: set ngl_per_device_high[0].(n_layer, n_part)=(17, 5), id_dense_start_high=0
0.00.728.239 I common_params_fit_impl: id=0, n_layer=17, n_part= 6, overflow_type=4, mem=   564 MiB
0.00.728.255 I common_params_fit_impl: set ngl_per_device[0].(n_layer, n_part)=(17, 6), id_dense_start=0
0.00.728.269 I common_params_fit_impl: trying to fit one extra layer with overflow_type=LAYER_FRACTION_UP
0.00.849.106 I common_params_fit_impl: id=0, n_layer=17, n_part= 6, overflow_type=2, mem=   577 MiB
0.00.849.124 I common_params_fit_impl: set ngl_per_device[0].(n_layer, n_part, overflow_type)=(17, 6, UP), id_dense_start=0
0.00.996.585 I common_params_fit_impl: id=0, n_layer=17, n_part= 6, overflow_type=3, mem=   589 MiB
0.00.998.481 I common_params_fit_impl: set ngl_per_device[0].(n_layer, n_part, overflow_type)=(17, 6, GATE), id_dense_start=0
0.00.998.507 I common_params_fit_impl:   - RPC0 (127.0.0.1:42311): 17 layers ( 6 overflowing),    589 MiB used,    110 MiB free
0.00.998.600 I common_fit_params: successfully fit params to free device memory
0.03.142.095 I load_tensors: offloaded 17/17 layers to GPU
0.03.142.099 I load_tensors:   CPU_Mapped model buffer size =   658.00 MiB
"""

UPSTREAM_TWO_CARDS = """\
I common_params_fit_impl: id=0, n_layer= 7, n_part= 1, overflow_type=1, mem=   297 MiB
I common_params_fit_impl: id=1, n_layer=10, n_part= 9, overflow_type=4, mem=   180 MiB
I common_params_fit_impl: set ngl_per_device[0].(n_layer, n_part, overflow_type)=(7, 1, ATTN), id_dense_start=1
I common_params_fit_impl:   - RPC0 (127.0.0.1:33637):  7 layers ( 1 overflowing),    297 MiB used,    102 MiB free
I common_params_fit_impl: id=0, n_layer= 7, n_part= 1, overflow_type=1, mem=   297 MiB
I common_params_fit_impl: id=1, n_layer=10, n_part= 8, overflow_type=3, mem=   243 MiB
I common_params_fit_impl: set ngl_per_device[1].(n_layer, n_part, overflow_type)=(10, 8, GATE), id_dense_start=1
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded 17/17 layers to GPU
"""

UPSTREAM_CROWDED = """\
I common_params_fit_impl: with only dense weights in device memory there is still a total deficit of 51 MiB
I common_params_fit_impl: id=0, n_layer= 7, n_part= 6, overflow_type=4, mem=   128 MiB
I common_params_fit_impl: set ngl_per_device[0].n_layer=7
I common_params_fit_impl: id=0, n_layer= 8, n_part= 7, overflow_type=4, mem=   134 MiB
I common_params_fit_impl: set ngl_per_device_high[0].n_layer=8
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded 7/17 layers to GPU
"""

UPSTREAM_DENSE = """\
I common_params_fit_impl: id=0, n_layer= 8, n_part= 0, overflow_type=4, mem=   384 MiB
I common_params_fit_impl: set ngl_per_device[0].n_layer=8
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded 8/17 layers to GPU
"""

UPSTREAM_BESIDE_MTP = """\
I common_params_fit_impl: id=0, n_layer=19, n_part= 0, overflow_type=4, mem=  1633 MiB
I common_params_fit_impl: set ngl_per_device[0].n_layer=19
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded 19/34 layers to GPU
"""

UPSTREAM_WHOLE = """\
I common_params_fit_impl: will leave 1244 >= 100 MiB of free device memory, no changes needed
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded 17/17 layers to GPU
"""

FORK_DENSE = """\
Memory required for model tensors + cache: 699 MiB
Memory available on all devices - compute: 512 MiB
{}
llm_load_tensors: offloaded 17/17 layers to GPU
llm_load_tensors:        CPU buffer size =   213.42 MiB
""".format("\n".join(f"Setting layer {layer} to device {2 if layer > 10 else 1}" for layer in range(16, 3, -1)))

FORK_WHOLE = """\
Memory required for model tensors + cache: 699 MiB
Memory available on all devices - compute: 4856 MiB
Setting default device in layer  0 to 1
llm_load_tensors: offloaded 17/17 layers to GPU
llm_load_tensors:        CPU buffer size =    33.20 MiB
"""


def fitted(text: str) -> FittedLayers:
    return add_records(EngineActivity(), parse_log(text.splitlines())).fitted


def placed(text: str, model: TrueHeader, *, mtp: bool = False, fork: bool = False) -> HostPlacement | None:
    shape = replace(SHAPE, draft_max=3 if mtp else 0)
    return fitted_placement(fitted(text), geometry_of([model]), shape, "ik" if fork else "upstream")


def on_host(model: TrueHeader, found: HostPlacement | None) -> set[str]:
    assert found is not None
    return {tensor.name for tensor in model.tensors if found.has(tensor.name)} - {"token_embd.weight"}


def named(model: TrueHeader, pattern: str) -> set[str]:
    found = {tensor.name for tensor in model.tensors if re.match(pattern, tensor.name)}
    assert found
    return found


@pytest.mark.parametrize(
    ("text", "model", "pattern", "where"),
    [
        (UPSTREAM_EXPERTS, MOE, r"blk\.11\.ffn_down_exps|blk\.1[2-5]\.ffn_\w+_exps",
         "experts of layers 12-15, some tensors of layer 11"),
        (UPSTREAM_TWO_CARDS, MOE, r"blk\.9\.ffn_down_exps|blk\.1[0-5]\.ffn_\w+_exps",
         "experts of layers 10-15, some tensors of layer 9"),
        (UPSTREAM_CROWDED, MOE, r"blk\.[0-9]\.|blk\.1[1-5]\.ffn_\w+_exps|rope", "layers 0-9, experts of layers 11-15"),
        (UPSTREAM_DENSE, DENSE, r"blk\.[0-8]\.|rope", "layers 0-8"),
        (UPSTREAM_BESIDE_MTP, MTP, r"blk\.([0-9]|1[0-4])\.", "layers 0-14"),
    ],
    ids=["experts", "two-cards", "crowded", "dense", "beside-mtp"],
)  # fmt: skip
def test_upstreams_fit_tells_what_it_left_on_the_host(text: str, model: TrueHeader, pattern: str, where: str) -> None:
    found = placed(text, model)
    assert on_host(model, found) == named(model, pattern)
    assert found is not None and found.where == where


def test_the_forks_fit_names_the_layers_of_the_devices() -> None:
    found = placed(FORK_DENSE, DENSE, fork=True)
    assert on_host(DENSE, found) == named(DENSE, r"blk\.[0-3]\.|rope")
    assert found is not None and found.where == "layers 0-3"


@pytest.mark.parametrize(("text", "fork"), [(UPSTREAM_WHOLE, False), (FORK_WHOLE, True)], ids=["upstream", "fork"])
def test_what_fits_whole_leaves_the_input_embedding_alone(text: str, fork: bool) -> None:
    found = placed(text, DENSE, fork=fork)
    assert on_host(DENSE, found) == set()
    assert found is not None and found.where == "" and found.has("token_embd.weight")


def test_a_block_of_mtp_counts_where_it_is_loaded() -> None:
    """The card of a 35B: a fit that counts the block of MTP has its layers one later."""
    blocks = geometry_of([CARD_OF_35B]).block_count
    text = f"""\
I common_params_fit_impl: id=0, n_layer={{0}}, n_part=10, overflow_type=4, mem=  9000 MiB
I common_params_fit_impl: set ngl_per_device[0].(n_layer, n_part)=({{0}}, 10), id_dense_start=0
I common_fit_params: successfully fit params to free device memory
I load_tensors: offloaded {{0}}/{blocks + 1} layers to GPU
"""
    loaded = placed(text.format(blocks + 1), CARD_OF_35B, mtp=True)
    assert loaded is not None and loaded.where == "experts of layers 32-39"  # and of 40, the block of MTP
    assert loaded.has("blk.40.ffn_up_exps.weight")
    skipped = placed(text.format(blocks), CARD_OF_35B)
    assert skipped is not None and skipped.where == "layers 0, experts of layers 31-39"


@pytest.mark.parametrize(
    ("text", "fork"),
    [
        ("", False),
        ("", True),
        (UPSTREAM_EXPERTS.replace("successfully fit params to", "failed to fit params to"), False),
        (UPSTREAM_EXPERTS.replace("offloaded 17/17", "offloaded 12/17"), False),
        (UPSTREAM_EXPERTS.replace("offloaded 17/17", "offloaded 17/33"), False),
        (UPSTREAM_EXPERTS.replace("offloaded", "moved"), False),
        (UPSTREAM_EXPERTS.replace("overflow_type=3", "overflow_type=9"), False),
        (UPSTREAM_EXPERTS.replace("n_part= 6", "n_part=18"), False),
        (FORK_WHOLE.replace("4856", "600"), True),
    ],
)
def test_what_the_lines_do_not_tell_is_not_known(text: str, fork: bool) -> None:
    assert placed(text, MOE, fork=fork) is None


def test_nothing_that_follows_the_weights_changes_it() -> None:
    """Those lines are of a drafter, or of a client that has pasted a log."""
    for text, later in ((UPSTREAM_EXPERTS, UPSTREAM_CROWDED), (FORK_DENSE, "Setting layer 1 to device 1\n")):
        assert fitted(text + later) == fitted(text)
