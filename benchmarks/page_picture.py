"""The pictures of the page in its document: a real daemon and engine, a replayed card, requests under way, Chromium.

python -m benchmarks.page_picture          # writes docs/img/page.png and docs/img/page-phone.png; needs chromedriver
"""

from __future__ import annotations

import json
import os
import threading
import time

from benchmarks.dashboard_picture import PROFILE, ask, recording
from orchestrator.core.errors import UsageError
from tests.browser.webdriver import ENTER, MISSING, Browser, browser
from tests.support import new_home, until

FOLDER = os.path.join("docs", "img")
MOST_BYTES = 150 * 1024
WARM_S = 75.0
"""So long the plot fills."""
LOOK_S = 2.5
"""The page has been told of what it did after this."""

SECOND = """\
schema = 1
description = "the same with twice the context"
model = "orch:demo"
engine = "embedded"
aliases = ["toy-32k"]
[context]
size = 32768
parallel = 4
[cpu]
threads = 1
threads_batch = 1
"""


def main() -> int:
    if MISSING:
        raise UsageError(f"no picture without {MISSING}")

    with new_home() as home, browser() as page:
        home.env["ORCH_GPU_REPLAY"] = home.write("gpu.json", json.dumps(recording()))
        home.profile("toy", PROFILE)
        home.profile("toy-long", SECOND)
        home.serve("toy")
        until(lambda: home.status()["state"] == "ready", "the engine is ready")
        page.size(1280, 735)
        page.scheme("light")
        page.open(home.url.removesuffix("/v1") + "/")
        stop = threading.Event()
        clients = [threading.Thread(target=ask, args=(home, home.url, stop, number)) for number in range(2)]
        for each in clients:
            each.start()

        try:
            sizes = photograph(page)
        finally:
            stop.set()
            for each in clients:
                each.join()

    return 0 if max(sizes) < MOST_BYTES else 1


def photograph(page: Browser) -> list[int]:
    """Chat, and write both pictures; return their sizes."""
    time.sleep(WARM_S)
    page.click("#chat-text")
    page.press("What does a supervisor do when an engine dies?", ENTER)
    page.wait("document.querySelector('.figures')?.innerText.includes('tok/s')")
    time.sleep(LOOK_S)
    page.run("document.activeElement.blur()")
    desk = keep(page, "page.png")
    page.size(360, 1180, mobile=True)
    page.scheme("dark")
    page.run("const talk = document.querySelector('#talk'); talk.scrollTop = talk.scrollHeight")
    time.sleep(LOOK_S)
    return [desk, keep(page, "page-phone.png")]


def keep(page: Browser, name: str) -> int:
    """Write a picture, and return its size."""
    picture = page.picture()
    with open(os.path.join(FOLDER, name), "wb") as file:
        file.write(picture)

    print(f"{name}: {len(picture) / 1024:.0f} KiB")
    return len(picture)


if __name__ == "__main__":
    raise SystemExit(main())
