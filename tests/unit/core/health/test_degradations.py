"""What engines say that they go on without, in the words of both, and what a profile makes of it."""

from __future__ import annotations

import pytest

from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.fleet.readiness import missing_device
from orchestrator.core.health.degradations import degradations_of, describe_degradations
from orchestrator.core.profile.settings import Value

NO_CUDA = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
IGNORED = "warning: no usable GPU found, --gpu-layers option will be ignored"
IGNORED_BY_FORK = "warning: not compiled with GPU offload support, --gpu-layers option will be ignored"
NO_FIT = "0.00.366.780 W common_fit_params: failed to fit params to free device memory: {}"
FLASH_OFF = "0.01.002.003 W sched_reserve: Flash Attention was auto, set to disabled"
FLASH_ON = "0.01.002.009 I sched_reserve: Flash Attention was auto, set to enabled"
VOCABS = "0.01.002.003 E common_speculative_impl_draft_simple: the target and draft vocabs are not compatible"
NO_SPECULATION = (
    "0.01.002.003 E srv    load_model: failed to initialize speculative decoding context: "
    "draft model vocab type must match target model to use speculation"
)
CAPPED = (
    "0.17.990.668 W srv    load_model: the slot context (896000) exceeds the training context of the model (262144)"
    " - capping"
)
DRAFT: dict[str, Value] = {"speculative.type": "draft"}
MTP: dict[str, Value] = {"speculative.type": "mtp"}


def activity(*lines: str) -> EngineActivity:
    return add_records(EngineActivity(), parse_log(lines))


def kinds(*lines: str, settings: dict[str, Value] | None = None) -> list[str]:
    return [each.kind for each in degradations_of(activity(*lines), settings)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (NO_CUDA, "no_device"),
        ("ggml_cuda_init: failed to initialize ROCm: no ROCm-capable device is detected", "no_device"),
        ("ggml_vulkan: No devices found.", "no_device"),
        (IGNORED, "layers_ignored"),
        (IGNORED_BY_FORK, "layers_ignored"),
        (NO_FIT.format("llama_params_fit is not implemented for SPLIT_MODE_ROW, abort"), "fit_given_up"),
        ("E common_fit_params: encountered an error while trying to fit params to free memory: x", "fit_given_up"),
        ("Note: auto-fit currently only works for MoE models", "fit_given_up"),
        (FLASH_OFF, "flash_attention_off"),
        ("llama_init_from_model: flash_attn is not compatible with Grok - forcing off", "flash_attention_off"),
        ("WARNING: -mtp flag provided, but model has 0 NextN layers. MTP will be disabled.", "mtp_off"),
        ("W llama_init_from_model: context type MTP requested but model doesn't contain MTP layers", "mtp_off"),
        ("0.01.002.003 E srv    load_model: failed to create MTP context", "mtp_off"),
        (VOCABS, "draft_vocab"),
        ("the target and draft vocabs are not compatible - tokens will be translated between the two", "draft_vocab"),
        (NO_SPECULATION, "speculation_off"),
        ("srv          init: speculative decoding not supported by this context", "speculation_off"),
        ("warning: failed to mlock 1080688640-byte buffer (after previously locking 0 bytes): x", "mlock_failed"),
        (CAPPED, "context_capped"),
        ("0.01.002.003 E srv    load_model: failed to load multimodal model, '/m.gguf'", "projector_refused"),
    ],
)  # fmt: skip
def test_each_wording_is_read(line: str, kind: str) -> None:
    found = degradations_of(activity(line), None)
    assert [each.kind for each in found] == [kind]
    assert found[0].evidence == line and found[0].hint
    assert line in describe_degradations(found)


@pytest.mark.parametrize(
    "line",
    [
        NO_FIT.format("n_gpu_layers already set by user to 999, abort"),
        "0.01.002.003 I srv  params_from_: Prompt: 'warning: no usable GPU found, --gpu-layers option will be ignored'",
        'text: "the target and draft vocabs are not compatible"',
        "0.00.1.1 I sched_reserve: Flash Attention was auto, set to enabled",
        "common_speculative_state_mtp: failed to create MTP context, falling back to shared context",  # it drafts
        "W llama_context: n_ctx_seq (4096) < n_ctx_train (262144) -- the full capacity will not be utilized",
    ],
)
def test_what_was_asked_for_or_is_a_clients_text_is_none(line: str) -> None:
    assert kinds(line) == []


def test_what_a_later_line_takes_back_does_not_hold() -> None:
    assert kinds(FLASH_OFF, FLASH_ON) == []
    assert kinds(FLASH_ON, FLASH_OFF) == ["flash_attention_off"]
    given_up = NO_FIT.format("cannot be made to fit")
    assert kinds(given_up, "I llama_params_fit: successfully fit params to free device memory") == []


def test_a_back_end_without_a_device_matters_only_where_no_other_has_one() -> None:
    assert kinds(NO_CUDA, "ggml_vulkan: Found 1 Vulkan devices:") == []
    assert kinds(NO_CUDA, IGNORED) == ["layers_ignored"]


@pytest.mark.parametrize(
    ("lines", "settings", "found"),
    [
        ((VOCABS, NO_SPECULATION), DRAFT, ["draft_vocab", "speculation_off"]),
        ((VOCABS, NO_SPECULATION), {}, []),
        ((IGNORED,), {"memory.gpu_layers": 0}, []),
        ((FLASH_OFF,), {"attention.flash": "off"}, []),
        (("warning: failed to mlock 10-byte buffer: x",), {}, []),
        (("warning: failed to mlock 10-byte buffer: x",), {"memory.mlock": True}, ["mlock_failed"]),
        (("WARNING: -mtp flag provided, but model has 0 NextN layers. MTP will be disabled.",), MTP, ["mtp_off"]),
    ],
)
def test_only_what_the_profile_asks_for_is_missed(
    lines: tuple[str, ...], settings: dict[str, Value], found: list[str]
) -> None:
    assert kinds(*lines, settings=settings) == found


@pytest.mark.parametrize(
    ("lines", "settings", "fits", "refused"),
    [
        ((NO_CUDA, IGNORED), {"memory.gpu_layers": "all"}, True, True),
        ((IGNORED_BY_FORK,), {"memory.gpu_layers": 20}, False, True),
        ((IGNORED,), {"memory.gpu_layers": "auto"}, False, False),
        ((NO_CUDA,), {}, True, True),  # the build has a back end for devices, and would fit
        ((NO_CUDA,), {}, False, False),
        ((NO_CUDA,), {"memory.fit": True}, False, True),
        ((NO_CUDA,), {"memory.fit": False}, True, False),
        ((NO_CUDA,), {"memory.gpu_layers": 0}, True, False),
        ((), {"memory.gpu_layers": "all"}, True, False),  # it says nothing against it
        ((NO_CUDA, IGNORED), {"memory.gpu_layers": "all", "memory.require_device": False}, True, False),
        ((NO_CUDA,), {"memory.fit": False, "memory.require_device": True}, True, True),
        ((NO_CUDA, "ggml_vulkan: Found 1 Vulkan devices:"), {"memory.gpu_layers": "all"}, True, False),
    ],
)
def test_without_a_device_it_serves_only_where_none_is_wanted(
    lines: tuple[str, ...], settings: dict[str, Value], fits: bool, refused: bool
) -> None:
    failure = missing_device(activity(*lines), settings, fits=fits, loaded=True)
    assert (failure is not None) == refused
    if failure is not None:
        assert (failure.failure_class, failure.action) == ("driver", "restart")
        assert failure.evidence in lines and "require_device" in (failure.hint or "")


def test_another_back_end_may_find_a_device_while_it_loads() -> None:
    settings: dict[str, Value] = {"memory.gpu_layers": "all"}
    assert missing_device(activity(NO_CUDA), settings, fits=True, loaded=False) is None
    assert missing_device(activity(NO_CUDA, IGNORED), settings, fits=True, loaded=False) is not None
