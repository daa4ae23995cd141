"""What the engines print, in each one's layout and on each one's streams."""

from __future__ import annotations

import os
import sys
import threading
import time

_began = time.monotonic()
_lock = threading.Lock()


def write(fd: int, data: bytes) -> None:
    with _lock:
        while data:
            data = data[os.write(fd, data) :]


class Log:
    """Upstream writes all to stderr with a time and a level; the fork's library writes bare, its server to stdout."""

    def __init__(self, upstream: bool) -> None:
        self._upstream = upstream

    def line(self, text: str, level: str = "I") -> None:
        """A line of the library."""
        if self._upstream:
            passed = int((time.monotonic() - _began) * 1e6)
            seconds, parts = divmod(passed, 1_000_000)
            text = f"{seconds // 60}.{seconds % 60:02}.{parts // 1000:03}.{parts % 1000:03} {level} {text}"

        self.bare(text)

    def server(self, upstream: str, fork: str, level: str = "I") -> None:
        """A line of the server."""
        if self._upstream:
            self.line(upstream, level)
        else:
            level, text = ("INFO", fork) if level == "I" else (" ERR", fork)
            write(1, f'{level} [                    main] {text} | tid="140" timestamp=1750000000\n'.encode())

    def bare(self, text: str) -> None:
        write(sys.stderr.fileno(), f"{text}\n".encode())

    def device(self, free_mib: int) -> None:
        if self._upstream:
            self.line(
                f"llama_prepare_model_devices: using device CUDA0 (Fake) (0000:01:00.0) - {free_mib} MiB free", "T"
            )
        else:
            self.line(f"CUDA0: using device CUDA0 - {free_mib} MiB free")

    def loading(self, model: str) -> None:
        if self._upstream:
            self.line(f"srv    load_model: loading model '{model}'")

        self.line(f"llama_model_loader: loaded meta data with 30 key-value pairs and 80 tensors from {model}", "T")

    def loaded(self, context: str, slots: int, margin_mib: int | None) -> None:
        if self._upstream:
            self.line("load_tensors: offloaded 6/6 layers to GPU", "T")
            self.line("load_tensors:        CUDA0 model buffer size =    42.53 MiB", "T")
            self.line("llama_kv_cache:      CUDA0 KV buffer size =     2.00 MiB", "T")
            if margin_mib is not None:
                left = f"will leave {margin_mib + 9} >= {margin_mib} MiB of free device memory"
                self.line(f"common_params_fit_impl: {left}, no changes needed", "T")
        else:
            self.line("llm_load_tensors: offloaded 6/6 layers to GPU")
            self.line("llm_load_tensors:      CUDA0 buffer size =    33.50 MiB")
            self.line("llama_kv_cache_init:      CUDA0 KV buffer size =     2.00 MiB")

        self.server(
            f"srv    load_model: initializing, n_slots = {slots}, n_ctx_slot = {context}, kv_unified = 'false'",
            "initializing slots",
        )
        self.server("srv  llama_server: model loaded", "model loaded")

    def listening(self, port: int) -> None:
        self.server(f"srv  llama_server: listening on http://127.0.0.1:{port}", "HTTP server listening")

    def out_of_memory(self, model: str, size_mib: float) -> None:
        """Reserving compute buffers fails."""
        size = int(size_mib * 2**20)
        self.line(
            f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {size_mib:.2f} MiB on device 0: "
            "cudaMalloc failed: out of memory",
            "E",
        )
        if self._upstream:
            self.line(f"ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size {size}", "E")
            self.line("graph_reserve: failed to allocate compute buffers", "E")
            self.line(
                "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers", "E"
            )
            self.line(f"srv    load_model: failed to create_context with model '{model}'", "E")
            self.line("srv  llama_server: exiting due to model loading error", "E")
        else:
            self.line(f"ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size {size}")
            self.line("llama_init_from_model: failed to allocate compute buffers")
            self.line(f"llama_init_from_gpt_params: error: failed to create context with model '{model}'")
            self.server("", f'unable to load model | model="{model}"', "E")

    def out_of_memory_serving(self) -> None:
        """What CUDA's pool prints before it aborts."""
        self.line("CUDA error: out of memory", "E")
        self.line("  current device: 0, in function alloc at /src/ggml/src/ggml-cuda/ggml-cuda.cu:583", "E")
        self.line("  cuMemCreate(&handle, reserve_size, &prop, 0)", "E")
        self.bare("/src/ggml/src/ggml-cuda/ggml-cuda.cu:109: CUDA error")

    def decode_failed(self, task: int) -> None:
        """A compute buffer cannot be made larger: upstream ends the requests under way, and lives on."""
        self.line("ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 104857600", "E")
        self.line("graph_compute: failed to allocate compute buffers", "E")
        self.line(f"srv    send_error: task id = {task}, error: Compute error.", "E")

    def request(self, task: int, text: str) -> None:
        self.server(f"slot launch_slot_: id  0 | task {task} | {text}", f"{text} {{id_task={task}}}")

    def garbage(self, size: int) -> None:
        """One very long line with what must not reach a terminal."""
        write(2, b"\x1b]0;owned\x07\x1b[31m\xff\xfe\x00" + b"x" * size + b"\n")
