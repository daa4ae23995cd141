"""A browser for tests: Chromium without a window, driven by chromedriver over the WebDriver protocol (W3C)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
MISSING = " and ".join(
    name for name, found in (("chromium", CHROMIUM), ("chromedriver", CHROMEDRIVER)) if found is None
)
"""What this machine lacks for a browser; empty where it has all."""

ENTER, TAB, ESCAPE = "\ue007", "\ue004", "\ue00c"
SHIFT = "\ue008"

_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--disable-extensions",
    "--no-proxy-server", "--force-color-profile=srgb", "--lang=en-GB",
)  # fmt: skip
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_PATIENCE_S = 60.0


class Browser:
    """One session: one window."""

    def __init__(self, port: int, session: str) -> None:
        self._port = port
        self._session = f"/session/{session}"

    def command(self, method: str, path: str, body: object = None) -> Any:
        """Send a command of the protocol, and return its value."""
        return _command(self._port, method, self._session + path, body)

    def open(self, url: str) -> None:
        self.command("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a function's body returns in the page."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, expression: str, what: str = "") -> Any:
        """Wait until an expression is true in the page, and return its value."""
        # A part of the script, for the page's policy forbids `eval`.
        script = (
            "const done = arguments[0];"
            f"const look = () => {{ const value = ({expression}); value ? done(value) : setTimeout(look, 20); }};"
            "look();"
        )
        try:
            return self.command("POST", "/execute/async", {"script": script, "args": []})
        except AssertionError as error:
            raise AssertionError(f"{what or expression}: {error}; the page: {self.text('body')[:2000]}") from None

    def text(self, selector: str) -> str:
        """Return the text of an element, as it is shown."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is; each is let go before the next one."""
        actions = [{"type": kind, "value": key} for key in "".join(keys) for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def press_with(self, held: str, key: str) -> None:
        """Press a key while another one is held."""
        steps = (("keyDown", held), ("keyDown", key), ("keyUp", key), ("keyUp", held))
        actions = [{"type": kind, "value": each} for kind, each in steps]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def click(self, selector: str) -> None:
        found = self.command("POST", "/element", {"using": "css selector", "value": selector})
        self.command("POST", f"/element/{found[_ELEMENT]}/click", {})

    def devtools(self, method: str, **parameters: object) -> Any:
        """Send a command of Chrome's own protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Show the page in so many CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    def scheme(self, name: str) -> None:
        """Prefer light or dark."""
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def picture(self) -> bytes:
        """Return the window as a PNG."""
        return base64.b64decode(self.command("GET", "/screenshot"))

    def console(self) -> list[str]:
        """Return what the console has had since it was asked last, errors of the network and of policies included."""
        return [f"{each['level']}: {each['message']}" for each in self.command("POST", "/se/log", {"type": "browser"})]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, that knows nothing."""
    assert CHROMIUM is not None and CHROMEDRIVER is not None
    with tempfile.TemporaryDirectory(prefix="orch-browser-", ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            port = _port_of(driver)
            options = {"binary": CHROMIUM, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": int(_PATIENCE_S * 1000), "pageLoad": int(_PATIENCE_S * 1000)},
            }
            session = _command(port, "POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            try:
                yield Browser(port, session)
            finally:
                _command(port, "DELETE", f"/session/{session}", None)
        finally:
            driver.terminate()
            driver.communicate(timeout=20)


def _port_of(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip(".\n").rpartition(" ")[2])

    raise AssertionError("chromedriver has ended")


def _command(port: int, method: str, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S * 2)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        value = json.loads(response.read())["value"]
    finally:
        connection.close()

    assert response.status == 200, f"{path}: {value['error']}: {value['message']}"
    return value
