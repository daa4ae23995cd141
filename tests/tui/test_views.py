"""The lines that a frame becomes, without a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.types import MemoryStatus
from tests.tui.recorded import frame
from tui import figures
from tui.text import cells, clean, cut, fit, plain, wrap
from tui.views import devices, engine, header, preview, requests, speed, tables
from tui.views.report import report

NAMES = ("serving", "failed", "no-gpu")


@given(st.text(max_size=40), st.integers(0, 30))
def test_a_text_takes_exactly_the_cells_it_is_given(text: str, width: int) -> None:
    assert cells(fit(text, width)) == width
    assert cells(cut(text, width)) <= width


@given(st.text(alphabet="ab 漢é", max_size=60), st.integers(2, 20))
def test_wrapping_loses_no_character_but_spaces(text: str, width: int) -> None:
    pieces = wrap(text, width)
    assert all(cells(piece) <= width for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_nothing_that_comes_in_can_command_the_terminal() -> None:
    hostile = {"a": ["\x1b]0;title\x07x\x1b[2J", {"b": "one\ntwo\u202e"}], "c": 1.5, "d": None}
    assert clean(hostile) == {"a": ["x", {"b": "one␊two\ufffd"}], "c": 1.5, "d": None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [40, 78, 138])
def test_no_line_is_wider_than_its_panel(name: str, width: int) -> None:
    shown = frame(name)
    lines = [*header.head(shown, width), *devices.devices(shown, width), *speed.series(shown, "decode", width, 6)]
    assert max(cells(plain(each)) for each in lines) <= width


@pytest.mark.parametrize("width", [78, 138])
def test_the_head_says_what_runs_where_and_with_which_margin(width: int) -> None:
    text = "\n".join(map(plain, header.head(frame("serving"), width)))
    for part in (
        "● ready 59 min",
        "qwen3.6-35b-a3b-12gb@ik-fork",
        "b4840 (1a2b3c4)",
        "margin 2688 MiB (ladder)",
        "http://127.0.0.1:8080",
        "2 in flight",
        "1 queued",
    ):
        assert part in text


def test_a_failure_is_in_the_head_with_what_to_do() -> None:
    text = plain(header.head(frame("failed"), 200)[2])
    assert text.startswith("✗ device_oom: the device ran out of memory") and "n_cpu_moe=40" in text


def test_a_notice_is_in_the_head_and_in_the_report() -> None:
    shown = frame("serving")
    shown["status"]["notice"] = "12.1 ms a step, 7.0 usually: the GPU is hot"
    assert header.news_text(shown["status"]) == ("! 12.1 ms a step, 7.0 usually: the GPU is hot", "warn")
    assert "! 12.1 ms a step" in "\n".join(map(plain, report(shown, 80)))
    shown["status"]["stale"] = ["memory.fit_margin"]
    said = header.news_text(shown["status"])[0]
    assert said.endswith("; the profile has changed (memory.fit_margin): r restarts with it")


@pytest.mark.parametrize("state", list(figures.STATES))
def test_a_state_is_told_by_its_sign_as_well(state: str) -> None:
    shown = frame("serving")
    shown["status"]["state"] = state  # type: ignore[typeddict-item]
    assert plain(header.state(shown["status"])) == f"{figures.STATES[state][0]} {state}"


def test_drafts_that_are_mostly_refused_are_marked() -> None:
    shown = frame("no-gpu")
    (text, role) = speed.series(shown, "decode", 60, 1)[0][-1]
    assert (text, role) == ("! drafts 41 %", "warn")
    shown["status"]["speed"]["draft_acceptance"] = 0.6
    assert speed.series(shown, "decode", 60, 1)[0][-1] == ("drafts 60 %", "good")


def test_a_bar_tells_ours_others_free_and_the_margin_apart() -> None:
    assert plain(devices.memory_bar((50, 20), 100, 90, 10)) == "█████▓▓··┆"
    assert plain(devices.memory_bar((0.1, 0.1), 100, None, 10)) == "█▓········"
    assert plain(devices.memory_bar((100, 50), 100, None, 4)) == "████"
    assert plain(devices.memory_bar((0, 0), 0, None, 4)) == ""


def test_what_the_driver_keeps_for_itself_is_not_drawn_as_free() -> None:
    shown = frame("serving")
    gpu = shown["gpus"][0]
    gpu["total_mib"], gpu["used_mib"], gpu["engine_mib"], gpu["others_mib"] = 1000, 900, 500, 100
    shown["status"]["margin_mib"] = None
    bar = plain(devices.devices(shown, 60)[1])
    assert bar.count("█") > bar.count("▓") > 3 * bar.count("·") > 0


@pytest.mark.parametrize("width", [36, 50, 100])
def test_why_a_device_is_slow_is_never_cut_off(width: int) -> None:
    shown = frame("serving")
    shown["gpus"][0]["throttle"] = ["power_cap", "thermal"]
    lines = [plain(each) for each in devices.devices(shown, width)]
    assert any("! power_cap, thermal" in each for each in lines)
    assert all(cells(each) <= width for each in lines)


def test_a_machine_without_a_gpu_is_nothing_to_worry_about() -> None:
    lines = devices.devices(frame("no-gpu"), 78)
    assert plain(lines[0]) == "no GPU driver found: engines run on the CPU"
    assert all(role not in ("bad", "warn") for each in lines for _, role in each)


def test_figures_of_a_driver_that_hangs_are_marked_with_their_age() -> None:
    shown = frame("serving")
    shown["gpus_stale_s"] = 31.0
    assert "! the driver has not answered for 31 s" in map(plain, devices.devices(shown, 78))


def test_what_no_driver_tells_is_left_out() -> None:
    shown = frame("serving")
    for name in ("engine_mib", "others_mib", "utilization", "power_w", "power_limit_w", "temperature_c"):
        shown["gpus"][0][name] = None

    text = "\n".join(map(plain, devices.devices(shown, 78)))
    assert "RTX 3060" in text and "10.2 / 12.0 GiB" in text
    assert "None" not in text and "engine" not in text


def test_a_plot_is_drawn_from_the_newest_values_at_the_right() -> None:
    rows, top = speed.plot([99, 0, 1, 2, 3], 2, 1)
    assert top == 3
    assert rows == ["⡠⠊"]
    assert speed.plot([None, 5.0], 1, 1)[0] == ["⠈"]


def test_a_plot_has_a_gap_where_nothing_is_known() -> None:
    rows, _ = speed.plot([1.0, 1.0, None, None, 1.0, 1.0], 3, 1)
    assert rows == ["⠉ ⠉"]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=300), st.integers(1, 80), st.integers(1, 12))
def test_a_plot_has_the_size_it_is_given(values: list[float | None], columns: int, rows: int) -> None:
    drawn, top = speed.plot(values, columns, rows)
    assert len(drawn) == rows and {len(each) for each in drawn} == {columns}
    assert top >= max((value for value in values[-columns * 2 :] if value is not None), default=0)


@pytest.mark.parametrize("width", [20, 40, 78, 138, 300])
def test_columns_go_where_there_is_no_room(width: int) -> None:
    columns = tables.fitting(requests.COLUMNS, width)
    row = tables.row(columns, width, frame("serving")["requests"][0])
    assert columns[0].name in ("state", "started") and cells(plain(row)) <= max(width, 14) + 1


def test_rows_of_which_a_figure_is_not_known_come_last_either_way() -> None:
    rows = frame("serving")["requests"]
    for reverse in (False, True):
        known = [each["decode_tok_s"] for each in tables.ordered(rows, requests.COLUMNS, "decode/s", reverse=reverse)]
        assert known[-2:] == [None, None]
        assert known[:-2] == sorted(filter(None, known), reverse=reverse)


def test_every_attempt_is_there_with_its_reason_and_what_came_next() -> None:
    text = "\n".join(map(plain, engine.engine(frame("failed"), 138)))
    assert text.count("✗ device_oom") == 3
    assert "cudaMalloc failed: out of memory" in text and "next: nothing is left to try" in text
    assert "margin 2688 MiB  kv:q4_0" in text


def test_memory_is_shown_by_place_and_what_differs_from_its_plan_is_named() -> None:
    shown = frame("serving")
    sizes = (("weights", 9000.0, 9000.0, 9000.0), ("compute", 80.0, 82.0, 489.0))
    shown["status"]["memory"] = [
        MemoryStatus(
            place="CUDA0", component=name, planned_mib={"low": low, "high": high}, kind="computed", measured_mib=read
        )
        for name, low, high, read in sizes
    ]
    text = "\n".join(map(plain, engine.engine(shown, 138)))
    assert "CUDA0: 9 489 MiB, planned 9 080 to 9 082: weights 9 000, compute 489 (planned 80 to 82)" in text


def test_a_full_context_is_marked() -> None:
    lines = engine.engine(frame("serving"), 78)
    assert lines[1][-1][1] == "warn" and "95 %" in plain(lines[1])
    assert lines[0][-1][1] == ""


def test_a_preview_says_what_changes_and_for_whom() -> None:
    plan = {
        "from": {"profile": "a", "engine": "x"},
        "to": {"profile": "a", "engine": "y"},
        "strategy": "replace",
        "reason": "too little memory",
        "notes": ["careful"],
        "argv_before": ["/x", "--ctx-size", "1", "--jinja"],
        "argv_after": ["/y", "--ctx-size", "2", "--jinja"],
    }
    lines = [plain(each) for each in preview.preview(plan, frame("serving")["status"]["gateway"], 120.0, 100)]
    assert {"- /x", "+ /y", "- --ctx-size 1", "+ --ctx-size 2", "note: careful"} <= set(lines)
    assert "2 running requests may end on the old engine, 120 s at most" in lines
    assert "holds every new request until the new engine answers; 1 request waits already" in lines


@pytest.mark.parametrize(
    "value, text", [(None, "—"), (0.0, "0.0"), (41.23, "41.2"), (812.4, "812"), (12345.0, "12345")]
)
def test_rates_have_the_digits_that_matter(value: float | None, text: str) -> None:
    assert figures.rate(value) == text


@pytest.mark.parametrize("value, text", [(None, "—"), (0.04, "0.04 J"), (512.34, "512 J"), (36_000.0, "10 Wh")])
def test_energy_is_in_the_unit_that_fits(value: float | None, text: str) -> None:
    assert figures.joules(value) == text


def test_the_details_of_a_request_have_its_energy_and_an_older_daemon_tells_none() -> None:
    row = frame("serving")["requests"][0]
    assert "energy      —" in [plain(each) for each in requests.details(row)]
    row["energy_j"] = 75.5
    assert "energy      75.5 J" in [plain(each) for each in requests.details(row)]


@pytest.mark.parametrize("value, text", [(41, "41 s"), (200, "3 min"), (7500, "2 h 05"), (300_000, "3 d 11 h")])
def test_durations_have_two_units_at_most(value: float, text: str) -> None:
    assert figures.duration(value) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_report_holds_every_panel(name: str) -> None:
    text = "\n".join(map(plain, report(frame(name), 100)))
    for section in ("speed", "memory", "engine", "requests", "events"):
        assert f"\n{section}\n" in text


def test_whoever_holds_something_of_a_device_is_seen_in_its_bar() -> None:
    signs = (("a", "engine"), ("b", "accent"), ("c", "others"))
    bar = plain(devices.memory_bar((5, 0.01, 3), 10, None, 10, signs))  # type: ignore[arg-type]
    assert bar == "aaaaabcc··"
    assert plain(devices.memory_bar((5, 3), 10, None, 10)) == "█████▓▓▓··"
