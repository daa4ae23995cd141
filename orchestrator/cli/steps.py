"""Shows the steps of an installation before they are done, and after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from orchestrator.cli import diagnostics, output
from orchestrator.core.setup.service_plan import Run, Step, WriteFile


def visible_steps(steps: Iterable[Step]) -> list[Step]:
    """Leave out the steps that do something only when they are undone."""
    return [step for step in steps if not (isinstance(step, Run) and not step.argv)]


def show_steps(steps: Iterable[Step]) -> None:
    """Print each file with its text, and each command."""
    shown = visible_steps(steps)
    for step in shown:
        output.line(str(step))
        if isinstance(step, WriteFile):
            for line in step.text.splitlines():
                output.line(f"    {line}".rstrip())

    if not shown:
        diagnostics.note("nothing to do")


def steps_data(steps: Iterable[Step]) -> list[dict[str, object]]:
    """Return the steps for JSON."""
    return [{"what": str(step), "kind": type(step).__name__, **asdict(step)} for step in visible_steps(steps)]
