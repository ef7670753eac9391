"""A headless Chromium that a test drives over its DevTools socket: the lightest real browser there is."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_S = 60
ANSWER_S = 60


def find_browser() -> str | None:
    """The command of a Chromium, or None where there is none; `PADFLOW_CHROMIUM` names one elsewhere."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("PADFLOW_CHROMIUM"), *NAMES)))), None)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method and wait for what it gives."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        return self._read(lambda message: message.get("id") == number)["result"]

    def _read(self, wanted: Any) -> dict[str, Any]:
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_S))
            self._note(message)
            if "error" in message:
                raise RuntimeError(str(message["error"]))
            if wanted(message):
                return dict(message)

    def _note(self, message: dict[str, Any]) -> None:
        what, said = message.get("method"), message.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"]))
        if what == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"]))
        if what == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(said["entry"]))

    def open(self, path: Path) -> None:
        """Open a file and wait until everything in it is loaded."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._read(lambda message: message.get("method") == "Page.loadEventFired")

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def size(self, width: int, height: int) -> None:
        """Lay the page out as on a screen of this size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Enter": 13, " ": 32, "Tab": 9}[key]
        shared = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **shared)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """A PNG of the page, all of it or what the screen shows."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        sheet = {"printBackground": True, "preferCSSPageSize": True, "paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self.call("Page.printToPDF", **sheet)["data"])


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own, give a tab, and end that browser.

    Args:
        profile: An empty folder.

    Raises:
        RuntimeError: No browser is there, or it does not start.
    """
    command = find_browser()
    if command is None:
        raise RuntimeError("no Chromium is installed; install the package chromium, or set PADFLOW_CHROMIUM")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
    with subprocess.Popen([command, *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            with connect(_socket_of_tab(process), max_size=None, open_timeout=START_S) as socket:
                yield Page(socket)
        finally:
            process.terminate()


def _socket_of_tab(process: subprocess.Popen[str]) -> str:
    said = []
    for line in process.stderr or ():
        said.append(line)
        found = re.search(r"DevTools listening on ws://([^/]+)/", line)
        if found:
            return _first_tab(found[1])
    raise RuntimeError(f"the browser did not start: {''.join(said)[-2000:]}")


def _first_tab(host: str) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://{host}/json/list", timeout=START_S) as answer:
        tabs = json.load(answer)
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
