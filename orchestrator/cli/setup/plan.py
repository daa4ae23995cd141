"""`orch plan`: does a model fit, with which settings; said before anything is loaded or downloaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.core.plan.plan import DeviceRoom, HostRoom
    from orchestrator.core.plan.report.document import FigureSource
    from orchestrator.engines.plan_answer import PlanAnswer
    from orchestrator.engines.plan_target import PlanTarget

STATUS_S = 2.0
"""A daemon that is busy for longer is not waited for: what its engine holds counts as taken."""

HELP = "say whether a model fits, with which settings, before anything is loaded or downloaded"
EXAMPLES = """\
  orch plan qwen3.6-35b-a3b-12gb                          a profile, with what is free now
  orch plan ~/models/some.gguf --vram 12G --context 64k   a file on another machine's card
  orch plan hf:unsloth/Qwen3.6-35B-A3B-GGUF:Q4_K_M --card "RTX 3060 12GB" --ram 32G
  orch plan hf:unsloth/Qwen3.6-27B-GGUF --card 4090 --matrix
  orch plan qwen3.6-27b-16gb --json | jq .verdict         the exit code is 0 whatever the verdict"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="PROFILE[@ENGINE], FILE.gguf[@ENGINE], or hf:ORG/REPO[:QUANT], of which only the headers are read",
    )
    parser.add_argument(
        "--vram",
        metavar="SIZE",
        help="free device memory: 12G or 11500M (powers of 1024), several devices as 24G,12G, 0 for none; "
        "default: the card's, else what is free now",
    )
    parser.add_argument("--ram", metavar="SIZE", help="host memory that is available; default: not limited, or as now")
    parser.add_argument(
        "--card", action="append", default=[], metavar="NAME", help='such as "RTX 3060 12GB"; once for each device'
    )
    parser.add_argument("--engine", metavar="ID", help="plan for this engine; default: the profile's")
    parser.add_argument("--context", metavar="N", help="tokens, such as 32768 or 32k; default: the profile's, or 32k")
    parser.add_argument("--matrix", action="store_true", help="quantisations by contexts and KV types: what fits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.quantities import parse_tokens
    from orchestrator.engines.plan_answer import answer_plan
    from orchestrator.engines.plan_target import find_alike, find_target

    paths = find_paths()
    context = None if args.context is None else parse_tokens(args.context, "--context")
    devices, host, sources = _room(args)
    diagnostics.progress(f"reading {args.target}")
    if args.matrix:
        targets, left_out = find_alike(paths, args.target, args.engine, context)
        for message in left_out:
            diagnostics.note(f"left out: {message}")

        _say_engine(targets[0], args)
        return _show_matrix(targets, context, devices, host, args)

    target = find_target(paths, args.target, args.engine, context)
    diagnostics.clear_progress()
    answer = answer_plan(paths, target, devices, host, here=args.vram is None and not args.card)
    told = [*answer.sources, *sources]
    if args.json:
        from orchestrator.core.plan.report.document import plan_document

        build = target.engine.build if target.engine else None
        facts: dict[str, object] = {
            "model": target.model,
            "quant": target.quant,
            "engine": target.profile.engine,
            "build": build,
        }
        facts["beside"] = [{"file": file.path, "size_bytes": file.size_bytes} for file in target.beside]
        output.json_data(plan_document(answer.plan, answer.speed, told, facts))
    else:
        _show_plan(target, answer, told)

    return exit_codes.OK


def _room(args: argparse.Namespace) -> tuple[tuple[DeviceRoom, ...], HostRoom, list[FigureSource]]:
    """Return the devices, the host, and where their figures come from."""
    from orchestrator.core.plan.plan import DeviceRoom, HostRoom
    from orchestrator.core.plan.report.document import FigureSource
    from orchestrator.core.plan.speed.cards import find_card
    from orchestrator.core.quantities import parse_memory

    cards = [find_card(name) for name in args.card]
    sizes = [parse_memory(each, "--vram") for each in args.vram.split(",")] if args.vram is not None else []
    if sizes and len(cards) not in (0, 1, len(sizes)):
        raise UsageError(
            f"--vram names {len(sizes)} devices and --card {len(cards)}", hint="name a size for each card, in order"
        )

    host = HostRoom(None, None)
    if args.ram is not None:
        ram = parse_memory(args.ram, "--ram")
        host = HostRoom(ram, ram)

    told = "not limited, give --ram" if args.ram is None else "--ram"
    if sizes:
        named = cards * len(sizes) if len(cards) == 1 else cards
        rooms = [
            DeviceRoom(named[at].full_name, named[at].total_mib, size)
            if named
            else DeviceRoom("device" if len(sizes) == 1 else f"device {at}", None, size)
            for at, size in enumerate(sizes)
            if size
        ]
        return tuple(rooms), host, [FigureSource("free device memory", "--vram"), FigureSource("host memory", told)]

    if cards:
        rooms = [DeviceRoom(card.full_name, card.total_mib, card.total_mib) for card in cards]
        free = FigureSource("free device memory", "the card's total: a desktop or other programs take some of it")
        return tuple(rooms), host, [free, FigureSource("host memory", told)]

    return _measured_room(host)


def _measured_room(host: HostRoom) -> tuple[tuple[DeviceRoom, ...], HostRoom, list[FigureSource]]:
    from orchestrator.core.plan.report.document import FigureSource
    from orchestrator.engines.plan import measure_devices, measure_host

    found = measure_devices()
    told = "--ram" if host.free_mib is not None else "measured now"
    host = host if host.free_mib is not None else measure_host()
    if not found:
        diagnostics.note("no driver tells of a device here: planned for the host alone; --card or --vram name a device")
        return (), host, [FigureSource("devices", "none: no driver tells of one"), FigureSource("host memory", told)]

    free = "measured now"
    profile, held_mib = _running()
    if profile and len(found) == 1 and found[0].free_mib is not None:
        room = found[0]
        found = (room._replace(free_mib=min(room.total_mib or held_mib, (room.free_mib or 0) + held_mib)),)
        free = f"measured now, and {held_mib} MiB of {profile}, which runs: a start in its place has them"
    elif profile:
        free = f"measured now, beside {profile}, which runs"

    return found, host, [FigureSource("free device memory", free), FigureSource("host memory", told)]


def _running() -> tuple[str, int]:
    """Return the profile that an engine of ours serves, and the device memory that it took; an empty name if none."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.api import client

    try:
        status = client.status(find_paths().control_socket, STATUS_S)
    except OrchError:
        return "", 0

    rows = [row for row in status.get("memory", ()) if row["place"] != "host"]
    return status.get("profile") or "", round(sum(row["measured_mib"] or 0 for row in rows))


def _show_plan(target: PlanTarget, answer: PlanAnswer, sources: list[FigureSource]) -> None:
    import os

    from orchestrator.core.plan.report.text import advice_lines, shape_words, table_of, verdict_lines

    plan = answer.plan
    engine = target.engine.build if target.engine else "not installed, planned as its newest build"
    for line in verdict_lines(plan):
        output.line(line)

    output.line()
    output.line(f"{os.path.basename(target.model)} on {target.profile.engine} ({engine})")
    output.line(f"with {shape_words(plan.shape)}")
    output.line()
    output.table(*table_of(plan))
    output.line()
    for line in advice_lines(plan, answer.speed):
        output.line(line)

    for file in target.beside:
        size = "" if file.size_bytes is None else f", {file.size_bytes / 1e9:.1f} GB"
        output.line(f"beside it, and not planned: {file.path}{size}")

    output.line("sources:")
    for source in sources:
        output.line(f"  {source.figures}: {source.source}")


def _show_matrix(
    targets: list[PlanTarget],
    context: int | None,
    devices: tuple[DeviceRoom, ...],
    host: HostRoom,
    args: argparse.Namespace,
) -> int:
    from orchestrator.core.plan.report.matrix import LEGEND, contexts_for, matrix_document, matrix_of, matrix_table
    from orchestrator.core.plan.report.text import shape_words
    from orchestrator.engines.plan import devices_used, gather

    used = devices_used(targets[0].profile.settings, devices)
    subjects = [(each.quant, each.size_bytes, gather(each.profile, each.engine, each.parts)) for each in targets]
    contexts = contexts_for(subjects[0][2].geometry.trained_context, context)
    rows = list(matrix_of(subjects, contexts, used, host))
    if args.json:
        cards = [{"name": room.name, "total_mib": room.total_mib, "free_mib": room.free_mib} for room in used]
        output.json_data({"version": 1, "devices": cards, "matrix": matrix_document(rows)})
        return exit_codes.OK

    output.table(*matrix_table(rows, contexts))
    output.line()
    names = ", ".join(f"{room.name} ({room.free_mib} MiB free)" for room in used) or "no device"
    output.line(f"{names}; {shape_words(subjects[0][2].shape).partition(', KV')[2].partition(', ')[2]}")
    for line in LEGEND:
        output.line(line)

    return exit_codes.OK


def _say_engine(target: PlanTarget, args: argparse.Namespace) -> None:
    if not args.json:
        build = target.engine.build if target.engine else "not installed, planned as its newest build"
        diagnostics.note(f"for {target.profile.engine} ({build})")
