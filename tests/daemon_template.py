"""A process that has imported the daemon, and becomes one as often as a test asks: by a fork, with all modules there.

Half a second of a processor is what a daemon costs until it has imported everything, more than what most tests ask of
it; hundreds of tests start one. How `orch serve` starts as a program is tested where `Home` starts it.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

MODULES = ("orchestrator.cli.setup.serve", "orchestrator.daemon.process.main", "anyio._backends._asyncio")
MESSAGE_BYTES = 2**17


class Forked(subprocess.Popen[bytes]):
    """A daemon that the template became, for those who wait for it and send it signals."""

    def __init__(self, link: socket.socket, words: Sequence[str], env: Mapping[str, str], log: int) -> None:
        self._link = link
        self.args = ["orch", *words]
        self.stdin = self.stdout = self.stderr = None
        self.returncode: int | None = None
        descriptors = array.array("i", [log])
        message = json.dumps({"words": words, "env": dict(env)}).encode()
        link.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        self.pid = int(link.recv(MESSAGE_BYTES))
        self._pidfd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)

        return code

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], timeout_s)[0]:
            self._link.send(json.dumps({"reap": self.pid}).encode())
            self.returncode = int(self._link.recv(MESSAGE_BYTES))
            os.close(self._pidfd)

        return self.returncode


class Template:
    """This process's template: started with the first daemon, and ended with this process or before."""

    def __init__(self) -> None:
        self._link, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            words = [sys.executable, "-m", __name__, str(its.fileno())]
            self._process = subprocess.Popen(words, pass_fds=[its.fileno()])

    def start(self, words: Sequence[str], env: Mapping[str, str], log: int) -> Forked:
        return Forked(self._link, words, env, log)

    def end(self) -> None:
        self._link.close()
        self._process.wait()


@functools.cache
def template() -> Template:
    return Template()


def end_template() -> None:
    """End it, if there is one: for tests that look at this process's children. The next daemon starts another."""
    if template.cache_info().currsize:
        template().end()
        template.cache_clear()


atexit.register(end_template)


def start_daemon(words: Sequence[str], env: Mapping[str, str], log: int) -> Forked:
    """Start `orch serve` with these words.

    :param log: where its output goes
    """
    return template().start(["serve", *words], env, log)


def main() -> int:
    for name in MODULES:
        importlib.import_module(name)

    gc.freeze()  # a collection in a fork would copy every page
    link = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, logs, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 1)
        if not message:
            reap_all()
            return 0

        request = json.loads(message)
        if "reap" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                link.close()
                return be_daemon(request["words"], request["env"], logs[0])

            os.close(logs[0])

        link.send(str(answer).encode())


def reap_all() -> None:
    """Leave no dead daemon behind that nobody has asked for: whoever adopts it would have a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def be_daemon(words: Sequence[str], env: Mapping[str, str], log: int) -> int:
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(env)
    from orchestrator.cli.main import main as orch

    return orch(words)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(main())
