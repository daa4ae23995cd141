"""Ollama's store: models as manifests that name blobs by their digests."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.setup.found_models import FoundFile, FoundModel

OWNER = "Ollama"
MOST_MANIFESTS = 5_000
MOST_BYTES = 1 << 20

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_KIND = "application/vnd.ollama.image."
_LIBRARY = ("registry.ollama.ai", "library")


def ollama_models(store: str, notes: list[str]) -> list[FoundModel]:
    """Return the models of a store, in the order of their names.

    :param notes: what cannot be read is added
    """
    found = []
    for path, parts in _manifests(os.path.join(store, "manifests"), notes):
        manifest = _read(path, notes)
        if manifest is not None:
            model = _model(store, _name(parts), manifest, notes)
            found += [model] if model is not None else []

    return found


def _manifests(root: str, notes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield files of `HOST/NAMESPACE/MODEL/TAG`, with these words."""

    def say(error: OSError) -> None:
        notes.append(f"{error.filename}: {error.strerror}")

    count = 0
    for folder, folders, names in os.walk(root, onerror=say if os.path.isdir(root) else None):
        folders.sort()
        parts = os.path.relpath(folder, root).split(os.sep)
        for name in sorted(names):
            if len(parts) == 3 and not name.startswith("."):
                count += 1
                if count > MOST_MANIFESTS:
                    notes.append(f"{root}: not looked at further, after {MOST_MANIFESTS} models")
                    return

                yield os.path.join(folder, name), [*parts, name]


def _name(parts: Sequence[str]) -> str:
    host, namespace, model, tag = parts
    if (host, namespace) == _LIBRARY:
        return f"{model}:{tag}"

    return f"{namespace}/{model}:{tag}" if host == _LIBRARY[0] else f"{host}/{namespace}/{model}:{tag}"


def _model(store: str, name: str, manifest: Mapping[str, Any], notes: list[str]) -> FoundModel | None:
    layers = manifest.get("layers")
    kinds: dict[str, list[str]] = {}
    for layer in layers if isinstance(layers, list) else ():
        kind, digest = (layer.get("mediaType"), layer.get("digest")) if isinstance(layer, dict) else (None, None)
        if isinstance(kind, str) and isinstance(digest, str) and (match := _DIGEST.fullmatch(digest)):
            kinds.setdefault(kind.removeprefix(_KIND), []).append(match[1])

    weights = kinds.get("model", [])
    if not weights:
        if any(kind in kinds for kind in ("tensor", "adapter")):
            notes.append(f"Ollama's {name}: its weights are in no GGUF file")

        return None  # a model in Ollama's cloud has no weights here

    blobs = [_blob(store, each) for each in weights]
    files = tuple(file for file in blobs if file is not None)
    if not files:
        notes.append(f"Ollama's {name}: its blob is not there, or cannot be read")
        return None

    config = _config(store, manifest)
    projectors = [file.path for each in kinds.get("projector", ()) if (file := _blob(store, each)) is not None]
    problem = None
    if len(weights) > 1:
        problem = f"its weights are in {len(weights)} blobs, which only Ollama reads together"
    elif "adapter" in kinds:
        problem = "it has a LoRA adapter, which Ollama lays over another model"

    title, _, tag = name.rpartition(":")
    quant = config.get("file_type")
    return FoundModel(
        title.rpartition("/")[2] + (f"-{tag}" if tag != "latest" else ""),
        quant if isinstance(quant, str) and quant != "unknown" else "",
        OWNER,
        name,
        files,
        tuple(f"sha256-{each[:12]}..." for each, blob in zip(weights, blobs, strict=True) if blob is None),
        projectors[0] if projectors else None,
        problem=problem,
    )


def _config(store: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    config = manifest.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    blob = _blob(store, match[1]) if match is not None else None
    return (_read(blob.path, []) or {}) if blob is not None and blob.size_bytes <= MOST_BYTES else {}


def _blob(store: str, digest: str) -> FoundFile | None:
    for separator in "-:":  # versions before 0.1.40 had a colon
        path = os.path.join(store, "blobs", f"sha256{separator}{digest}")
        try:
            found = os.stat(path)
        except OSError:
            continue

        if stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK):
            return FoundFile(path, os.path.basename(path), found.st_size, (found.st_dev, found.st_ino))

    return None


def _read(path: str, notes: list[str]) -> Mapping[str, Any] | None:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no JSON"
        notes.append(f"{path}: {what}")
        return None

    return found if isinstance(found, dict) else None
