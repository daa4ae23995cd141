"""The gateway's page: its size, the time to its first paint in Chromium, and what looking at it costs the daemon.

python -m benchmarks.page_cost
python -m benchmarks.page_cost --seconds 60 --watchers 20 --loads 20
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import threading
import time
from urllib.parse import urlsplit

from benchmarks.idle_cost import cpu_s
from orchestrator.gateway.page.serving import read_files
from tests.browser.webdriver import MISSING, Browser, browser
from tests.support import Home, new_home, until

MOST_BYTES = 60 * 1024
MOST_PAINT_MS = 300.0
MOST_SHARE = 0.05
"""Of a core, for one who looks: a reading of the machine each second is most of it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--watchers", type=int, default=10)
    parser.add_argument("--loads", type=int, default=10)
    options = parser.parse_args()
    files = read_files()
    size = sum(len(files[path].body) for path in ("/page/page.css", "/page/page.js"))
    print(f"script and style sheet: {size / 1024:.1f} KiB (limit {MOST_BYTES >> 10})")
    with new_home() as home:
        home.demo_on_one_thread()
        home.serve("demo")
        until(lambda: home.status()["state"] == "ready", "the demo is ready")
        url = home.url.removesuffix("/v1") + "/"
        paint_ms = first_paints(url, options.loads)
        shares = {count: watched(home, url, count, options.seconds) for count in (0, 1, options.watchers)}

    if paint_ms:
        shown = ", ".join(f"{each:.0f}" for each in paint_ms)
        print(
            f"first contentful paint: median {statistics.median(paint_ms):.0f} ms (limit {MOST_PAINT_MS:.0f}); {shown}"
        )

    for count, (share, rate) in shares.items():
        print(f"{count} watching: {share:.2%} of a core, {rate / 1000 / max(count, 1):.1f} kB/s each")

    slow = bool(paint_ms) and statistics.median(paint_ms) > MOST_PAINT_MS
    return 1 if slow or size > MOST_BYTES or shares[1][0] > MOST_SHARE else 0


def first_paints(url: str, loads: int) -> list[float]:
    """Return the milliseconds from the navigation to the first paint with content, of loads without a cache."""
    if MISSING:
        print(f"no first paint: {MISSING} missing")
        return []

    with browser() as opened:
        opened.size(1280, 900)
        opened.devtools("Network.enable")
        opened.devtools("Network.setCacheDisabled", cacheDisabled=True)
        return [_paint_ms(opened, url) for _ in range(loads)]


def _paint_ms(opened: Browser, url: str) -> float:
    opened.open("about:blank")
    opened.open(url)
    find = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    return float(opened.wait(find, "the page is painted"))


def watched(home: Home, url: str, count: int, seconds: float) -> tuple[float, float]:
    """Return the daemon's share of a core while so many look, and the bytes that it sends a second."""
    assert home.daemon is not None
    over = threading.Event()
    bytes_read = [0] * count
    threads = [threading.Thread(target=_watch, args=(url, over, bytes_read, number)) for number in range(count)]
    for each in threads:
        each.start()

    until(lambda: all(bytes_read), "all look")
    time.sleep(2)
    before, read_before, began = cpu_s(home.daemon.pid), sum(bytes_read), time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    share, rate = (cpu_s(home.daemon.pid) - before) / took_s, (sum(bytes_read) - read_before) / took_s
    over.set()
    for each in threads:
        each.join()

    time.sleep(6)  # so long the daemon takes figures for who looked
    return share, rate


def _watch(url: str, over: threading.Event, bytes_read: list[int], number: int) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", "/page/feed")
    answer = connection.getresponse()
    while not over.is_set():
        bytes_read[number] += len(answer.read1(65536))

    connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
