"""Every action against a real daemon with the embedded engine."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from orchestrator.api.top_frames import RequestRow
from tests.support import PATIENCE_S, Home, new_home
from tests.support import until as wait_until
from tests.tui.driving import dashboard, head, picture, until
from tui.app import Dashboard
from tui.screens.confirm import ConfirmScreen, MenuScreen
from tui.screens.residents import ResidentsScreen
from tui.screens.switch import SwitchScreen
from tui.screens.text import TextScreen
from tui.source import DaemonSource
from tui.widgets.lines import Scrolled

pytestmark = pytest.mark.asyncio

PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
[context]
size = {size}
parallel = 4
[cpu]
threads = 1
threads_batch = 1
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        home.profile("one", PROFILE.format(size=131072))
        home.profile("two", PROFILE.format(size=65536))
        # Only the engine itself finds out that its template is not there.
        home.profile("zzz", PROFILE.format(size=131072) + '[chat]\ntemplate_file = "gone.jinja"\n')
        home.write("config/orch.toml", "[gateway]\nswitch_on_request = false\n")
        home.serve("one")
        home.ready("one")
        yield home


def source(home: Home) -> DaemonSource:
    return DaemonSource(os.path.join(home.root, "run", "control.sock"))


def fresh(home: Home, profile: str = "one") -> None:
    status = home.status()
    if status["state"] == "ready" and status["profile"] == profile:
        return

    home.orch("up", profile)


@contextmanager
def streaming(home: Home, tokens: int = 5000) -> Iterator[list[bytes]]:
    """A long answer under way; what has come of it once it has ended."""
    url, answers = home.url, list[bytes]()
    body = {"prompt": "A supervisor", "n_predict": tokens, "temperature": 0, "stream": True, "ignore_eos": True}

    def stream() -> None:
        answers.append(home.request("POST", "/completion", body, url=url)[2])

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        wait_until(lambda: home.status()["gateway"]["in_flight"], "the stream is under way")
        yield answers
    except BaseException:
        cancel_all(home)  # a test that failed does not wait for what it no longer looks at
        raise
    finally:
        thread.join()


def cancel_all(home: Home) -> None:
    for each in home.control("/v1/requests")["requests"]:
        home.control("/v1/requests/cancel", {"id": each["id"]})


async def choices_of(app: Dashboard, pilot: Pilot[None]) -> OptionList:
    """The list of the switch screen, once it is filled and what runs is chosen: the screen is shown a moment before."""
    await until(
        pilot, lambda: isinstance(app.screen, SwitchScreen) and len(app.screen.query(OptionList)) > 0, "the choices"
    )
    choices = app.screen.query_one(OptionList)
    await until(pilot, lambda: getattr(choices.highlighted_option, "id", None) == "one@embedded", "what runs is chosen")
    return choices


async def test_a_switch_is_previewed_followed_and_reported(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        await pilot.press("w")
        await choices_of(app, pilot)
        await until(pilot, lambda: app.screen.previewed == "one@embedded", "what runs is previewed first")
        await pilot.press("j")
        await until(pilot, lambda: app.screen.previewed == "two@embedded", "the preview")
        text = app.screen.query_one(Scrolled).text
        assert "one@embedded → two@embedded" in text and "beside" in text and "interrupts none" in text
        assert "- --ctx-size 131072" in text and "+ --ctx-size 65536" in text
        await pilot.press("enter")
        await until(pilot, lambda: "two@embedded serves: no request held" in picture(app), "the result")
        await until(pilot, lambda: "● ready" in head(app) and "two@embedded" in head(app), "the head")


async def test_a_switch_that_fails_is_rolled_back_and_explained(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        await pilot.press("w")
        await choices_of(app, pilot)
        await pilot.press("end")
        await until(pilot, lambda: app.screen.previewed == "zzz@embedded", "the preview")
        await pilot.press("enter")
        await until(pilot, lambda: app.operator.problems, "the failure")
        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and app.screen.query_one(Scrolled).text, "errors")
        text = app.screen.query_one(Scrolled).text
        assert "switching to zzz@embedded failed" in text and "rolled back: one@embedded serves" in text
        assert home.status()["profile"] == "one"


async def test_a_mistake_in_a_profile_is_in_the_preview(home: Home) -> None:
    fresh(home)
    path = home.profile("wrong", PROFILE.format(size=131072) + '[speculative]\ntype = "draft"\ndraft_model = "/none"\n')
    try:
        async with dashboard(source(home)) as (app, pilot):
            await pilot.press("w")
            choices = await choices_of(app, pilot)
            choices.highlighted = choices.get_option_index("wrong@embedded")
            await until(pilot, lambda: app.screen.previewed == "wrong@embedded", "the preview")
            assert "/none" in app.screen.query_one(Scrolled).text
            await pilot.press("escape")
    finally:
        os.unlink(path)


async def test_a_switch_under_way_is_cancelled(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        with streaming(home) as answers:
            switch = home.begin("switch", "two", "--strategy", "replace")
            await until(pilot, lambda: "⇄ switching to two@embedded" in head(app), "the switch is shown")
            await pilot.press("c")
            await until(pilot, lambda: "cancelling the switch to two@embedded" in picture(app), "it is cancelled")
            assert switch.wait(PATIENCE_S) == 1 and "cancelled" in switch.communicate()[1]

        assert home.status()["profile"] == "one" and b'"stop":true' in answers[0]


async def test_a_restart_gives_another_process_and_ends_no_stream(home: Home) -> None:
    fresh(home)
    before = home.status()["pid"]
    async with dashboard(source(home)) as (app, pilot):
        with streaming(home) as answers:
            await until(pilot, lambda: app.frame["status"]["gateway"]["in_flight"] == 1, "the stream is shown")
            await pilot.press("r")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
            await pilot.press("y")
            await until(pilot, lambda: home.status()["pid"] not in (before, None), "another process")
            await until(pilot, lambda: "one@embedded serves" in picture(app), "the result")

        assert b'"stop":true' in answers[0]


async def test_a_stop_waits_for_the_stream_and_a_start_brings_it_back(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        with streaming(home) as answers:
            await until(pilot, lambda: app.frame["status"]["gateway"]["in_flight"] == 1, "the stream is shown")
            await pilot.press("s")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
            await pilot.press("y")
            await until(pilot, lambda: "◍ draining" in head(app), "it drains")

        assert b'"stop":true' in answers[0]
        await until(pilot, lambda: "○ stopped" in head(app), "it has stopped")
        await pilot.press("s")
        await until(pilot, lambda: "● ready" in head(app), "it is back")


async def test_a_stop_at_once_cuts_the_stream_off(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        with streaming(home, 100_000) as answers:
            await until(pilot, lambda: app.frame["status"]["gateway"]["in_flight"] == 1, "the stream is shown")
            await pilot.press("K")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
            await pilot.press("y")
            await until(pilot, lambda: "○ stopped" in head(app), "it has stopped")

        assert b'"stop":true' not in answers[0]
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
        await pilot.press("y")
        await until(pilot, lambda: app.operator.problems, "there is nothing to restart")
        assert app.operator.problems[-1].message == "nothing runs that could be restarted"


async def test_the_command_line_is_copied_and_shown(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and app.screen.query_one(Scrolled).text, "it")
        assert "--ctx-size 131072" in app.clipboard and "--ctx-size 131072" in app.screen.query_one(Scrolled).text
        assert "engine.log" in app.screen.query_one(Scrolled).text


async def test_the_log_and_the_requests_are_those_of_the_engine(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        home.complete("A supervisor", 8)
        await until(pilot, lambda: any(row["output_tokens"] == 8 for row in app.frame["requests"]), "the request")
        assert "✓ complete" in app.requests.text
        await pilot.press("l")
        await until(pilot, lambda: "all slots are idle" in app.events_panel.tail.text, "the log")
        count = app.events_panel.tail.line_count
        home.complete("A supervisor", 8)
        await until(pilot, lambda: app.events_panel.tail.line_count > count, "it goes on")

        def shows_the_end_of_the_log() -> bool:
            seen = [line for line in home.orch("logs", "-n", "100000").stdout.splitlines() if line]
            return bool(app.events_panel.tail.text.splitlines() == seen[-app.events_panel.tail.line_count :])

        # The engine may still write between the one look and the other.
        await until(pilot, shows_the_end_of_the_log, "both say the same")


async def test_the_dashboard_outlives_the_daemon(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        assert home.daemon is not None
        home.daemon.send_signal(signal.SIGTERM)
        home.daemon.wait(PATIENCE_S)
        await until(pilot, lambda: "no daemon is running since" in head(app), "the loss")
        await pilot.press("s")
        await until(pilot, lambda: app.operator.problems, "it says why nothing happens")
        assert "orch up" in app.operator.problems[-1].hint
        home.serve("one")
        await until(pilot, lambda: "● ready" in head(app), "it is back")


async def test_one_look_needs_no_textual_and_no_terminal(home: Home) -> None:
    fresh(home)
    done = home.orch("top", "--once")
    assert "● ready" in done.stdout and "one@embedded" in done.stdout and "\x1b" not in done.stdout
    assert json.loads(home.orch("top", "--once", "--json").stdout)["status"]["profile"] == "one"


async def test_one_request_is_cancelled_and_the_other_goes_on(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home)) as (app, pilot):
        with streaming(home, 100_000) as runaway, streaming(home, 100_000) as good:
            await until(pilot, lambda: picture(app).count("▶ running") == 2, "both are shown")
            await pilot.press("4", "g", "j", "D")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
            await pilot.press("n")
            await until(pilot, lambda: not isinstance(app.screen, ConfirmScreen), "no is no")
            assert len(home.control("/v1/requests")["requests"]) == 2
            oldest = min(running(app), key=lambda row: row["id"])
            app.requests.cursor = 1 + app.requests._rows.index(oldest)
            await pilot.press("D")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question again")
            await pilot.press("y")
            await until(pilot, lambda: runaway, "the runaway has ended")
            assert b"cancelled" in runaway[0]
            assert not good, "the other goes on"
            assert len(home.control("/v1/requests")["requests"]) == 1
            cancel_all(home)

        await until(pilot, lambda: "⊘ cancelled" in picture(app), "its row says so")


async def test_a_request_that_has_ended_cannot_be_cancelled(home: Home) -> None:
    fresh(home)
    home.request("POST", "/completion", {"prompt": "x", "n_predict": 1}, url=home.url)
    async with dashboard(source(home)) as (app, pilot):
        await until(pilot, lambda: app.requests.chosen is not None or app.requests._rows, "a row")
        await pilot.press("4", "g", "j", "D")
        await until(pilot, lambda: "choose a request that waits or runs" in picture(app), "the hint")


def running(app: Dashboard) -> list[RequestRow]:
    return [row for row in app.requests._rows if row["outcome"] == "running"]


async def test_another_profile_is_loaded_beside_and_unloaded_from_the_list(home: Home) -> None:
    fresh(home)
    async with dashboard(source(home), (140, 40)) as (app, pilot):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, MenuScreen), "the choice is open")
        choices = app.screen.query_one(OptionList)
        choices.highlighted = next(at for at, each in enumerate(choices.options) if each.id == "two@embedded")
        await pilot.press("enter")
        await until(pilot, lambda: "two@embedded is loaded" in picture(app), "it is loaded")
        await until(pilot, lambda: "● two@embedded ready" in picture(app), "it is in the list")
        assert home.status()["profile"] == "one"
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, ResidentsScreen), "the list is open")
        await pilot.press("j", "u")
        await until(pilot, lambda: "○ two@embedded unloaded" in picture(app), "it is unloaded")

    home.orch("down", "two")
    assert [row["profile"] for row in home.status()["instances"]] == ["one"]
