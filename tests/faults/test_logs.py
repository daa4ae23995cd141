"""Engines that print too much: scenarios 45 and 46."""

from __future__ import annotations

import time

from tests.busy import in_time
from tests.faults.lab import Lab
from tests.support import until


def test_a_flood_of_lines_slows_no_request_and_none_is_lost(lab: Lab) -> None:
    lab.run("m", faults={"log_lines_s": 5000, "tokens_s": 200})
    began = time.monotonic()
    lab.ask("r", 200).check_complete(200)
    assert in_time(time.monotonic() - began, 1.0 / 0.9 + 2.0)
    lab.control("/v1/down", {"force": True})
    lab.state("stopped")
    numbers = [
        int(line.rpartition(" ")[2])
        for line in lab.orch("logs", "-n", "20000").stdout.splitlines()
        if "flood line" in line
    ]
    assert len(numbers) > 1000
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_line_of_ten_megabytes_with_a_terminal_s_commands_in_it_does_no_harm(lab: Lab) -> None:
    lab.run("m", faults={"log_bytes": 10 << 20})
    lab.ask("r", 20).check_complete(20)
    text = until(
        lambda: found if "xxxx" in (found := lab.orch("logs", "-n", "100").stdout) else "", "the line is there"
    )
    assert "\x1b" not in text and "\x07" not in text and "\x00" not in text
    assert max(map(len, text.splitlines())) < 100_000
