"""The text about a failure: one sentence each on what happened, what orch does, and what a person can do."""

from __future__ import annotations

from orchestrator.core.engine_log.signatures import Action, FailureClass, Phase

_WHERE: dict[Phase, str] = {
    "load": "while loading the weights",
    "kv": "while allocating the KV cache",
    "compute": "while reserving compute buffers",
    "runtime": "while computing",
    "none": "",
}

_MESSAGES: dict[FailureClass, str] = {
    "ok": "nothing in this log ended the engine",
    "device_oom": "the device ran out of memory",
    "host_oom": "the machine ran out of memory",
    "bad_flag": "the engine refused its command line",
    "bad_model": "the engine cannot use this model file",
    "missing_file": "a file that the engine needs cannot be opened",
    "port_in_use": "the engine could not listen on its address",
    "missing_library": "the engine cannot start: a shared library is missing or does not fit",
    "driver": "the device cannot be used with this driver or build",
    "illegal_instruction": "the build uses instructions that this processor does not have",
    "engine_bug": "the engine crashed",
    "killed": "the engine was killed from outside",
}

_HINTS: dict[FailureClass, str] = {
    "device_oom": "use a smaller `context.size` or `batch.ubatch`, or a larger `memory.fit_margin`",
    "host_oom": "close other programs, leave `memory.mmap` on, or use a smaller model",
    "bad_flag": "run `orch profile check NAME`, and `orch engines probe ID` for what this build accepts",
    "bad_model": "`orch profile check NAME` reads its header; the other engine or a newer build may load it",
    "missing_file": "check the profile's paths: `orch profile check NAME`",
    "port_in_use": "see who listens there (`ss -ltnp`), or let orch choose the engine's port",
    "missing_library": "run `ldd` on the engine, then install what is missing or rebuild: `orch engines build ID`",
    "driver": "check the driver (`nvidia-smi`, `rocminfo`, `vulkaninfo`), or rebuild: `orch engines build ID`",
    "illegal_instruction": "rebuild on this machine: `orch engines build ID`",
    "engine_bug": "try another build: `orch engines update ID`, or `orch switch` to the other engine",
    "killed": "look for the kernel's reason: `journalctl -k | grep -i oom`",
}

_OTHER_MEMORY = (
    "a larger margin cannot help here: free the memory that others use (`orch vram` shows it), or set a smaller "
    "`context.size`, `memory.n_cpu_moe`, a smaller `kv.k` and `kv.v`, or `memory.fit = true` without manual placement"
)


SILENT_LOAD_HINT = (
    "a load that is slow and right (kernels compiled, a slow disk) needs a larger `daemon.load_stall_s` in orch.toml"
)


def describe(
    failure_class: FailureClass,
    phase: Phase,
    action: Action,
    *,
    device: str | None,
    requested_mib: float | None,
    ended: str | None,
) -> tuple[str, str | None]:
    """The message and the hint.

    :param ended: how the process ended, where that was a failure (`signal 9`)
    """
    message = _MESSAGES[failure_class]
    if failure_class == "device_oom" and device:
        message = message.replace("the device", device)

    if failure_class == "driver" and action == "continue":
        message = "no device can be used: the engine goes on, on the processor"

    unreachable = failure_class == "driver" and phase == "load" and action == "restart"
    if unreachable:
        message = "a remote device cannot be reached"

    silent = failure_class == "engine_bug" and phase == "load" and action == "restart"
    if silent:
        message = "the engine was not ready in time: it said nothing"

    if _WHERE[phase] and failure_class in ("device_oom", "host_oom", "engine_bug", "killed"):
        message += f" {_WHERE[phase]}"

    if requested_mib:
        message += f", asking for {requested_mib:.0f} MiB"

    if ended is not None and failure_class in ("engine_bug", "killed", "illegal_instruction", "missing_library"):
        message += f" ({ended})"

    hint = _HINTS.get(failure_class)
    if failure_class == "device_oom" and action == "retry_other":
        hint = _OTHER_MEMORY
    elif failure_class == "bad_model" and phase == "runtime":
        hint = "the file was cut short, or its disk failed, under the running server: `orch profile check NAME`"
    elif unreachable:
        hint = "see whether the ggml-rpc-server of `memory.rpc` runs"
    elif silent:
        hint = SILENT_LOAD_HINT

    return message, hint
