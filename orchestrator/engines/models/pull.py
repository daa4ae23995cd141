"""A model fetched from a repository: which one, with what beside it, onto a disk that has room for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from orchestrator.adapters.gguf.reader import GgufError
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, plan_of
from orchestrator.core.plan.repository import (
    Contents,
    ListedModel,
    ModelReference,
    RepositoryFile,
    choose_model,
    parse_reference,
)
from orchestrator.core.setup.first_profile import MARGINS_MIB
from orchestrator.core.setup.pulls import (
    ChosenModel,
    Extras,
    PullCandidate,
    check_one_model,
    check_path,
    choose_for_machine,
    extras_for,
    space_problem,
)
from orchestrator.engines.plan import devices_used, gather
from orchestrator.engines.plan_target import find_alike
from orchestrator.engines.remote_model import look_into

Role = Literal["model", "projector", "drafter"]

BEGINNINGS = 3
"""A file that changes while it is fetched is begun anew; a repository that never holds still is given up."""


class Room(NamedTuple):
    """What the quantisation is chosen for."""

    devices: tuple[DeviceRoom, ...]
    host: HostRoom


@dataclass(frozen=True)
class PulledFile:
    """A file to fetch, and how much of it is there.

    :param there: `whole`, `partial` (an earlier try has left some of it) or `absent`
    """

    role: Role
    file: RepositoryFile
    target: str
    size: int
    kept: int
    there: Literal["whole", "partial", "absent"]


@dataclass(frozen=True)
class Pull:
    """What is to be fetched, and where it goes.

    :param why: the model was chosen, for people
    """

    repository: str
    model: ListedModel
    why: str
    directory: str
    files: tuple[PulledFile, ...]
    left_out: tuple[RepositoryFile, ...]
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        return sum(each.size - each.kept for each in self.files if each.there != "whole")

    def path_of(self, role: Role) -> str | None:
        """Return the file of a role, of several parts the first."""
        return next((each.target for each in self.files if each.role == role), None)


Watch = Callable[[PulledFile, str, int], None]
"""Called with the file, the step and the bytes that are there."""


def prepare(paths: Paths, text: str, room: Callable[[], Room], *, extras: bool) -> Pull:
    """Return what `hf:ORG/REPO[:QUANT]` would fetch; nothing is fetched but headers, where a choice is to be made.

    :param room: asked for only where no quantisation is named
    :param extras: with a projector and a drafter, where there are some
    :raises OrchError: when the hub does not tell, or there is no such model
    """
    reference = parse_reference(text, "pull")
    contents = look_into(reference.repository)
    chosen = _choose(paths, reference, contents, room)
    if chosen.model.missing:
        raise GgufError(
            f"{len(chosen.model.missing)} of the {len(chosen.model.files) + len(chosen.model.missing)} files of "
            f"{chosen.model.quant} are missing in {reference.repository}",
            details=chosen.model.missing[:8],
            hint="take another quantisation, or another repository",
        )

    everything = extras_for(chosen.model, contents)
    beside = everything if extras else Extras(None, (), (*everything.files, *everything.left_out))
    directory = os.path.join(paths.models, *reference.repository.split("/"))
    files: list[tuple[RepositoryFile, Role]] = [(file, "model") for file in chosen.model.files]
    files += [(beside.projector, "projector")] if beside.projector is not None else []
    files += [(file, "drafter") for file in beside.drafter]
    found = tuple(_look_at(reference.repository, directory, file, role) for file, role in files)
    return Pull(
        reference.repository, chosen.model, chosen.why, directory, found, beside.left_out, _free_bytes(directory)
    )


def fetch(pull: Pull, watch: Watch) -> int:
    """Fetch what is missing; return the bytes that came over the network.

    :raises OrchError: when the disk has no room, or something cannot be fetched: what has arrived is kept
    """
    problem = space_problem(pull.directory, pull.needed_bytes, pull.free_bytes)
    if problem is not None:
        raise problem

    return sum(_fetch_file(pull.repository, each, watch) for each in pull.files)


def _choose(paths: Paths, reference: ModelReference, contents: Contents, room: Callable[[], Room]) -> ChosenModel:
    if reference.quant or len(contents.models) < 2:
        why = "the one that was named" if reference.quant else "the only one there is"
        return ChosenModel(choose_model(reference, contents, "pull"), why)

    check_one_model(reference.repository, contents.models)
    here = room()
    targets, left_out = find_alike(paths, f"hf:{reference.repository}")
    models = {model.files[0].path: model for model in contents.models}
    candidates = []
    for target in targets:
        model = models.get(target.parts[0].path.removeprefix(f"hf:{reference.repository}/"))
        if model is None:  # the repository has changed since it was listed
            continue

        subject = gather(target.profile, target.engine, target.parts)
        used = devices_used(target.profile.settings, here.devices)
        plan = plan_of(subject, used, here.host, advise=False)
        least = sum(plan.need.device_total(index).low_mib for index in range(len(plan.need.devices)))
        least += 0 if used else sum(part.low_mib for part in plan.need.host.values())
        candidates.append(PullCandidate(model, plan.judgement.verdict, round(least)))

    if not candidates:
        raise OrchError(f"no model of {reference.repository} can be planned", details=tuple(left_out[:8]))

    return choose_for_machine(reference.repository, candidates, has_device=bool(here.devices))


def room_of(devices: Sequence[DeviceRoom], host: HostRoom) -> Room:
    """Return the room on this machine when nothing else runs: what is fetched stays, and what runs now may not."""
    rooms = tuple(
        room._replace(free_mib=max(0, room.total_mib - MARGINS_MIB[0])) if room.total_mib else room for room in devices
    )
    return Room(rooms, host)


def _look_at(repository: str, directory: str, file: RepositoryFile, role: Role) -> PulledFile:
    from orchestrator.adapters.hub.download import version_of
    from orchestrator.adapters.hub.partial import is_whole, kept_bytes

    check_path(repository, file.path)
    version = version_of(repository, file)
    target = os.path.join(directory, *file.path.split("/"))
    if is_whole(target, version.size, file.sha256):
        return PulledFile(role, file, target, version.size, version.size, "whole")

    kept = kept_bytes(target, version.size, version.identity)
    return PulledFile(role, file, target, version.size, kept, "partial" if kept else "absent")


def _fetch_file(repository: str, wanted: PulledFile, watch: Watch) -> int:
    from orchestrator.adapters.hub.download import ChangedError, download, version_of

    file, received = wanted.file, 0
    for left in reversed(range(BEGINNINGS)):
        version = version_of(repository, file)
        seen = replace(wanted, file=file, size=version.size)

        def told(step: str, done: int, of: PulledFile = seen) -> None:
            watch(of, step, done)

        try:
            return received + download(repository, version, wanted.target, told)
        except ChangedError:
            if not left:
                raise

            file = next((each for each in _files(look_into(repository)) if each.path == file.path), file)

    raise AssertionError("unreachable")


def _files(contents: Contents) -> Iterator[RepositoryFile]:
    for model in contents.models:
        yield from model.files

    yield from contents.projectors
    yield from contents.drafters


def _free_bytes(directory: str) -> int:
    """Return what is free where a directory is, or will be."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)

    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
