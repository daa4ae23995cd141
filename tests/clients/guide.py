"""docs/clients.md as a person follows it: its blocks, with the address of the gateway at hand, in a home of their own.

A block is `LANGUAGE CLIENT [FILE]` behind its fence. One with a file is that file's content, the others are run in
their order: shell, Python, JavaScript.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.clients.installs import Installed
from tests.support import ROOT, has_variable

DOCUMENT = ROOT / "docs" / "clients.md"
ADDRESS = "127.0.0.1:8080"
LIMIT_S = 180.0
_FENCE = re.compile(r"^( *)```(\w+) ([\w-]+)(?: (\S+))?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: what a client asks of the internet fails at once, everywhere alike."""


class Block(NamedTuple):
    """:param file: what it is the content of; empty for one that is run"""

    language: str
    client: str
    file: str
    text: str


def blocks(client: str | None = None) -> list[Block]:
    """Return the blocks of the document, or those of one client."""
    found = []
    for indent, language, name, file, text in _FENCE.findall(DOCUMENT.read_text(encoding="utf-8")):
        if client in (None, name):
            plain = "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
            found.append(Block(language, name, file, plain))

    return found


class Guide:
    """A home with one client, and a project in it, under git.

    :param address: `host:port` of the gateway, which takes the place of the document's
    """

    def __init__(self, client: str, installed: Installed, directory: Path, address: str) -> None:
        self.client = client
        self.installed = installed
        self.home = directory
        self.project = directory / "project"
        self.address = address
        self.changes = {ADDRESS: address}  # what is another text here than in the document
        self.env = {
            "HOME": str(directory),
            "PATH": f"{installed.programs}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "HTTP_PROXY": _NOWHERE,
            "HTTPS_PROXY": _NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        self.project.mkdir()
        (directory / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
        for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "first"]):
            subprocess.run(["git", *words], cwd=self.project, env=self.env, check=True)

    def follow(self, name: str | None = None) -> str:
        """Do what each block of the client says, and return what the commands printed."""
        return "".join(self.run(block.language, block.text) for block in self._prepared(name))

    @contextlib.contextmanager
    def following(self, name: str, more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Run a server that the blocks of a client start, to the end of the context."""
        self.env |= more
        (block,) = self._prepared(name)
        with self._started(self._words(block.language, block.text)) as process:
            yield process

    def run(self, language: str, text: str) -> str:
        """Run a text, and return what it printed.

        :raises AssertionError: when it fails, with what it printed
        """
        with self._started(self._words(language, text)) as process:
            try:
                code = process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                code = None

        printed = self.printed()
        assert code == 0, f"{self.client}: {'no end' if code is None else f'exit code {code}'}\n{printed[-4000:]}"
        return printed

    def printed(self) -> str:
        return (self.home / "printed").read_text(encoding="utf-8", errors="replace")

    def _prepared(self, name: str | None) -> list[Block]:
        """Put the files in their places, and return the blocks that are run."""
        chosen = blocks(name or self.client)
        assert chosen, f"docs/clients.md has no block of {name or self.client}"
        for block in chosen:
            if block.file:
                path = Path(block.file.replace("~", str(self.home)))
                path = path if path.is_absolute() else self.project / path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self._here(block.text), encoding="utf-8")

        return [block for block in chosen if not block.file]

    def _here(self, text: str) -> str:
        for said, meant in self.changes.items():
            text = text.replace(said, meant)

        return text

    def _words(self, language: str, text: str) -> list[str]:
        suffix, program = {"python": ("py", "python"), "js": ("mjs", "node"), "sh": ("sh", "bash")}[language]
        script = self.home / f"block.{suffix}"
        script.write_text(self._here(text), encoding="utf-8")
        modules = self.home / "node_modules"
        if language == "js" and not modules.exists():
            modules.symlink_to(self.installed.directory / "node_modules")

        return [program, *(["-e"] if language == "sh" else []), str(script)]

    @contextlib.contextmanager
    def _started(self, words: list[str]) -> Iterator[subprocess.Popen[str]]:
        with open(self.home / "printed", "wb") as out:
            process = subprocess.Popen(
                words, cwd=self.project, env=self.env, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

        try:
            yield process
        finally:
            self._end()
            process.wait()

    def _end(self) -> None:
        """End what has this home, wherever it has gone: some clients leave a process behind."""
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if has_variable(pid, f"HOME={self.home}".encode()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
