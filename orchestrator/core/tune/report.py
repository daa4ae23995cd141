"""What a tuning found, as values and as text: what was tried, what is claimed, and what was confirmed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from orchestrator.core.quantities import shown_change
from orchestrator.core.tune.records import TuneProgress, TuneSpec
from orchestrator.core.tune.search import TuneFound, TuneTrial

CONFIRMED = "b_faster"
_NOT_FASTER = {"a_faster": "slower", "same": "no difference worth having"}


def tune_report(
    spec: TuneSpec, progress: TuneProgress, found: TuneFound | None, confirmed: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the report: the answer of `orch tune --json`.

    `gain` and `claimed` are shares of the rate of turns: 0.1 is 10 % more turns in the same time.

    :param found: the end of the search; None while it goes on
    :param confirmed: the report of the bench of the proposal (B) against the settings as they are (A)
    """
    base = next((trial for trial in progress.trials if trial.point == spec.space.current), None)
    settings = spec.space.settings(found.point) if found is not None else {}
    won = confirmed is not None and confirmed["verdict"] == CONFIRMED
    return {
        "profile": spec.profile,
        "engine": spec.engine,
        "build": spec.side.get("build"),
        "sha256": spec.side.get("sha256"),
        "model": spec.side.get("model"),
        "model_bytes": spec.side.get("model_bytes"),
        "use": {
            "name": spec.use.name,
            "shared_tokens": spec.use.shared_tokens,
            "new_tokens": spec.use.new_tokens,
            "answer_tokens": spec.use.answer_tokens,
            "source": spec.use.source,
            "measured_share": spec.use.measured_share,
        },
        "axes": [
            {
                "name": axis.name,
                "choices": [each.label for each in axis.choices],
                "now": axis.choices[axis.current].label,
            }
            for axis in spec.space.axes
        ],
        "trials": [_row(spec, trial, base) for trial in progress.trials],
        "full_context_died": [spec.space.label(point) for point in progress.barred],
        "searched": found is not None,
        "proposal": settings,
        "claimed": _share(found.claimed) if found is not None else None,
        "confirmation": _confirmation(confirmed),
        "confirmed": won,
        "machine": dict(spec.machine),
        "command": list(spec.command),
    }


def verdict_line(report: Mapping[str, Any]) -> str:
    """Return what came out, in one sentence."""
    name = f"{report['profile']}@{report['engine']}"
    if not report["searched"]:
        return f"{name}: the search is not over"

    if not report["proposal"]:
        return f"{name}: nothing that was tried is better than the settings as they are"

    words = ", ".join(f"{key} = {value}" for key, value in report["proposal"].items())
    found = report["confirmation"]
    if report["claimed"] is None:
        return f"{name}: {words} starts and answers, and the settings as they are do not; set it by hand"

    if found is None:
        return f"{name}: {words} is proposed, and was not confirmed yet"

    if report["confirmed"]:
        return (
            f"{name}: {words} answers a {report['use']['name']} turn {shown_change(found['ratio'])} faster "
            f"({shown_change(found['low'])} to {shown_change(found['high'])})"
        )

    what = _NOT_FASTER.get(found["verdict"], "not certain to be faster")
    told = f" ({shown_change(found['low'])} to {shown_change(found['high'])})" if found["ratio"] is not None else ""
    return f"{name}: {words} is {what}{told}; the settings stay as they are"


def what_changed(report: Mapping[str, Any], side: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Return what of a tuning's ground is another one now: figures that were confirmed hold for what they were made on.

    :param side: build and model as they are, as a bench describes its targets
    :param machine: its `devices` and `driver`
    """
    then = report["machine"]
    pairs = [
        ("build", (report["build"], str(report["sha256"])[:12]), (side["build"], side["sha256"][:12])),
        ("model", f"{report['model_bytes']} bytes", f"{side['model_bytes']} bytes"),
        ("devices", then.get("devices"), machine["devices"]),
        ("driver", then.get("driver"), machine["driver"]),
    ]
    return [f"{name} {_shown(old)}, now {_shown(new)}" for name, old, new in pairs if old != new]


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value or "none")


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report for people: the trials in their order, and the verdict."""
    cells = trial_rows(report)
    widths = [max(len(row[column]) for row in cells) for column in range(2)]
    rows = [f"{a:{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in cells]
    return [head_line(report), "", *rows, "", verdict_line(report), *remarks(report)]


def remarks(report: Mapping[str, Any]) -> list[str]:
    """Return what stands beside the verdict: the figure that the search claimed, what is stale, what was left out."""
    lines = []
    if report["claimed"] is not None and report["proposal"]:
        lines.append(f"the search claimed {100 * report['claimed']:+.1f} %: the best of many figures is partly luck")

    lines += [f"stale: {each}" for each in report.get("stale", ())]
    return [*lines, *(f"left out, as a full context killed it: {label}" for label in report["full_context_died"])]


def trial_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the starts in their order: settings, turns in the same time, and a turn's time or why there is none."""
    return [("settings", "turns", "a turn"), *map(_cells, report["trials"])]


def head_line(report: Mapping[str, Any]) -> str:
    """Return what was tuned, and for which turns."""
    use = report["use"]
    share = use["measured_share"]
    part = "" if share == 1 else f"; {share:.0%} of each turn is measured, as whole ones take too long here"
    return (
        f"{report['profile']}@{report['engine']} ({report['build']}), for {use['name']}: {use['shared_tokens']} tokens "
        f"before, {use['new_tokens']} new, {use['answer_tokens']} answered ({use['source']}){part}"
    )


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f} %"
    return row["settings"], gain, f"{row['turn_s']:.2f} s" if row["outcome"] == "measured" else row["reason"]


def comments_of(report: Mapping[str, Any], today: str) -> dict[str, str]:
    """Return, for each key of a confirmed proposal, the comment that stands beside it in the profile.

    :param today: the date, as 2026-01-31
    """
    found = report["confirmation"]
    gained = f"{shown_change(found['low'])} to {shown_change(found['high'])}"
    return dict.fromkeys(
        report["proposal"],
        f"orch tune, {today}, {report['build']}: a {report['use']['name']} turn {gained} faster, with all that it set",
    )


def _row(spec: TuneSpec, trial: TuneTrial, base: TuneTrial | None) -> dict[str, Any]:
    logs = trial.logs
    gain = None
    if base is not None and base.logs and logs and trial is not base:
        gain = exp(sum(logs) / len(logs) - sum(base.logs) / len(base.logs)) - 1

    return {
        "settings": spec.space.label(trial.point),
        "outcome": trial.outcome,
        "gain": None if gain is None else round(gain, 4),
        "turn_s": round(exp(-sum(logs) / len(logs)), 3) if logs else None,
        "reason": trial.reason,
        "took_s": round(trial.took_s, 1),
    }


def _confirmation(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None

    return {key: found[key] for key in ("id", "verdict", "ratio", "low", "high", "level", "blocks", "conditional")}


def _share(logarithm: float | None) -> float | None:
    return None if logarithm is None else round(exp(logarithm) - 1, 4)
