# ruff: noqa: E501
"""Both engines' failure texts as rows: how a line begins, and what it says.

Patterns match at the start of a message (see `lines.py`), never inside one; `…` stands for anything but quotes and
braces, between which clients' text is found. Sources of the texts: ggml's back ends,
libllama, both servers, the dynamic loaders, the kernel, shells and systemd; upstream b617x to b11434, the fork b3668 to
b4840. Where both engines or several back ends share a text, there is one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

FailureClass = Literal[
    "ok", "device_oom", "host_oom", "bad_flag", "bad_model", "missing_file", "port_in_use", "missing_library",
    "driver", "illegal_instruction", "engine_bug", "killed",
]  # fmt: skip
Phase = Literal["load", "kv", "compute", "runtime", "none"]
Action = Literal["retry_margin", "retry_other", "give_up", "restart", "continue"]

Strength = Literal["fatal", "cause", "serving", "weak", "notice"]
"""The proof that a line gives.

fatal: the process ends over it; cause: an attempt failed, decisive unless a later line shows that it recovered;
serving: a request failed and the process lives; weak: something failed, the reason is elsewhere; notice: nothing ends.
"""

Backend = Literal["any", "cuda", "vulkan", "metal", "sycl", "opencl", "rpc", "cpu", "shell", "loader", "kernel"]
"""The part that prints the text; CUDA's covers ROCm and MUSA, which are built from the same source."""


class Signature(NamedTuple):
    """One way for a line to begin.

    :param phase: None where the text is the same in every phase
    :param action: None where class and phase decide (`core/failure/reactions.py`)
    :param inner: the words that prove it may stand behind others; they are among `INNER_WORDS`
    """

    pattern: re.Pattern[str]
    backend: Backend
    failure_class: FailureClass
    phase: Phase | None
    action: Action | None
    strength: Strength
    inner: bool = False


def _row(
    pattern: str,
    backend: Backend,
    failure_class: FailureClass,
    phase: Phase | None,
    action: Action | None,
    strength: Strength,
) -> Signature:
    return Signature(re.compile(pattern.replace("…", '[^"{}]*')), backend, failure_class, phase, action, strength)


def _inner_row(
    pattern: str,
    backend: Backend,
    failure_class: FailureClass,
    phase: Phase | None,
    action: Action | None,
    strength: Strength,
) -> Signature:
    return _row(pattern, backend, failure_class, phase, action, strength)._replace(inner=True)


_GPU = r"(?:CUDA|ROCm|MUSA|HIP|[Hh]ip|hipBLAS\w*|rocBLAS|rocblas|cuBLAS|MIOpen)"
_GPU_ERROR = _GPU + r" error(?: \d+ at …)?: '?"
_HOST_BUFFER = r"(?:CPU(?:_\w+)?|(?:CUDA|ROCm|MUSA|Vulkan|SYCL|CANN)_Host)"
_MIB = r"(?P<mib>\d+(?:\.\d+)?) Mi?B"
_SOURCE = r"(?:[A-Za-z]:)?[^:\"'|{}]*\.(?:c|cc|cpp|cu|cuh|m|mm|h|hpp|metal)(?::\d+|\(\d+\)): "

SIGNATURES: tuple[Signature, ...] = (
    # Flags and values.
    _row(r"error: (?:invalid|unknown) argument: ", "any", "bad_flag", "none", None, "fatal"),
    _row(r"error: invalid (?:parameter|value) (?:for|of) ", "any", "bad_flag", "none", None, "fatal"),
    _row(r"error while handling (?:argument|environment variable|config) ", "any", "bad_flag", "none", None, "fatal"),
    _row(r"error: (?:unknown value for |unknown option|unrecognized (?:argument|option)|[Ii]nvalid (?:value|offload|tensor buffer|type for|GPU split))", "any", "bad_flag", "none", None, "fatal"),
    _row(r"error: (?:the supplied chat template is not supported|expected value for argument|missing (?:value|argument))", "any", "bad_flag", "none", None, "fatal"),
    _row(r"error: (?:the argument has been removed|-\S+ …(?:cannot be|not allowed|requires|must be|is required))", "any", "bad_flag", "none", None, "fatal"),
    _row(r"legacy speculative option '", "any", "bad_flag", "none", None, "fatal"),
    _row(r"(?:\S*llama-\S+|main): (?:unrecognized|invalid|unknown) (?:option|argument)", "any", "bad_flag", "none", None, "fatal"),
    _row(r"what\(\): +(?:stoi|stof|stoul|stoll|Unsupported cache type|[Ii]nvalid cache type|unknown speculative type|invalid device)", "any", "bad_flag", "none", None, "fatal"),
    _row(r"(?:stoi|stof|stoul|stoll)$", "any", "bad_flag", "none", None, "fatal"),
    _row(r"(?:what\(\): +)?(?:Unsupported cache type: |unknown speculative type: |invalid device: |error: Unsupported cache type)", "any", "bad_flag", "none", None, "fatal"),
    _row(r"(?:failed to initialize the context: )?(?:quantized V cache (?:was requested|requires)|V cache quantization requires flash_attn)", "any", "bad_flag", "load", None, "fatal"),
    _row(r"(?:--[a-z][\w-]+ (?:is|are) (?:not supported|incompatible|only supported)|SPLIT_MODE_\w+ (?:requires|needs|not)|LLAMA_SPLIT_MODE_\w+ (?:requires|needs|not))", "any", "bad_flag", "load", None, "fatal"),
    _row(r"=+ K cache \S+ coupled with V cache \S+ is not a supported combination on the CPU backend", "any", "bad_flag", "runtime", None, "fatal"),
    _row(r"(?:invalid value for main_gpu: |n_batch and n_ubatch cannot both be zero|n_ctx and model->hparams\.n_ctx_train cannot both be zero)", "any", "bad_flag", "load", None, "fatal"),
    _row(r"Speculative decoding is currently limited to a single server slot", "any", "bad_flag", "load", None, "fatal"),
    _row(r"(?:[Ee]rror: )?MTP speculative stage requested, but the server", "any", "bad_flag", "load", None, "cause"),
    _row(r"error loading model: (?:…cannot be used with --?\w|It is not possible to use split mode|MTP companion GGUF cannot be used as|(?:LLAMA_)?SPLIT_MODE_\w+ (?:requires|needs|not)|device \S+ does not support split)", "any", "bad_flag", "load", None, "fatal"),
    _row(r"(?:the server is built without SSL support|--port 0 is not supported|static assets path not found)", "any", "bad_flag", "none", None, "fatal"),
    _row(r"(?:malformed KV override|invalid (?:boolean value|type) for KV override|Invalid buft override argument|(?:-\S+, )?--\S+ is no longer supported)", "any", "bad_flag", "none", None, "fatal"),
    _row(r"llama\.cpp built without libcurl, downloading from ", "any", "bad_flag", "none", None, "fatal"),
    _row(r"failed to initialize speculative decoding context: …please (?:set|use) -", "any", "bad_flag", "load", None, "fatal"),
    _row(_SOURCE + r"Failed to parse endpoint: ", "rpc", "bad_flag", "load", None, "fatal"),
    _row(r"(?:failed to initialize HTTP server|tools setup failed: |MCP starting failed: )", "any", "bad_flag", "none", None, "weak"),
    # Files. The loader's own line after it is weak: the reason stands here.
    _row(r"(?:error(?: loading model)?: )?failed to open (?:GGUF file )?['\"]?…(?:No such file|Permission denied|Is a directory|cannot find the (?:file|path))", "any", "missing_file", "load", None, "fatal"),
    _row(r"(?:error(?: loading model)?: )?failed to open …\.gguf\b", "any", "missing_file", "load", None, "fatal"),
    _row(r"(?:error loading model: )?(?:llama_model_loader: )?failed to load GGUF split from ", "any", "missing_file", "load", None, "cause"),
    _row(r"error loading model: llama_model_loader: failed to load model from ", "any", "missing_file", "load", None, "weak"),
    _row(r"(?:error: )?(?:file not found|file does not exist|failed to open file|preset file does not exist|could not open file|Model path does not exist|model file … (?:not found|does not exist))", "any", "missing_file", "load", None, "cause"),
    _row(r"(?:failed to load model '…': )?(?:clip_model_loader: )?failed to load CLIP model from …Does this file exist", "any", "missing_file", "load", None, "cause"),
    _row(r"(?:failed to download model: |download failed after \d+ attempts|(?:error: )?error from HF API|curl_easy_perform\(\) failed|(?:HEAD )?invalid http status code received)", "any", "missing_file", "load", None, "cause"),
    _row(r"(?:required file is not available in cache|file '…' not found in repository|no GGUF files found in repository)", "any", "missing_file", "load", None, "fatal"),
    _row(r"(?:\S*/)?(?:bash|sh|zsh|fish|env|exec)\b:…(?:llama\S*: (?:command not found|No such file or directory)|(?:command not found|no such file or directory): \S*llama|llama\S*'?: (?:No such file|Permission denied))", "shell", "missing_file", "none", None, "fatal"),
    _row(r"(?:docker: )?Error response from daemon: .*(?:no such file or directory|executable file not found|permission denied)", "shell", "missing_file", "none", None, "fatal"),
    _inner_row(r"…(?:Failed to locate executable |Failed at step (?:EXEC|CHDIR) spawning |status=20[03]/(?:EXEC|CHDIR))", "shell", "missing_file", "none", None, "fatal"),
    # The address.
    _row(r"couldn't bind (?:HTTP server|to server|to) ?socket", "any", "port_in_use", "none", None, "fatal"),
    _inner_row(r"(?:\[Errno (?:98|48|10048)\]|(?:error: |OSError: |listen \S+ \S+ )?bind: |…\bEADDRINUSE\b|…: bind: address already in use)", "any", "port_in_use", "none", None, "fatal"),
    _row(r"(?:error: )?[Aa]ddress already in use", "any", "port_in_use", "none", None, "fatal"),
    _row(r"(?:couldn't start HTTP listener on |exiting due to HTTP server error)", "any", "port_in_use", "none", None, "fatal"),
    # Loaders.
    _row(r"(?:\S+: )?error while loading shared libraries", "loader", "missing_library", "none", None, "fatal"),
    _inner_row(r"(?:dyld(?:\[\d+\])?: )?(?:Library not loaded: |Symbol not found: |…: image not found)", "loader", "missing_library", "none", None, "fatal"),
    _row(r"(?:\S+: )?symbol lookup error: ", "loader", "missing_library", "none", None, "fatal"),
    _row(r"(?:\S+: )?\S+: version [`'](?:GLIBC|GLIBCXX|CXXABI|OMP|lib)\S* not found \(required by", "loader", "missing_library", "none", None, "fatal"),
    _inner_row(r"(?:Error relocating |Error loading shared library |…\.dll (?:was not found|is missing|not found)\b|…The code execution cannot proceed because )", "loader", "missing_library", "none", None, "fatal"),
    _inner_row(r"…cannot execute: required file not found", "shell", "missing_library", "none", None, "fatal"),
    _inner_row(r"(?:Failed to load (?:shared library|dynlib/dll) '|\[WinError (?:126|127|193|1114)\]|…STATUS_DLL_NOT_FOUND)", "loader", "missing_library", "none", None, "fatal"),
    _row(r"(?:error: )?no backends are loaded", "any", "missing_library", "load", None, "fatal"),
    _row(r"(?:error loading model: )?(?:\w+: )?no CPU backend found", "any", "missing_library", "load", None, "fatal"),
    # Device memory: the allocation itself.
    _row(r"allocating " + _MIB + r" on device (?P<index>\d+):", "cuda", "device_oom", None, None, "cause"),
    _row(_GPU_ERROR + r"(?:out of memory|…[Mm]emory ?[Aa]llocation|CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)|the resource allocation failed|the library was not initialized|hipErrorOutOfMemory|HIPBLAS_STATUS_ALLOC_FAILED|HIPBLAS_STATUS_NOT_INITIALIZED)", "cuda", "device_oom", "runtime", None, "fatal"),
    _row(r"(?:cuMemCreate|cuMemAddressReserve|cuMemMap|cuMemSetAccess|cudaMalloc\w*|hipMalloc\w*|cudaGraphInstantiate|cublasCreate\w*|hipblasCreate\w*|ggml_cuda_device_malloc)\(", "cuda", "device_oom", "runtime", None, "weak"),
    _row(r"(?:cudaMalloc failed: |cudaMalloc for \w+(?: \w+)* failed)", "cuda", "device_oom", None, None, "cause"),
    _row(r"CANN error: …(?:EL0004|[Aa]lloc\w* …memory|[Mm]emory alloc\w*|207001|out of memory)", "any", "device_oom", "runtime", None, "fatal"),
    _row(r"ggml_vulkan: (?:Device m|M)emory allocation of size (?P<bytes>\d+) failed", "vulkan", "device_oom", None, None, "cause"),
    _row(r"ggml_vulkan: (?:Requested buffer size exceeds|…exceeds device …limit|…exceeds max\w* )", "vulkan", "device_oom", None, "retry_other", "cause"),
    _row(r"ggml_vulkan: …(?:ErrorOutOf(?:Device|Host|Pool)Memory|ErrorFragmentation|No suitable memory type)", "vulkan", "device_oom", None, None, "cause"),
    _inner_row(r"(?:MESA\S*: )?(?:…: )?VK_ERROR_OUT_OF_(?:DEVICE|HOST|POOL)_MEMORY", "vulkan", "device_oom", None, None, "cause"),
    _row(r"(?:what\(\): +|(?:pre_|post_)?decode\(\) failed: |got exception: |error loading model: |failed to initialize the context: )vk::\S+ ?(?::: ?)?…ErrorOutOf(?:Device|Host|Pool)Memory", "vulkan", "device_oom", None, None, "fatal"),
    _row(r"vk::\S+ …ErrorOutOf(?:Device|Host|Pool)Memory", "vulkan", "device_oom", None, None, "cause"),
    _row(r"terminate called after throwing an instance of 'vk::OutOf\w*Memory", "vulkan", "device_oom", None, None, "fatal"),
    _row(r"(?:error: )?failed to allocate (?:Metal )?buffer, size = +" + _MIB, "metal", "device_oom", None, None, "cause"),
    _row(r"failed to allocate Metal buffer of (?P<bytes>\d+) bytes", "metal", "device_oom", None, None, "cause"),
    _row(r"(?:error: )?(?:buffer|requested) … (?:exceeds|larger than|is greater than) …maxBufferLength", "metal", "device_oom", None, "retry_other", "cause"),
    _row(r"(?:error: )?Insufficient Memory", "metal", "device_oom", "runtime", None, "serving"),
    _inner_row(r"(?:error: )?…kIOGPUCommandBufferCallbackErrorOutOfMemory", "metal", "device_oom", "runtime", None, "serving"),
    _row(r"can't allocate (?P<bytes>\d+) Bytes of memory on (?:device|GPU|shared)", "sycl", "device_oom", None, None, "cause"),
    _inner_row(r"…(?:UR_RESULT_ERROR|PI_ERROR|PI_RESULT_ERROR|OPENCL_ERROR)_OUT_OF_(?:DEVICE_MEMORY|RESOURCES)", "sycl", "device_oom", None, None, "fatal"),
    _inner_row(r"(?:dpct_malloc: out of memory|…UR_RESULT_ERROR_MEM_OBJECT_ALLOCATION_FAILURE)", "sycl", "device_oom", None, None, "fatal"),
    _inner_row(r"…\bCL_(?:MEM_OBJECT_ALLOCATION_FAILURE|OUT_OF_RESOURCES|INVALID_BUFFER_SIZE)\b", "opencl", "device_oom", None, None, "cause"),
    _row(r"failed to allocate (?:HBM|VTCM|device) buffer", "any", "device_oom", None, None, "cause"),
    _row(r"(?:\[GPU\] )?Exceeded max size of memory object allocation: requested (?P<bytes>\d+)", "any", "device_oom", None, "retry_other", "cause"),
    _row(r"failed to allocate " + _MIB + r" \(err=-?\d+\)", "opencl", "device_oom", None, None, "cause"),
    _row(r"error: (?:vm_allocate|posix_memalign) failed", "metal", "device_oom", None, None, "cause"),
    _row(r"tensor … is too large to fit in a (?P<device>\S+) buffer \(tensor size: (?P<bytes>\d+)", "any", "device_oom", None, "retry_other", "cause"),
    # Device memory: the stage that needed it. Host buffers have rows of their own, which come first.
    _row(r"(?:error loading model: )?unable to allocate (?:backend )?(?P<device>" + _HOST_BUFFER + r") buffer", "cpu", "host_oom", "load", None, "cause"),
    _row(r"failed to allocate (?P<device>" + _HOST_BUFFER + r") buffer of size (?P<bytes>\d+)", "cpu", "host_oom", None, None, "cause"),
    _row(r"Failed to allocate buffer type (?P<device>" + _HOST_BUFFER + r")\b", "cpu", "host_oom", "load", None, "cause"),
    _row(r"(?:error loading model: )?unable to allocate (?P<device>\S+) buffer", "any", "device_oom", "load", None, "cause"),
    _row(r"error loading model: unable to allocate (?:backend )?(?:\S+ )?buffer", "any", "device_oom", "load", None, "cause"),
    _row(r"Failed to allocate buffer type (?P<device>\S+)", "any", "device_oom", "load", None, "cause"),
    _row(r"ggml_gallocr_\w+: failed to allocate (?P<device>[A-Za-z]\S*) buffer of size (?P<bytes>\d+)", "any", "device_oom", "compute", None, "cause"),
    # No allocator said anything before it: no buffer was made for a type at all, and another try makes none either.
    _row(r"error loading model: failed to allocate buffer", "cpu", "host_oom", "load", "give_up", "cause"),
    _row(r"failed to allocate (?P<device>(?!output|compute)[A-Za-z]\S*) buffer of size (?P<bytes>\d+)", "any", "device_oom", None, None, "cause"),
    _row(r"failed to allocate (?P<device>(?:CUDA|ROCm|MUSA|Vulkan|SYCL|Metal|MTL|RPC|GPUOpenCL|CANN)\S*) buffer\b", "any", "device_oom", None, None, "cause"),
    _row(r"(?:failed to initialize the context: )?failed to allocate buffer for (?:the )?(?:kv|rs|KV|DSV4|shadow|per-step|recurrent)\b", "any", "device_oom", "kv", None, "cause"),
    _row(r"llama_kv_cache_\w*\(\) failed for ", "any", "device_oom", "kv", None, "cause"),
    _row(r"failed to (?:allocate|preallocate) …(?:shadow|checkpoint)", "any", "device_oom", "kv", None, "cause"),
    _row(r"(?:failed to initialize the context: )?failed to allocate compute (?:\w+ )?buffers?", "any", "device_oom", "compute", None, "cause"),
    _row(r"(?:failed to initialize the context: )?(?:graph allocation: )?failed to (?:reserve|allocate) (?:graph|memory|compute graph|initial output buffer)", "any", "device_oom", "compute", None, "cause"),
    _row(r"failed to allocate output buffer of size " + _MIB, "any", "device_oom", "compute", None, "cause"),
    _row(r"failed to allocate buffer for (?:lora adapter|control vector|graph copy)", "any", "device_oom", "load", None, "cause"),
    _row(r"error: unable to (?:allocate|reserve) …(?:VRAM|device memory)", "any", "device_oom", None, None, "cause"),
    _row(r"(?:error loading model: )?Unable to auto-fit model", "any", "device_oom", "load", "retry_other", "cause"),
    _row(r"(?:Required memory " + _MIB + r"|Required memory (?P<mib2>\d+) MiB in device \d+) is still greater than available", "any", "device_oom", "load", "retry_other", "cause"),
    _row(r"(?:No MoE tensors in … required memory (?P<mib>\d+) MiB|Not enough memory in device \d+ to offload)", "any", "device_oom", "load", "retry_other", "cause"),
    _row(_SOURCE + r"GGML_ASSERT\((?:base|buf|buffer|backend_buf\w*) != (?:NULL|nullptr)\b", "any", "device_oom", None, None, "fatal"),
    # Host memory.
    _row(r"(?:ggml_aligned_malloc: )?insufficient memory \(attempted to allocate +" + _MIB, "cpu", "host_oom", None, None, "cause"),
    _row(r"failed to allocate buffer of size (?P<bytes>\d+)", "cpu", "host_oom", None, None, "cause"),
    _row(r"can't allocate (?P<bytes>\d+) Bytes of memory on host", "sycl", "host_oom", None, None, "cause"),
    _row(r"(?:error loading model: )?(?:mmap failed: |posix_memalign failed|MapViewOfFile failed: |CreateFileMapping\w* failed: )…(?:allocate memory|error 12|memory|paging file|commitment limit)", "cpu", "host_oom", "load", None, "cause"),
    _inner_row(r"(?:…: )?(?:std::)?bad_alloc\b", "cpu", "host_oom", None, None, "fatal"),
    _inner_row(r"(?:error loading model: |failed to initialize the context: |…what\(\): +)(?:std::bad_alloc|bad allocation|…[Cc]annot allocate memory)", "cpu", "host_oom", None, None, "fatal"),
    _row(r"terminate called after throwing an instance of 'std::bad_alloc'", "cpu", "host_oom", None, None, "fatal"),
    _row(_SOURCE + r"GGML_ASSERT\(ctx->mem_buffer != (?:NULL|nullptr)\)", "cpu", "host_oom", None, None, "fatal"),
    _row(r"failed to allocate +" + _MIB + r"$", "cpu", "host_oom", None, None, "cause"),
    _inner_row(r"…(?:UR_RESULT_ERROR|PI_ERROR|PI_RESULT_ERROR)_OUT_OF_HOST_MEMORY", "sycl", "host_oom", None, None, "fatal"),
    # Models.
    _row(r"invalid magic characters?:? ", "any", "bad_model", "load", None, "fatal"),
    _row(r"(?:tensor '[^']*' (?:has invalid ggml type|of type \d+|data is not within|has invalid|has offset|not found)|Found \d+ bad tensors)", "any", "bad_model", "load", None, "fatal"),
    _row(r"failed to read (?:magic|header|tensor info|key-value|tensor data|key)", "any", "bad_model", "load", None, "cause"),
    _row(r"gguf_init_from\w*: (?!failed to open)", "any", "bad_model", "load", None, "cause"),
    _row(r"failed to load model '[^']*': (?!…(?:memory|alloc))\S", "any", "bad_model", "load", None, "cause"),
    _row(r"Error while loading tensor ", "any", "bad_model", "load", None, "fatal"),
    _row(r"(?:this GGUF file is version|bad GGUF version|GGUFv1 is no longer supported|failed to read GGUF)", "any", "bad_model", "load", None, "fatal"),
    _row(r"error loading model: vk::|vk::Device::create\w+: Error", "vulkan", "driver", "load", None, "fatal"),
    _row(r"error loading model: (?!llama_model_loader: failed to load (?:model|GGUF split))", "any", "bad_model", "load", None, "fatal"),
    _row(r"(?:wrong number of tensors; |missing tensor '|unknown (?:model architecture|pre-tokenizer type): |unrecognized tensor type |tensor '[^']*' (?:is missing from|not found|has wrong shape))", "any", "bad_model", "load", None, "cause"),
    _row(r"failed to initialize the context: …this warning is normal during", "any", "bad_model", "load", None, "cause"),
    _row(r"failed to initialize the context: ", "any", "bad_model", "load", None, "fatal"),
    _row(r"(?:context type MTP requested but model doesn't contain MTP|MTP speculative stage requested, but|target GGUF contains no MTP tail)", "any", "bad_model", "load", None, "cause"),
    _row(_SOURCE + r"GGML_ASSERT\(.*(?:hparams\.|n_expert|n_layer|n_vocab|vocab|arch)\b.*\) failed", "any", "bad_model", "load", None, "fatal"),
    _row(r"(?:failed to load (?:multimodal|draft) model|failed to create (?:MTP )?context|failed to load clip model|clip_init: failed)", "any", "bad_model", "load", None, "weak"),
    _row(r"(?:model does not support different K|[KV] cache type \S+ with block size \d+ does not divide)", "any", "bad_flag", "load", None, "fatal"),
    _row(r"chat template parsing error: ", "any", "bad_model", "load", None, "cause"),
    # Drivers and devices.
    _row(_GPU_ERROR + r"(?:no kernel image is available|invalid device function|device kernel image is invalid|the provided PTX was compiled|named symbol not found|…unsupported toolchain|…not compiled for)", "cuda", "driver", "runtime", None, "fatal"),
    _row(_GPU_ERROR + r"(?:…driver version is insufficient|…no \S+-capable device|invalid device ordinal|initialization error|shared object (?:initialization failed|symbol not found)|all \S+-capable devices are busy|system (?:not yet initialized|has unsupported)|unknown error|OS call failed|…forward compatibility)", "cuda", "driver", None, None, "fatal"),
    _row(_GPU_ERROR + r"(?:…uncorrectable|…fallen off|…GPU is lost|…device is lost|…hardware stack error)", "cuda", "driver", "runtime", "give_up", "fatal"),
    _row(r"(?:" + _SOURCE + r")?ggml was not compiled with any CUDA arch", "cuda", "driver", "runtime", None, "fatal"),
    _row(r"rocBLAS error: Cannot read …TensileLibrary|rocblas_abort", "cuda", "driver", "runtime", None, "fatal"),
    _row(r"failed to initialize (?:CUDA|ROCm|MUSA|Vulkan|SYCL|CANN)\d+\b", "any", "driver", "load", None, "fatal"),
    _row(r"failed to initialize (?:the )?(?:Metal|Vulkan|SYCL|CUDA|ROCm|MUSA|\S+) backend", "any", "driver", "load", None, "weak"),
    _row(r"failed to initialize (?:CUDA|ROCm|MUSA|HIP): ", "cuda", "driver", "none", "continue", "notice"),
    _row(r"(?:warning: )?no (?:CUDA devices|ROCm devices|GPU) found", "any", "driver", "none", "continue", "notice"),
    _row(r"ggml_vulkan: No devices found|ggml_vulkan: Error: No (?:devices|suitable)", "vulkan", "driver", "none", "continue", "notice"),
    _row(r"ggml_vulkan: (?:device \S+ does not support |Device with index \d+ does not exist|Invalid device index |Error: (?:Vulkan [\d.]+ required|Shared memory size too small))", "vulkan", "driver", "load", None, "cause"),
    _row(r"ggml_vulkan: (?:shader module|pipeline layout|compute pipeline) creation failed", "vulkan", "driver", "load", None, "cause"),
    _row(r"(?:what\(\): +)?(?:Unsupported device|Device not found|Invalid Vulkan device index|Shared memory size too small for matrix multiplication)", "vulkan", "driver", "load", None, "cause"),
    _inner_row(r"…(?:ErrorIncompatibleDriver|ErrorInitializationFailed|ErrorFeatureNotPresent|VK_ERROR_INCOMPATIBLE_DRIVER)", "vulkan", "driver", "load", None, "cause"),
    _inner_row(r"(?:…ErrorDeviceLost|ggml_vulkan: device lost|…(?:UR_RESULT|PI)_ERROR_DEVICE_LOST|…amdgpu: GPU reset)", "any", "driver", "runtime", "restart", "cause"),
    _inner_row(r"(?:NVRM: Xid|…NVRM: Xid |…(?:GPU has |NVRM: )fallen off the bus)", "kernel", "driver", "runtime", "give_up", "fatal"),
    _row(r"(?:error: )?(?:default device is nil|ggml_metal_init\(\) failed|no Metal device|unable to find a? ?Metal device|failed to create command queue)", "metal", "driver", "load", None, "cause"),
    _row(r"(?:what\(\): +)?No device of requested type available", "sycl", "driver", "load", None, "fatal"),
    _inner_row(r"(?:…could not select device driver|nvidia-container-cli: |…(?:NVML|nvml error): [Dd]river/library version mismatch)", "shell", "driver", "none", None, "fatal"),
    _inner_row(r"(?:The program was built for \d+ devices|…(?:UR_RESULT_ERROR_(?:PROGRAM_(?:BUILD|LINK)_FAILURE|INVALID_(?:KERNEL|BINARY)\w*)|PI_ERROR_BUILD_PROGRAM_FAILURE))", "sycl", "driver", "runtime", None, "fatal"),
    _row(r"CANN error: …(?:context pointer null|[Ii]nvalid device|EL0003|drvErr|10700[123])", "any", "driver", "none", None, "fatal"),
    _row(r"(?:ggml_opencl: (?:platform IDs not available|could find any OpenCL devices|no (?:platform|device) matching|selected platform … does not have any|[Uu]nsupported GPU)|Unsupported GPU Family)", "opencl", "driver", "none", "continue", "notice"),
    _row(r"(?:" + _SOURCE + r")?Failed to connect to \S*:\d+", "rpc", "driver", "load", "restart", "cause"),
    _row(r"(?:" + _SOURCE + r")?RPC (?:handshake failed|server version mismatch)", "rpc", "driver", "load", None, "cause"),
    # Processors.
    _inner_row(r"(?:…\b)?(?:[Ii]llegal instruction|SIGILL\b|trap invalid opcode)", "shell", "illegal_instruction", None, None, "fatal"),
    _inner_row(r"…(?:exec format error|Exec format error|cannot execute binary file)", "shell", "illegal_instruction", "none", None, "fatal"),
    # The engine's own faults.
    _row(_GPU_ERROR, "cuda", "engine_bug", "runtime", None, "fatal"),
    _row(r"(?:CUDA|ROCm|MUSA|cuBLAS) error \d+ at ", "cuda", "engine_bug", "runtime", None, "fatal"),
    _row(r"(?:SYCL|CANN|OpenCL) error\b|Native API failed", "sycl", "engine_bug", "runtime", None, "fatal"),
    _row(r"(?:Memory access fault by GPU|\*? *Memory critical error by agent)", "cuda", "engine_bug", None, None, "fatal"),
    _inner_row(r"(?:HW Exception by GPU|…HSA_STATUS_ERROR)", "cuda", "engine_bug", "runtime", None, "fatal"),
    _inner_row(r"(?:…\[gfxhub\d*\] page fault|…\w\[\d+\]: segfault at [0-9a-f]+ ip |exception: access violation (?:reading|writing))", "kernel", "engine_bug", "runtime", None, "weak"),
    _row(r"(?:error: )?(?:Caused GPU|Internal Error|Discarded|Impacting Interactivity|Execution of the command buffer was aborted)\b…kIOGPU", "metal", "engine_bug", "runtime", "restart", "serving"),
    _row(r"(?:error: )?command buffer \d+ failed with status", "metal", "engine_bug", "runtime", "restart", "serving"),
    _row(r"(?:error: )?(?:failed to initialize the Metal library|Error Domain=(?:MTLLibrary|NSCocoa)ErrorDomain|error compiling source|failed to (?:create Metal library|compile pipeline|create pipeline state)|kernel not found in any metal library|failed to build '…' library)", "metal", "engine_bug", "compute", "give_up", "cause"),
    _row(r"(?:" + _SOURCE + r")?Remote RPC server crashed", "rpc", "engine_bug", "runtime", None, "fatal"),
    _row(_SOURCE + r"(?:CUDA|ROCm|MUSA|HIP|SYCL|CANN) error$", "any", "engine_bug", "runtime", None, "weak"),
    _row(r"GGML_ASSERT: …!\"(?:CUDA|ROCm|MUSA) error\"", "any", "engine_bug", "runtime", None, "weak"),
    _row(_SOURCE + r"(?:GGML_ASSERT\(.*(?:!= ?(?:nullptr|NULL)|supported|implemented)|.*(?:[Nn]ot (?:supported|implemented)|[Uu]n(?:supported|implemented)|missing|invalid type))", "any", "engine_bug", None, "give_up", "fatal"),
    _row(r"(?:GGML_ASSERT: )?" + _SOURCE + r"(?!(?:In function|note|warning|error|required from)\b)", "any", "engine_bug", None, None, "fatal"),
    _row(r"(?:GGML_ASSERT|GGML_ABORT)\b", "any", "engine_bug", None, None, "fatal"),
    _row(r"(?:\S+: )?(?:error: )?(?:op not supported|unsupported op|node \d+, op = \S+ not implemented)|(?:ggml_vulkan: Error: )?Missing (?:\w+ )?op\b", "any", "engine_bug", "runtime", "give_up", "cause"),
    _row(r"(?:terminate called after throwing|terminating due to uncaught|libc\+\+abi: terminating|terminate called without)", "any", "engine_bug", None, None, "weak"),
    _row(r"what\(\): ", "any", "engine_bug", None, None, "cause"),
    _inner_row(r"(?:…\bProcess \d+ \([^)]*\) of user \d+ dumped core|double free or corruption|free\(\): invalid|malloc\(\): |corrupted (?:size|double|unsorted)|munmap_chunk\(\)|\*\*\* stack smashing)", "any", "engine_bug", None, None, "weak"),
    # A request that failed on a server that lives. A full KV cache or context is the request's business, not listed.
    _row(r"(?:graph_compute: )?ggml_backend_sched_graph_compute\w* failed with error", "any", "engine_bug", "runtime", "restart", "serving"),
    _row(r"failed to compute graph, compute status: -?\d+", "any", "engine_bug", "runtime", "restart", "serving"),
    _row(r"(?:pre_|post_)?decode\(\) failed: (?:failed to allocate|…out of memory)", "any", "device_oom", "runtime", None, "serving"),
    _row(r"(?:pre_|post_)?decode\(\) failed: ", "any", "engine_bug", "runtime", "restart", "serving"),
    _row(r"(?:backend is in error state from a previous|Compute error\.)", "any", "engine_bug", "runtime", "restart", "serving"),
    # Said by somebody else about the process.
    _inner_row(r"(?:…: )?(?:Memory cgroup out of memory|Out of memory): Kill(?:ed)? process|…\boom[-_]kill\w*[:=]|…OOM killer|…OOMKilled|…Failed with result 'oom-kill'", "kernel", "killed", None, "retry_other", "fatal"),
    _inner_row(r"(?:…: line \d+: +\d+ +|\[\d+\][+-]? +(?:\d+ +)?|zsh: )?(?:Killed|killed)(?:: 9)?(?:$| +)", "shell", "killed", None, None, "fatal"),
    _inner_row(r"(?:…\b)?(?:signal: killed|terminated by signal SIGKILL|code=killed, status=9/KILL)", "shell", "killed", None, None, "fatal"),
    _inner_row(r"…sending SIG(?:TERM|KILL) to process \d+ uid \d+", "kernel", "killed", None, "retry_other", "fatal"),
    _inner_row(r"…(?:start operation timed out|Watchdog timeout \(limit)", "shell", "killed", None, "restart", "fatal"),
    _inner_row(r"(?:…: line \d+: +\d+ +|\[\d+\][+-]? +(?:\d+ +)?|zsh: )?(?:[Ss]egmentation fault|[Aa]borted|abort|[Bb]us error|[Ff]loating point exception|IOT instruction|Trace/BPT trap)\b", "shell", "engine_bug", None, None, "weak"),
    _inner_row(r"(?:…\b)?(?:signal: (?:segmentation fault|aborted|abort trap|bus error)|(?:received|by) signal SIG(?:SEGV|ABRT|BUS|FPE|TRAP)|status=(?:6/ABRT|11/SEGV|7/BUS|8/FPE))", "shell", "engine_bug", None, None, "weak"),
    _row(r"(?:Error: )?(?:\d{3} [A-Z][\w ]+: )?llama(?: runner|-server) process has terminated\b", "shell", "engine_bug", None, None, "weak"),
    _row(r"(?:Error: )?(?:\d{3} [A-Z][\w ]+: )?timed out waiting for llama(?: runner|-server) to start", "shell", "engine_bug", "load", "restart", "cause"),
    _row(r"(?:Error: )?(?:\d{3} [A-Z][\w ]+: )?llama(?: runner|-server) reported out[ -]of[ -]memory", "shell", "device_oom", "load", None, "weak"),
    _inner_row(r"…model requires more (?:system )?memory", "shell", "host_oom", "load", None, "cause"),
    # A failure by its own word, without a line of an engine that says more.
    _inner_row(r"(?:[Ee]rror|ERROR|[Ff]atal|FATAL|panic)\b(?:…\W)?(?:CUDA|cuda|GPU|VRAM|HIP|ROCm|Vulkan|Metal|device)…\b[Oo]ut(?: of |-of-)memory", "any", "device_oom", "load", None, "weak"),
    _inner_row(r"(?:[Ee]rror|ERROR|[Ff]atal|FATAL|panic)\b…\b[Oo]ut(?: of |-of-)memory", "any", "host_oom", "load", None, "weak"),
    _row(r"(?:Error: )?(?:5\d\d (?:Internal Server Error|Service Unavailable|Bad Gateway)|llama(?: runner|-server) startup failed)", "shell", "engine_bug", "load", "restart", "weak"),
    # Loading failed, and the reason stood before.
    _row(r"(?:error: )?(?:failed|unable) to load model|exiting due to model loading error|error: unable to load model", "any", "bad_model", "load", None, "weak"),
    _row(r"(?:error: )?failed to create[_ ]context with model|Failed to create llama_context", "any", "bad_model", "compute", None, "weak"),
    # The parser of arguments begins so; what it goes on to say changes with every build.
    _row(r"error: \S", "any", "bad_flag", "none", None, "weak"),
)  # fmt: skip
"""In order: the first row that matches a line is what the line says."""

HARMLESS = re.compile(
    r".*pinned memory|failed to register .*(?:host|pinned|buffer)|(?:warning: )?failed to m(?:un)?lock|warning: failed to"
    r"|(?:failed to fit params|encountered an error while trying to fit)|failed to allocate memory for prompt cache"
    r"|.*retrying without pipeline parallelism|failed to find free space in the KV cache|.*failed to process image"
    r"|failed to allocate \d+ bytes for reorder|failed to allocate host buffer for async uploads|.* - fallback to CPU"
    r"|.*failed to measure (?:draft|MTP|mmproj|the memory)"
    r"|(?:warning: )?no usable GPU found|failed to create MTP context, falling back|failed to initialize BLAS backend|(?:.* )?cannot be used with preferred buffer type|failed to allocate graph, reserving|failed to reserve .* worst"
)
"""Lines that read like a failure and end nothing."""

PINNED = re.compile(r".*pinned memory")
VULKAN_REASON = re.compile(r"(?:ggml_vulkan: )?vk::")
"""The exception's own line, which follows what it is about."""

FAILURE_WORDS = (
    "err", "fail", "unable", "cannot", "can't", "couldn't", "insufficient", "out of", "outof", "out_of", "alloc", "memory",
    "assert", "abort", "terminat", "kill", "fault", "illegal", "invalid", "unknown", "unsupport", "unrecog", "legacy", "no ",
    "not ", "in use", "bind", "sto", "what(", "lost", "xid", ".dll", "oom", "sig", "bus ", "exceed", "requir", "must be",
    "needs", "cumem", "cudam", "hipm", "cudagraph", "cublas", "hipblas", "free", "corrupt", "magic", "version", "bad",
    ".c:", ".cc:", ".cpp:", ".cu:", ".cuh:", ".m:", ".mm:", ".h:", ".hpp:", ".metal:", ".c(", ".cpp(", ".cu(", "ggml_a",
    "relocating", "proceed", "lookup", "library", "exception", "smash", "sycl", "hsa", "status", "limited", "support",
    "crash", "discarded", "offset", "expected", "internal server", "unavailable", "bad gateway", "more system", "built", "dump", "timed out", "sending", "denied", "reset", "interactivity", "caused", "option", "argument", "trap", "exit", "floating", "iot ", "mtp", "nil",
)  # fmt: skip
"""Every line that a signature matches has one of these, in lower case: a quick look spares the others a hundred tries."""

INNER_WORDS = (
    "failed to locate", "failed at step", "status=", "errno", "bind: ", "eaddrinuse", "library not loaded",
    "symbol not found", "image not found", "relocating", "shared library", ".dll ", "cannot proceed",
    "required file not found", "dynlib", "winerror", "status_dll", "_error_", "dpct_malloc", "cl_", "bad_alloc",
    "bad allocation", "allocate memory", "errorincompatible", "errorinitialization", "errorfeature", "errordevicelost",
    "device lost", "gpu reset", "nvrm", "fallen off", "device driver", "nvidia-container", "version mismatch",
    "was built for", "illegal instruction", "sigill", "invalid opcode", "exec format", "binary file", "hw exception",
    "hsa_status", "page fault", "segfault", "access violation", "dumped core", "double free", "free(): ", "malloc(): ",
    "corrupted ", "munmap_chunk", "stack smashing", "kill", "sending sig", "timed out", "watchdog", "segmentation",
    "out of memory", "out-of-memory", "requires more", "abort", "bus error", "floating point", "iot instruction", "trace/bpt", "signal", "kiogpu",
)  # fmt: skip
"""Every line that an inner row matches has one of these, in lower case: those rows take most of the time."""

_NAME = re.compile(r"\(\?P<\w+>")


def _any_of(rows: Iterable[Signature]) -> re.Pattern[str]:
    """All these rows at once: most lines match none, and one try is cheaper than a hundred."""
    return re.compile("|".join(f"(?:{_NAME.sub('(?:', row.pattern.pattern)})" for row in rows))


_ANY_OUTER = _any_of(row for row in SIGNATURES if not row.inner)
_ANY_INNER = _any_of(row for row in SIGNATURES if row.inner)


def is_suspicious(texts: Sequence[str]) -> bool:
    """True for a line that has a word of failures.

    :param texts: the line, then with one prefix more removed each
    """
    return any(map(texts[0].lower().__contains__, FAILURE_WORDS))


def is_harmless(texts: Sequence[str]) -> bool:
    """True for a line that reads like a failure and ends nothing."""
    return any(map(HARMLESS.match, texts))


def find_failure(texts: Sequence[str]) -> tuple[Signature, re.Match[str]] | None:
    """The first row that matches one of the texts of a suspicious line."""
    inner = any(map(texts[0].lower().__contains__, INNER_WORDS))
    matched = any(map(_ANY_OUTER.match, texts)) or (inner and any(map(_ANY_INNER.match, texts)))
    if not matched or is_harmless(texts):
        return None

    for signature in SIGNATURES:
        if signature.inner and not inner:
            continue

        for text in texts:
            if match := signature.pattern.match(text):
                return signature, match

    return None
