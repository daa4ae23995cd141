"""The clients, each in an environment of its own below `.cache/clients`, or below ORCH_CLIENT_HOME.

They are installed once, from PyPI and npm, in the versions that docs/clients.md names; a changed list anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

HOME = Path(os.environ.get("ORCH_CLIENT_HOME") or Path(__file__).parents[2] / ".cache" / "clients").absolute()


class Package(NamedTuple):
    """What is installed together.

    :param requirements: the first one is the client itself
    :param left_out: packages that it asks for and does not import here: models and clouds, gigabytes
    :param python: for `uv venv`
    """

    registry: Literal["pypi", "npm"]
    requirements: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    python: str = ">=3.11"


# What Open WebUI needs to compute embeddings, speech and text recognition by itself, and what is for single clouds.
_OPEN_WEBUI_EXTRAS = (
    "accelerate", "azure-ai-documentintelligence", "azure-identity", "azure-search-documents", "azure-storage-blob",
    "faster-whisper", "google-cloud-storage", "google-genai", "onnxruntime", "opencv-python-headless",
    "rapidocr-onnxruntime", "sentence-transformers", "torch", "transformers", "unstructured",
)  # fmt: skip

PACKAGES = {
    "openai": Package("pypi", ("openai==3.57.0",)),
    "anthropic": Package("pypi", ("anthropic==2.14.0",)),
    "litellm": Package("pypi", ("litellm[proxy]==1.108.7",)),
    "langchain": Package("pypi", ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10")),
    "llm": Package("pypi", ("llm==0.36", "llm-llama-server==0.2")),
    "home-assistant": Package("pypi", ("openai==2.21.0",)),  # what its integration pins
    "aider": Package("pypi", ("aider-chat==0.86.2",), python=">=3.11,<3.13"),
    "open-webui": Package("pypi", ("open-webui==0.12.4",), _OPEN_WEBUI_EXTRAS, python=">=3.11,<3.13"),
    "openai-js": Package("npm", ("openai@7.59.0",)),
    "n8n": Package("npm", ("@langchain/openai@1.6.0", "@langchain/core@1.4.0")),  # what its node is made of
    "claude-code": Package("npm", ("@anthropic-ai/claude-code@2.1.332",)),
    "codex": Package("npm", ("@openai/codex@0.171.0",)),
    "opencode": Package("npm", ("opencode-ai@1.18.33",)),
    "continue": Package("npm", ("@continuedev/cli@1.5.47",)),
    "cline": Package("npm", ("cline@3.0.65",)),
}


class Installed(NamedTuple):
    """:param programs: the directory of its commands"""

    directory: Path
    programs: Path


def place(name: str) -> Path:
    first = PACKAGES[name].requirements[0]
    version = first.rpartition("@")[2].rpartition("==")[2]
    return HOME / f"{name}-{version}"


def install(name: str) -> Installed | str:
    """Return where the client is, installed if it was not yet, or why it cannot be."""
    package, directory = PACKAGES[name], place(name)
    found = Installed(directory, directory / ("bin" if package.registry == "pypi" else "node_modules/.bin"))
    stamp, content = directory / "installed", repr(package)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == content:
        return found

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for words in _commands(package, directory):
        try:
            done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except FileNotFoundError:
            return f"`{words[0]}` is not on PATH"

        if done.returncode != 0:
            return f"`{' '.join(words)}` failed: {done.stderr.strip()[-300:]}"

    stamp.write_text(content, encoding="utf-8")
    return found


def _commands(package: Package, directory: Path) -> list[list[str]]:
    if package.registry == "npm":
        words = ["npm", "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--loglevel=error"]
        return [[*words, *package.requirements]]

    uv = [sys.executable, "-m", "uv"]
    excluded = directory / "left-out.txt"
    excluded.write_text("\n".join(package.left_out), encoding="utf-8")
    return [
        [*uv, "venv", "--quiet", "--allow-existing", "--python", package.python, str(directory)],
        [*uv, "pip", "install", "--quiet", "--python", str(directory / "bin" / "python"), "--excludes", str(excluded),
         *package.requirements],
    ]  # fmt: skip
