"""`orch models`: the models on this machine's disk, with the profiles that use them."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.engines.models.stored import Removal, StoredModel

HELP = "list and remove the models on this machine's disk"
EXAMPLES = """\
  orch models list
  orch models list --json | jq '.models[] | select(.used_by == [])'
  orch models remove hf:unsloth/Qwen3.6-35B-A3B-GGUF:Q4_K_M
  orch models remove unsloth/Qwen3.6-35B-A3B-GGUF:Q4_K_M --yes --force"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing_help = "list what `orch pull` fetched, unfinished ones too, and what profiles use elsewhere"
    listing = actions.add_parser("list", help=listing_help, description=listing_help)
    listing.add_argument("--json", action="store_true", help="print JSON")
    removing_help = "delete a model that `orch pull` fetched, with what lies beside it if it is the repository's last"
    removing = actions.add_parser("remove", help=removing_help, description=removing_help)
    removing.add_argument("name", metavar="NAME", help="as `orch models list` shows it, or its path")
    removing.add_argument("--yes", action="store_true", help="ask nothing")
    removing.add_argument("--force", action="store_true", help="also one that a profile uses")
    removing.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.models.stored import list_models

    paths = find_paths()
    profiles, problems = ProfileStore(paths).load_all()
    if problems:
        diagnostics.warn("some profiles cannot be read, and what they use is not known: see `orch profile check`")

    models = list_models(paths, profiles)
    return _list(paths, models, args) if args.action == "list" else _remove(paths, models, args)


def _list(paths: Paths, models: tuple[StoredModel, ...], args: argparse.Namespace) -> int:
    from orchestrator.core.setup.pulls import size_words

    if args.json:
        output.json_data(
            {"version": 1, "directory": paths.models, "models": [_document(model) for model in models]},
        )
        return exit_codes.OK

    rows = []
    for model in models:
        parts = f"{len(model.files)} of {model.parts}" if model.parts > 1 or not model.whole else "1"
        rows.append((model.name, size_words(model.size_bytes), parts, _used(model), _where(model)))

    output.table(("NAME", "SIZE", "PARTS", "USED BY", "WHERE"), rows)
    for model in models:
        for each in model.unfinished:
            kept = f"{size_words(each.kept_bytes)} of {size_words(each.size_bytes)}"
            diagnostics.note(f"unfinished: {os.path.basename(each.path)}, {kept}; `orch pull {model.name}` goes on")

        if model.beside:
            diagnostics.note(f"beside {model.name}: {', '.join(map(os.path.basename, model.beside))}")

    if not models:
        diagnostics.note(
            "no model here yet: `orch pull hf:ORG/REPO` fetches one, `orch init` finds those of other programs"
        )

    return exit_codes.OK


def _used(model: StoredModel) -> str:
    return ", ".join(model.used_by) or "-"


def _where(model: StoredModel) -> str:
    missing = "" if model.files else " (unfinished)" if model.unfinished else " (not there)"
    return model.path + missing


def _document(model: StoredModel) -> dict[str, object]:
    return {
        "name": model.name,
        "quant": model.quant,
        "path": model.path,
        "size_bytes": model.size_bytes,
        "whole": model.whole,
        "parts": model.parts,
        "files": list(model.files),
        "beside": list(model.beside),
        "unfinished": [
            {"path": each.path, "kept_bytes": each.kept_bytes, "size_bytes": each.size_bytes}
            for each in model.unfinished
        ],
        "used_by": list(model.used_by),
        "fetched": model.fetched,
    }


def _remove(paths: Paths, models: tuple[StoredModel, ...], args: argparse.Namespace) -> int:
    from orchestrator.core.setup.pulls import size_words
    from orchestrator.engines.models.stored import find_model, plan_removal, remove

    removal = plan_removal(models, find_model(models, args.name))
    model = removal.model
    if model.used_by and not args.force:
        count = "a profile uses" if len(model.used_by) == 1 else f"{len(model.used_by)} profiles use"
        raise UsageError(
            f"{count} {model.name}",
            details=(", ".join(model.used_by),),
            hint=f"name another model in them, or `orch models remove {model.name} --force`",
        )

    if not args.yes and not _agrees(removal):
        diagnostics.note("nothing was removed")
        return exit_codes.FAILED

    remove(paths, removal)
    if args.json:
        gone = [*removal.files, *removal.partials]
        output.json_data({"version": 1, "name": model.name, "removed": gone, "freed_bytes": removal.size_bytes})
    else:
        output.line(f"{model.name} removed, {size_words(removal.size_bytes)} freed")

    return exit_codes.OK


def _agrees(removal: Removal) -> bool:
    from orchestrator.core.setup.pulls import size_words

    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked", hint="add --yes")

    for path in (*removal.files, *removal.partials):
        diagnostics.note(f"  {path}")

    diagnostics.ask(f"remove these files, {size_words(removal.size_bytes)}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
