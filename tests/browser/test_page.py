"""The page in a real browser: what it shows and does, for the eye, the keyboard, a telephone, and against markup."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.api.top_frames import GpuFigures, RequestRow
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Model
from tests.browser.page_server import CHUNK, OpenedPage, Serve, page_server
from tests.browser.webdriver import ENTER, ESCAPE, TAB, Browser
from tests.integration.gateway_support import DEMO, OTHER, ShownPage, Visit, page_model
from tests.support import until

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
KEYED = GatewayOptions(api_keys=(ApiKey("one", "laptop"),))
PAINTED = "document.querySelectorAll('#models strong').length"

MARKUP = (
    "<script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 1'>",
    '"><svg onload=window.broken=1>',
    "</title></textarea></pre><iframe srcdoc='<script>parent.broken=1</script>'></iframe>",
    "<a href='javascript:window.broken=1'>x</a>",
    "';window.broken=1;//",
    "${window.broken = 1}{{window.broken = 1}}",
    "<style>*{display:none}</style><base href='//evil.example/'>",
    "&lt;b&gt;not bold&lt;/b&gt; &amp; \u202e<b>bold</b>",
    "__proto__",
)


def request_row(number: int, **more: Any) -> RequestRow:
    row = RequestRow(
        id=number, started="2026-01-01T12:00:00Z", profile="demo", engine="upstream", build="b1",
        route="/v1/chat/completions", outcome="complete", status=200, prompt_tokens=1500, output_tokens=700,
        first_token_s=0.1, prompt_tok_s=500.0, decode_tok_s=38.5, draft_tokens=100, draft_accepted=71, held_s=1.5,
        total_s=18.25, request_id="r", client="laptop",
    )  # fmt: skip
    return {**row, **more}  # type: ignore[typeddict-item]


def card(name: str) -> GpuFigures:
    return GpuFigures(
        index=0, uuid="u", name=name, vendor="nvidia", total_mib=12288, used_mib=11900, engine_mib=9300, others_mib=640,
        utilization=0.9, power_w=150.0, power_limit_w=170.0, temperature_c=66, sm_clock_mhz=None,
        memory_clock_mhz=None, throttle=[], pcie_rx_mib_s=None, pcie_tx_mib_s=None, energy_j=None,
    )  # fmt: skip


def everything() -> ShownPage:
    """A page on which all kinds of things are to be seen."""
    shown = ShownPage(
        page_model("demo", state="ready", engine="upstream", focus=True, pinned=True, idle_s=75.0, device_mib=9300,
                   host_mib=800, names=["demo-alias"], description="a small model"),
        page_model("busy", state="starting", engine="upstream", progress="40 % read"),
        page_model("broken", state="failed", cause="the device ran out of memory", hint="use a smaller context"),
        page_model("other", description="another model"),
    )  # fmt: skip
    shown.change(
        gpus=[card("NVIDIA GeForce RTX 3060")], notice="demo is slow: 12 tok/s of 40", cause="it failed", hint="why",
        queued=2, in_flight=3,
        requests=[
            request_row(5, outcome="running", status=None, total_s=3.0), request_row(4, outcome="held", status=None),
            request_row(3), request_row(2, outcome="error", status=502), request_row(1, outcome="client_gone"),
        ],
    )  # fmt: skip
    shown.lines = [f"line {number} of the engine's log" for number in range(40)]
    return shown


def opened(page: Browser, server: OpenedPage) -> None:
    page.open(server.url)
    page.wait(f"{PAINTED} > 0", "the models are listed")


def asked(server: OpenedPage) -> list[Any]:
    """The bodies of the chats that the engine was asked for."""
    return [json.loads(visit.body) for visit in server.engine.visits if visit.line.startswith("POST")]


def test_it_shows_what_runs_and_follows_it(page: Browser, serve: Serve) -> None:
    shown = everything()
    server = serve(shown)
    opened(page, server)
    for selector, text in {
        "#state": "ready", "#serving": "demo on upstream b1", "#speed": "42.0", "#drafts": "70 %", "#running": "3",
        "#waiting": "2 waiting", "#memory": "11.6 GiB of 12.0 GiB", "#notice": "demo is slow",
        "#problem": "it failed; why", "#log": "line 39 of the engine's log",
    }.items():  # fmt: skip
        assert text in page.text(selector), selector

    models = page.text("#models")
    for text in (
        "demo",
        "default",
        "pinned",
        "9.1 GiB on devices",
        "idle 1 min",
        "40 % read",
        "use a smaller context",
    ):
        assert text in models

    rows = page.run("return [...document.querySelectorAll('#requests tr')].map((row) => row.innerText)")
    assert [row.split("\t")[3] for row in rows] == ["running", "held", "complete", "error 502", "client gone"]
    assert "18.3 s (1.5 s held)" in rows[2]
    shown.change(state="starting", progress="loading demo", switching=True, cause=None)
    shown.change(profile="other", models=shown.now["models"][3:])
    shown.lines.append("one more line")
    page.wait("document.querySelector('#state').innerText === 'switching'")
    page.wait("document.querySelector('#log').innerText.includes('one more line')")
    assert page.run(f"return {PAINTED}") == 1
    assert page.run("return document.querySelector('#problem').hidden")
    assert page.run("return document.querySelector('#chat-model').value") == "other", "nobody has chosen another one"


def test_models_are_loaded_switched_and_unloaded(page: Browser, serve: Serve) -> None:
    server = serve(everything())
    opened(page, server)
    page.click("[aria-label='Load other']")
    until(lambda: server.manager.loaded == ["demo", "other"], "it is loaded")
    page.click("[aria-label='Switch to other']")
    until(lambda: server.shown.switched == ["other"], "it is switched to")
    page.click("[aria-label='Unload demo']")
    until(lambda: server.manager.loaded == ["other"], "it is unloaded")
    page.wait("!document.querySelector(\"[aria-label='Load other']\").disabled")
    page.click("[aria-label='Load other']")
    page.wait("document.querySelector('#models').innerText.includes('is loaded already')", "an error is shown")
    errors = page.console()
    assert len(errors) == 1 and "400" in errors[0], "the browser's own note of the refusal, and nothing else"


def test_the_chat_streams_and_tells_the_engine_s_figures(page: Browser, serve: Serve) -> None:
    server = serve(everything())
    opened(page, server)
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.figures')?.innerText.includes('tok/s')")
    assert page.text(".said.model .text") == "Hello there"
    figures = page.text(".said.model .figures")
    assert figures.startswith("41 tokens · 40.0 tok/s · drafts 70 % accepted (21 of 30) · first token ")
    page.press("And", "\ue008", "?", ENTER)
    page.wait("document.querySelectorAll('.figures')[1]?.innerText.includes('tok/s')")
    first, second = asked(server)
    assert (first["model"], first["stream"]) == ("demo", True)
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "Hello there"
    page.run("document.querySelector('#chat-model').focus()")
    page.press("demo-a", TAB, TAB)
    page.run("document.querySelector('#chat-text').focus()")
    page.press("x", ENTER)
    page.wait("document.querySelectorAll('.figures')[2]?.innerText.includes('tok/s')")
    assert asked(server)[2]["model"] == "demo-alias"


async def _never_ends(visit: Visit) -> None:
    if visit.line.startswith("GET"):
        await visit.answer(b"{}", status="404 Not Found")
        return

    await visit.begin_stream()
    await visit.chunk(CHUNK % b"begun")
    await visit.gone()


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_an_answer_is_stopped_and_the_engine_is_told(page: Browser, serve: Serve, way: str) -> None:
    server = serve(everything(), script=_never_ends)
    opened(page, server)
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.said.model .text')?.innerText === 'begun'")
    if way == "button":
        page.click("#chat-stop")
    else:
        page.press(ESCAPE)

    page.wait("document.querySelector('.figures').innerText.includes('stopped')")
    until(lambda: server.engine.open == 0, "the gateway has left the engine")
    assert page.run("return document.querySelector('#chat-send').checkVisibility()")


async def _fails(visit: Visit) -> None:
    if visit.line.startswith("GET"):
        await visit.answer(b"{}", status="404 Not Found")
    else:
        await visit.answer(b'{"error":{"message":"the prompt is too long"}}', status="400 Bad Request")


def test_an_error_is_shown_where_the_answer_would_be(page: Browser, serve: Serve) -> None:
    server = serve(everything(), script=_fails)
    opened(page, server)
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.said .failed')?.innerText === 'the prompt is too long'")
    errors = page.console()
    assert len(errors) == 1 and "400" in errors[0]


def test_it_asks_for_the_key_keeps_it_in_the_tab_and_forgets_it(page: Browser, serve: Serve) -> None:
    server = serve(everything(), KEYED)
    page.open(server.url)
    page.wait("document.querySelector('#key-dialog').open")
    assert page.text("#state") == "locked"
    page.press("wrong", ENTER)
    page.wait("document.querySelector('#key-problem').innerText.includes('not one of')")
    page.press("one", ENTER)
    page.wait(f"{PAINTED} > 0")
    kept = page.run("return [JSON.stringify(sessionStorage), localStorage.length, document.cookie, location.href]")
    assert kept == ['{"orch.key":"one"}', 0, "", server.url]
    assert page.run("return performance.getEntriesByType('resource').every((each) => !each.name.includes('one'))")
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.figures')?.innerText.includes('tok/s')")
    page.open(server.url)
    page.wait(f"{PAINTED} > 0", "a page that is opened again has the key")
    page.click("#key-button")
    page.wait("document.querySelector('#key-dialog').open")
    assert page.run("return sessionStorage.length") == 0
    errors = page.console()
    assert len(errors) == 3 and all("401" in each for each in errors)


def test_read_only_without_the_key_shows_and_does_nothing(page: Browser, serve: Serve) -> None:
    server = serve(everything(), replace(KEYED, page="read-only"))
    opened(page, server)
    assert not page.run("return document.querySelector('#key-dialog').open")
    assert page.text("#speed") == "42.0"
    acts = "[...document.querySelectorAll('.acts button, #chat-send')]"
    assert page.run(f"return {acts}.length > 5 && {acts}.every((button) => button.disabled)")
    assert "line 39" not in page.text("#log")
    page.click("#key-button")
    page.press("one", ENTER)
    page.wait("document.querySelector('#log').innerText.includes('line 39')")
    assert page.run(f"return {acts}.every((button) => !button.disabled)")


def test_all_is_reached_and_seen_by_the_keyboard_alone(page: Browser, serve: Serve) -> None:
    server = serve(everything())
    opened(page, server)
    page.run("document.body.focus()")
    reached: dict[str, str] = {}
    for _ in range(60):
        page.press(TAB)
        name, ring, shown = page.run("""
            const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
            return [at === document.body ? '' : at.getAttribute('aria-label') || at.id || at.innerText.trim(),
                    `${style.outlineStyle} ${style.outlineWidth}`,
                    box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth];
        """)
        if not name or name in reached:  # once around
            break

        reached[name] = ring
        assert shown, f"{name} is in the window when it has the focus"

    wanted = {
        "Skip to the chat", "chat-model", "Conversation", "chat-text", "chat-send", "Unload demo", "Load other",
        "Switch to other", "Load broken", "log-follow", "log", "metrics",
    }  # fmt: skip
    assert wanted <= reached.keys()
    assert {name: ring for name, ring in reached.items() if ring != "solid 2px"} == {}
    page.run("document.querySelector(\"[aria-label='Load other']\").focus()")
    page.press(ENTER)
    until(lambda: server.manager.loaded == ["demo", "other"], "it is loaded")


def test_the_focus_stays_where_it_is_while_figures_change(page: Browser, serve: Serve) -> None:
    shown = everything()
    server = serve(shown)
    opened(page, server)
    page.run("document.querySelector(\"[aria-label='Load other']\").focus()")
    shown.now["models"].reverse()
    shown.now["queued"] = 77
    page.wait("document.querySelector('#waiting').innerText === '77 waiting'")
    assert page.run("return document.activeElement.getAttribute('aria-label')") == "Load other"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_hangs_out_of_the_window_and_controls_are_large_enough(page: Browser, serve: Serve, width: int) -> None:
    shown = everything()
    shown.now["models"][3]["name"] = "a-" + "very-" * 11 + "long-name"
    page.size(width, 780, mobile=width < 500)
    server = serve(shown)
    opened(page, server)
    assert page.run("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    outside = page.run("""
        return [...document.querySelectorAll('button, select, textarea, h1, h2, strong, .pill, .big, meter, input')]
            .filter((each) => each.checkVisibility())
            .map((each) => [each.id || each.textContent, each.getBoundingClientRect()])
            .filter(([, box]) => box.left < 0 || box.right > innerWidth + 0.5).map(([name]) => name);
    """)
    assert outside == []
    small = page.run("""
        return [...document.querySelectorAll('button, select, textarea, a')]
            .filter((each) => each.checkVisibility() && !each.closest('.skip, footer'))
            .filter((each) => Math.min(each.offsetWidth, each.offsetHeight) < 24).map((each) => each.textContent);
    """)
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_contrast_is_what_wcag_aa_wants(page: Browser, serve: Serve, scheme: str, width: int) -> None:
    page.scheme(scheme)
    page.size(width, 900, mobile=width < 500)
    server = serve(everything(), script=_says_and_fails)
    opened(page, server)
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.said .failed')")
    page.run("document.querySelector('details').open = true")
    dark = page.run("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    plain = page.run(CONTRAST)
    page.run("askForKey('This key is not one of them.')")
    asks = page.run(CONTRAST)
    assert plain["checked"] > 120
    assert asks["checked"] > plain["checked"]
    assert plain["faults"] + asks["faults"] == []


def test_what_is_too_pale_would_be_found(page: Browser, serve: Serve) -> None:
    server = serve(everything())
    opened(page, server)
    page.run("document.documentElement.style.setProperty('--muted', '#9aa4ad')")
    page.run("document.documentElement.style.setProperty('--edge', '#d5dbe0')")
    faults = page.run(CONTRAST)["faults"]
    assert any("none" in each or "waiting" in each for each in faults)
    assert any(each.startswith("the edge of") for each in faults)


async def _says_and_fails(visit: Visit) -> None:
    if visit.line.startswith("GET"):
        await visit.answer(b"{}", status="404 Not Found")
        return

    await visit.begin_stream()
    await visit.chunk(b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n')
    await visit.chunk(CHUNK % b"Hello")
    await visit.chunk(b'data: {"error":{"message":"it broke"}}\n\n')
    await visit.end_stream()


def marked_up() -> ShownPage:
    """A page on which everything that comes from outside is markup."""
    shown = ShownPage(
        *(
            page_model(
                text, state="ready" if number % 2 else "failed", engine=text, names=[f"alias {text}"], description=text,
                waits=text, cause=text, hint=text, progress=text, focus=number == 1,
            )
            for number, text in enumerate(MARKUP)
        )
    )  # fmt: skip
    every = " ".join(MARKUP)
    shown.change(
        profile=every, engine=every, build=every, progress=every, cause=every, hint=every, notice=every,
        gpus=[card(text) for text in MARKUP],
        requests=[
            request_row(number, profile=text, route=text, outcome=text, client=text, started=text)
            for number, text in enumerate(MARKUP)
        ],
    )  # fmt: skip
    shown.lines = [*MARKUP]
    return shown


async def _answers_markup(visit: Visit) -> None:
    if visit.line.startswith("GET"):
        await visit.answer(b"{}", status="404 Not Found")
        return

    await visit.begin_stream()
    for text in MARKUP:
        for field in ("reasoning_content", "content"):
            event = {"choices": [{"delta": {field: text}}]}
            await visit.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    await asyncio.sleep(0)
    await visit.chunk(b"data: " + json.dumps({"error": {"message": " ".join(MARKUP)}}).encode() + b"\n\n")
    await visit.end_stream()


def test_markup_from_models_logs_answers_and_errors_stays_text(page: Browser, serve: Serve) -> None:
    models = (*(Model(text, (), text, "loaded", 0) for text in MARKUP), DEMO, OTHER)
    server = serve(marked_up(), script=_answers_markup, models=models)
    page.open(server.url)
    page.wait(f"{PAINTED} === {len(MARKUP)}")
    names = page.run("return [...document.querySelectorAll('#models strong')].map((each) => each.textContent)")
    assert names == [*MARKUP]
    assert page.run("return document.querySelector('#log').textContent") == "\n".join(MARKUP)
    page.click("#chat-text")
    page.press("What?", ENTER)
    page.wait("document.querySelector('.said .failed')")
    said = page.run("return ['.said.model .text', '.said details div', '.said .failed', '#problem', '#notice']"
                    ".map((each) => document.querySelector(each).textContent)")  # fmt: skip
    assert said[:2] == ["".join(MARKUP)] * 2
    assert all(MARKUP[0] in text for text in said[2:])
    page.wait("performance.now() > 0 && document.querySelectorAll('#requests td').length > 9")
    assert page.run("return window.broken") is None
    found = page.run("""
        const count = (selector) => document.querySelectorAll(selector).length;
        const foreign = 'iframe, base, style, object, embed, b';
        return [count('script'), count('img'), count('svg'), count(foreign),
                [...document.querySelectorAll('a')].every((each) => each.protocol === 'http:')];
    """)
    assert found == [1, 1, 1, 0, True]


def test_a_gateway_that_goes_away_is_told_and_found_again(page: Browser) -> None:
    with page_server(everything()) as server:
        opened(page, server)

    page.wait("document.querySelector('#state').innerText === 'no connection'")
    assert "trying again" in page.text("#link")
    assert all("net::ERR_" in each for each in page.console())


def test_a_feed_that_has_fallen_silent_is_opened_again(page: Browser, serve: Serve) -> None:
    server = serve(everything())
    opened(page, server)
    page.run("window.before = feed; heard -= SILENT_MS + 1")
    page.wait("feed !== window.before && window.before.signal.aborted", "the watch has looked")
    page.wait("document.querySelector('#state').innerText === 'ready'")


def test_a_tab_in_the_background_does_not_look(page: Browser, serve: Serve) -> None:
    shown = everything()
    server = serve(shown)
    opened(page, server)
    page.run("""
        Object.defineProperty(document, 'hidden', {value: true, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    """)
    page.wait("feed.signal.aborted")
    shown.now["queued"] = 88
    page.run("""
        Object.defineProperty(document, 'hidden', {value: false, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    """)
    page.wait("document.querySelector('#waiting').innerText === '88 waiting'")
    assert page.run("return document.querySelectorAll('#models strong').length") == 4
