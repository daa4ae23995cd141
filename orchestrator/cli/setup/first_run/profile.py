"""The profile that `orch init` writes: its name, its text, and whether its engine takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.cli import diagnostics
from orchestrator.cli.setup.first_run.choice import InitRun
from orchestrator.core.errors import UsageError
from orchestrator.core.setup.first_profile import free_name, profile_name
from orchestrator.engines.models.first_profile import Proposal, proposed_text
from orchestrator.engines.models.offer import EngineHere

DEMO = "demo"


class ChosenProfile(NamedTuple):
    """What is to be started.

    :param text: None of a profile that is not ours to write
    :param known: the file has this text already
    :param engine: another one than its own
    """

    name: str
    file: str = ""
    text: str | None = None
    known: bool = False
    engine: str | None = None


def demo_profile(engines: Sequence[EngineHere]) -> ChosenProfile:
    """Return the demo's profile, on an engine that is here."""
    own = any(each.engine.id == "embedded" for each in engines)
    return ChosenProfile(DEMO, engine=None if own else engines[0].engine.id)


def profile_for(here: InitRun, proposal: Proposal) -> ChosenProfile:
    """Return the profile of a proposal, which has been rendered for its engine; nothing is written.

    :raises OrchError: when the engine cannot express it, or the name is taken
    """
    model, store, args = proposal.examined.model, here.store, here.args
    profiles, _ = store.load_all()
    taken = {name for profile in profiles for name in profile.names} | set(store.names())
    wanted = args.name or profile_name(model.title)
    text, notes = proposed_text(here.paths, store, proposal, wanted, "init")
    for note in notes:
        diagnostics.note(note)

    if wanted not in taken or args.force:
        return _chosen(here, wanted, text)

    if args.name is not None:
        raise UsageError(
            f"there is a profile `{wanted}` already",
            details=(store.source(wanted).path if wanted in store.names() else "as another name of one",),
            hint="`--force` replaces it, `--name` takes another one",
        )

    for name in store.names():
        same = _chosen(here, name, text)
        if same.known:  # it is not made a second time
            return same

    name = free_name(wanted, model.quant, taken)
    diagnostics.note(
        f"there is a profile `{wanted}` already: this one is called `{name}` (`--force` replaces the other)"
    )
    return _chosen(here, name, text)


def _chosen(here: InitRun, name: str, text: str) -> ChosenProfile:
    file = here.store.path_of(name)
    return ChosenProfile(name, file, text, _text_of(file) == text)


def _text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None
