"""The dashboard on recorded frames: panels, keys, and a daemon that goes and comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import OptionList

from orchestrator.core.errors import NotRunningError, OrchError, UsageError
from orchestrator.core.vram.process_kinds import ProcessFacts
from orchestrator.core.vram.report import DeviceFigures, vram_report
from tests.tui.driving import dashboard, head, picture, until
from tests.tui.recorded import Recording, frame
from tui import keys
from tui.app import Dashboard
from tui.screens.confirm import ConfirmScreen, MenuScreen
from tui.screens.residents import ResidentsScreen
from tui.screens.text import TextScreen
from tui.widgets.events_panel import KEPT_LINES
from tui.widgets.lines import Scrolled

pytestmark = pytest.mark.asyncio
GONE = NotRunningError("no daemon is running", hint="start one: `orch up PROFILE`")
HOSTILE = "\x1b]0;owned\x07[b]bold[/b] [@click=app.quit]here[/] \x1b[2Jend"


def growing_log(texts: Callable[[int], list[str]]) -> Callable[[], list[dict[str, Any]]]:
    """A log that has more at every look."""
    count = 0

    def answer() -> list[dict[str, Any]]:
        nonlocal count
        lines = texts(count)
        first, count = count, count + len(lines)
        return [{"seq": first + number, "text": text} for number, text in enumerate(lines)]

    return answer


async def test_every_panel_shows_its_part_of_the_frame() -> None:
    async with dashboard(Recording(frame("serving")), (140, 40)) as (app, _):
        text = picture(app)
        for part in ("decode 42.8 tok/s", "RTX 3060", "slot 1", "✓ complete", "margin_learned", "2688 MiB"):
            assert part in text


async def test_a_small_terminal_shows_one_lower_panel_at_a_time() -> None:
    async with dashboard(Recording(frame("serving")), (80, 24)) as (app, pilot):
        for key, panel in (("3", app.engine), ("5", app.events_panel), ("4", app.requests)):
            await pilot.press(key)
            assert [each for each in (app.engine, app.requests, app.events_panel) if each.display] == [panel]
            assert panel.size.height >= 8


async def test_a_terminal_that_is_too_small_is_told_so_and_recovers() -> None:
    async with dashboard(Recording(frame("serving")), (50, 12)) as (app, pilot):
        assert "60 x 18" in str(app.query_one("#too-small").render())
        assert app.query_one("#too-small").region.height > 0 and app.head.region.height == 0
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.head.region.height == 3, "the head is back")


async def test_without_a_daemon_it_says_how_to_start_one() -> None:
    async with dashboard(Recording(GONE)) as (app, _):
        assert "✗ no daemon is running since " in head(app) and "start one: `orch up PROFILE`" in head(app)


async def test_it_outlives_the_daemon_and_says_since_when() -> None:
    recording = Recording(frame("serving"))
    async with dashboard(recording) as (app, pilot):
        recording.answers["/v1/frame"] = GONE
        await until(pilot, lambda: app.lost, "the loss is noticed")
        assert "below is what was seen at 13:00:00: ready" in head(app)
        assert app.screen.has_class("-stale") and "▶ running" in picture(app)
        since = app.lost[2]
        looks = recording.frames
        await until(pilot, lambda: recording.frames > looks + 2, "it goes on asking")
        assert app.lost[2] == since
        recording.answers["/v1/frame"] = frame("no-gpu")
        await until(pilot, lambda: "the daemon answers again" in picture(app), "it is said")
        await until(pilot, lambda: "one@embedded" in head(app), "the new daemon is shown")
        assert not app.screen.has_class("-stale")


async def test_a_daemon_of_another_version_is_named_as_such() -> None:
    async with dashboard(Recording(UsageError("no such request: GET /v1/frame"))) as (app, _):
        assert "no such request: GET /v1/frame since " in head(app) and "another version" in head(app)


async def test_an_error_of_the_daemon_stays_within_reach() -> None:
    recording = Recording(frame("serving"))
    recording.answers["POST /v1/cancel"] = OrchError(
        "no switch is under way", details=("really",), hint="`orch events`"
    )
    async with dashboard(recording) as (app, pilot):
        await pilot.press("c")
        await until(pilot, lambda: app.operator.problems, "the error is kept")
        await pilot.press("E")
        await until(
            pilot, lambda: "no switch is under way" in app.screen.query_one(Scrolled).text, "the error is shown"
        )
        assert (
            "really" in app.screen.query_one(Scrolled).text and "`orch events`" in app.screen.query_one(Scrolled).text
        )


async def test_a_failed_engine_is_explained_in_full() -> None:
    async with dashboard(Recording(frame("failed"))) as (app, pilot):
        assert "E: more" in head(app)
        await pilot.press("E")
        await until(pilot, lambda: "keeps more experts" in app.screen.query_one(Scrolled).text, "the hint")


async def test_what_an_engine_says_is_neither_obeyed_nor_read_as_markup() -> None:
    from tui.text import clean

    recording = Recording(frame("serving"))
    recording.answers["/v1/logs"] = growing_log(lambda count: [str(clean(HOSTILE))] if count == 0 else [])
    async with dashboard(recording) as (app, pilot):
        await pilot.press("l")
        await until(pilot, lambda: "end" in app.events_panel.tail.text, "the line is shown")
        assert app.events_panel.tail.text == "[b]bold[/b] [@click=app.quit]here[/] end"
        await pilot.press("G", "enter")
        await until(pilot, lambda: isinstance(app.screen, TextScreen), "its details")
        await until(pilot, lambda: "[@click=app.quit]here[/]" in app.screen.query_one(Scrolled).text, "its text")
        await pilot.click(Scrolled, offset=(25, 0))
        assert app.is_running


async def test_the_log_follows_until_somebody_scrolls_up() -> None:
    recording = Recording(frame("serving"))
    recording.answers["/v1/logs"] = growing_log(lambda count: [f"line {count + n}" for n in range(30)])
    async with dashboard(recording) as (app, pilot):
        await pilot.press("l")
        tail = app.events_panel.tails["log"]
        await until(pilot, lambda: len(tail.lines) > 60 and tail.is_vertical_scroll_end, "it follows")
        await pilot.press("k", "k")
        assert not tail.follow and "f follows again" in str(app.events_panel.border_subtitle)
        before, at = len(tail.lines), tail.scroll_offset.y
        await until(pilot, lambda: len(tail.lines) > before + 60, "more lines")
        assert tail.scroll_offset.y == at
        await pilot.press("f")
        await until(pilot, lambda: tail.is_vertical_scroll_end and tail.follow, "it follows again")


async def test_a_filter_shows_only_the_lines_with_its_words() -> None:
    recording = Recording(frame("serving"))
    recording.answers["/v1/logs"] = growing_log(
        lambda count: [f"line {count + n}" for n in range(100)] if not count else []
    )
    async with dashboard(recording) as (app, pilot):
        await pilot.press("l")
        tail = app.events_panel.tails["log"]
        await until(pilot, lambda: len(tail.lines) == 100, "the log")
        await pilot.press("slash", *"line 7", "enter")
        await until(pilot, lambda: len(tail.lines) == 19, "the filter")
        assert tail.has_focus and "filtered" in str(app.events_panel.border_subtitle)
        await pilot.press("escape")
        await until(pilot, lambda: len(tail.lines) == 100, "all lines again")


async def test_a_log_is_bounded_and_says_what_it_left_out() -> None:
    recording = Recording(frame("serving"))
    async with dashboard(recording) as (app, pilot):
        await pilot.press("l")
        recording.answers["/v1/logs"] = growing_log(lambda count: [f"line {count + n}" for n in range(2000)])
        await until(pilot, lambda: app.events_panel.tail.line_count == KEPT_LINES, "it is full")
        recording.answers["/v1/logs"] = [{"seq": 10**6, "text": "much later"}]
        await until(pilot, lambda: "much later" in app.events_panel.tail.text, "the newest line")
        assert (
            len(app.events_panel.tail.lines) == KEPT_LINES
            and "came too quickly to be shown" in app.events_panel.tail.text
        )


async def test_a_pause_freezes_the_picture() -> None:
    recording = Recording(frame("serving"))
    async with dashboard(recording) as (app, pilot):
        await pilot.press("space")
        await until(pilot, lambda: "paused" in head(app), "it says so")
        recording.answers["/v1/frame"] = frame("no-gpu")
        seen = app.frames_seen
        await until(pilot, lambda: app.frames_seen > seen + 2, "frames come")
        assert "ik-fork" in head(app)
        await pilot.press("space")
        await until(pilot, lambda: "one@embedded" in head(app), "it goes on")


async def test_requests_are_sorted_by_any_column_and_the_cursor_stays_on_its_request() -> None:
    async with dashboard(Recording(frame("serving"))) as (app, pilot):
        await pilot.press("4", "j", "j", "j")
        assert app.requests.chosen["id"] == 116
        await pilot.press("greater_than_sign", "greater_than_sign")
        await until(pilot, lambda: "in▲" in app.requests.text, "sorted by `in`")
        assert app.requests.chosen["id"] == 116 and app.requests.cursor == 7
        await pilot.press("R")
        await until(pilot, lambda: "in▼" in app.requests.text, "reversed")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TextScreen), "details")
        await until(pilot, lambda: "836 of 1100 tokens" in app.screen.query_one(Scrolled).text, "all figures")


async def test_a_panel_takes_the_whole_screen_and_gives_it_back() -> None:
    async with dashboard(Recording(frame("serving")), (140, 40)) as (app, pilot):
        await pilot.press("1", "z")
        assert [number for number, each in app.panels.items() if each.display] == [1]
        await until(pilot, lambda: app.speed.size.height > 30, "it is large")
        await pilot.press("escape")
        assert all(each.display for each in app.panels.values())


async def test_a_click_chooses_a_line() -> None:
    async with dashboard(Recording(frame("serving"))) as (app, pilot):
        await pilot.click(app.requests, offset=(10, 5))
        assert app.requests.chosen["id"] == 116


async def test_help_lists_every_action_with_its_keys() -> None:
    async with dashboard(Recording(frame("serving")), (140, 50), keys={"switch": "f6"}) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and app.screen.query_one(Scrolled).text, "help")
        text = app.screen.query_one(Scrolled).text
        assert all(keys.id_of(each) in text and each.help in text for each in keys.ACTIONS)
        assert any(line.startswith("f6") and "switch" in line for line in text.splitlines())


async def test_the_palette_finds_actions_by_name() -> None:
    async with dashboard(Recording(frame("serving"))) as (app, pilot):
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Switch", "Restart", "Stop at once", "Theme", "Quit"} <= titles
        await pilot.press("ctrl+p", *"zoom")

        def found() -> bool:
            lists = app.screen.query(OptionList)
            return (
                bool(lists and lists.first().option_count) and lists.first().get_option_at_index(0).hit.text == "Zoom"
            )

        await until(pilot, found, "the action is found")
        await pilot.press("enter")
        await until(pilot, lambda: app._zoomed, "the action has run")


@pytest.mark.parametrize("theme", ["textual-light", "nord", "gruvbox", "ansi-dark"])
async def test_themes_show_every_panel(theme: str) -> None:
    async with dashboard(Recording(frame("serving")), (140, 40)) as (app, pilot):
        if theme not in app.available_themes:
            theme = "textual-ansi"

        app.theme = theme
        await pilot.pause()
        assert "decode" in app.export_screenshot()


async def test_read_only_refuses_what_changes_anything() -> None:
    recording = Recording(frame("serving"))
    async with dashboard(recording, readonly=True) as (app, pilot):
        await pilot.press("w", "s", "r", "K", "c", "x")
        await pilot.pause()
        assert len(app.screen_stack) == 1 and recording.asked == [] and "read-only" in head(app)
        assert "Switch" not in {command.title for command in app.get_system_commands(app.screen)}


@pytest.mark.parametrize(
    "key, question, consequences",
    [
        (
            "K",
            "Stop at once",
            ["cuts off 2 running requests", "refuses 1 request that waits", "the daemon ends with it"],
        ),
        (
            "s",
            "Stop",
            ["2 running requests may end first, 120 s at most", "refuses 1 request", "the daemon ends with it"],
        ),
        ("r", "Restart", ["2 running requests end first"]),
    ],
)
async def test_what_hurts_is_asked_first_with_whom_it_hurts(key: str, question: str, consequences: list[str]) -> None:
    recording = Recording(frame("serving"))
    recording.answers["/v1/launch"] = {"drain_s": 120.0, "daemon_ends": True}
    async with dashboard(recording) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
        text = " ".join(str(each.render()) for each in app.screen.query("Static"))
        assert f"{question} qwen3.6-35b-a3b-12gb@ik-fork?" in text and all(each in text for each in consequences)
        assert app.screen.query_one("#no").has_focus
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1, "no is the answer")
        assert all(body is None for _, body in recording.asked)


async def test_the_menu_leads_to_the_same_questions() -> None:
    recording = Recording(frame("serving"))
    recording.answers["/v1/launch"] = NotRunningError("nothing runs")
    async with dashboard(recording) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, MenuScreen), "the menu")
        await pilot.press("down", "down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")


async def test_who_holds_device_memory_is_shown_with_what_frees_it() -> None:
    recording = Recording(frame("serving"))
    figures = DeviceFigures(0, "RTX 3060", 11_000, 12_288, 300, {7: 10_000, 8: 400}, "driver")
    recording.answers["/v1/vram"] = vram_report([figures], {8: ProcessFacts(8, "firefox")}, {7: "chat"})
    async with dashboard(recording, readonly=True) as (app, pilot):
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and "RTX 3060" in picture(app), "it is shown")
        shown = picture(app)
        assert all(each in shown for each in ("10000 MiB  orch: chat (pid 7)", "`orch unload chat`", "told of nobody"))


async def test_the_interval_can_be_changed() -> None:
    async with dashboard(Recording(frame("serving")), interval_s=1.0) as (app, pilot):
        await pilot.press("plus")
        assert app._interval_s == 0.5
        await pilot.press("minus", "minus")
        assert app._interval_s == 2.0


async def test_what_did_not_change_is_not_drawn_again() -> None:
    recording = Recording(frame("serving"))
    async with dashboard(recording, (140, 40)) as (app, pilot):
        drawn: list[Any] = []
        for each in (app.head, app.memory, app.engine, app.requests):
            each.refresh = lambda *regions, **_: drawn.append(regions)

        frames_without: set[int] = set()

        def settled() -> bool:
            if drawn:  # on a busy machine the first layout comes with one of the first frames
                drawn.clear()
                frames_without.clear()

            frames_without.add(app.frames_seen)
            return len(frames_without) > 3

        await until(pilot, settled, "frames that draw nothing")


@pytest.mark.parametrize("text", ["switch", "=f6", "swich=f6"])
async def test_a_key_for_no_action_is_an_error_of_usage(text: str) -> None:
    with pytest.raises(UsageError):
        keys.read_keys([text])


async def test_every_action_has_a_name_of_its_own_and_a_method() -> None:
    names = [keys.id_of(each) for each in keys.ACTIONS]
    assert len(set(names)) == len(names)
    taken = [key for each in keys.ACTIONS for key in each.keys.split(",")]
    assert len(set(taken)) == len(taken)
    assert all(hasattr(Dashboard, f"action_{each.name.partition('(')[0]}") for each in keys.ACTIONS)


def resident(profile: str, state: str = "ready", **changes: Any) -> Any:
    base = {
        "profile": profile, "engine": "upstream", "build": "b1", "state": state, "pid": 7, "focus": False,
        "pinned": False, "idle_s": 20.0, "in_flight": 0, "queued": 0, "memory": [], "device_mib": 640, "host_mib": 90,
        "unloaded_since": None, "waits": None, "cause": None, "since": "2026-11-21T10:00:05.000+00:00", "progress": "",
    }  # fmt: skip
    return {**base, **changes}


def several() -> Any:
    """A frame with three residents, of which two share the device."""
    shown = frame("serving")
    first = resident("chat", focus=True, in_flight=2, queued=1, device_mib=9000)
    asleep = resident("code", "stopped", unloaded_since="2026-11-21", idle_s=1300.0, device_mib=None, host_mib=None)
    shown["status"]["instances"] = [first, resident("embed", pinned=True), asleep]
    gpu = shown["gpus"][0]
    gpu["engine_mib"] = 9640
    gpu["shares"] = [{"profile": "chat", "mib": 9000}, {"profile": "embed", "mib": 640}]
    return shown


def footer(app: Dashboard) -> list[str]:
    return [each.binding.description for each in app.screen.active_bindings.values() if each.binding.show]


async def test_several_residents_are_listed_and_share_the_bar_of_their_device() -> None:
    async with dashboard(Recording(several()), (140, 40)) as (app, _):
        text = picture(app)
        for part in (
            "loaded (m: load, unload, pin)",
            "▸ ● chat@upstream ready",
            "  ● embed@upstream ready  pinned",
            "  ○ code@upstream unloaded (idle 22 min)",
            "█ chat",
            "▚ embed",
        ):
            assert part in text

        assert "Models" in [
            each.binding.description for each in app.screen.active_bindings.values() if each.binding.show
        ]


async def test_with_one_resident_nothing_of_that_is_shown_and_the_key_is_there() -> None:
    async with dashboard(Recording(frame("serving")), (140, 40)) as (app, pilot):
        assert "loaded (m:" not in picture(app)
        assert "Models" not in footer(app)
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")


@pytest.mark.parametrize(
    ("pressed", "answers", "asked", "said"),
    [
        (["j", "u"], {"/v1/unload": {"profile": "embed", "unloaded": False}},
         ("/v1/unload", {"profile": "embed"}), "embed is unloaded: the next request loads it again"),
        (["j", "p"], {"/v1/pin": {"profile": "embed", "pinned": False, "changed": True}},
         ("/v1/pin", {"profile": "embed", "pinned": False}), "embed is not pinned any more"),
        (["p"], {"/v1/pin": {"profile": "chat", "pinned": True, "changed": True}},
         ("/v1/pin", {"profile": "chat", "pinned": True}), "chat is pinned"),
    ],
    ids=["unload", "unpin", "pin"],
)  # fmt: skip
async def test_the_list_acts_on_the_one_under_the_cursor(
    pressed: list[str], answers: dict[str, Any], asked: tuple[str, dict[str, object]], said: str
) -> None:
    recording = Recording(several())
    recording.answers.update({f"POST {path}": answer for path, answer in answers.items()})
    async with dashboard(recording, (140, 40)) as (app, pilot):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")
        await pilot.press(*pressed)
        await until(pilot, lambda: said in picture(app), "it is told")
        assert asked in recording.asked


async def test_the_focus_moves_to_the_chosen_one_and_the_others_stay() -> None:
    recording = Recording(several())
    result = {
        "ok": True, "from": {"profile": "chat", "engine": "upstream"}, "to": {"profile": "embed", "engine": "upstream"},
        "rolled_back": False, "held_requests": 0, "gap_s": 0.0, "total_s": 0.0, "strategy": "beside", "cause": None,
    }  # fmt: skip
    recording.answers["POST /v1/switch"] = {"operation": "x"}
    recording.answers["/v1/switch"] = {"phase": "done", "progress": "", "result": result}
    async with dashboard(recording, (140, 40)) as (app, pilot):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")
        await pilot.press("j", "enter")
        await until(pilot, lambda: "embed@upstream serves" in picture(app), "it is told")
        assert ("/v1/switch", {"target": "embed@upstream", "keep": True}) in recording.asked


async def test_another_profile_is_loaded_and_one_that_still_ends_is_asked_for_again() -> None:
    recording = Recording(several())
    targets = [
        {"profile": name, "engine": "upstream", "running": name == "chat"} for name in ("chat", "code", "vision")
    ]
    recording.answers["/v1/targets"] = {"targets": targets, "left_out": []}
    taken = iter([False, True])
    recording.answers["POST /v1/load"] = lambda: {"taken": next(taken), "generation": 7}
    states = iter(["stopping", "stopping", "starting", "ready"])

    def status() -> dict[str, Any]:
        return {"generation": 8, "instances": [resident("code", next(states), progress="loading code")]}

    recording.answers["/v1/status"] = status
    async with dashboard(recording, (140, 40)) as (app, pilot):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, MenuScreen), "what can be loaded is offered")
        offered = app.screen.query_one(OptionList)
        assert [option.id for option in offered.options] == ["code@upstream", "vision@upstream"]
        await pilot.press("enter")
        await until(pilot, lambda: "code@upstream is loaded" in picture(app), "it is told")
        posts = [body for path, body in recording.asked if path == "/v1/load"]
        assert posts == [{"profile": "code", "engine": "upstream"}] * 2


async def test_a_stop_is_about_the_one_in_focus_while_others_are_loaded() -> None:
    recording = Recording(several())
    recording.answers["/v1/launch"] = {"drain_s": 30.0, "daemon_ends": True}
    recording.answers["POST /v1/down"] = {"target": "chat@upstream"}
    async with dashboard(recording, (140, 40)) as (app, pilot):
        await pilot.press("K")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "it asks first")
        said = " ".join(str(each.render()) for each in app.screen.query("Static"))
        assert "cuts off 2 running requests" in said and "daemon ends" not in said
        await pilot.press("y")
        await until(pilot, lambda: "stopping chat@upstream" in picture(app), "it is told")
        assert ("/v1/down", {"force": True, "profiles": ["chat"]}) in recording.asked
