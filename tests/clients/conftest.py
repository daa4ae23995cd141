"""One gateway for all clients, and a home for each test with the client that its marker names.

`make client-tests` (`pytest -m client tests/clients`) installs the clients that are not there yet; any other call
skips.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.answering_model import Answer, write_answering_model
from tests.clients.guide import Guide, blocks
from tests.clients.installs import Installed, install
from tests.support import ROOT, Home, new_home

PROFILE = """\
schema = 1
model = "{model}"
engine = "{engine}"
cpu = {{ threads = 1, threads_batch = 1 }}
{more}
"""
SLOW_ENGINE = """\
#!/bin/sh
case "$*" in *--model*) sleep 3;; esac
export PYTHONPATH={root}
exec {python} -c 'import sys; from orchestrator.engines.embedded.main import main; sys.exit(main())' "$@"
"""
"""The model `code` takes long to load: longer than it takes until a stream gets comments."""

CONTEXT = "context = { size = 65536, parallel = 1 }\n"
KEY = "none"
"""What the document has where a key belongs. Here it is one: who does not send it is refused."""

HELLO = {name: f"Hello from the {name} model." for name in ("chat", "code")}
MIDDLE = "filled in"
"""What the models fill into the middle of a text."""

LINE = "Hello from orch."
"""What the agents are told to write into hello.txt."""

_installed: dict[str, Installed | str] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install before the first test: a fixture would be ended by the tests' time limit."""
    if not _asked_for(session.config) or session.config.option.collectonly:
        return

    for name in sorted({name for item in session.items if (name := _client_of(item))}):
        _installed[name] = install(name)


def _asked_for(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "client")


def _client_of(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("client")
    return str(marker.args[0]) if marker is not None and marker.args else None


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A gateway with the profiles and the key of the document; nothing is loaded."""
    if not _asked_for(request.config):
        pytest.skip("drives real clients: run `make client-tests`")

    pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
    directory = tmp_path_factory.mktemp("models")
    fragments = {block.file: block.text for block in [*blocks("names"), *blocks("embed")]}
    answers = {name: [Answer("true", text)] for name, text in HELLO.items()}
    answers |= {"code": _answers_of_code(), "embed": [Answer("true", "It embeds.")]}
    with new_home() as home:
        for name in answers:
            path = directory / f"{name}.gguf"
            write_answering_model(path, answers[name], infill=MIDDLE)
            more = fragments.get(f"{name}.toml", "")
            engine = "slow" if name == "code" else "embedded"
            more = more if "context" in more else CONTEXT + more
            home.profile(name, PROFILE.format(model=path, engine=engine, more=more))

        slow = home.write("slow-engine", SLOW_ENGINE.format(python=sys.executable, root=ROOT))
        os.chmod(slow, 0o700)
        home.orch("engines", "add", "slow", slow)

        keys = home.write("config/keys", f"{KEY}\n")
        os.chmod(keys, 0o600)
        home.write("config/orch.toml", f'[gateway]\napi_key_file = "{keys}"\n')
        home.serve()
        assert home.request("GET", "/v1/models", url=home.url)[0] == 401
        yield home


@pytest.fixture
def guide(request: pytest.FixtureRequest, served: Home, tmp_path: Path) -> Guide:
    name = _client_of(request.node)
    assert name is not None, "the test names no client"
    found = _installed[name]
    if isinstance(found, str):
        pytest.skip(f"{name} is not installed: {found}")

    served.orch("unload", "code", check=False)  # each client is there while it loads
    return Guide(name, found, tmp_path, urlsplit(served.url).netloc)


def _answers_of_code() -> list[Answer]:
    """A call of the tool by which each agent writes a file; each is known by a word of its tools' schemas."""
    shell = f"echo '{LINE}' > hello.txt"
    content = f"{LINE}\n"
    calls = {
        "exec_command": _call("exec_command", cmd=shell),  # Codex
        "run_commands": _call("run_commands", commands=[shell]),  # Cline
        "filePath": _call("write", content=content, filePath="hello.txt"),  # opencode
        "filepath": _call("Write", filepath="hello.txt", content=content),  # Continue
        "file_path": _call("Write", file_path="hello.txt", content=content),  # Claude Code
        "get_weather": _call("get_weather", city="Paris"),  # the examples
    }
    return [
        Answer("messages | selectattr('role', 'equalto', 'tool') | list", "The tool was used."),
        *(Answer(f"tools and '{word}' in (tools | tojson)", text) for word, text in calls.items()),
        Answer("'hello.txt' in last.content", f"hello.txt\n```\n{LINE}\n```"),  # Aider
        Answer("true", HELLO["code"]),
    ]


def _call(tool: str, **arguments: object) -> str:
    """The arguments in the order of the tool's schema: an engine's grammar wants them so."""
    return f"<tool_call>\n{json.dumps({'name': tool, 'arguments': arguments})}\n</tool_call>"
