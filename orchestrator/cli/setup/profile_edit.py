"""`orch profile set` and `orch profile new`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.engines.new_profile import FirstSettings


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", metavar="NAME_OR_FILE")
    parser.add_argument("pairs", nargs="*", metavar="KEY=VALUE", help="e.g. memory.fit_margin=1792 or kv.k=q8_0")
    parser.add_argument("--unset", action="append", default=[], metavar="KEY", help="remove a key; may be repeated")


def add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the GGUF file, or hf:ORG/REPO[:QUANT] that was pulled"
    )
    parser.add_argument("--extends", metavar="PROFILE", help="the profile to start from")


def set_keys(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_editing import parse_value, set_values
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths

    pairs: list[tuple[str, object]] = []
    for pair in args.pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"`{pair}` is not KEY=VALUE", hint=f"run `orch profile set {args.profile} {pair}=VALUE`")

        pairs.append((key.strip(), parse_value(value.strip())))

    pairs += ((key, None) for key in args.unset)
    if not pairs:
        raise UsageError("nothing to set", hint="run `orch profile set --help`")

    edited = set_values(ProfileStore(find_paths()), args.profile, pairs)
    if args.json:
        output.json_data(
            {
                "version": 1,
                "file": edited.path,
                "copied_from": edited.copied_from,
                "changes": [change._asdict() for change in edited.changes],
            }
        )
        return exit_codes.OK

    if edited.copied_from:
        diagnostics.note(f"a shipped profile is not changed in place: copied to {edited.path}, which comes first now")

    for change in edited.changes:
        output.line(f"{change.key}: {_shown(change.before)} -> {_shown(change.after)}")

    return exit_codes.OK


def new(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_editing import create_profile
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths

    model = _model_path(args.model)
    first = None if args.extends else _first_settings(os.path.expanduser(model))
    settings = first.settings if first is not None else None
    path = create_profile(ProfileStore(find_paths()), args.name, model, args.extends, settings)
    if args.json:
        output.json_data({"version": 1, "name": args.name, "file": path})
    else:
        output.line(path)
        if first is not None:
            diagnostics.note(f"{first.why}; `orch plan {args.name}` shows what takes how much")

        diagnostics.note(f"change it with `orch profile set {args.name} KEY=VALUE`, or in an editor")

    return exit_codes.OK


def _model_path(text: str) -> str:
    """Return what a new profile's `model` is to say.

    :raises UsageError: of a repository whose model was not pulled, or not all of it
    """
    if not text.startswith("hf:"):
        return text if text.startswith(("~", "orch:")) else os.path.abspath(text)

    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.models.stored import find_model, list_models

    try:
        model = find_model(list_models(find_paths(), ()), text)
    except UsageError as error:
        raise UsageError(error.message, details=error.details, hint=f"`orch pull {text}` fetches it") from error

    if not model.whole:
        raise UsageError(f"{model.name} is not whole", hint=f"`orch pull {model.name}` fetches the rest")

    return model.path


def _first_settings(path: str) -> FirstSettings | None:
    """Return the numbers of a new profile as the plan has them; None of a file that is not there or cannot be read."""
    if not os.path.isfile(path):
        return None

    from orchestrator.core.profile.profile import DEFAULT_ENGINE
    from orchestrator.engines.new_profile import first_settings
    from orchestrator.engines.plan import measure_devices

    return first_settings(path, DEFAULT_ENGINE, measure_devices())


def _shown(value: object) -> str:
    import json

    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False, default=str)
