# ruff: noqa: E501
"""What a person can do, by the cause that a line names: the hint of the class alone sends people the wrong way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.dialect.tensor_types import may_load, type_advice
from orchestrator.core.engine_log.signatures import FailureClass

_OTHER_ENGINE: dict[Kind, str] = {
    "upstream": "the other engine may load it: `orch up NAME --engine ik-fork`; or a newer build: `orch engines update`",
    "ik": "the other engine may load it: `orch up NAME --engine upstream`; or a newer build: `orch engines update`",
    "unknown": "the other engine may load it: `orch up NAME --engine ID`; or a newer build: `orch engines update`",
}

_DOWNLOAD = (
    "the file is cut short or damaged: download it again (`orch profile check NAME` compares it with its header)"
)

_READ_ERRORS: tuple[tuple[str, str], ...] = (
    ("bad address", "the file is whole: the way it is read fails on this machine; set `memory.mmap = true`"),
    ("invalid argument", "the file is whole: this file system refuses how it is read; set `memory.direct_io = false`"),
    ("input/output error", "the disk or the network under the file failed: look at `dmesg`; copy the file elsewhere"),
    ("stale file handle", "the network file system lost the file: mount it again, or copy the file to a local disk"),
    ("transport endpoint", "the network file system is gone: mount it again, or copy the file to a local disk"),
    (
        "cannot allocate memory",
        "host memory ran out while the file was read: close other programs, or set `memory.mmap`",
    ),
    ("permission denied", "the file may not be read by the user that runs orch: change its permissions"),
    ("no such device", "the disk under the file is gone: mount it again"),
    ("connection timed out", "the network under the file is too slow or gone: copy the file to a local disk"),
    ("interrupted", "reading the file was interrupted: start it again"),
)
"""`read error: <strerror>`: what the system said of the way to the file, not of what is in it."""

_READ_ERROR = "the file may be whole: the system could not read it; look at `dmesg`, or copy the file to another disk"


class _Cause(NamedTuple):
    failure_class: FailureClass
    pattern: re.Pattern[str]
    hint: str | Callable[[re.Match[str], Kind], str]


def _cause(failure_class: FailureClass, pattern: str, hint: str | Callable[[re.Match[str], Kind], str]) -> _Cause:
    return _Cause(failure_class, re.compile(pattern, re.IGNORECASE), hint)


def _of_type(found: re.Match[str], kind: Kind) -> str:
    number = int(found["type"])
    if kind == "unknown" and not (may_load("upstream", number) and may_load("ik", number)):
        kind = "upstream"

    if may_load(kind, number):
        return f"this build is older than type {number}: {_OTHER_ENGINE[kind].rpartition('; or ')[2]}"

    return type_advice(number, kind)


def _of_read_error(found: re.Match[str], kind: Kind) -> str:
    reason = found["reason"].lower()
    return next((hint for word, hint in _READ_ERRORS if word in reason), _READ_ERROR)


def _of_other_engine(found: re.Match[str], kind: Kind) -> str:
    return _OTHER_ENGINE[kind]


_CAUSES: tuple[_Cause, ...] = (
    _cause("bad_model", r"invalid ggml type (?P<type>\d+)", _of_type),
    _cause("bad_model", r"(?:unrecognized|unknown|unsupported) (?:ggml |tensor )?type:? (?P<type>\d+)", _of_type),
    _cause("bad_model", r"tensor '[^']*' has offset \d+, expected \d+",
           "the file was written with blocks of another size: it is whole, and of some other fork's quantisation; take "
           "another quantisation of the model"),
    _cause("bad_model", r"unexpectedly reached end of file|data is not within the file|corrupted or incomplete|bad tensors",
           _DOWNLOAD),
    _cause("bad_model", r"read error: (?P<reason>.+)", _of_read_error),
    _cause("bad_model", r"\b(?:p?read|fread|pread64) (?:failed|error)[^:]*: (?P<reason>.+)", _of_read_error),
    _cause("bad_model", r"invalid magic characters?:? +'?(?:vers|<htm|<!do|<!DO|\{)",
           "it is a text file, such as a pointer of git-lfs or a web page: download the model itself"),
    _cause("bad_model", r"invalid magic|bad magic", "it is no GGUF file: take the model's `.gguf`, or look at what the file is"),
    _cause("bad_model", r"GGUF file is version|bad GGUF version|GGUFv1|big.?endian",
           "the file's format is too old or too new for this build: convert it anew, or `orch engines update`"),
    _cause("bad_model", r"unknown projector type|projector type .* (?:not supported|unknown)",
           "the projector is newer than this build: `orch engines update`, or leave out `multimodal.mmproj`"),
    _cause("bad_model", r"mismatch between text model|n_embd.*mmproj|mmproj.*n_embd|wrong mmproj|embeddings? .*projector",
           "the projector is of another model: use the one that was published with this model"),
    _cause("bad_model", r"failed to load (?:multimodal|clip|CLIP)|clip_init|clip_model_loader",
           "the projector does not fit: use the one that was published with this model, or leave out `multimodal.mmproj`"),
    _cause("bad_model", r"vocabs? (?:are|is) not compatible|vocab.* (?:mismatch|must match)|draft .*vocab",
           "the draft model has another vocabulary: take a small model of the same family"),
    _cause("bad_model", r"failed to load draft model", "check `speculative.draft_model`: `orch profile check NAME`"),
    _cause("bad_model", r"lora.*(?:arch\w* mismatch|does not exist in base|incorrect shape|not found in base)|LoRA arch",
           "the adapter is of another model: use one that was trained on this model"),
    _cause("bad_model", r"invalid split|illegal split|split (?:count|file)|failed to load GGUF split",
           "the splits do not belong together: all of one download into one folder, under their own names"),
    _cause("bad_model", r"tensor '[^']*' not found|missing tensor|wrong number of tensors|has wrong shape|wrong shape|"
           r"unknown (?:model architecture|pre-tokenizer)|check_tensor_dims|key not found in model|unknown tokenizer",
           _of_other_engine),
    _cause("bad_model", r"MTP|nextn", "take a file that keeps the MTP layers, or set `speculative.type = \"none\"`"),
    _cause("engine_bug", r"an unsupported value or parameter was passed|CUBLAS_STATUS_INVALID_VALUE",
           "set a larger `memory.fit_margin`: the library had too little memory left to work in"),
    _cause("engine_bug", r"not (?:supported|implemented)|unsupported op|unimplemented",
           "the other engine, or a newer build, may know it: `orch switch ID`, `orch engines update ID`"),
    _cause("driver", r"device ?lost|gpu reset|context is lost",
           "the driver gave up on the device: a smaller `batch.ubatch` makes steps shorter; look at `dmesg`"),
)  # fmt: skip

_SETTINGS_OF_REMOVED: dict[str, str] = {
    "--no-mmap": "memory.mmap = false", "--mmap": "memory.mmap = true", "-dio": "memory.direct_io = true",
    "--direct-io": "memory.direct_io = true", "-ndio": "memory.direct_io = false", "--mlock": "memory.mlock = true",
    "--no-direct-io": "memory.direct_io = false", "-mtp": 'speculative.type = "mtp"', "-md": "speculative.draft_model",
    "--model-draft": "speculative.draft_model", "--draft": "speculative.draft_max", "--draft-max": "speculative.draft_max",
    "--draft-min": "speculative.draft_min", "--draft-p-min": "speculative.draft_p_min", "-fa": "attention.flash",
    "--flash-attn": "attention.flash",
}  # fmt: skip
"""Flags that an engine took once, or takes under another name, to the setting that every build is told by."""

_REFUSED_FLAG = re.compile(r"(?:invalid|unknown|unrecognized) (?:argument|option):? +['\"`]?(?P<flag>--?[\w-]+)")
_REMOVED_FLAG = re.compile(r"(?P<flag>-[\w-]+)\b.*(?:has been removed|is no longer supported)")


def hint_for(failure_class: FailureClass, evidence: str, kind: Kind) -> str | None:
    """Return what to do about the cause that a line names; None where the class's own hint is all that is known.

    :param kind: of the engine that printed it, as far as its log tells
    """
    if failure_class == "bad_flag":
        return _flag_hint(evidence)

    for cause in _CAUSES:
        found = cause.pattern.search(evidence) if cause.failure_class == failure_class else None
        if found is not None:
            return cause.hint if isinstance(cause.hint, str) else cause.hint(found, kind)

    return None


def _flag_hint(evidence: str) -> str | None:
    found = _REFUSED_FLAG.search(evidence) or _REMOVED_FLAG.search(evidence)
    if found is None:
        return None

    setting = _SETTINGS_OF_REMOVED.get(found["flag"])
    if setting is None:
        return (
            f"this build does not know `{found['flag']}`: take it out of `extra_args`, or see `orch engines probe ID`"
        )

    return f"this build does not know `{found['flag']}`: take it out of `extra_args` and set `{setting}`"


_FORK_LINES = re.compile(
    r" \| tid=|llm_load_|llama_init_from_gpt_params|llama_model_load_from_file: |check_tensor_dims:|/ik"
)
_UPSTREAM_LINES = re.compile(
    r"\b\d+\.\d\d\.\d{3}\.\d{3} [IWETD] |\bsrv +\w+|load_tensors: |print_info: |common_init_from_params|llama_model_load_from_file_impl"
)


def kind_of(lines: Sequence[str]) -> Kind:
    """Return which engine printed these lines, as far as its own wording tells."""
    fork = any(map(_FORK_LINES.search, lines))
    upstream = any(map(_UPSTREAM_LINES.search, lines))
    if fork == upstream:
        return "unknown"

    return "ik" if fork else "upstream"
