# ruff: noqa: E501
"""Both engines' wording of everything but failures, as rows: how a message begins, and the events that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.core.engine_log.events import (
    AttentionCacheTold,
    BackendSeen,
    BufferAllocated,
    BufferKind,
    ContextBegan,
    CurrentDevice,
    Degraded,
    DeviceFree,
    DeviceSeen,
    DeviceTotal,
    DraftsCounted,
    ExitReported,
    FitSawFree,
    FitTook,
    FitTried,
    ForkFitSum,
    LayerFitted,
    LayersOffloaded,
    LoadBegan,
    LogEvent,
    PlacedByHand,
    ProcessBegan,
    PromptBatchRead,
    PromptProgress,
    RequestAnswered,
    StackFrame,
    Stage,
    StageReached,
    StoppedCleanly,
)
from orchestrator.core.engine_log.signatures import Phase

Found = re.Match[str]


class _Row(NamedTuple):
    pattern: re.Pattern[str]
    events: tuple[LogEvent | Callable[[Found], LogEvent], ...]


def _row(pattern: str, *events: LogEvent | Callable[[Found], LogEvent]) -> _Row:
    return _Row(re.compile(pattern), events)


def _free(found: Found) -> LogEvent:
    return DeviceFree(found["device"], int(found["free"]), found["index"])


def _free_on_fork(found: Found) -> LogEvent:
    return DeviceFree(found["device"], int(found["free"]), None)


def _buffer(found: Found) -> LogEvent:
    return BufferAllocated(found["buffer"], _BUFFER_KINDS[found["kind"]], float(found["mib"]))


def _tried(found: Found) -> LogEvent:
    return FitTried(*(int(found[name]) for name in ("device", "layers", "partial", "part")))


def _total(found: Found) -> LogEvent:
    return DeviceTotal(found["index"], int(found["total"]))


_BUFFER_KINDS: dict[str | None, BufferKind] = {
    "model": "weights",
    None: "weights",
    "KV": "kv",
    "RS": "state",
    "output": "output",
    "compute": "compute",
}

_WEIGHTS, _KV_CACHE, _COMPUTE_BUFFERS, _LOADED, _LISTENING, _BUSY, _ANSWERED = map(StageReached, Stage)

_ROWS: tuple[_Row, ...] = (
    # Stages. Where a line matches several, the lowest counts.
    _row(r"fitting params to device memory", _WEIGHTS),
    _row(r"offloaded (?P<count>\d{1,5})/(?P<of>\d{1,5}) layers", _WEIGHTS,
         lambda found: LayersOffloaded(int(found["count"]), int(found["of"]))),
    _row(r"KV self size *= *(?P<mib>\d+\.\d+) MiB", _KV_CACHE, lambda found: AttentionCacheTold(float(found["mib"]))),
    _row(r"KV self size *=|size *=.*cells", _KV_CACHE),
    _row(r"graph (?:nodes|splits)", _COMPUTE_BUFFERS),
    _row(r"model loaded|new slot|initializing slots|loaded multimodal model|warming up the model", _LOADED),
    _row(r"server is listening|listening on http|HTTP server listening|all slots are idle", _LISTENING),
    _row(r"prompt processing progress|kv cache rm \[", _BUSY, PromptBatchRead()),
    _row(r"slot is processing task|processing task|kv cache rm|selected slot by L|updating prompt cache", _BUSY),
    _row(r"(?:prompt eval time|(?:generation )?eval time|total time) *=", _ANSWERED, RequestAnswered()),
    _row(r"done request: POST \S+ \S+ 200$", _ANSWERED, RequestAnswered()),
    _row(r"request: POST \S+ \S+ 200$|slot released|release: .*stop processing", _ANSWERED),
    # Requests. Upstream prints a prompt's progress every few seconds, the fork never.
    _row(r"slot +\w+: id +\d+ \| task (?P<task>\d+) \| prompt processing[^=]*, n_tokens = .* progress = (?P<share>[01]\.\d+)",
         lambda found: PromptProgress(int(found["task"]), float(found["share"]))),
    _row(r"prompt processing", PromptBatchRead()),
    _row(r"draft acceptance(?: rate)? = *[\d.]+ *\( *(?P<accepted>\d+) accepted / *(?P<generated>\d+) generated\)",
         lambda found: DraftsCounted(int(found["generated"]), int(found["accepted"]))),
    # Starts.
    _row(r"build: \d+ \(|build = \d+ \(|build info\b|build_info: |common_params_print_info: |log_info: verbosity|Started \S+\.service\b",
         ProcessBegan()),
    _row(r"n_ctx(?:_seq|_per_seq)? *=|constructing llama_context|n_seq_max *=", ContextBegan()),
    _row(r"projected to use \d+ MiB of device memory vs\. (?P<free>\d+) MiB of free device memory", LoadBegan(),
         lambda found: FitSawFree(int(found["free"]))),
    _row(r"loading model|loaded meta data|load the model|print_info: |llm_load_print_meta|projected to use|- type +\S+:|offloading \d+|control-looking token",
         LoadBegan()),
    _row(r"failed to fit params to free device memory: .*already set by user", PlacedByHand()),
    _row(r"cleaning up before exit", StoppedCleanly()),
    # Where a fit puts the layers: upstream's `common/fit.cpp`, then the fork's `src/llama.cpp`.
    _row(r"id=(?P<device>\d{1,3}), n_layer= *(?P<layers>\d{1,5}), n_part= *(?P<partial>\d{1,5}), overflow_type=(?P<part>\d), mem=", _tried),
    _row(r"set ngl_per_device\[", FitTook()),
    _row(r"Setting layer (?P<layer>\d{1,5}) to device \d", lambda found: LayerFitted(int(found["layer"]))),
    _row(r"Memory required for model tensors \+ cache: (?P<mib>\d{1,9}) MiB", lambda found: ForkFitSum("needed", int(found["mib"]))),
    _row(r"Memory available on all devices - compute: (?P<mib>\d{1,9}) MiB", lambda found: ForkFitSum("free", int(found["mib"]))),
    # Devices.
    _row(r"using device (?P<device>[A-Za-z]+(?P<index>\d+)).* - +(?P<free>\d+) MiB free", DeviceSeen(), _free),
    _row(r"Device (?P<index>\d+): .*VRAM: (?P<total>\d+) MiB", DeviceSeen(), _total),
    _row(r"ggml_cuda_init: found [1-9]|found \d+ (?:CUDA|ROCm|MUSA) devices|ggml_vulkan: (?:Found [1-9]|0 = )|ggml_metal_init: found device|using device |found device: |Device \d+: \S",
         DeviceSeen()),
    _row(r"current device: (?P<index>\d+), in function", lambda found: CurrentDevice(found["index"])),
    # What it goes on without.
    _row(r"(?:ggml_cuda_init: )?failed to initialize (?:CUDA|ROCm|MUSA|HIP): |(?:warning: )?no (?:CUDA|ROCm|MUSA) devices found|ggml_vulkan: No devices found|ggml_vulkan: Error: No (?:devices|suitable)|ggml_opencl: (?:platform IDs not available|could find any OpenCL devices|no (?:platform|device) matching)|ggml_sycl_init: (?:no|found 0) |(?:ggml_cuda_init: )?found 0 (?:CUDA|ROCm|MUSA) devices",
         Degraded("no_device")),
    _row(r"(?:warning: )?(?:no usable GPU found|not compiled with (?:GPU offload|GPU) support), --(?:n-)?gpu-layers(?:-draft)? option will be ignored|(?:warning: )?no GPU found, ",
         Degraded("layers_ignored")),
    _row(r"failed to fit params to free device memory|encountered an error while trying to fit params|Note: auto-fit currently only works for MoE models",
         Degraded("fit_given_up")),
    _row(r"successfully fit params to free device memory", Degraded("fit_given_up", mended=True)),
    _row(r"Flash Attention was auto, set to disabled|flash_attn (?:is not compatible with|requires|is not supported)\b.*forcing off", Degraded("flash_attention_off")),
    _row(r"Flash Attention was auto, set to enabled", Degraded("flash_attention_off", mended=True)),
    _row(r"(?:WARNING: )?-mtp flag provided, but model has 0 NextN layers|context type MTP requested but model doesn't contain MTP|failed to create MTP (?:draft )?context(?!, falling back)|MTP is not supported with parallel slots yet, removing the MTP stage|(?:MTP|mtp) .*\b(?:will be|is) disabled\b",
         Degraded("mtp_off")),
    _row(r"the target and draft vocabs are not compatible|(?:draft model|DFlash draft model|MTP target and companion) vocab\S*(?:/tokenizer)? (?:type must match|is incompatible|are incompatible)|draft model special tokens must match",
         Degraded("draft_vocab")),
    _row(r"failed to initialize (?:the |\S+ )?speculative (?:decoding )?(?:context|state)|speculative decoding (?:is )?not supported (?:by|with)|speculative decoding is not supported by multimodal|common_speculative_init: .*\bfailed|failed to create draft context",
         Degraded("speculation_off")),
    _row(r"(?:warning: )?failed to m?lock \d+-byte buffer|(?:warning: )?failed to mlock\b", Degraded("mlock_failed")),
    _row(r"the slot context \(\d+\) exceeds the training context", Degraded("context_capped")),
    _row(r"failed to load (?:multimodal|CLIP|clip) model|failed to load (?:mmproj|multimodal projector)|(?:mmproj|multimodal) .*\bis not supported\b", Degraded("projector_refused")),
)  # fmt: skip

_GUARDED_ROWS: dict[str, tuple[_Row, ...]] = {
    "buffer size": (
        _row(r".*\bmodel buffer size *=|\S+ +buffer size *=", _WEIGHTS),
        _row(r"\S+ +(?:KV|RS) buffer size *=", _KV_CACHE),
        _row(r"\S+ +compute buffer size *=", _COMPUTE_BUFFERS),
        # With the function's name: a projector's buffers are none of a context's.
        _row(r"(?!alloc_compute_meta|clip)\w+(?:\(\))?: +(?P<buffer>\S+) +(?:(?P<kind>model|KV|RS|output|compute) )? *buffer size *= *(?P<mib>\d+\.\d+) MiB", _buffer),
    ),
    "pipeline parallelism": (_row(r".*retrying without pipeline parallelism", _COMPUTE_BUFFERS),),
    ": using device ": (
        _row(r"[A-Za-z]+\d+(?:\[\S*\])?: using device (?P<device>[A-Za-z]+\d+).* - +(?P<free>\d+) MiB free", _free_on_fork),
    ),
    "ggml_metal": (_row(r"ggml_metal", BackendSeen("metal")),),
    "Metal": (_row(r"Metal +(?:KV|compute|model)? ?buffer", BackendSeen("metal")),),
    "MTL": (_row(r"\S*MTL\d", BackendSeen("metal")),),
    "ROCm": (_row(r".*\bfound \d+ ROCm devices|.*\bROCm\d|ROCm error", BackendSeen("rocm")),),
}  # fmt: skip
"""Rows that do not begin with words of their own, by a word that the line must have: they take more time."""

_NAME = re.compile(r"\(\?P<(\w+)>")
_ANY = re.compile("|".join(f"(?P<r{n}>{_NAME.sub('(?:', row.pattern.pattern)})" for n, row in enumerate(_ROWS)))
"""All rows at once: the name of the group that matched is the row's. Most messages match none, and one try is cheap."""

_FRAME = re.compile(r"#\d+ |0x[0-9a-f]+ in |\S+\([\w.@]*\+?(?:0x[0-9a-f]+)?\) ?\[0x|\d+ +\S+ +0x[0-9a-f]{8,} ")
"""A frame of a stack trace: glibc's, gdb's and macOS'. Its functions tell what the engine was doing."""

_FRAME_PHASES: tuple[tuple[re.Pattern[str], Phase], ...] = (
    (re.compile(r"\b(?:\w*\d)?(?:llama_decode|llama_encode)\b"), "runtime"),
    (re.compile(r"graph_reserve|llama_init_from_model|llama_new_context_with_model|llama_contextC[12]E"), "compute"),
    (re.compile(r"llama_model_load|llama_load_model|load_tensors"), "load"),
)

_ROUTER_WORDS = " exited with status "
_ROUTER_EXIT = re.compile(r"instance name=\S+ exited with status (?P<code>-\d+|1[3-5]\d|3221\d{6})\b")
"""Printed by upstream's router, as information, of a child that crashed; a child that it ended itself exits with 1."""

_EXIT_CODE = re.compile(
    r"[^\"{}]*\b(?:[Ee]xit(?:ed)?(?: with)?(?: (?:exit )?(?:code|status))?|no longer running|terminated):? \(?(?P<code>0x[0-9a-fA-F]+|-?\d+)\b"
)
_EXIT_SIGNALS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r".*\b(?:[Ss]egmentation fault|SIGSEGV|status=11/SEGV)"), 11),
    (re.compile(r"(?:.*[\d:] +)?(?:[Aa]borted|abort)\b|.*(?:SIGABRT|signal: abort|status=6/ABRT)"), 6),
    (re.compile(r".*(?:[Ii]llegal instruction|SIGILL)"), 4),
    (re.compile(r"(?:.*[\d:] +)?(?:Killed|killed)(?:: 9)?(?:$| +)|.*(?:SIGKILL|signal: killed|status=9/KILL)"), 9),
    (re.compile(r".*(?:[Bb]us error|SIGBUS)"), 7),
)
"""Printed by a shell, a debugger or systemd of a signal, for logs that come without an exit status."""


def find_events(texts: Sequence[str]) -> Iterator[LogEvent]:
    """Yield the events of one line, but those of failures.

    :param texts: the line, then with one prefix more removed each
    """
    line = texts[0]
    found = [
        (_ROWS[int(match.lastgroup[1:])], text) for text in texts if (match := _ANY.match(text)) and match.lastgroup
    ]
    for word, rows in _GUARDED_ROWS.items():
        if word in line:
            found += [(row, text) for row in rows for text in texts if row.pattern.match(text)]

    if found:
        yield from _events_of(found)

    if ("0x" in line or line.startswith("#")) and any(map(_FRAME.match, texts)):
        yield StackFrame(next((phase for pattern, phase in _FRAME_PHASES if any(map(pattern.search, texts))), None))


def find_relayed_exit(texts: Sequence[str]) -> Iterator[ExitReported]:
    """Yield the exit of a child that upstream's router reports, at a level of its own."""
    if _ROUTER_WORDS in texts[0]:
        found = next(filter(None, map(_ROUTER_EXIT.match, texts)), None)
        if found is not None:
            yield ExitReported(code=int(found["code"]))


def find_exit(texts: Iterable[str]) -> Iterator[ExitReported]:
    """Yield the exit that a line without a level, which has a word of failures, reports."""
    for text in texts:
        signal = next((number for pattern, number in _EXIT_SIGNALS if pattern.match(text)), None)
        if signal is not None:
            yield ExitReported(signal=signal)

        if exit := _EXIT_CODE.match(text):
            yield ExitReported(code=int(exit["code"], 16 if exit["code"].startswith("0x") else 10))


def _events_of(found: Sequence[tuple[_Row, str]]) -> Iterator[LogEvent]:
    stages = [event for row, _ in found for event in row.events if isinstance(event, StageReached)]
    if stages:
        yield min(stages, key=lambda event: event.stage)

    for row, text in found:
        match = row.pattern.match(text)
        for event in row.events:
            if callable(event):
                if match is not None:
                    yield event(match)
            elif not isinstance(event, StageReached):
                yield event
