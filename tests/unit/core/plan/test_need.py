from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.plan.amounts import NOTHING, OPEN, Amount, exact, total, unknown
from orchestrator.core.plan.geometry import GeometryError, geometry_of
from orchestrator.core.plan.need import BESIDE_THE_ENGINE, Need, PlanBuild, need_of
from orchestrator.core.plan.prices import prices
from orchestrator.core.plan.shape import ALL, PlanShape, shape_of
from orchestrator.core.plan.solve import fits, largest_context, most_gpu_layers, smallest_n_cpu_moe
from orchestrator.core.plan.verdict import impossible, judge
from orchestrator.core.quantities import MIB
from tests.true_geometry import TrueHeader, TrueTensor, header

UPSTREAM, FORK = PlanBuild("upstream", 11434), PlanBuild("ik")
BUILDS = (UPSTREAM, FORK)
MODELS = ("qwen36-35b-a3b", "qwen36-27b", "gemma3-12b", "gpt-oss-20b", "llama31-8b", "qwen35-4b")
GIB = 1 << 30
A3B = geometry_of([header("qwen36-35b-a3b")])

models = st.sampled_from(MODELS).map(lambda name: geometry_of([header(name)]))
shapes = st.builds(
    PlanShape,
    context_tokens=st.integers(1, 1024).map(lambda steps: 256 * steps),
    kv_k=st.sampled_from(["f16", "q8_0", "q4_0"]),
    kv_v=st.sampled_from(["f16", "q8_0"]),
    ubatch=st.sampled_from([64, 512, 2048]),
    slots=st.integers(1, 8),
    unified_kv=st.booleans(),
    draft_max=st.integers(0, 8),
    n_cpu_moe=st.integers(0, 50),
    flash_attention=st.booleans(),
    devices=st.integers(1, 3),
)


@given(geometry=models, shape=shapes, build=st.sampled_from(BUILDS), more=st.integers(1, 64))
def test_more_context_never_needs_less(geometry: object, shape: PlanShape, build: PlanBuild, more: int) -> None:
    longer = replace(shape, context_tokens=shape.context_tokens + 256 * shape.slots * more)
    here, there = need_of(geometry, shape, build), need_of(geometry, longer, build)  # type: ignore[arg-type]

    for index in range(shape.devices):
        assert there.device_total(index).high_bytes >= here.device_total(index).high_bytes


@given(geometry=models, shape=shapes, build=st.sampled_from(BUILDS))
def test_bounds_are_in_order_and_the_same_each_time(geometry: object, shape: PlanShape, build: PlanBuild) -> None:
    need = need_of(geometry, shape, build)  # type: ignore[arg-type]

    assert need == need_of(geometry, shape, build)  # type: ignore[arg-type]
    for parts in (*need.devices, need.host):
        assert all(0 <= amount.low_bytes <= amount.high_bytes for amount in parts.values())
        assert all(amount.low_bytes == amount.high_bytes for amount in parts.values() if amount.kind == "exact")


@settings(max_examples=40)
@given(geometry=models, shape=shapes, build=st.sampled_from(BUILDS), gib=st.integers(4, 40))
def test_a_solved_context_fits_and_the_next_step_does_not(
    geometry: object, shape: PlanShape, build: PlanBuild, gib: int
) -> None:
    free = [gib * GIB] * shape.devices
    found = largest_context(geometry, shape, build, free, limit=262_144)  # type: ignore[arg-type]

    def at(context: int) -> Need:
        return need_of(geometry, replace(shape, context_tokens=context), build)  # type: ignore[arg-type]

    if found is None:
        assert not fits(at(256), free)
    else:
        assert found % 256 == 0
        assert fits(at(found), free)
        assert found == 262_144 or not fits(at(found + 256), free)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("gib", [6, 8, 12, 16, 24])
def test_the_fewest_layers_of_experts_on_the_host(build: PlanBuild, gib: int) -> None:
    shape = PlanShape(131_072, "q8_0", "q8_0", draft_max=3)
    found = smallest_n_cpu_moe(A3B, shape, build, [gib * GIB])

    fitting = [fits(need_of(A3B, replace(shape, n_cpu_moe=count), build), [gib * GIB]) for count in range(41)]
    assert found == (fitting.index(True) if any(fitting) else None)


def test_the_most_layers_on_the_device() -> None:
    llama, shape = geometry_of([header("llama31-8b")]), PlanShape(32_768)
    found = most_gpu_layers(llama, shape, UPSTREAM, [6 * GIB])

    assert found is not None
    assert fits(need_of(llama, replace(shape, gpu_layers=found), UPSTREAM), [6 * GIB])
    assert not fits(need_of(llama, replace(shape, gpu_layers=found + 1), UPSTREAM), [6 * GIB])


def mib(need: Need, *names: str) -> float:
    return sum(amount.low_mib for name, amount in need.devices[0].items() if name in names)


def test_the_parts_of_a_published_model() -> None:
    need = need_of(A3B, PlanShape(131_072, "q8_0", "q8_0", draft_max=3), UPSTREAM)

    assert mib(need, "draft_weights") == pytest.approx(436, abs=1)
    assert mib(need, "draft_kv") == 256
    assert mib(need, "kv") == pytest.approx(1360, abs=0.1)
    assert mib(need, "state") == pytest.approx(4 * 62.8125)
    assert need.engine_total().low_bytes == sum(
        amount.low_bytes for name, amount in need.devices[0].items() if name not in BESIDE_THE_ENGINE
    )


def test_an_unloaded_mtp_block_counts_as_a_layer_upstream_and_not_in_the_fork() -> None:
    sizes = {
        build.kind: need_of(A3B, PlanShape(8192, gpu_layers=10), build).devices[0]["weights"].low_mib
        for build in BUILDS
    }

    # 10 of 42 upstream: the MTP block, the output and 8 more; the fork: 10 blocks, one of them MTP's, and no output.
    assert sizes["upstream"] == pytest.approx(8 * 430.5 + 397.9, rel=0.01)
    assert sizes["ik"] == pytest.approx(9 * 430.5, rel=0.01)


def test_the_fork_has_no_small_window_cache() -> None:
    gemma = geometry_of([header("gemma3-12b", "q4_k_m")])
    shape = PlanShape(131_072)

    assert mib(need_of(gemma, shape, FORK), "kv") == 49_152
    assert mib(need_of(gemma, shape, UPSTREAM), "kv") == pytest.approx(8672)


def test_copies_of_a_quantised_cache_grow_later_where_no_line_has_them() -> None:
    shape = PlanShape(131_072, "q8_0", "q8_0")
    growth = {
        build: need_of(A3B, shape, build).devices[0]["growth"].high_mib
        for build in (UPSTREAM, PlanBuild("upstream", 9246), FORK)
    }

    assert list(growth.values()) == [300, 556, 556]


def test_a_build_from_before_masks_and_logits_took_less_has_wider_bounds() -> None:
    shape = PlanShape(131_072, "q8_0", "q8_0", draft_max=3)
    new, old = (need_of(A3B, shape, PlanBuild("upstream", number)).devices[0] for number in (11_434, 9246))

    for name in ("compute", "draft_compute"):
        assert old[name].kind == "interval"
        assert old[name].low_bytes <= new[name].low_bytes
        # The masks in 32 bits, and the logits of 512 tokens.
        assert old[name].high_mib > new[name].high_mib + 2 * 128 + 485

    assert old["kv"] == new["kv"]


def test_host_memory_has_the_prompts_and_checkpoints_that_requests_leave() -> None:
    need = need_of(A3B, PlanShape(8192, slots=2, unified_kv=True), UPSTREAM)

    assert need.host["prompt_cache"].high_mib == 8192
    assert need.host["checkpoints"].high_mib == pytest.approx(2 * 32 * 62.8125)
    assert need.host["weights"].low_mib == pytest.approx(257.66, abs=0.01)


def test_layers_are_shared_out_by_the_split() -> None:
    llama = geometry_of([header("llama31-8b", "q8_0")])
    need = need_of(llama, PlanShape(16_384, devices=2, tensor_split=(3, 1)), UPSTREAM)
    first, second = (parts["kv"].low_mib for parts in need.devices)

    # 33 layers with the output: 25 are below three quarters.
    assert (first, second) == (25 * 64, 7 * 64)


@dataclass(frozen=True)
class _Made:
    """A header that says what a test wants."""

    kv: dict[str, object]
    tensors: Sequence[TrueTensor] = ()
    path: str = "made.gguf"

    @property
    def architecture(self) -> str:
        return str(self.kv.get("general.architecture", ""))

    def number(self, key: str) -> int | None:
        value = self.kv.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else None


def changed(model: str, **keys: object) -> _Made:
    made: TrueHeader = header(model)
    given = {key.replace("__", "."): value for key, value in keys.items()}
    name = str(given.get("general.architecture", made.architecture))
    renamed = {key.replace(made.architecture + ".", name + "."): value for key, value in made.kv.items()}
    return _Made({**renamed, **given}, made.tensors)


@pytest.mark.parametrize(
    "given",
    [
        changed("llama31-8b", general__architecture="brand-new"),
        _Made(dict(header("llama31-8b").kv), (*header("llama31-8b").tensors, TrueTensor("blk.0.x", (256,), 999, 1))),
        changed("qwen35-4b", qwen35__ssm__state_size=None),
    ],
    ids=["architecture", "tensor type", "state"],
)
def test_what_no_rule_covers_is_never_said_to_fit(given: _Made) -> None:
    geometry = geometry_of([given])
    found = judge(geometry, PlanShape(8192), UPSTREAM, [80 * GIB], 200 * GIB)

    assert found.verdict == "unclear"
    assert found.need.device_total().is_open
    assert "unknown" in {amount.kind for amount in found.need.devices[0].values()}


def test_an_architecture_that_was_not_measured_has_wide_bounds() -> None:
    compute = need_of(geometry_of([changed("llama31-8b", general__architecture="smollm3")]), PlanShape(8192), UPSTREAM)

    assert compute.devices[0]["compute"].kind == "interval"
    assert compute.devices[0]["weights"].kind == "exact"


@pytest.mark.parametrize("value", [None, 0, -1, 1 << 40, "many"])
def test_a_header_without_its_sizes_is_refused_by_name(value: object) -> None:
    with pytest.raises(GeometryError) as caught:
        geometry_of([changed("llama31-8b", llama__block_count=value)])

    assert "llama.block_count" in caught.value.details[0]
    assert repr(value) in caught.value.details[0]


def test_prices_are_those_that_were_measured() -> None:
    shape = PlanShape(131_072, draft_max=3)
    found = {each.choice + each.text.split()[0]: each for each in prices(A3B, shape, UPSTREAM)}

    assert found["mtpMTP"].mib == pytest.approx(1050, abs=8)
    assert found["mtpMTP"].text.endswith("2.6 layers of experts")
    assert found["kvq8_0"].mib == pytest.approx(-960, abs=2)
    four_slots = prices(A3B, replace(shape, kv_k="q8_0", kv_v="q8_0"), UPSTREAM)[-3]
    assert four_slots.text.startswith("4 slots instead of 1 cost ")
    assert four_slots.mib == pytest.approx(754, abs=4)


@pytest.mark.parametrize(
    ("gib", "verdict"),
    [(1, "does_not_fit"), (12, "fits_with_offload"), (24, "fits")],
)
def test_verdicts(gib: int, verdict: str) -> None:
    shape = PlanShape(131_072, "q8_0", "q8_0", draft_max=3, n_cpu_moe=0)
    found = judge(A3B, shape, UPSTREAM, [gib * GIB], 64 * GIB, may_offload=gib > 1)

    assert found.verdict == verdict
    assert "MiB" in found.reason
    assert verdict == "does_not_fit" or fits(found.need, [gib * GIB])


def test_weights_that_the_host_has_no_room_for_do_not_fit() -> None:
    shape = PlanShape(8192, n_cpu_moe=ALL)
    found = judge(A3B, shape, UPSTREAM, [24 * GIB], 8 * GIB, may_offload=False)

    assert found.verdict == "does_not_fit"
    assert "host memory" in found.reason


@pytest.mark.parametrize("gib", [8, 12, 16])
def test_each_remedy_makes_it_fit(gib: int) -> None:
    llama = geometry_of([header("llama31-8b")])
    shape = PlanShape(131_072, slots=4, ubatch=2048)
    found = judge(llama, shape, UPSTREAM, [gib * GIB])
    keys = {"context.size": "context_tokens", "context.parallel": "slots", "batch.ubatch": "ubatch"}

    assert found.verdict == "fits_with_offload"
    assert impossible(need_of(llama, shape, UPSTREAM), [gib * GIB])
    for each in found.changes:
        if each.setting in keys:
            other = replace(shape, **{keys[each.setting]: each.value})  # type: ignore[arg-type]
            assert fits(need_of(llama, other, UPSTREAM), [gib * GIB])


def test_a_shape_has_the_defaults_that_orch_starts_an_engine_with() -> None:
    settings_ = {"context.size": 0, "speculative.type": ("ngram-mod", "mtp"), "memory.cpu_moe": True, "kv.k": "q8_0"}
    shape = shape_of(settings_, "upstream", A3B)  # type: ignore[arg-type]

    assert (shape.context_tokens, shape.slots, shape.draft_max) == (262_144, 1, 3)
    assert (shape.n_cpu_moe, shape.kv_k, shape.kv_v, shape.unified_kv) == (ALL, "q8_0", "f16", False)
    assert shape_of({}, "ik", A3B).unified_kv


def test_sums_are_known_as_well_as_their_worst_part() -> None:
    assert total([exact(3), Amount(1, 2, "computed"), NOTHING]) == Amount(4, 5, "computed")
    assert total([exact(3), unknown(1)]) == Amount(4, OPEN, "unknown")
    assert exact(2 * MIB).high_mib == 2


_KEYS = (
    "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length_swa", "attention.sliding_window", "attention.sliding_window_pattern", "expert_count",
    "nextn_predict_layers", "full_attention_interval", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size",
    "attention.recurrent_layers", "feed_forward_length", "wkv.head_size", "context_length",
)  # fmt: skip


@given(
    model=st.sampled_from(MODELS),
    lies=st.dictionaries(
        st.sampled_from(_KEYS),
        st.one_of(st.integers(-(2**63), 2**64), st.none(), st.lists(st.integers(-9, 2**64), max_size=3).map(tuple)),
        max_size=4,
    ),
    architecture=st.sampled_from(["", "gemma3", "llama4", "qwen35", "mamba", "rwkv7", "gemma4", "jamba", "deepseek2"]),
    build=st.sampled_from(BUILDS),
)
def test_a_header_that_lies_is_refused_or_planned(
    model: str, lies: dict[str, object], architecture: str, build: PlanBuild
) -> None:
    name = architecture or header(model).architecture
    made = changed(model, general__architecture=name, **{f"{name}.{key}": value for key, value in lies.items()})
    try:
        geometry = geometry_of([made])
    except GeometryError as error:
        assert error.details
        return

    need = need_of(geometry, PlanShape(8192, "q8_0", "q8_0", draft_max=3), build)
    for parts in (*need.devices, need.host):
        assert all(0 <= amount.low_bytes <= amount.high_bytes for amount in parts.values())


def test_tensors_beside_the_layers_are_where_the_engine_places_them() -> None:
    llama = header("llama31-8b")
    beside = {"per_layer_token_embd.weight": 1000, "per_layer_model_proj.weight": 300, "token_embd_norm.weight": 20,
              "altup_proj.weight": 4}  # fmt: skip
    more = tuple(TrueTensor(name, (256,), 0, kib << 10) for name, kib in beside.items())
    plain, other = (geometry_of([_Made(dict(llama.kv), tensors)]) for tensors in (llama.tensors, llama.tensors + more))

    assert other.input_bytes - plain.input_bytes == 1000 << 10
    assert other.layers[0].weights_bytes - plain.layers[0].weights_bytes == 320 << 10
    assert other.output_bytes - plain.output_bytes == 4 << 10
