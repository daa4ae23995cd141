"""The picture of the dashboard in the README: a real daemon and engine, a replayed card, streams under way, a browser.

python -m benchmarks.dashboard_picture          # writes docs/img/dashboard.png; needs Chromium and textual-serve
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import shutil
import subprocess
import threading
from typing import Any

import aiohttp

from orchestrator.core.errors import UsageError
from tests.support import Home, new_home, until

PICTURE = os.path.join("docs", "img", "dashboard.png")
MOST_BYTES = 300_000
SIZE = (1240, 880)
WARM_S = 115.0
"""So long the plots fill before the picture is taken."""
LOOK_S = 1.2
"""The dashboard has looked once more after this."""

PROFILE = """\
schema = 1
description = "a generated toy model"
model = "orch:demo"
engine = "embedded"
[context]
size = 16384
parallel = 4
[memory]
fit = true
fit_margin = 1664
[speculative]
type = "mtp"
draft_max = 3
[cpu]
threads = 1
threads_batch = 1
"""


def main() -> int:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise UsageError("no Chromium was found on PATH")

    with new_home() as home:
        home.env["ORCH_GPU_REPLAY"] = home.write("gpu.json", json.dumps(recording()))
        home.write("config/orch.toml", "[gateway]\nswitch_on_request = false\n")
        home.profile("toy", PROFILE)
        home.profile("toy-long", PROFILE.replace("16384", "32768"))
        home.serve("toy-long")
        until(lambda: home.status()["state"] == "ready", "the engine is ready")
        stop = threading.Event()
        clients = [threading.Thread(target=ask, args=(home, home.url, stop, number)) for number in range(3)]
        for each in clients:
            each.start()

        server = home.begin("top", "--serve", "--port", "0")
        try:
            assert server.stdout is not None
            picture = asyncio.run(photograph(browser, server.stdout.readline().strip(), home))
        finally:
            stop.set()
            server.terminate()
            server.communicate(timeout=20)
            for each in clients:
                each.join()

    os.makedirs(os.path.dirname(PICTURE), exist_ok=True)
    with open(PICTURE, "wb") as file:
        file.write(picture)

    print(f"{PICTURE}: {len(picture) / 1000:.0f} kB")
    return 0 if len(picture) < MOST_BYTES else 1


def recording() -> dict[str, Any]:
    """Two minutes of a card that works in waves."""
    samples = []
    for second in range(120):
        wave = (math.sin(second / 7) + 1) / 2
        samples.append(
            [
                {
                    "index": 0,
                    "name": "NVIDIA GeForce RTX 3060",
                    "total_mib": 12288,
                    "used_mib": 10120 + round(wave * 90),
                    "processes": {"engine": 9420 + round(wave * 90), "4242": 640},
                    "utilization": 0.78 + 0.2 * wave,
                    "power_w": 118 + 44 * wave,
                    "power_limit_w": 170,
                    "temperature_c": 64 + round(5 * wave),
                }
            ]
        )

    return {"every_s": 1.0, "samples": samples}


def ask(home: Home, url: str, stop: threading.Event, number: int) -> None:
    """Chats of different lengths, with pauses."""
    turn = 0
    while not stop.is_set():
        turn += 1
        words = "What does a supervisor do when an engine dies? " * (1 + (turn * 7 + number * 3) % 9)
        body = {
            "messages": [{"role": "user", "content": f"{turn} {number} {words}"}],
            "max_tokens": 300 + 140 * ((turn + number) % 5),
            "stream": True,
            "ignore_eos": True,
        }
        home.request("POST", "/v1/chat/completions", body, url=url)
        stop.wait(0.5 + (turn + number) % 2)


async def photograph(browser: str, url: str, home: Home) -> bytes:
    """A PNG of the page, once the dashboard has been there for a while (Chrome DevTools Protocol)."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --remote-debugging-port=0 --hide-scrollbars"
    process = await asyncio.create_subprocess_exec(
        browser, *flags.split(), *more.split(), f"--user-data-dir={home.root}/chrome",
        "--window-size={},{}".format(*SIZE), url, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while b"DevTools listening on " not in (text := await process.stderr.readline()):
            assert text, "the browser has ended"

        address = text.split(b"ws://")[1].split(b"/")[0].decode()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                page = next(each for each in await answer.json() if each["type"] == "page")

            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                await asyncio.sleep(WARM_S / 2)
                await asyncio.to_thread(home.orch, "switch", "toy")
                await asyncio.sleep(WARM_S / 2)
                await asyncio.to_thread(until, lambda: home.status()["gateway"]["in_flight"] >= 2, "requests run")
                await asyncio.sleep(LOOK_S)
                await socket.send_json({"id": 1, "method": "Page.captureScreenshot", "params": {"format": "png"}})
                while True:
                    message = await socket.receive_json()
                    if message.get("id") == 1:
                        return base64.b64decode(message["result"]["data"])
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
