"""What of a repository is fetched: the quantisation for this machine, what lies beside it, and the names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import (
    USUAL_QUANT,
    Contents,
    ListedModel,
    RepositoryFile,
    family_of,
    find_quant,
    quant_of,
)
from orchestrator.core.plan.verdict import Verdict

RESERVE_BYTES = 1 << 30
"""Left free on the disk: logs, the history and the rest of the system need some."""

IDENTITY_LENGTH = 16
"""Hexadecimal digits in a partial file's name: enough to tell the versions of one file apart."""

_UNQUANTISED = re.compile(r"(?:UD-)?(?:F16|BF16|F32)", re.IGNORECASE)
_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""In the order in which one is taken: the first is what both engines take too."""

_MTP = re.compile(r"(?:^|/)mtp[-_./]", re.IGNORECASE)
_PART_OF_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
_PARTIAL = re.compile(rf"(?P<name>.+)\.(?P<size>\d+)-(?P<identity>[0-9a-f]{{{IDENTITY_LENGTH}}})\.part")


class PullCandidate(NamedTuple):
    """A model of a repository, and whether this machine can run it.

    :param least_mib: of device memory that it needs with all of it on the devices; for the message when none fits
    """

    model: ListedModel
    verdict: Verdict
    least_mib: int = 0


class ChosenModel(NamedTuple):
    """The model to fetch, and why that one, for people."""

    model: ListedModel
    why: str


class Extras(NamedTuple):
    """What is fetched with a model, and what of its kind stays where it is."""

    projector: RepositoryFile | None
    drafter: tuple[RepositoryFile, ...]
    left_out: tuple[RepositoryFile, ...]

    @property
    def files(self) -> tuple[RepositoryFile, ...]:
        return (*((self.projector,) if self.projector else ()), *self.drafter)


class PartialName(NamedTuple):
    """What a partial file's name says: of which file it is, and how large that will be."""

    name: str
    size_bytes: int


def check_one_model(repository: str, models: Sequence[ListedModel]) -> None:
    """Check that a repository has one model in several quantisations, among which a machine may choose.

    :raises UsageError: when they are different models
    """
    families = {family_of(model.files[0].path) for model in models}
    if len(families) > 1:
        first = models[0].files[0].path
        raise UsageError(
            f"{repository} has {len(families)} different models",
            details=tuple(model.files[0].path for model in models[:12]),
            hint=f"name a quantisation that only one of them has, or the file: `orch pull hf:{repository}:{first}`",
        )


def choose_for_machine(repository: str, candidates: Sequence[PullCandidate], *, has_device: bool) -> ChosenModel:
    """Return the quantisation for this machine: the largest that is wholly on the devices; without one, the usual one.

    Unquantised files are taken only where there is nothing else: Q8_0 answers alike in half of the memory.

    :param candidates: at least one
    :raises OrchError: when none of them runs here
    """
    quantised = [each for each in candidates if not _UNQUANTISED.fullmatch(each.model.quant)] or list(candidates)
    ordered = sorted(quantised, key=lambda each: each.model.size_bytes or 0)
    count = "the only quantisation" if len(candidates) == 1 else f"of {len(candidates)} quantisations"
    whole = [each for each in ordered if each.verdict == "fits"]
    if whole and has_device:
        return ChosenModel(whole[-1].model, f"{count}, the largest that is wholly in this machine's device memory")

    runs = [each for each in ordered if each.verdict in ("fits", "fits_with_offload")]
    if not runs:
        # Of what may fit, the smallest is the best guess; what certainly does not is not fetched unasked.
        unclear = [each for each in ordered if each.verdict == "unclear"]
        if unclear:
            return ChosenModel(unclear[0].model, f"{count}, the smallest: whether it fits is not certain")

        smallest = ordered[0]
        raise OrchError(
            f"no quantisation of {repository} fits this machine",
            details=(f"the smallest, {smallest.model.quant}, needs {smallest.least_mib} MiB at least",),
            hint=f"`orch plan hf:{repository} --matrix` shows them all; one that is named is fetched all the same",
        )

    where = "with a part of it in host memory" if has_device else "in host memory"
    usual = [each for each in runs if each.model in find_quant([run.model for run in runs], USUAL_QUANT)]
    if usual:
        return ChosenModel(usual[0].model, f"{count}, the usual one, which runs {where}")

    limit = next((each.model.size_bytes or 0 for each in find_usual(ordered)), None)
    smaller = [each for each in runs if limit is None or (each.model.size_bytes or 0) <= limit]
    return ChosenModel((smaller or runs)[-1].model, f"{count}, the largest that runs {where}")


def find_usual(candidates: Sequence[PullCandidate]) -> list[PullCandidate]:
    """Return those in the usual quantisation."""
    models = find_quant([each.model for each in candidates], USUAL_QUANT)
    return [each for each in candidates if each.model in models]


def extras_for(model: ListedModel, contents: Contents) -> Extras:
    """Return the projector and the drafter to fetch with a model: one of each kind."""
    projector = _first_of(contents.projectors, _PROJECTORS)
    heads = [file for file in contents.drafters if _MTP.search(file.path)] or list(contents.drafters)
    drafter = _first_of(heads, (model.quant, "Q8_0", "F16", "BF16"))
    parts = _parts_of(drafter, contents.drafters) if drafter is not None else ()
    taken = {projector, *parts}
    rest = (file for file in (*contents.projectors, *contents.drafters) if file not in taken)
    return Extras(projector, parts, tuple(rest))


def draft_type(path: str) -> str:
    """Return how a file drafts, by its name: the profile's `speculative.type`."""
    name = path.rpartition("/")[2].lower()
    return next((each for each in ("mtp", "eagle3", "dflash", "dspark") if each in name), "draft")


def check_path(repository: str, path: str) -> None:
    """Check that a repository's file may be written below a directory of ours under its own name.

    :raises OrchError: when its name leads elsewhere
    """
    parts = path.split("/")
    if path.isprintable() and "\\" not in path and all(part and not part.startswith(".") for part in parts):
        return

    raise OrchError(
        f"a file of {repository} has a name that is not used here",
        details=(ascii(path[:200]),),
        hint="a repository whose files are called so is not to be trusted: take another one",
    )


def partial_name(name: str, size_bytes: int, identity: str) -> str:
    """Return the name of a file while it is incomplete. Another version of the file has another one.

    :param identity: hexadecimal digits that tell its version
    """
    return f"{name}.{size_bytes}-{identity[:IDENTITY_LENGTH]}.part"


def read_partial_name(name: str) -> PartialName | None:
    match = _PARTIAL.fullmatch(name)
    return PartialName(match["name"], int(match["size"])) if match else None


def size_words(count: float) -> str:
    """Return an amount of bytes for people, in powers of 1000 as disks and the hub have them."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.{0 if count >= 100 * step else 1}f} {unit}"

    return f"{count:.0f} B"


def progress_words(name: str, done: int, total: int, bytes_per_s: float | None) -> str:
    """Return one line about a transfer.

    :param bytes_per_s: None until it is known
    """
    percent = 100 * done // total if total else 100
    line = f"{name}  {percent} %  {size_words(done)} of {size_words(total)}"
    if bytes_per_s:
        line += f"  {size_words(bytes_per_s)}/s  {_duration((total - done) / bytes_per_s)} left"

    return line


def space_problem(directory: str, needed: int, free: int) -> OrchError | None:
    """Return the error to show where a disk has not enough room; None where it has."""
    if needed == 0 or needed + RESERVE_BYTES <= free:
        return None

    figures = f"{size_words(needed)} are to be fetched, {size_words(free)} are free"
    return OrchError(
        "there is not enough space on the disk",
        details=(f"{directory}: {figures}, and {size_words(RESERVE_BYTES)} of them are left free",),
        hint="`orch models list` shows what takes how much, `orch models remove NAME` frees it",
    )


def _first_of(files: Sequence[RepositoryFile], quants: Iterable[str]) -> RepositoryFile | None:
    for quant in quants:
        for file in files:
            if quant_of(file.path).upper() == quant.upper():
                return file

    return min(files, key=lambda file: (file.size_bytes or 0, file.path), default=None)


def _parts_of(file: RepositoryFile, files: Sequence[RepositoryFile]) -> tuple[RepositoryFile, ...]:
    match = _PART_OF_SPLIT.fullmatch(file.path)
    if match is None:
        return (file,)

    return tuple(each for each in files if (other := _PART_OF_SPLIT.fullmatch(each.path)) and other[1] == match[1])


def _duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
