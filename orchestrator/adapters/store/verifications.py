"""What was verified, kept across restarts: verdict, when and how, by what was tried.

A build is known by the digest of its program and where that is (its libraries lie beside it); a model on a build by
its file's identity and the settings too. What has changed has another key, and is unverified.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.profile.profile import EngineProfile

_log = logging.getLogger(__name__)
_KEPT = 500


@dataclass(frozen=True, slots=True)
class Verification:
    """One result.

    :param how: what was done: `known truth`, `own model`, or `quick` at the first start
    :param when: RFC 3339, UTC
    :param summary: how many checks passed, or which failed
    :param failed: the names of the checks that failed
    """

    verdict: str
    how: str
    when: str
    summary: str
    failed: tuple[str, ...] = ()


def build_key(sha256: str, program: str) -> str:
    """Return the key of a build on the known truth."""
    return f"build:{_digest([sha256, os.path.realpath(program)])}"


_ELSEWHERE = (
    "sampling.",
    "chat.",
    "reasoning.",
    "server.",
    "cache.",
    "context.size",
    "cpu.threads",
    "cpu.pin",
    "memory.fit_margin",
    "memory.prefetch",
)
"""Beginnings of settings that say nothing about how a model is computed."""


def model_key(build: str, model_path: str, profile: EngineProfile) -> str:
    """Return the key of a model on a build, with the settings that have a part in how it is computed.

    :param build: the build's key
    """
    try:
        model = file_identity(model_path)
    except OSError:
        model = model_path

    matter = sorted((key, value) for key, value in profile.settings.items() if not key.startswith(_ELSEWHERE))
    return f"model:{_digest([build, model, matter, list(profile.extra_args)])}"


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, default=list).encode()).hexdigest()[:24]


class VerificationStore:
    """Reads and writes the file of verifications."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, key: str) -> Verification | None:
        entry = self._entries().get(key)
        fields = ("verdict", "how", "when", "summary")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in fields):
            return None

        failed = entry.get("failed")
        names = tuple(map(str, failed)) if isinstance(failed, list) else ()
        return Verification(entry["verdict"], entry["how"], entry["when"], entry["summary"], names)

    def record(self, key: str, verdict: str, how: str, summary: str, failed: Sequence[str] = ()) -> Verification:
        """Keep a result; the oldest ones beyond some hundreds are dropped.

        :raises OSError: when it cannot be written
        """
        when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        found = Verification(verdict, how, when, summary, tuple(failed))
        entries = self._entries()
        entries.pop(key, None)
        entries[key] = asdict(found)
        save_state(self._path, {"verifications": dict(list(entries.items())[-_KEPT:])})
        return found

    def _entries(self) -> dict[str, object]:
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        entries = state.get("verifications")
        return dict(entries) if isinstance(entries, dict) else {}
