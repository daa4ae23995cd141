"""What the names of a repository's files say: which are models in which quantisation, and which lie beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.core.errors import UsageError
from orchestrator.core.problems import nearest

PREFIX = "hf:"

USUAL_QUANT = "Q4_K_M"
"""What both engines take of `-hf ORG/REPO` without a quantisation."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")

_QUANT = re.compile(
    r"(?:(?<=[-._])|^)((?:(?:UD|i1|smol|mix)[-_])?"
    r"(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4))(?=$|[-.])",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(?:UD|i1|smol|mix)[-_]", re.IGNORECASE)

_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_DRAFTER = re.compile(
    r"(?:^|/)(?:mtp|draft|drafter|eagle3?|dflash|dspark)[-_./]|[-_.](?:assistant|drafter)(?:[-_.]|$)", re.IGNORECASE
)
_ROLE = re.compile(r"(?:^|[-_.])(?:mmproj|mtp|drafter|draft|eagle3?|dflash|dspark|assistant)(?=[-_.]|$)", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"(?:^|[-_./])(?:imatrix|lora|adapter|control[-_]vector|vocab[-_]only|ggml-vocab)(?:[-_.]|$)", re.IGNORECASE
)


class RepositoryFile(NamedTuple):
    """A file as a repository lists it; size and checksum are None where the listing does not say."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None


class ModelReference(NamedTuple):
    """`hf:ORG/REPO[:QUANT]`; the quantisation is empty where none was named."""

    repository: str
    quant: str


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model of a repository, in one file or in several parts.

    :param quant: its quantisation as people write it, `UD-Q4_K_XL`; without one, the file's name
    :param files: its parts in their order
    :param missing: names of parts that the listing lacks
    """

    quant: str
    files: tuple[RepositoryFile, ...]
    missing: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int | None:
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, slots=True)
class Contents:
    """A repository's GGUF files by what they are: models from small to large, projectors, drafters."""

    models: tuple[ListedModel, ...]
    projectors: tuple[RepositoryFile, ...]
    drafters: tuple[RepositoryFile, ...]


def parse_reference(text: str, command: str = "plan") -> ModelReference:
    """Read `hf:ORG/REPO[:QUANT]`.

    :param command: that it was given to, for the hint
    :raises UsageError: when it is none
    """
    repository, _, quant = text.removeprefix(PREFIX).partition(":")
    repository = repository.strip("/")
    if _REPOSITORY.fullmatch(repository) is None:
        raise UsageError(
            f"`{text}` names no repository",
            details=("expected hf:ORG/REPO or hf:ORG/REPO:QUANT",),
            hint=f"for example `orch {command} hf:unsloth/Qwen3.6-35B-A3B-GGUF:Q4_K_M`",
        )

    return ModelReference(repository, quant)


def sort_files(files: Iterable[RepositoryFile]) -> Contents:
    """Return a repository's GGUF files by what their names say they are."""
    models: dict[str, list[RepositoryFile]] = {}
    projectors, drafters = [], []
    for file in {each.path: each for each in sorted(files, key=lambda each: each.path)}.values():
        stem = _stem(file.path)
        if stem is None or _NO_MODEL.search(stem):
            continue

        if _PROJECTOR.search(stem):
            projectors.append(file)
        elif _DRAFTER.search(stem):
            drafters.append(file)
        else:
            split = _SPLIT.fullmatch(stem)
            models.setdefault(f"{split['stem']}/{split['count']}" if split else stem, []).append(file)

    found = [_model(parts) for parts in models.values()]
    found.sort(key=lambda model: (model.size_bytes or 0, model.files[0].path))
    return Contents(tuple(found), tuple(projectors), tuple(drafters))


def quant_of(path: str) -> str:
    """Return the quantisation that a file's name ends with, or its folder's; the file's own name where neither does."""
    parts = _name(path).split("/")
    for part in reversed(parts):
        if found := _QUANT.findall(part):
            label = str(found[-1])
            prefix = _PREFIX.match(label)
            kind = label[prefix.end() if prefix else 0 :].upper()
            return (prefix[0] if prefix else "") + ("F" + kind[2:] if kind.startswith("FP") else kind)

    return parts[-1]


def title_of(path: str) -> str:
    """Return a model's name for people: that of its file, without the quantisation."""
    name = _name(path).rpartition("/")[2]
    *_, last = [None, *_QUANT.finditer(name)]
    kept = name if last is None else name[: last.start()] + name[last.end() :]
    return kept.strip("-._")


def family_of(path: str) -> str:
    """Return what the files of one model in several quantisations are all called: the name without those."""
    return title_of(path).upper()


def beside_whom(path: str) -> str:
    """Return the family that a projector or a drafter names as the one it belongs to; empty where it names none."""
    name = _ROLE.sub("-", title_of(path))
    name = re.sub(r"[-_.]{2,}", "-", name).strip("-._").upper()
    return "" if name in ("MODEL", "FILE") else name


def find_quant(models: Sequence[ListedModel], wanted: str) -> tuple[ListedModel, ...]:
    """Return the models that a person means by a quantisation, or by a file's name; of several each fits as well."""
    name = _plain(wanted)
    ways: tuple[Callable[[ListedModel], bool], ...] = (
        lambda model: _plain(model.quant) == name,
        lambda model: _plain(_PREFIX.sub("", model.quant, count=1)) == name,
        lambda model: any(name in (_plain(file.path), _plain(file.path.rpartition("/")[2])) for file in model.files),
    )
    for way in ways:
        if found := tuple(model for model in models if way(model)):
            return found

    return ()


def choose_model(reference: ModelReference, contents: Contents, command: str = "plan") -> ListedModel:
    """Return the model that a reference means.

    :param command: that it was given to, for the hint
    :raises UsageError: when the repository has none, or it is not clear which; with what it has
    """
    models, repository = contents.models, reference.repository
    if not models:
        beside = [file.path for file in (*contents.projectors, *contents.drafters)]
        found = (
            f"it has only files that belong to a model: {', '.join(beside[:4])}" if beside else "it has no GGUF file"
        )
        raise UsageError(
            f"there is no GGUF model in {repository}",
            details=(found,),
            hint="repositories with GGUF files are usually called `...-GGUF`",
        )

    wanted = reference.quant or (USUAL_QUANT if len(models) > 1 else models[0].quant)
    fitting = find_quant(models, wanted)
    if len(fitting) == 1:
        return fitting[0]

    if fitting:
        names = [model.files[0].path for model in fitting]
        raise UsageError(
            f"{repository} has {len(fitting)} models in {wanted}",
            details=tuple(names[:12]),
            hint=f"name the file: `hf:{repository}:{names[0]}`",
        )

    quants = [model.quant for model in models]
    near = nearest(wanted.upper(), quants) or quants[len(quants) // 2]
    raise UsageError(
        f"{repository} has no {wanted}" if reference.quant else f"which quantisation of {repository}?",
        details=(f"it has: {', '.join(quants)}",),
        hint=f"`orch {command} hf:{repository}:{near}`; `orch plan hf:{repository} --matrix` compares all of them",
    )


def _stem(path: str) -> str | None:
    return path[: -len(".gguf")] if path.lower().endswith(".gguf") else None


def _name(path: str) -> str:
    """Return a path without its ending and the number of a part."""
    stem = _stem(path) or path
    split = _SPLIT.fullmatch(stem)
    return split["stem"] if split else stem


def _plain(text: str) -> str:
    return text.upper().removesuffix(".GGUF").replace("-", "_")


def _model(parts: list[RepositoryFile]) -> ListedModel:
    path = parts[0].path
    split = _SPLIT.fullmatch(_stem(path) or "")
    if split is None:
        return ListedModel(quant_of(path), tuple(parts))

    there = {part.path for part in parts}
    names = [f"{split['stem']}-{number:05d}-of-{split['count']}.gguf" for number in range(1, int(split["count"]) + 1)]
    return ListedModel(quant_of(path), tuple(parts), tuple(name for name in names if name not in there))
