"""`orch init`: from what is on this machine to a model that answers."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.cli.setup.first_run.profile import ChosenProfile
    from orchestrator.engines.models.examine import Kind

HELP = "find models and engines on this machine, make a profile, start it and say hello"
EXAMPLES = """\
  orch init                                    three questions at most
  orch init --yes                              none
  orch init --dry-run                          what is here, and what would be done; nothing is written or started
  orch init ~/models/some-Q4_K_M.gguf          this model; or the models of a directory
  orch init hf:unsloth/Qwen3-4B-Instruct-2507-GGUF --use agent"""


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


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.config.profile_import import write_profiles
    from orchestrator.adapters.paths import find_paths
    from orchestrator.cli.setup.first_run import view
    from orchestrator.cli.setup.first_run.choice import InitRun, NotFetched, choose_model, look_at_machine
    from orchestrator.cli.setup.first_run.profile import demo_profile, profile_for
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
    engines, host = look_at_machine(paths)
    if not args.json:
        view.show_machine(engines, host)

    document: dict[str, object] = {"version": 1, "machine": view.machine_words(engines, host)}
    here = InitRun(args, paths, store, engines, host, asks, document)
    try:
        proposal = choose_model(here)
    except NotFetched:  # a dry run of what is to be fetched first
        return _finish(args, document)

    chosen = demo_profile(engines) if proposal is None else profile_for(here, proposal)
    document |= {"profile": chosen.name, "file": chosen.file, "text": chosen.text}
    if args.dry_run:
        if chosen.text is not None and not args.json:
            view.show_profile(chosen.file, chosen.text, "is there already" if chosen.known else "would write")

        return _finish(args, document)

    service = _wants_service(args, asks)
    if chosen.text is not None:
        if not chosen.known:
            write_profiles(store, {chosen.name: chosen.text}, force=True)

        if not args.json:
            view.show_profile(chosen.file, chosen.text, "is there already" if chosen.known else "wrote")

    if service:
        from orchestrator.cli.setup.service import install_user_service

        document["service"] = list(install_user_service(chosen.name))

    try:
        document |= _start(args, paths, chosen, "chat" if proposal is None else proposal.examined.kind)
    except OrchError:
        if chosen.text is not None:
            diagnostics.note(f"the profile stays: {view.short(chosen.file)}; `orch up {chosen.name}` tries again")

        raise

    return _finish(args, document)


def _somebody_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _wants_service(args: argparse.Namespace, asks: bool) -> bool:
    """:raises OrchError: when a service was asked for that cannot be had"""
    if not args.service and not asks:
        return False

    from orchestrator.cli.setup.first_run import view
    from orchestrator.cli.setup.service import user_service_problem

    problem = user_service_problem()
    if args.service and problem is not None:
        raise OrchError(f"no service: {problem}", hint="`orch service install --help`, or leave --service out")

    return args.service or (problem is None and view.agrees("start it at each boot, as a service of yours?"))


def _start(args: argparse.Namespace, paths: Paths, chosen: ChosenProfile, kind: Kind) -> dict[str, object]:
    """Start it and ask it something; return what is told of that as JSON."""
    from orchestrator.adapters.config.config_file import load_config
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
        if load_config(paths).gateway.page != "off":
            output.line(f"  in a browser: {url}/")

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
