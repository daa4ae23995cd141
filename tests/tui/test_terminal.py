"""The dashboard in a real terminal, and `orch top` without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ORCH, PATIENCE_S, Home, new_home, until

PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
[cpu]
threads = 1
threads_batch = 1
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        home.profile("one", PROFILE)
        home.serve("one")
        home.ready("one")
        yield home


class Terminal:
    """tmux with one window, on a server of its own."""

    def __init__(self, home: Home, size: tuple[int, int]) -> None:
        self._tmux = ["tmux", "-S", os.path.join(home.root, "tmux.sock")]
        command = " ".join([f"ORCH_HOME={home.root}", *ORCH, "top", "--interval", "0.2"])
        width, height = map(str, size)
        start = ["-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, f"exec env {command}"]
        subprocess.run([*self._tmux, *start], check=True, env={**home.env, "TERM": "screen-256color"})

    def text(self) -> str:
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=False)
        return done.stdout

    def press(self, *names: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *names], check=True)

    def resize(self, width: int, height: int) -> None:
        subprocess.run([*self._tmux, "resize-window", "-x", str(width), "-y", str(height)], check=True)

    def ended(self) -> bool:
        return subprocess.run([*self._tmux, "has-session"], capture_output=True, check=False).returncode != 0

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_it_works_in_a_real_terminal(home: Home) -> None:
    terminal = Terminal(home, (80, 24))
    try:
        until(lambda: "one@embedded" in terminal.text() and "q Quit" in terminal.text(), "the first frame")
        lines = terminal.text().splitlines()
        assert len(lines) == 24 and "● ready" in lines[0] and "q Quit" in lines[-1] and "╭─ 1 Speed" in lines[3]
        terminal.press("l")
        until(lambda: "all slots are idle" in terminal.text(), "the log")
        terminal.press("Escape")
        terminal.resize(140, 40)
        until(lambda: "3 Engine" in terminal.text() and "slot 0" in terminal.text(), "all panels")
        terminal.press("w")
        until(lambda: "this runs already" in terminal.text(), "the choices, with a preview")
        terminal.press("Escape")
        until(lambda: "Switch to" not in terminal.text(), "the choices are gone")
        terminal.press("q")
        until(terminal.ended, "it ends")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{terminal.text()}") from None
    finally:
        terminal.close()


def test_one_look_prints_the_report(home: Home) -> None:
    done = home.orch("top", "--once")
    assert "● ready" in done.stdout and "\nmemory\n" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_one_look_without_a_daemon_is_not_running(options: list[str], tmp_path: Path) -> None:
    env = {**os.environ, "ORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [*ORCH, "top", "--once", *options], env=env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3 and done.stdout == ""
    assert (
        done.stderr.startswith("error: no daemon is running\n") and "hint: start one: `orch up PROFILE`" in done.stderr
    )


def test_one_look_does_not_import_textual(home: Home) -> None:
    code = (
        "import sys; from orchestrator.cli.main import main; assert main(['top', '--once']) == 0; "
        "assert not {'textual', 'rich', 'asyncio'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=home.env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options, words",
    [
        (["--json"], "goes with `--once`"),
        (["--interval", "0"], "0.1 to 3600"),
        ([], "needs a terminal"),
        (["--serve", "--key", "swich=f6"], "did you mean `switch`?"),
    ],
)
def test_what_cannot_be_is_an_error_of_usage(options: list[str], words: str, home: Home) -> None:
    done = subprocess.run(
        [*ORCH, "top", *options],
        env=home.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_without_textual_serve_it_says_what_to_install(home: Home) -> None:
    code = (
        "import sys; sys.modules['textual_serve'] = None; "
        "from orchestrator.cli.main import main; sys.exit(main(['top', '--serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=home.env, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1 and 'pip install "llama-orch[web]"' in done.stderr


def test_a_browser_needs_the_key_and_must_be_on_this_machine(home: Home) -> None:
    server = home.begin("top", "--serve", "--port", "0")
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        base, _, key = address.partition("/?key=")
        assert base.startswith("http://127.0.0.1:") and len(key) >= 32
        assert _status(address) == 200
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            cookie = {each.strip().lower() for each in answer.headers["Set-Cookie"].split(";")}

        assert {f"orch-top={key.lower()}", "samesite=strict", "httponly"} <= cookie
        assert not any(each.startswith("domain") for each in cookie)
        assert _status(f"{base}/") == _status(f"{base}/?key=wrong") == _status(f"{base}/ws") == 403
        assert _status(f"{base}/", Cookie=f"orch-top={key}") == 200
        assert _status(address, Origin="http://evil.example") == 403
        assert _status(address, Host="evil.example") == 403
        assert _status(f"{base}/ws?key={key}", Origin="http://evil.example") == 403
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE_S)


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S) as answer:
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
