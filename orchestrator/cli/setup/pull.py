"""`orch pull`: a model from a repository onto this machine's disk, checked, and continued after a break."""

from __future__ import annotations

import argparse
import os
import shlex
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

if TYPE_CHECKING:
    from orchestrator.engines.models.pull import Pull, PulledFile, Room

HELP = "fetch a model from a repository, in the quantisation that fits this machine"
EXAMPLES = """\
  orch pull hf:unsloth/Qwen3.6-35B-A3B-GGUF              the plan for this machine chooses the quantisation
  orch pull hf:unsloth/Qwen3.6-35B-A3B-GGUF:UD-Q4_K_XL   this one; the same again goes on after a break
  orch pull hf:unsloth/Qwen3.6-35B-A3B-GGUF --dry-run    what would be fetched, where to, and is there room
  orch pull hf:org/Model-GGUF:Q8_0 --no-extras           without its projector and its draft head
  HF_ENDPOINT=https://mirror.example orch pull hf:org/Model-GGUF:Q4_K_M"""

SHOWN_EVERY_S = 0.2
RATE_OVER_S = 8.0
"""The rate that is shown is the one of the last seconds: of the whole time it would hide that a network got slow."""

_STEPS = {
    "receiving": "",
    "checking": "  reading what is there",
    "broken": "  the connection broke, once more",
    "waiting": "  waiting",
}
"""What is said behind the figures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="hf:ORG/REPO[:QUANT]", help="QUANT may also be the name of a file in it")
    parser.add_argument("--no-extras", action="store_true", help="leave a projector and a draft head where they are")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and fetch nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from orchestrator.core.setup.pulls import size_words

    pull, received = fetch_model(args.model, extras=not args.no_extras, dry_run=args.dry_run, quiet=args.json)
    if args.json:
        output.json_data(_document(pull, received))
    elif received is not None:
        what = f"{size_words(received)} fetched and checked" if received else "nothing to fetch: it is there, and whole"
        diagnostics.note(what)
        _show_next(pull)

    return exit_codes.OK


def fetch_model(
    text: str, *, extras: bool = True, dry_run: bool = False, quiet: bool = False
) -> tuple[Pull, int | None]:
    """Fetch a model, with what is fetched told before and its progress meanwhile.

    :param quiet: without what is fetched
    :return: also the bytes that came over the network; None of a dry run
    :raises OrchError: when there is no such model, or it cannot be fetched
    """
    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.models.pull import fetch, prepare

    diagnostics.progress(f"reading {text}")
    pull = prepare(find_paths(), text, _room, extras=extras)
    diagnostics.clear_progress()
    if not quiet:
        _show(pull)

    if dry_run:
        return pull, None

    watcher = _Watcher(pull)
    try:
        received = fetch(pull, watcher.show)
    except KeyboardInterrupt:
        diagnostics.note("stopped; what has arrived is kept, and the same command goes on from there")
        raise

    diagnostics.clear_progress()
    return pull, received


def _room() -> Room:
    from orchestrator.engines.models.pull import room_of
    from orchestrator.engines.plan import measure_devices, measure_host

    devices = measure_devices()
    if not devices:
        diagnostics.note("no driver tells of a device here: a quantisation is chosen for the host alone")

    return room_of(devices, measure_host())


class _Watcher:
    """Shows on the terminal's last line how far the whole of a pull is, and what happens to which file."""

    def __init__(self, pull: Pull) -> None:
        self._total = sum(each.size for each in pull.files)
        self._before = {each.target: sum(other.size for other in pull.files[:at]) for at, each in enumerate(pull.files)}
        self._shown_at = 0.0
        self._step = ""
        self._samples: deque[tuple[float, int]] = deque()

    def show(self, file: PulledFile, step: str, done: int) -> None:
        """Take one step of a file, with its bytes that are there."""
        now, whole = monotonic(), self._before[file.target] + done
        if step == "waiting":
            diagnostics.note(f"another `orch pull` fetches {os.path.basename(file.target)}: waiting for that")

        if step != self._step or (self._samples and whole < self._samples[-1][1]):  # a rate is of one thing
            self._samples.clear()

        changed, self._step = step != self._step, step
        self._samples.append((now, whole))
        while self._samples[0][0] < now - RATE_OVER_S:
            self._samples.popleft()

        if not changed and now - self._shown_at < SHOWN_EVERY_S:
            return

        self._shown_at = now
        first, before = self._samples[0]
        rate = (whole - before) / (now - first) if now - first > SHOWN_EVERY_S else None
        diagnostics.progress(self._line(os.path.basename(file.target), whole, rate))

    def _line(self, name: str, whole: int, rate: float | None) -> str:
        """Return one line that is no wider than the terminal: of a long name the end, which has the quantisation."""
        from orchestrator.core.setup.pulls import progress_words

        words = progress_words("", whole, self._total, rate) + _STEPS[self._step]
        room = max(_terminal_width() - len(words) - 1, 8)
        return (name if len(name) <= room else f"...{name[3 - room :]}") + words


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def _show(pull: Pull) -> None:
    from orchestrator.core.setup.pulls import size_words

    output.line(f"{pull.repository}: {pull.model.quant} ({pull.why})")
    for each in pull.files:
        kept = {"whole": ", is there", "partial": f", {size_words(each.kept)} of it are there", "absent": ""}
        role = "" if each.role == "model" else f", {_role(each)}"
        output.line(f"  {each.file.path}  {size_words(each.size)}{role}{kept[each.there]}")

    for file in pull.left_out:
        output.line(f"  left out: {file.path}")

    if any(each.file.sha256 is None for each in pull.files):
        diagnostics.note("the hub names no checksum for some of them: their size alone is checked")

    needed, free = size_words(pull.needed_bytes), size_words(pull.free_bytes)
    output.line(f"to {pull.directory}: {needed} to fetch, {free} free")


def _show_next(pull: Pull) -> None:
    output.line()
    output.line(pull.path_of("model") or "")
    output.line(f"make a profile of it:  {_commands(pull)[0]}")
    for command in _commands(pull)[1:]:
        output.line(f"and what lies beside:  {command}")


def _commands(pull: Pull) -> list[str]:
    """Return what to type for a profile of the model, and of what was fetched with it."""
    from orchestrator.core.setup.first_profile import profile_name
    from orchestrator.core.setup.pulls import draft_type

    name = profile_name(pull.repository.rpartition("/")[2])
    commands = [f"orch profile new {name} --model {shlex.quote(pull.path_of('model') or '')}"]
    projector, drafter = pull.path_of("projector"), pull.path_of("drafter")
    pairs = [f"multimodal.mmproj={shlex.quote(projector)}"] if projector else []
    pairs += [f"speculative.draft_model={shlex.quote(drafter)}"] if drafter else []
    pairs += [f"speculative.type={draft_type(drafter)}"] if drafter else []

    return [*commands, *([f"orch profile set {name} {' '.join(pairs)}"] if pairs else [])]


def _role(file: PulledFile) -> str:
    return {"projector": "its projector", "drafter": "drafts for it"}.get(file.role, file.role)


def _document(pull: Pull, received: int | None) -> dict[str, object]:
    """:param received: None of a dry run"""
    return {
        "version": 1,
        "repository": pull.repository,
        "quant": pull.model.quant,
        "why": pull.why,
        "directory": pull.directory,
        "files": [
            {
                "file": each.file.path,
                "role": each.role,
                "path": each.target,
                "size_bytes": each.size,
                "sha256": each.file.sha256,
                "before": each.there,
                "kept_bytes": each.kept,
            }
            for each in pull.files
        ],
        "left_out": [file.path for file in pull.left_out],
        "needed_bytes": pull.needed_bytes,
        "free_bytes": pull.free_bytes,
        "received_bytes": received,
        "model": pull.path_of("model"),
        "projector": pull.path_of("projector"),
        "drafter": pull.path_of("drafter"),
        "next": _commands(pull),
    }
