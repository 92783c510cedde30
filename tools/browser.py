"""Headless Chromium, driven by the DevTools protocol over two pipes: pages, what they say and ask for, pictures.

https://chromedevtools.github.io/devtools-protocol: JSON messages that end with a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars",
    # WebGL 2 by the processor: machines that run tests have no graphics card
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
)  # fmt: skip

_CONNECT = "import os, sys; a, b, *c = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execvp(c[0], c)"


class Page:
    """One tab.

    Parameters
    ----------
    width, height : int
        Of the window, in pixels.
    limit : float
        Seconds that an answer may take.

    Attributes
    ----------
    requests : list of str
        Addresses that the page asked for.
    errors : list of str
        What its console says is wrong.
    """

    def __init__(self, width: int = 1000, height: int = 700, limit: float = 60.0) -> None:
        if CHROMIUM is None:
            raise FileNotFoundError("chromium is not installed")
        self._limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="inrstore-browser-", ignore_cleanup_errors=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        far = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]  # so that neither is 3 or 4
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CONNECT, *map(str, far), CHROMIUM, *_FLAGS,
             f"--user-data-dir={self._folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=far,
            start_new_session=True)  # fmt: skip
        for fd in (theirs_in, theirs_out, *far):
            os.close(fd)
        self._out, self._in = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb", 0)
        self._answers = queue.Queue[dict[str, Any]]()
        self._number, self._session = 0, ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.size(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._out.close()
        self._in.close()
        self._folder.cleanup()

    def _read(self) -> None:
        rest = b""
        while data := self._in.read(1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
        self._answers.put({"id": -1, "error": {"message": "the browser ended"}})

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
            return
        method, said = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            detail = said["exceptionDetails"]
            self.errors.append(detail.get("exception", {}).get("description") or detail["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description", ""))) for a in said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def call(self, method: str, **params: Any) -> Any:
        """Return what a method of the protocol gives."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._limit
        while True:
            answer = self._answers.get(timeout=max(0.01, end - time.monotonic()))
            if "error" in answer and answer["id"] in (-1, self._number):
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            if answer["id"] == self._number:
                return answer["result"]

    def size(self, width: int, height: int) -> None:
        """Make the window another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def go(self, url: str) -> None:
        """Open an address; from another page of the same server as well as from none."""
        self.call("Page.navigate", url="about:blank")
        self.requests.clear()
        self.errors.clear()
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of an expression, of a promise what it gives."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            detail = found["exceptionDetails"]
            raise RuntimeError(detail.get("exception", {}).get("description") or detail["text"])
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + self._limit
        while time.monotonic() < end:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.05)
        seen = self.value("document.body.innerText")
        raise TimeoutError(
            f"{expression}: not true after {self._limit:.0f} s; {self.errors}; the page says: {seen[:2000]}"
        )

    def key(self, name: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def click(self, x: float, y: float) -> None:
        """Click with the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, x: float, y: float, right: float, down: float, button: str) -> None:
        """Drag with a button, in five steps."""
        held = {"left": 1, "right": 2, "middle": 4}[button]
        steps = [("mousePressed", 0), *(("mouseMoved", step) for step in range(1, 6)), ("mouseReleased", 5)]
        for kind, step in steps:
            self.call("Input.dispatchMouseEvent", type=kind, x=x + right * step / 5, y=y + down * step / 5,
                      button=button, buttons=held * (kind != "mouseReleased"), clickCount=1)  # fmt: skip

    def picture(self) -> bytes:
        """Return what the window shows as a PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        return base64.b64decode(data)
