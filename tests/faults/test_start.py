"""Starts that fail, hang, lie, or take long: scenarios 1, 14 to 18 and 20."""

from __future__ import annotations

from tests.faults.lab import Lab


def test_a_lab_works(lab: Lab) -> None:
    lab.run("a")
    lab.ask("r1", 20, stream=True).check_complete(20)
