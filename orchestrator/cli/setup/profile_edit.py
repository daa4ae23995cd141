"""`orch profile set` and `orch profile new`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import Paths


NEW_EXAMPLES = """\
  orch profile new mine --model ~/models/Some-Model-Q4_K_M.gguf
  orch profile new mine --model hf:ORG/REPO:Q4_K_M                 # that `orch pull` fetched
  orch profile new mine --model ./m.gguf --extends qwen3.6-35b-a3b-12gb"""

_MAGIC = b"GGUF"
_OWN_MODELS = "orch:"
"""What the names of models begin with that orch brings itself."""


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", metavar="NAME_OR_FILE")
    parser.add_argument("pairs", nargs="*", metavar="KEY=VALUE", help="e.g. memory.fit_margin=1792 or kv.k=q8_0")
    parser.add_argument("--unset", action="append", default=[], metavar="KEY", help="remove a key; may be repeated")


def add_new(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"examples:\n{NEW_EXAMPLES}"
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
    from orchestrator.adapters.config.profile_editing import create_profile, new_profile_path
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths

    paths = find_paths()
    store = ProfileStore(paths)
    new_profile_path(store, args.name)  # a name that is refused is told before anything of the model
    model = _model_path(args.model)
    file = None if model.startswith(_OWN_MODELS) else os.path.expanduser(model)
    is_there = file is not None and _is_gguf_there(file)
    text = _planned_text(paths, store, args.name, model) if is_there and not args.extends else None
    path = create_profile(store, args.name, text or _bare_text(store, model, args.extends))
    if file is not None and not is_there:
        diagnostics.warn(f"there is no file {file}: the profile cannot be started before it is there")

    if args.json:
        output.json_data({"version": 1, "name": args.name, "file": path})
    else:
        output.line(path)
        more = "" if text is None else f"; `orch plan {args.name}` shows what takes how much"
        diagnostics.note(f"change it with `orch profile set {args.name} KEY=VALUE`, or in an editor{more}")

    return exit_codes.OK


def _is_gguf_there(path: str) -> bool:
    """Return whether there is a model's file at a path, as far as its first bytes tell.

    :raises UsageError: when something else is there
    """
    if not os.path.exists(path):
        return False

    found = "a directory" if os.path.isdir(path) else "" if os.path.isfile(path) else "no regular file"
    if not found:
        try:
            with open(path, "rb") as file:
                magic = file.read(len(_MAGIC))
        except OSError:
            return True  # another user may read it, such as the service's; why there is no plan is told then

        found = "" if magic == _MAGIC else f"a file that begins with {magic!r}" if magic else "an empty file"

    if found:
        raise UsageError(f"{path} is no model", details=(f"expected a GGUF file, found {found}",))

    return True


def _planned_text(paths: Paths, store: ProfileStore, name: str, model: str) -> str | None:
    """Return a profile with the numbers of the plan, as `orch init` has them; None, and why is told, without one."""
    from orchestrator.engines.models.examine import examine
    from orchestrator.engines.models.first_profile import proposed_text
    from orchestrator.engines.models.offer import engines_here, proposal_of
    from orchestrator.engines.models.search import find_below
    from orchestrator.engines.plan import measure_devices, measure_host

    engines = engines_here(paths, measure_devices())
    if not engines:
        diagnostics.note("without numbers of the plan: no engine is on this machine")
        return None

    try:
        found = find_below(model).models[0]
        proposal = proposal_of(examine(found), engines, measure_host(), "chat")
        text, notes = proposed_text(paths, store, proposal, name, "profile new")
    except OrchError as error:
        diagnostics.note(f"without numbers of the plan: {error.message}")
        return None

    for note in (*proposal.examined.notes, *notes):
        diagnostics.note(note)

    return text


def _bare_text(store: ProfileStore, model: str, template: str | None) -> str:
    """Return a profile that says no more than its model, and what it extends.

    :raises UsageError: when there is no such template
    """
    from orchestrator.core.profile.profile import DEFAULT_ENGINE, is_name
    from orchestrator.core.setup.first_profile import FIT, profile_text

    if template is None:
        return profile_text((), (("model", model), ("engine", DEFAULT_ENGINE)), (FIT,))

    if not is_name(template):
        raise UsageError("a template is named, not given by its path", hint="run `orch profile list`")

    store.resolve(template)
    return profile_text((), (("extends", template), ("model", model)), ())


def _model_path(text: str) -> str:
    """Return what a new profile's `model` is to say.

    :raises UsageError: of a repository whose model was not pulled, or not all of it
    """
    if not text.startswith("hf:"):
        return text if text.startswith(("~", _OWN_MODELS)) else os.path.abspath(text)

    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.models.stored import find_model, list_models

    try:
        model = find_model(list_models(find_paths(), ()), text)
    except UsageError as error:
        raise UsageError(error.message, details=error.details, hint=f"`orch pull {text}` fetches it") from error

    if not model.whole:
        raise UsageError(f"{model.name} is not whole", hint=f"`orch pull {model.name}` fetches the rest")

    return model.path


def _shown(value: object) -> str:
    import json

    return "(not set)" if value is None else json.dumps(value, ensure_ascii=False, default=str)
