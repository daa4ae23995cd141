"""A daemon, fake engines and models with commands beside them: what a fault test needs."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from orchestrator.api import client
from orchestrator.core.dialect.help_text import parse_help
from orchestrator.engines.known.model import write_known_model
from orchestrator.gateway.requests.ids import MADE
from tests import daemon_template
from tests.support import PATIENCE_S, Home

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELP = os.path.join(ROOT, "tests", "fixtures", "help")
BUILDS = {"upstream": "upstream-b11434", "fork": "ik-0.1.5-sdist"}

QUICK = """\
[daemon]
stop_grace_s = 1.0
drain_s = 5.0

[restart]
first_delay_s = 0.1
max_delay_s = 1.0
stable_s = 30.0
"""
"""Times that a test can wait for; the shipped ones are tens of seconds."""


@dataclass
class Answer:
    """One answer as a client sees it.

    :param status: 0 when there was none
    :param cut: the connection ended before the answer did
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of each event of a stream; `[DONE]` stays a string."""
        datas = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    @property
    def text(self) -> str:
        """What was generated, from a stream of llama-server's own `/completion` or a whole answer of it."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            return "".join(event.get("content", "") for event in self.events if isinstance(event, dict))

        return str(self.json["content"])

    def check_complete(self, count: int) -> None:
        """Every byte of `count` tokens is there, all from one engine.

        :raises AssertionError: when it failed, was cut, or is mixed
        """
        assert self.status == 200 and not self.cut, (self.status, self.cut, self.body[-500:])
        text = self.text
        instance = text.split(":")[0].strip()
        assert text == expected_text(instance, count), text[-200:]
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            assert self.events[-1]["stop"] is True


def expected_text(instance: str, count: int) -> str:
    return "".join(f" {instance}:{index}" for index in range(count))


class Lab(Home):
    """A home with fake engines `fake-upstream` and `fake-fork`, and models that say how they fail.

    :ivar replayed: ids of requests that may reach engines more than once
    :ivar baseline: the first daemon's descriptors before it did anything
    """

    def __init__(self, root: str, workshop: str) -> None:
        super().__init__(root)
        self._workshop = workshop
        self.configure(QUICK)
        self.models: list[str] = []
        self.replayed: set[str] = set()
        self.baseline: Counter[str] | None = None
        self.baseline_threads = 0
        self._gateway_url = ""

    def configure(self, text: str) -> None:
        self.write("config/orch.toml", text)

    def fake(self, name: str, dialect: str, *, wrapper: str = "exec {}") -> str:
        """Install a fake engine under a name.

        :param wrapper: the shell line that starts it, with `{}` for the command
        """
        path = self.engine_script(name, dialect, wrapper=wrapper)
        self.orch("engines", "add", name, path)
        return path

    def engine_script(self, name: str, dialect: str, *, wrapper: str = "exec {}", slow_by: float = 1.0) -> str:
        """Write a fake engine's program.

        :param slow_by: its tokens take so many times as long
        """
        table = self.write(f"fakes/{name}.json", json.dumps({**table_of(BUILDS[dialect]), "slow_by": slow_by}))
        code = f"import sys; sys.path[0] = {ROOT!r}; from tests.fakes.fake_llama.main import main; main()"
        words = [sys.executable, "-S", "-E", "-c", code, table]
        line = wrapper.format(f'{shlex.join(words)} "$@"')
        path = self.write(f"fakes/{name}", f"#!/bin/sh\n{line}\n")
        os.chmod(path, 0o755)
        return path

    def model(self, name: str, faults: object = None, *, engine: str = "fake-upstream", more: str = "") -> str:
        """A profile of this name with a model of its own.

        :param faults: what the engine shall do (`fake_llama/faults.py`)
        :param more: further TOML of the profile
        """
        path = os.path.join(self.root, f"{name}.gguf")
        if not os.path.exists(path):
            shutil.copyfile(os.path.join(self._workshop, "small.gguf"), path)
            self.models.append(path)

        self.profile(name, f'schema = 1\nmodel = "{path}"\nengine = "{engine}"\n{more}')
        self.faults(name, faults or {})
        return path

    def faults(self, name: str, faults: object) -> None:
        """Change what the starts from now on shall do."""
        self.write(f"{name}.gguf.faults.json", json.dumps(faults))

    # The daemon.

    def end(self) -> None:
        """End the daemon as a service manager does, or kill it when it does not end."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
                raise

    @property
    def url(self) -> str:
        if not self._gateway_url:
            self._gateway_url = str(self.status()["gateway"]["url"])

        return self._gateway_url

    def serve(self, *args: str) -> None:
        """Start the daemon, with a profile or without."""
        self._gateway_url = ""
        super().serve()
        assert self.daemon is not None
        if self.baseline is None:  # a later daemon goes on with what the first one ran
            self.take_baseline()

        for profile in args:
            self.up(profile)

    def start_daemon(self, words: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        """Fork it, unless its environment has what is read only where a program starts."""
        read_at_start = {name for name in self.env if name.startswith(("LD_", "PYTHON"))}
        if any(self.env[name] != os.environ.get(name) for name in read_at_start):
            return super().start_daemon(words, log)

        return daemon_template.start_daemon(words, self.env, log)

    def take_baseline(self) -> None:
        """Remember what the daemon has open. What it opens for a moment, for a figure from /proc, is not in it."""
        assert self.daemon is not None
        pid = self.daemon.pid
        baseline = descriptors(pid)
        for _ in range(3):
            self.status()
            baseline &= descriptors(pid)

        # Profiles and headers of models are read when it starts, however long that takes on a busy machine.
        read = [name for name in baseline if name.endswith((".gguf", ".toml"))]
        self.baseline = Counter({name: count for name, count in baseline.items() if name not in read})
        self.baseline_threads = len(os.listdir(f"/proc/{pid}/task"))

    def up(self, profile: str) -> None:
        self.control("/v1/up", {"profile": profile})

    def run(self, profile: str, *, faults: object = None, dialect: str = "upstream", more: str = "") -> Any:
        """Start the daemon with a profile, and wait until it is ready."""
        self.model(profile, faults, engine=f"fake-{dialect}", more=more)
        self.serve(profile)
        return self.ready(profile)

    def events(self, kind: str) -> list[str]:
        rows = map(json.loads, client.stream(self.control_socket, "/v1/events?lines=1000&follow=0"))
        return [str(row["message"]) for row in rows if row["kind"] == kind]

    # What the fakes wrote.

    def starts(self, name: str) -> list[Any]:
        return self.rows(name, "starts")

    def requests(self, name: str, event: str) -> list[Any]:
        """The requests of clients that a test has named: `accepted` or `ended`. The gateway names the others itself."""
        rows = (row for row in self.rows(name, "requests") if row["event"] == event and row.get("id"))
        return [row for row in rows if not str(row["id"]).startswith(MADE)]

    def mark(self, name: str, mark: str) -> bool:
        return os.path.exists(os.path.join(self.root, f"{name}.gguf.{mark}"))

    def rows(self, name: str, kind: str) -> list[Any]:
        full = os.path.join(self.root, f"{name}.gguf.{kind}")
        if not os.path.exists(full):
            return []

        with open(full, encoding="utf-8") as file:
            # At once: the last line may be half written, and who reads on behind it gets its other half as a line.
            text = file.read()

        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    # Clients.

    def ask(self, request_id: str, tokens: int = 8, *, stream: bool = False, **more: object) -> Answer:
        """One completion, read to its end whatever that is."""
        body = {"prompt": "hello", "n_predict": tokens, "stream": stream, **more}
        with self.open(request_id, body) as response:
            return read_answer(response)

    @contextlib.contextmanager
    def open(
        self, request_id: str, body: dict[str, object], path: str = "/completion"
    ) -> Iterator[http.client.HTTPResponse]:
        """A request whose answer has begun; the connection is closed at the end."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        try:
            headers = {"content-type": "application/json", "x-request-id": request_id}
            connection.request("POST", path, json.dumps(body), headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def begin_asking(self, request_id: str, tokens: int = 8, *, stream: bool = False, **more: object) -> Asking:
        """Send a completion from a thread."""
        return Asking(self, request_id, tokens, stream, more)


class Asking:
    """A request under way."""

    def __init__(self, lab: Lab, request_id: str, tokens: int, stream: bool, more: dict[str, object]) -> None:
        self.id = request_id
        self.tokens = tokens
        self._answer = Answer()
        self._error: Exception | None = None

        def work() -> None:
            try:
                self._answer = lab.ask(request_id, tokens, stream=stream, **more)
            except (OSError, http.client.HTTPException) as error:
                self._error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, timeout_s: float = PATIENCE_S) -> Answer:
        self._thread.join(timeout_s)
        assert self.done, f"request {self.id} has not ended within {timeout_s:g} s"
        assert self._error is None, f"request {self.id}: {self._error!r}"
        return self._answer


def read_answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Answer(response.status, headers, response.read())
    except http.client.IncompleteRead as error:
        return Answer(response.status, headers, error.partial, cut=True)
    except ConnectionError:
        return Answer(response.status, headers, cut=True)


@functools.cache
def table_of(build: str) -> dict[str, object]:
    """What a recorded build takes: its help, and what it accepts besides."""
    with open(os.path.join(HELP, f"{build}.help.txt"), encoding="utf-8") as file:
        _, flags = parse_help(file.read())

    takes = {spelling: flag.value for spelling, flag in flags.items()}
    accepted = os.path.join(HELP, f"{build}.accepted.txt")
    if os.path.exists(accepted):
        with open(accepted, encoding="utf-8") as file:
            takes |= {words[0]: len(words) > 1 for words in map(str.split, file) if words}

    return {"name": build, "takes": takes, "removed": [name for name, flag in flags.items() if flag.removed]}


def descriptors(pid: int) -> Counter[str]:
    """What a process has open, by kind; not the logs, opened with their first line, nor what is being saved."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue

        if not target.endswith(".log") and "/.state.json." not in target:
            found[re.sub(r":\[\d+\]", "", target)] += 1

    return found


def make_workshop(root: str) -> str:
    """A directory with a model, and a home in which both fake engines are installed: made once, copied by each lab."""
    write_known_model(os.path.join(root, "small.gguf"), "llama", layers=1)
    lab = Lab(os.path.join(root, "home"), root)
    for dialect in BUILDS:
        lab.fake(f"fake-{dialect}", dialect)

    return root


@contextlib.contextmanager
def new_lab(workshop: str) -> Iterator[Lab]:
    """A lab in a short path: the control socket's must fit into 107 bytes. Its daemon ends with it."""
    root = tempfile.mkdtemp(prefix="orch-f-")
    shutil.copytree(os.path.join(workshop, "home"), root, dirs_exist_ok=True)
    lab = Lab(root, workshop)
    try:
        yield lab
    finally:
        lab.end()
        shutil.rmtree(root)
