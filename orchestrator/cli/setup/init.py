"""`orch init`: from what is on this machine to a model that answers."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import Paths
    from orchestrator.core.plan.plan import HostRoom
    from orchestrator.core.setup.first_profile import Use
    from orchestrator.core.setup.found_models import FoundModel
    from orchestrator.engines.models.examine import Kind
    from orchestrator.engines.models.first_profile import Proposal
    from orchestrator.engines.models.offer import EngineHere

HELP = "find models and engines on this machine, make a profile, start it and say hello"
EXAMPLES = """\
  orch init                                    three questions at most
  orch init --yes                              none
  orch init --dry-run                          what is here, and what would be done; nothing is written or started
  orch init ~/models/some-Q4_K_M.gguf          this model; or the models of a directory
  orch init hf:unsloth/Qwen3-4B-Instruct-2507-GGUF --use agent"""

SMALL_MODEL = "hf:unsloth/Qwen3-4B-Instruct-2507-GGUF"
"""A model that nearly every machine can run, of a repository with all quantisations."""

DEMO = "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="a model's file, a directory, or hf:ORG/REPO[:QUANT]; by default where programs keep models",
    )
    parser.add_argument(
        "--use", choices=("chat", "agent", "several"), help="one person (chat), much context (agent), or four at once"
    )
    parser.add_argument("--name", metavar="NAME", help="the profile's name; by default after the model")
    parser.add_argument("--service", action="store_true", help="start it at boot, as this user's systemd service")
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing, and take what is proposed")
    parser.add_argument("--force", action="store_true", help="replace a profile of this name")
    parser.add_argument("--dry-run", action="store_true", help="show it, and write and start nothing")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and ask nothing")


class _NotFetched(Exception):
    """Raised in a dry run where a model is to be fetched first."""


class _Chosen(NamedTuple):
    """What is to be started: the profile's name, and its text where it is to be written."""

    name: str
    file: str | None
    text: str | None
    engine: str | None


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths
    from orchestrator.cli.setup import init_view as view
    from orchestrator.core.profile.profile import NAME_RULE, is_name

    asks = not (args.yes or args.json or args.dry_run)
    if asks and not _somebody_there():
        raise UsageError("nobody is there to be asked", hint="add --yes, or look first with --dry-run")

    if args.json and not (args.yes or args.dry_run):
        raise UsageError("--json asks nothing", hint="add --yes, or look first with --dry-run")

    if args.name is not None and not is_name(args.name):
        raise UsageError(f"`{args.name[:80]}` cannot be a profile's name", details=(f"allowed: {NAME_RULE}",))

    paths = find_paths()
    store = ProfileStore(paths)
    engines, host = _look_at_machine(paths)
    if not args.json:
        view.show_machine(engines, host)

    document: dict[str, object] = {"version": 1, "machine": _machine_words(engines, host)}
    try:
        proposal = _choose_model(args, paths, store, engines, host, asks, document)
    except _NotFetched:  # a dry run of what is to be fetched first
        return _finish(args, document)

    if proposal is not None and proposal.plan.judgement.verdict == "does_not_fit":
        raise OrchError(
            f"{proposal.examined.model.title} does not fit: {proposal.plan.judgement.reason}",
            hint="take a smaller model or quantisation: `orch plan FILE.gguf --matrix` compares them",
        )

    chosen = _demo(engines) if proposal is None else _profile(args, paths, store, proposal)
    document |= {"profile": chosen.name, "file": chosen.file, "text": chosen.text}
    known = chosen.file is not None and _text_of(chosen.file) == chosen.text
    if args.dry_run:
        if chosen.file is not None and chosen.text is not None and not args.json:
            view.show_profile(chosen.file, chosen.text, "is there already" if known else "would write")

        return _finish(args, document)

    service = _wants_service(args, asks)
    if chosen.file is not None and chosen.text is not None:
        from orchestrator.adapters.config.profile_import import write_profiles

        if not known:
            write_profiles(store, {chosen.name: chosen.text}, force=True)

        if not args.json:
            view.show_profile(chosen.file, chosen.text, "is there already" if known else "wrote")

    if service:
        from orchestrator.cli.setup.service import install_user_service

        document["service"] = list(install_user_service(chosen.name))

    try:
        document |= _start(args, paths, chosen, "chat" if proposal is None else proposal.examined.kind)
    except OrchError:
        if chosen.file is not None:
            diagnostics.note(f"the profile stays: {view.short(chosen.file)}; `orch up {chosen.name}` tries again")

        raise

    return _finish(args, document)


def _somebody_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _look_at_machine(paths: Paths) -> tuple[tuple[EngineHere, ...], HostRoom]:
    """:raises OrchError: when no engine is found"""
    from orchestrator.engines.models.offer import engines_here
    from orchestrator.engines.plan import measure_devices, measure_host

    diagnostics.progress("looking for engines and devices")
    measured = measure_devices()
    engines = engines_here(paths, measured)
    diagnostics.clear_progress()
    if not engines:
        raise OrchError(
            "no engine is on this machine",
            details=("looked for: llama-server of llama.cpp and of ik_llama.cpp, and the embedded engine",),
            hint='`pip install "llama-orch[embedded]"` is the quickest, for the processor; '
            "`orch engines build upstream --pypi` builds one for the graphics card",
        )

    if engines[0].blind:
        names = ", ".join(room.name for room in measured)
        diagnostics.warn(
            f"{engines[0].engine.id} does not use {names}: it runs on the processor; "
            "`orch engines build upstream --pypi` builds one that does"
        )

    return engines, measure_host()


def _choose_model(
    args: argparse.Namespace,
    paths: Paths,
    store: ProfileStore,
    engines: tuple[EngineHere, ...],
    host: HostRoom,
    asks: bool,
    document: dict[str, object],
) -> Proposal | None:
    """Return what is to be started; None for the demo's model, where no other one is found."""
    from orchestrator.cli.setup import init_view as view
    from orchestrator.engines.models.offer import offer, proposal_of
    from orchestrator.engines.models.search import find_below, find_models

    use: Use = args.use or "chat"
    if args.target is not None and args.target.startswith("hf:"):
        return proposal_of(_pulled(args, paths, args.target), engines, host, use)

    diagnostics.progress("looking for models")
    profiles, _ = store.load_all()
    finds = find_below(args.target) if args.target is not None else find_models(paths, os.environ, profiles)
    diagnostics.progress("reading headers")
    offered = offer(finds.models, engines, host, use)
    diagnostics.clear_progress()
    notes = (*offered.notes, *finds.notes)
    document |= {
        "found": len(finds.models),
        "models": [view.model_words(each) for each in offered.proposals],
        "notes": list(notes),
    }
    if not args.json:
        if offered.proposals:
            view.show_models(offered.proposals, len(finds.models))

        view.show_notes(notes)

    if not offered.proposals:
        return _without_model(args, paths, engines, host, asks, notes)

    place = 0
    if asks:
        output.line()
        if len(offered.proposals) > 1:
            names = [f"{each.examined.model.title} {each.examined.model.quant}" for each in offered.proposals]
            place = view.choose("which model?", names)

    proposal = offered.proposals[place]
    if asks and args.use is None and proposal.examined.kind == "chat":
        chosen = _ask_use()
        if chosen != use:
            return proposal_of(proposal.examined.model, engines, host, chosen)

    return proposal


def _ask_use() -> Use:
    from orchestrator.cli.setup import init_view as view
    from orchestrator.core.setup.first_profile import USES

    uses = list(USES)
    for number, use in enumerate(uses, 1):
        diagnostics.note(f"  {number}  {use}: {USES[use]}")

    return uses[view.choose("what for?", uses)]


def _without_model(
    args: argparse.Namespace,
    paths: Paths,
    engines: tuple[EngineHere, ...],
    host: HostRoom,
    asks: bool,
    notes: tuple[str, ...],
) -> Proposal | None:
    from orchestrator.cli.setup import init_view as view
    from orchestrator.engines.models.offer import proposal_of

    if args.target is not None:
        raise OrchError(f"no model that can be started in {args.target}", details=notes[:8])

    if asks:
        output.line()
        diagnostics.note("no model was found. Either of these:")
        diagnostics.note(f"  1  fetch a small one: {SMALL_MODEL}")
        diagnostics.note("  2  demo: a toy that orch generates, which recites a text")
        if view.choose("which?", ["fetch", "demo"]) == 0:
            return proposal_of(_pulled(args, paths, SMALL_MODEL), engines, host, args.use or "chat")

        return None

    diagnostics.note("no model was found: the demo's is taken, a toy that recites a text")
    diagnostics.note(f"a real one is fetched by `orch init {SMALL_MODEL}`")
    return None


def _pulled(args: argparse.Namespace, paths: Paths, text: str) -> FoundModel:
    """Fetch a model and return it.

    :raises _NotFetched: of a dry run, where it is not here yet
    """
    from orchestrator.cli.setup.pull import fetch_model
    from orchestrator.engines.models.search import find_pulled

    pull, received = fetch_model(text, dry_run=args.dry_run, quiet=args.json)
    if received is None and any(each.there != "whole" for each in pull.files):
        raise _NotFetched

    return find_pulled(paths, pull.path_of("model") or "")


def _demo(engines: tuple[EngineHere, ...]) -> _Chosen:
    own = any(each.engine.id == "embedded" for each in engines)
    return _Chosen(DEMO, None, None, None if own else engines[0].engine.id)


def _profile(args: argparse.Namespace, paths: Paths, store: ProfileStore, proposal: Proposal) -> _Chosen:
    """Return the profile of a proposal, which has been rendered for its engine; nothing is written.

    :raises OrchError: when the engine cannot express it, or the name is taken
    """
    from orchestrator.core.setup.first_profile import free_name, profile_name

    model = proposal.examined.model
    profiles, _ = store.load_all()
    taken = {name for profile in profiles for name in profile.names} | set(store.names())
    wanted = args.name or profile_name(model.title)
    file, text = _checked(paths, store, proposal, wanted)
    if wanted not in taken or args.force:
        return _Chosen(wanted, file, text, None)

    for name in () if args.name else store.names():  # the same profile is not made again
        if _text_of(same := os.path.join(store.directory, f"{name}.toml")) == text:
            return _Chosen(name, same, text, None)

    if args.name is not None:
        raise UsageError(
            f"there is a profile `{wanted}` already",
            details=(store.source(wanted).path if wanted in store.names() else "as another name of one",),
            hint="`--force` replaces it, `--name` takes another one",
        )

    name = free_name(wanted, model.quant, taken)
    diagnostics.note(
        f"there is a profile `{wanted}` already: this one is called `{name}` (`--force` replaces the other)"
    )
    file, text = _checked(paths, store, proposal, name)
    return _Chosen(name, file, text, None)


def _checked(paths: Paths, store: ProfileStore, proposal: Proposal, name: str) -> tuple[str, str]:
    """Return file and text of a profile that the engine takes, without drafts where it cannot draft."""
    from orchestrator.engines.models.first_profile import without_drafts
    from orchestrator.engines.render import render_profile

    file = os.path.join(store.directory, f"{name}.toml")
    text = _text(proposal)
    try:
        profile = store.resolve(file, text).profile
        assert profile is not None
        render_profile(paths, profile, proposal.engine)
    except OrchError as error:
        plain = without_drafts(proposal)
        if plain.settings == proposal.settings:
            raise

        diagnostics.note(f"without drafts: {error.message}")
        return _checked(paths, store, plain, name)

    return file, text


def _text(proposal: Proposal) -> str:
    from orchestrator.core.setup.first_profile import USES, profile_text

    examined, judgement = proposal.examined, proposal.plan.judgement
    what = USES[proposal.use] if examined.kind == "chat" else f"{examined.kind}s"
    planned = f"The plan: {judgement.reason}." if judgement.verdict == "fits_with_offload" else ""
    head = (f"Made by `orch init` for {what}.", planned)
    first = (("model", examined.path), ("engine", proposal.engine.id))
    return profile_text([each for each in head if each], first, proposal.settings)


def _text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _wants_service(args: argparse.Namespace, asks: bool) -> bool:
    """:raises OrchError: when a service was asked for that cannot be had"""
    if not args.service and not asks:
        return False

    from orchestrator.cli.setup import init_view as view
    from orchestrator.cli.setup.service import user_service_problem

    problem = user_service_problem()
    if args.service and problem is not None:
        raise OrchError(f"no service: {problem}", hint="`orch service install --help`, or leave --service out")

    return args.service or (problem is None and view.agrees("start it at each boot, as a service of yours?"))


def _start(args: argparse.Namespace, paths: Paths, chosen: _Chosen, kind: Kind) -> dict[str, object]:
    """Start it and ask it something; return what is told of that as JSON."""
    from orchestrator.cli import starting

    body: dict[str, object] = {"profile": chosen.name, **({"engine": chosen.engine} if chosen.engine else {})}
    answer = starting.request_start(paths, body)
    status, _ = starting.await_start(paths.control_socket, answer, args.timeout)
    if not starting.is_ready(answer, status):
        raise starting.not_started(answer, status)

    url = status["gateway"]["url"]
    if not args.json:
        output.line()
        output.line(f"{chosen.name} on {status['engine']} answers at {url}/v1")

    said = _try(args, paths, url, chosen.name, kind)
    return {"engine": status["engine"], "address": f"{url}/v1", "answer": said}


def _try(args: argparse.Namespace, paths: Paths, url: str, name: str, kind: Kind) -> object:
    from orchestrator.cli import first_chat

    if kind == "embedding":
        count = first_chat.embed_once(paths, url, name)
        if not args.json:
            output.line(f"  a text becomes {count} numbers: POST {url}/v1/embeddings")

        return {"dimensions": count}

    if kind == "reranker":
        score = first_chat.rank_once(paths, url, name)
        if not args.json:
            output.line(f"  a text is ranked ({score:.3f}): POST {url}/v1/rerank")

        return {"score": score}

    show = (lambda text: None) if args.json else (lambda text: output.raw(output.safe(text)))
    if not args.json:
        output.line(f"  you: {first_chat.QUESTION}")
        output.raw("  it:  ")

    answer = first_chat.ask_once(paths, url, name, show)
    if not args.json:
        speed = f"{answer.tok_s:.0f} tokens/s" if answer.tok_s is not None else f"{answer.seconds:.1f} s"
        output.line()
        output.line(f"  ({speed})")

    return {"question": first_chat.QUESTION, "text": answer.text, "tok_s": answer.tok_s}


def _finish(args: argparse.Namespace, document: dict[str, object]) -> int:
    name = document.get("profile")
    following = [
        ("orch top", "watch it, switch, load and unload"),
        (f"orch plan {name}", "what takes how much memory, and what each setting would cost"),
        ("orch down", "stop it; `orch up` starts it again"),
    ]
    if args.json:
        output.json_data({**document, "next": [command for command, _ in following] if "address" in document else []})
    elif "address" in document:
        output.line()
        width = max(len(command) for command, _ in following)
        for command, what in following:
            output.line(f"  {command.ljust(width)}  {what}")

    return exit_codes.OK


def _machine_words(engines: tuple[EngineHere, ...], host: HostRoom) -> dict[str, object]:
    return {
        "devices": [
            {"name": room.name, "total_mib": room.total_mib, "free_mib": room.free_mib} for room in engines[0].devices
        ],
        "host": {"total_mib": host.total_mib, "free_mib": host.free_mib},
        "engines": [
            {"id": each.engine.id, "build": each.engine.build, "path": each.engine.path, "devices": len(each.devices)}
            for each in engines
        ],
    }
