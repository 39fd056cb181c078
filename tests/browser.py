"""Chromium for tests of a page, driven through the pipe of its DevTools protocol: no driver, no port, no package.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events by name.
"""

import base64
import json
import os
import select
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """A Chromium that runs; CHROMIUM names another than the usual ones. None where there is none, and on Windows."""
    if os.name == "nt":
        return None  # its processes inherit no numbered pipes
    given = os.environ.get("CHROMIUM")
    return next(filter(_runs, [given] if given else NAMES), None)


def _runs(program: str) -> bool:
    """Whether it starts: Ubuntu's chromium-browser may only say how to install one."""
    try:
        return b"Chrom" in subprocess.run([program, "--version"], capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False


class Browser:
    """A headless browser with one page.

    Attributes:
        problems: errors and warnings of the console, uncaught exceptions, and failed or refused requests.
        requests: the addresses that the page asked for.
    """

    def __init__(self, program: str, profile: Path, patience: float = 60.0) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._patience = patience
        self._number = 0
        self._received = b""
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        # The browser reads from descriptor 3 and writes to 4; /dev/fd is the same on Linux and macOS
        shell = 'exec "$@" 3<&"$COMMANDS" 4>&"$ANSWERS"'
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            pass_fds=(command_end, answer_end),
            env={**os.environ, "COMMANDS": str(command_end), "ANSWERS": str(answer_end)},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(command_end)
        os.close(answer_end)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        with suppress(OSError, RuntimeError, TimeoutError):
            self.send("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    # ---- what a test does ------------------------------------------------------------------------------------------

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a file at this size of the window, ``light`` or ``dark``; below 600 pixels as a phone with touch."""
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=page.absolute().as_uri())
        self.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + self._patience
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {self._patience} s: {condition}")
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release a key: Enter, Escape, Tab."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def point(self, selector: str, click: bool = False) -> None:
        """Move the mouse to the middle of the first element of a CSS selector, and click there."""
        place = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        at = {"x": place[0], "y": place[1]}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(picture["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    # ---- protocol --------------------------------------------------------------------------------------------------

    def send(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no answer of the browser within {self._patience} s")
            part = os.read(self._answers, 1 << 16)
            if not part:
                raise RuntimeError(f"the browser has ended: {self._process.wait(10)}")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        content = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(content["request"]["url"])
            case "Network.loadingFailed":
                self.problems.append(f"request: {content.get('errorText')} {content.get('blockedReason', '')}")
            case "Runtime.exceptionThrown":
                self.problems.append(f"exception: {content['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if content["type"] in ("error", "warning", "assert"):
                self.problems.append(f"console: {content['args']}")
            case "Log.entryAdded" if content["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"log: {content['entry']['text']} {content['entry'].get('url', '')}")
