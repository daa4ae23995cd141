"""`orch import`: profiles from what others are started with."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.core.importing.findings import ImportEntry, ImportResult

HELP = "make profiles from a llama-swap configuration, presets, scripts, units or compose files"
EXAMPLES = """\
  orch import ~/llama-swap/config.yaml --check     what would be kept, changed, guessed or lost; nothing is written
  orch import ~/llama-swap/config.yaml             write the profiles
  orch import run-server.sh --var MODEL=/models/qwen.gguf
  echo 'llama-server -m /models/qwen.gguf -c 32768 -ngl 99 -fa' | orch import - --check
  orch import config.yaml --json | jq '.profiles[].name'"""

_MAX_BYTES = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file to read; - for standard input")
    parser.add_argument("--check", action="store_true", help="show what would become of it, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace profiles that exist already")
    parser.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="what a variable of the source stands for"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.config_editing import add_keys, unset_keys
    from orchestrator.adapters.config.files_beside import FilesBeside
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.config.profile_import import profile_text, write_profiles
    from orchestrator.adapters.config.yaml_file import read_yaml
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.importing.sources import import_text, settle_names

    paths = find_paths()
    store = ProfileStore(paths)
    name, text = _read(args.file)
    beside = FilesBeside(None if args.file == "-" else os.path.dirname(os.path.abspath(os.path.expanduser(args.file))))
    result = import_text(text, _variables(args.var, args.file), lambda each: read_yaml(each, name), beside)
    for file in beside.read:
        result.add("changed", file, "read, as the source names it and it lies beside it")

    if not result.entries:
        raise UsageError(
            f"no start of a llama-server was found in {name}",
            details=(
                *(f"line {each.line}: {each.source}: {each.text}" for each in result.findings),
                "read are llama-swap's YAML, the router's preset files, compose files, systemd units and scripts",
            ),
        )

    _find_repositories(result, paths)
    _make_paths_absolute(result, args.file)
    rendered = _settle_on_builds(result, paths)
    profiles, _ = store.load_all()
    made = {entry.name for entry in result.entries if not entry.refusal}
    settle_names(
        result, {each: profile.name for profile in profiles if profile.name not in made for each in profile.names}
    )
    texts = {
        entry.name: profile_text(entry.document, entry.engine, _comments(entry, name))
        for entry in result.entries
        if not entry.refusal
    }
    written: dict[str, str] = {}
    added = unset_keys(paths, result.config) if result.config else {}
    for key in result.config.keys() - added.keys():
        result.add("changed", key, "orch.toml sets it already, which is left as it is")

    if not args.check and texts:
        written = write_profiles(store, texts, force=args.force)
        if added:
            add_keys(paths, added)

    if args.json:
        output.json_data({**_as_json(result, name, rendered, written, texts), "config_added": added if written else {}})
    else:
        _show(result, rendered, written)
        _show_config(paths.config_file, added, bool(written))

    if not texts:
        raise OrchError(f"{name} has no start of a llama-server that a profile can say", details=_refusals(result))

    return exit_codes.OK


def _read(file: str) -> tuple[str, str]:
    if file != "-":
        from orchestrator.adapters.config.text_file import read_text

        path = os.path.expanduser(file)
        return path, read_text(path)

    data = sys.stdin.buffer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UsageError("standard input is too long", details=(f"more than {_MAX_BYTES} bytes",))

    return "standard input", data.decode(errors="replace")


def _variables(given: list[str], file: str) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("HOME", "USER") if name in os.environ}
    known["NUMBER_OF_PROCESSORS"] = str(os.cpu_count() or 1)
    if file != "-":
        path = os.path.abspath(os.path.expanduser(file))
        known |= {"0": path, "BASH_SOURCE": path, "PSScriptRoot": os.path.dirname(path)}

    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"`{pair}` is not NAME=VALUE", hint="such as `--var MODEL=/models/qwen.gguf`")

        known[name] = value

    return known


def _find_repositories(result: ImportResult, paths: Paths) -> None:
    """Set the models that the source would download, where they are on the disk already."""
    from orchestrator.core.importing.findings import ImportFinding, look, put
    from orchestrator.engines.models.cached import find_cached

    for entry in result.entries:
        if entry.refusal or not entry.repository:
            continue

        repository, _, quant = entry.repository.partition(":")
        found = find_cached(paths, os.environ, repository, quant, entry.repository_file)
        if found is None:
            continue

        entry.document["model"] = found.path
        said = f"model: {found.path}, which is here already"
        entry.findings = [
            ImportFinding("changed", each.source, said, each.line)
            if each.source.endswith(f" {entry.repository}")
            else each
            for each in entry.findings
        ]
        silent = not any(word.startswith("--no-mmproj") for word in entry.arguments)
        if found.projector and silent and look(entry.document, "multimodal.mmproj") is None:
            put(entry.document, "multimodal.mmproj", found.projector)
            entry.add("guessed", "--hf-repo", f"multimodal.mmproj: {found.projector}, which the engine finds by itself")


def _make_paths_absolute(result: ImportResult, file: str) -> None:
    """A script's paths are relative to where it is started: near it, as far as anybody can tell."""
    from orchestrator.core.importing.findings import look, put

    directory = os.getcwd() if file == "-" else os.path.dirname(os.path.abspath(os.path.expanduser(file)))
    keys = ("model", "multimodal.mmproj", "speculative.draft_model", "chat.template_file")
    for entry in result.entries:
        for key in keys:
            path = look(entry.document, key)
            if isinstance(path, str) and not path.startswith(("/", "~", "$")) and path[1:3] not in (":\\", ":/"):
                full = os.path.normpath(os.path.join(directory, path))
                put(entry.document, key, full)
                entry.add("guessed", path, f"`{key}`: taken as {full}, beside the source")


def _settle_on_builds(result: ImportResult, paths: Paths) -> dict[str, tuple[str, ...]]:
    """Return the command line of each profile on the build that is here; none for an engine that is not."""
    from orchestrator.core.importing.builds import settle_on_build
    from orchestrator.engines.registry import EngineRegistry

    registry = EngineRegistry(paths)
    rendered: dict[str, tuple[str, ...]] = {}
    for entry in result.entries:
        if entry.refusal:
            continue

        try:
            engine = registry.resolve(entry.engine)
        except OrchError:
            said = f"no build of {entry.engine} is here, so that it is not checked against one"
            entry.add("guessed", f"engine = {entry.engine}", said)
            continue

        line = settle_on_build(entry, engine.capabilities, engine.build)
        if line is not None:
            rendered[entry.name] = line.argv

    return rendered


def _comments(entry: ImportEntry, source: str) -> list[str]:
    said = [f"Imported from {source}, line {entry.line}."]
    for fate in ("guessed", "lost"):
        lines = [f"{each.source}: {each.text}" for each in entry.findings if each.fate == fate]
        said += [f"{fate}: {line}" for line in dict.fromkeys(lines)]

    return said


def _refusals(result: ImportResult) -> tuple[str, ...]:
    return tuple(f"line {entry.line}: {entry.name}: {entry.refusal}" for entry in result.entries if entry.refusal)


def _as_json(
    result: ImportResult,
    source: str,
    rendered: dict[str, tuple[str, ...]],
    written: dict[str, str],
    texts: dict[str, str],
) -> dict[str, object]:
    return {
        "version": 1,
        "source": source,
        "kind": result.kind,
        "config": result.config,
        "findings": [each._asdict() for each in result.findings],
        "profiles": [
            {
                "name": entry.name,
                "line": entry.line,
                "engine": entry.engine,
                "refusal": entry.refusal or None,
                "file": written.get(entry.name),
                "text": texts.get(entry.name),
                "arguments": list(entry.arguments),
                "renders": list(rendered[entry.name]) if entry.name in rendered else None,
                "findings": [each._asdict() for each in entry.findings],
            }
            for entry in result.entries
        ],
    }


def _show(result: ImportResult, rendered: dict[str, tuple[str, ...]], written: dict[str, str]) -> None:
    import shlex

    for entry in result.entries:
        if entry.refusal:
            output.line(f"{entry.name} (line {entry.line}): no profile: {entry.refusal}")
            continue

        kept = sum(each.fate == "kept" for each in entry.findings)
        place = f" -> {written[entry.name]}" if entry.name in written else ""
        output.line(f"{entry.name} (line {entry.line}){place}: {entry.engine}, {kept} kept")
        rows = [
            (each.fate, "" if each.line is None else each.line, output.safe(each.source)[:60], output.safe(each.text))
            for fate in ("lost", "guessed", "changed")
            for each in dict.fromkeys(entry.findings)
            if each.fate == fate
        ]
        if rows:
            output.table(("", "LINE", "SOURCE", "WHAT BECOMES OF IT"), rows)

        if entry.name in rendered:
            output.line(f"was: {output.safe(shlex.join(entry.arguments))}")
            output.line(f"now: {output.safe(shlex.join(rendered[entry.name]))}")

        output.line()

    general = [
        (each.fate, each.line or "", output.safe(each.source), output.safe(each.text)) for each in result.findings
    ]
    if general:
        output.table(("", "LINE", "SOURCE", "WHAT BECOMES OF IT"), general)

    made = sum(not entry.refusal for entry in result.entries)
    diagnostics.note(
        f"{result.kind}: {made} of {len(result.entries)} become profiles" + ("" if written else "; nothing was written")
    )


def _show_config(file: str, added: Mapping[str, object], written: bool) -> None:
    import json

    if added:
        output.line()
        output.line(f"{file}: {'added' if written else 'would be added'}, where it does not say them:")
        for key, value in added.items():
            output.line(f"{key} = {json.dumps(value)}")
