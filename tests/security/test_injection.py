"""Text from outside stays text: it becomes no header, no path, no argument and no command."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.core.dialect.owned_flags import REFUSED_FLAGS
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import Problems, ProblemsError
from orchestrator.core.profile.settings import SETTINGS, Setting
from orchestrator.core.profile.values import read_value
from tests.integration.gateway_support import Visit, drive, engine, exchange, gateway, get, post
from tests.security.conftest import Guarded

PACKAGE = Path(__file__).parents[2] / "orchestrator"

HOSTILE_NAMES = (
    "../../../etc/passwd", "/etc/passwd", "..", "demo/../../x", "%2e%2e/x", "demo\0", "demo\r\nX: y", "x" * 300,
    "./demo", "-demo", "--host", "$(id)", "demo;id", "demo.toml", "~/x",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_no_profile_has_leads_nowhere(name: str) -> None:
    async def work() -> None:
        async with engine(answer) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for request in (
                post("/v1/chat/completions", {"model": name}),
                get(f"/v1/models/{quote(name, safe='')}"),
                post(f"/upstream/{quote(name, safe='')}/completion", {}),
            ):
                told = await exchange(here.port, request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                head, _, body = told.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 404 ")
                assert b"root:" not in body and b"\nX: y" not in head

            assert there.visits == []

    drive(work())


async def answer(visit: Visit) -> None:
    await visit.answer(b"{}")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_the_control_api_takes_a_name_for_a_name_and_a_path_for_a_profile(guarded: Guarded, name: str) -> None:
    socket = f"{guarded.home.root}/run/control.sock"
    with pytest.raises(UsageError) as caught:
        client.request(socket, "/v1/up", json.dumps({"profile": name}).encode())

    assert "root:" not in "\n".join((caught.value.message, *caught.value.details))
    assert "Traceback" not in guarded.home.daemon_log()
    assert guarded.home.status()["state"] == "ready"


def test_nothing_of_a_request_becomes_an_argument_of_the_engine(guarded: Guarded) -> None:
    before = guarded.engine_argv
    body = {"prompt": "x", "n_predict": 1, "--host": "0.0.0.0", "argv": ["--port", "1"], "model": "demo"}
    assert guarded.ask("/completion?--host=0.0.0.0", body, **{"X-Argv": "--host 0.0.0.0"})[0] == 200
    assert guarded.engine_argv == before


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    Path(paths.profiles).mkdir(parents=True)
    (Path(paths.profiles) / "p.toml").write_text("")
    return ProfileStore(paths)


@pytest.mark.parametrize("where", ["extra_args", "engine.upstream.extra_args", "engine.other.extra_args"])
def test_no_profile_gets_a_flag_of_ours_to_an_engine(store: ProfileStore, where: str) -> None:
    for flag in REFUSED_FLAGS:
        for words in (
            f'["{flag}", "x"]',
            f'["{flag}=x"]',
            f'["--ok", "{flag.replace("-", "_").replace("_", "-", 2)}"]',
        ):
            with pytest.raises(ProblemsError) as caught:
                store.resolve("p", f'schema = 1\nmodel = "m.gguf"\n{where} = {words}\n')

            assert "belongs to orch" in caught.value.details[0]


@pytest.mark.parametrize(
    "setting", [each for each in SETTINGS if {"string", "strings"} & set(each.types)], ids=lambda each: each.path
)
def test_a_value_cannot_pass_for_a_flag(setting: Setting) -> None:
    for value in ("--host", "-m", "-"):
        problems = Problems("p.toml")
        read_value(setting, [value] if "strings" in setting.types else value, ("x",), problems)
        assert len(problems.found) == 1, value


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield str(file.relative_to(PACKAGE)), ast.unparse(node.func), node


def test_no_shell_reads_a_command_of_ours() -> None:
    found = list(calls())
    assert len(found) > 3000
    assert not [
        (file, name)
        for file, name, node in found
        if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec")
        or any(keyword.arg == "shell" for keyword in node.keywords)
        or "create_subprocess_shell" in name
    ]


def test_processes_are_signalled_by_their_descriptor_or_by_a_child_not_yet_reaped() -> None:
    """A pid or a name may be a stranger's by now: the exceptions hold the process as their child, or are a demo."""
    allowed = {
        ("adapters/process/linux.py", "os.killpg"),
        ("engines/ask.py", "os.killpg"),
        ("engines/build/compile.py", "os.killpg"),
        ("cli/operate/demo.py", "os.kill"),
    }
    named = {(file, name) for file, name, _ in calls() if name in ("os.kill", "os.killpg")}
    assert named <= allowed
    assert not [
        (file, node.value)
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("pkill", "killall", "/bin/kill", "pidof", "pgrep")
    ]


_SECRET = ("api_key ", "api_keys", "_token(", "secret", "digests", "shown ==", "shown !=")
"""As they would stand in a comparison of a key with what a client has shown."""


def test_no_key_is_compared_with_an_equals_sign() -> None:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
                words = ast.unparse(node)
                assert not any(word in words for word in _SECRET), (file, words)


def test_a_path_that_names_no_profile_is_refused_without_quoting_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text("canary-of-a-secret-file")
    with pytest.raises(UsageError) as caught:
        ProfileStore(find_paths({"ORCH_HOME": str(tmp_path)})).load(str(secret))

    assert "canary" not in "\n".join((caught.value.message, *caught.value.details))
