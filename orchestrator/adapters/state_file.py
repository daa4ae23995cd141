"""The daemon's memory across restarts: one small JSON file, replaced whole.

A reader always finds the old content or the new one. Content that cannot be read is kept aside as `.bad` (then
`.bad2`, ...), never deleted; content of a newer orch is refused and left alone.
"""

from __future__ import annotations

import json
import os
import tempfile

from orchestrator.core.errors import OrchError

VERSION = 1


def write_atomically(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content so that a crash at any moment leaves the old content or the new one.

    :raises OSError: when the disk is full or the directory cannot be written; the old content stays
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def save_state(path: str, state: dict[str, object]) -> None:
    write_atomically(path, json.dumps({"version": VERSION, **state}, indent=2).encode() + b"\n")


def load_state(path: str) -> tuple[dict[str, object], str | None]:
    """The state, and a notice for people when the file could not be read.

    :raises OrchError: when a newer orch wrote it
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return {}, None

    try:
        state = json.loads(raw)
    except (ValueError, RecursionError):  # a thousand brackets in a row are no JSON of ours
        state = None

    if not isinstance(state, dict) or not isinstance(state.get("version"), int):
        aside = free_name(f"{path}.bad")
        os.replace(path, aside)
        return {}, f"{path} could not be read and is kept as {aside}; starting without it"

    if state["version"] > VERSION:
        raise OrchError(
            f"{path} was written by a newer orch",
            details=(f"version {state['version']}, this orch reads up to {VERSION}",),
            hint="upgrade orch, or move the file away to start without what was remembered",
        )

    return state, None


def free_name(path: str) -> str:
    """The path, or the first of `path2`, `path3` ... that nothing has."""
    name, number = path, 1
    while os.path.exists(name):
        number += 1
        name = f"{path}{number}"

    return name
