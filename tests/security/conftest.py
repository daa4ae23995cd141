"""A daemon in a hostile environment, with secrets that can be looked for."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import Home, new_home


@dataclass(frozen=True)
class Guarded:
    """The demo on the embedded engine, behind a key.

    :param key: what clients must send
    :param wrong_key: what a client sent that was refused
    :param prompt: a word of a prompt that was answered
    :param library: given to the daemon by LD_PRELOAD
    :param loaded: has the command line of each Python that heeded the daemon's PYTHONPATH
    """

    home: Home
    key: str
    wrong_key: str
    prompt: str
    library: str
    loaded: Path

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        method = "GET" if body is None else "POST"
        return self.home.request(method, path, body, headers={"Authorization": f"Bearer {self.key}", **headers})

    @property
    def engine_argv(self) -> list[str]:
        return Path(f"/proc/{self.home.status()['pid']}/cmdline").read_text().rstrip("\0").split("\0")


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with new_home() as home:
        os.chmod(home.root, 0o755)  # what is below it has to protect itself
        tmp = tmp_path_factory.mktemp("hostile")
        loaded = tmp / "loaded"
        (tmp / "sitecustomize.py").write_text(
            f"import sys\nwith open({str(loaded)!r}, 'a') as file: file.write(repr(sys.orig_argv) + '\\n')\n"
        )
        library = str(shutil.copy(_a_library(), os.path.join(tmp, "libcanary.so")))
        key, wrong_key, prompt = (f"canary-{name}-{secrets.token_hex(12)}" for name in ("key", "wrong", "prompt"))
        made = Guarded(home, key, wrong_key, prompt, library, loaded)
        home.write("config/orch.toml", '[gateway]\napi_key_file = "keys"\n')
        os.chmod(home.write("config/keys", f"# the clients' key\n{made.key}\n"), 0o600)
        ours = dict(home.env)
        home.env |= {
            "LLAMA_ARG_HOST": "0.0.0.0",
            "LLAMA_ARG_PORT": "1",
            "LLAMA_ARG_ENDPOINT_SLOTS": "1",
            "LLAMA_API_KEY": "canary",
            "GGML_BACKEND_PATH": made.library,
            "GGML_CUDA_FORCE_MMQ": "1",
            "HF_TOKEN": "canary",
            "LD_PRELOAD": made.library,
            "PYTHONPATH": str(tmp),
        }
        home.demo_on_one_thread()
        home.serve("demo")
        home.env = ours
        home.ready("demo")
        for stream in (False, True):
            status, _, _ = made.ask("/completion", {"prompt": made.prompt, "n_predict": 2, "stream": stream})
            assert status == 200

        yield made


def _a_library() -> str:
    with open("/proc/self/maps", encoding="utf-8") as file:
        return next(line.split()[-1] for line in file if "/libc.so" in line or "/libm.so" in line)
