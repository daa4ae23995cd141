"""The page of a real daemon with a real engine, opened by somebody who has just started it."""

from __future__ import annotations

from tests.browser.webdriver import ENTER, Browser
from tests.support import new_home


def test_a_person_chats_switches_and_unloads(page: Browser) -> None:
    with new_home() as home:
        home.demo_on_one_thread()
        demo = home.read("config/profiles/demo.toml")
        home.profile("second", demo)
        home.serve("demo")
        home.ready("demo")
        page.open(home.url.removesuffix("/v1") + "/")
        page.wait("document.querySelector('#state').innerText === 'ready'")
        page.click("#chat-text")
        page.press("hello", ENTER)
        page.wait("document.querySelector('.figures')?.innerText.includes('tok/s')")
        figures = page.text(".figures")
        assert "accepted (" in figures and "first token" in figures
        assert len(page.text(".said.model .text")) > 20
        page.wait("document.querySelector('#requests').innerText.includes('complete')")
        assert "demo" in page.text("#requests")
        assert "hello" not in page.text("#requests")
        page.wait("document.querySelector('#log').innerText.includes('slot')")
        page.click("[aria-label='Switch to second']")
        page.wait("document.querySelector('#serving').innerText.startsWith('second on')")
        page.click("[aria-label='Load demo']")
        row = "[...document.querySelectorAll('#models li')].find((each) => each.innerText.startsWith('demo')).innerText"
        page.wait(f"{row}.includes('ready')")
        page.click("[aria-label='Unload demo']")
        page.wait(f"{row}.includes('unloaded')")
        assert home.status()["profile"] == "second"
        page.wait(f"{row.replace('demo', 'second')}.includes('own page')")
        page.open(home.url.removesuffix("/v1") + "/upstream/second/")
        page.wait("document.querySelector('textarea')", "upstream's own page")
        page.run("document.querySelector('textarea').focus()")
        page.press("hello", ENTER)
        page.wait("document.body.innerText.includes('t/s')", "an answer with its speed")
        scopes = "navigator.serviceWorker.getRegistrations().then((each) => each.map((one) => one.scope))"
        assert all(scope.endswith("/upstream/second/") for scope in page.run(f"return {scopes}"))
        page.open("about:blank")
        # It asks for tools and kept streams, which are not here; its policy is in the way of nothing that it does.
        assert [line for line in page.console() if "Security Policy" in line] == []
