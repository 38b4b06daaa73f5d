"""A headless Chromium, driven through its debugging pipe: no port, no driver, no package."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--remote-debugging-pipe"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Code, and text where the key types one.
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowDown": (40, "")}


def path():
    """The browser of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab; ``requests`` are the addresses that it asked for."""

    def __init__(self, read, write):
        self._read, self._write = read, write
        self._number, self._buffer, self._session = 0, b"", None
        self.requests, self.loads = [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        made = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = made["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def _message(self, deadline):
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 2**20)
            if not part:
                raise EOFError("the browser has ended")
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(raw)

    def _note(self, message):
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        self.loads += message.get("method") == "Page.loadEventFired"

    def call(self, method, **params):
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while (answer := self._message(deadline)).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression):
        """The value of an expression of JavaScript in the page."""
        made = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def _loaded(self, before):
        deadline = time.monotonic() + 120
        while self.loads <= before:
            self._note(self._message(deadline))

    def open(self, url):
        """Go to an address and wait until it is loaded."""
        before = self.loads
        self.call("Page.navigate", url=url)
        self._loaded(before)

    def look(self, width=1280, height=900, scheme="light"):
        """Set the size of the window and the colour scheme of the system."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key, shift=False, loads=False):
        """Press and release a key; with ``loads`` wait for the page that it opens."""
        before = self.loads
        code, text = _KEYS[key]
        event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)
        if loads:
            self._loaded(before)

    def type(self, text):
        """Type into the element with the focus."""
        self.call("Input.insertText", text=text)

    def tab_to(self, found, most=200):
        """Press Tab until a condition on ``document.activeElement`` (``e``) holds."""
        for _ in range(most):
            self.press("Tab")
            if self.evaluate(f"(e => Boolean({found}))(document.activeElement)"):
                return
        raise AssertionError(f"no Tab reaches {found}")

    def screenshot(self, file):
        """Write the whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(profile):
    """A tab of a browser with an empty profile in a folder; it ends with the block."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()

    def place():
        kept = os.dup(theirs_out)  # theirs_in may be 4
        os.dup2(theirs_in, 3)
        os.dup2(kept, 4)

    process = subprocess.Popen(
        [path(), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=place,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_in, ours_out)
    finally:
        process.kill()
        process.wait()
        os.close(ours_in)
        os.close(ours_out)
