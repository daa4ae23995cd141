"""An engine sees what it needs of our environment, and nothing that changes what it was told."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.environment import child_environment

STATE = "/srv/orch/state"


def environment(**parent: str) -> dict[str, str]:
    return child_environment(parent, state_dir=STATE, extra={})


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_ARG_HOST",
        "LLAMA_ARG_PORT",
        "LLAMA_API_KEY",
        "LLAMA_GRAPH_REUSE_DISABLE",
        "HF_TOKEN",
        "HF_HOME",
        "GGML_CUDA_FORCE_MMQ",
        "GGML_BACKEND_PATH",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "NVIDIA_API_KEY",
        "MTMD_BACKEND_DEVICE",
        "LD_PRELOAD",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_PID",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "ORCH_API_KEY",
        "http_proxy",
        "cuda_visible_devices",
        "BASH_ENV",
        "GLIBC_TUNABLES",
        "MALLOC_TRACE",
    ],
)
def test_a_variable_that_steers_the_engine_or_is_a_secret_is_left_out(name: str) -> None:
    assert name not in environment(**{name: "0.0.0.0"})


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "HSA_OVERRIDE_GFX_VERSION",
        "ONEAPI_DEVICE_SELECTOR",
        "GGML_VK_VISIBLE_DEVICES",
        "VK_ICD_FILENAMES",
        "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
    ],
)
def test_what_the_hardware_needs_is_kept(name: str) -> None:
    assert environment(**{name: "value"})[name] == "value"


def test_an_empty_parent_still_gives_a_usable_environment() -> None:
    assert environment() == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "GGML_NO_BACKTRACE": "1",
        "XDG_CONFIG_HOME": "/srv/orch/state/no-config",
    }


def test_the_users_device_order_is_kept() -> None:
    assert environment(CUDA_DEVICE_ORDER="FASTEST_FIRST")["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_the_parent_cannot_choose_where_the_engine_looks_for_its_configuration() -> None:
    assert environment(XDG_CONFIG_HOME="/home/mallory/.config")["XDG_CONFIG_HOME"] == f"{STATE}/no-config"


def test_the_parent_cannot_bring_the_debugger_back() -> None:
    assert environment(GGML_NO_BACKTRACE="0")["GGML_NO_BACKTRACE"] == "1"


def test_what_the_user_sets_for_the_engine_is_passed_and_wins() -> None:
    chosen = child_environment(
        {"CUDA_VISIBLE_DEVICES": "0"}, state_dir=STATE, extra={"CUDA_VISIBLE_DEVICES": "1", "GGML_CUDA_FORCE_MMQ": "1"}
    )
    assert (chosen["CUDA_VISIBLE_DEVICES"], chosen["GGML_CUDA_FORCE_MMQ"]) == ("1", "1")


def test_the_parent_is_not_changed() -> None:
    parent = {"LLAMA_ARG_PORT": "1", "HOME": "/root"}
    child_environment(parent, state_dir=STATE, extra={})
    assert parent == {"LLAMA_ARG_PORT": "1", "HOME": "/root"}
