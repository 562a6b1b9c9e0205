"""Headless Chromium over a pipe, in the DevTools protocol: enough to open a page, ask it things and photograph it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The browser's command, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """One page in one browser; a context manager that ends the browser and its profile."""

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        self.messages: list[str] = []
        """Console messages, exceptions and requests that were refused."""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()

        def place() -> None:
            # Chromium reads commands from descriptor 3 and answers on 4; either pipe may lie there already.
            away = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
            for number, end in zip((3, 4), away, strict=True):
                os.dup2(end, number)

        command = [
            find() or "chromium", "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={self._profile.name}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its result; what else arrives meanwhile is kept in `messages`."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, page: Path) -> None:
        """Go to a local file; returns as soon as the browser has begun."""
        self.send("Page.navigate", url=page.resolve().as_uri())

    def ask(self, expression: str) -> Any:
        """The value of an expression, of a promise its result."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The value of the expression once it is true."""
        poll = (
            f"new Promise((done) => {{ const end = performance.now() + {1000 * seconds}; const look = () => {{"
            f" const value = {expression}; if (value || performance.now() > end) done(value);"
            " else setTimeout(look, 20); }; look(); })"
        )
        value = self.ask(poll)
        assert value, f"not within {seconds} s: {expression}"
        return value

    def photograph(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium ended")
            self._unread += piece
        text, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(text)
        method, content = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.messages.append(f"console.{content['type']}: {content['args']}")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(f"exception: {content['exceptionDetails']}")
        elif method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.messages.append(f"log: {content['entry']}")
        elif method == "Network.requestWillBeSent" and not content["request"]["url"].startswith(
            ("file:", "data:", "blob:")
        ):
            self.messages.append(f"request: {content['request']['url']}")
        return message
