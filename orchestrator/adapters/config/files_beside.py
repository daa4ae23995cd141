"""Files that an imported source names, where they lie beside it."""

from __future__ import annotations

import os
import re

from orchestrator.adapters.config.text_file import read_text
from orchestrator.core.errors import OrchError

_SECRET_FILE = re.compile(r"secret|token|passw|credential|api[-_]?key|\.pem$|\.key$", re.IGNORECASE)
_SECRET_LINE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?\w*(?:KEY|TOKEN|SECRET|PASSW|CREDENTIAL)\w*[ \t]*=.*$", re.IGNORECASE | re.MULTILINE
)


class FilesBeside:
    """Reads files in a source's folder, and below it; nothing that looks like a secret.

    :param directory: the source's; None for a text from standard input, which has nothing beside it
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = None if directory is None else os.path.realpath(directory)
        self.read: list[str] = []
        """The files that were read, in their order."""

    def __call__(self, path: str) -> str | None:
        if self._directory is None or not path.strip() or "\0" in path:
            return None

        named = os.path.join(self._directory, os.path.expanduser(path))
        for each in (named, os.path.join(self._directory, re.split(r"[/\\]", path)[-1])):
            full = os.path.realpath(each)
            inside = os.path.commonpath([full, self._directory]) == self._directory
            if inside and os.path.isfile(full) and not _SECRET_FILE.search(os.path.basename(full)):
                try:
                    text = read_text(full)
                except OrchError:
                    continue

                if full not in self.read:
                    self.read.append(full)

                return _SECRET_LINE.sub("", text)

        return None
