"""A headless Chromium for tests of pages: keys, mouse, fingers, and what is seen.

Driven over its debugging pipe, so that nothing beyond Chromium itself is needed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from aiohttp import web

from jobs.page.server import LOOPBACK, make_token

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

BROWSERS_OWN = (".google.com", ".gvt1.com", ".googleapis.com")
"""Hosts that the browser itself calls, whatever page it shows."""

CODES = {" ": "Space", "Enter": "Enter", "Tab": "Tab"}
TEXTS = {" ": " ", "Enter": "\r"}
NUMBERS = {" ": 32, "Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27}

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here")


class Browser:
    """A headless Chromium that shows one page."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._asked = 0
        self._session: dict[str, str] = {}
        (page,) = (t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def ask(self, method: str, **params: Any) -> Any:
        """Call a method of the debugging protocol."""
        self._asked += 1
        call = {"id": self._asked, "method": method, "params": params} | self._session
        self._writing.write(json.dumps(call).encode() + b"\0")
        self._writing.flush()
        answer: dict[str, Any] = {}
        while answer.get("id") != self._asked:
            answer = json.loads(self._until_zero())
        assert "error" not in answer, answer
        return answer["result"]

    def _until_zero(self) -> bytearray:
        message = bytearray()
        while (byte := self._reading.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return message

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never happened: {condition}"
            time.sleep(0.05)

    def press(self, key: str, *, repeat: bool = False, shift: bool = False) -> None:
        """Press a key and let it go; `repeat`: as of one that is held down."""
        code = CODES.get(key, f"Key{key.upper()}" if len(key) == 1 else key)
        text = {"text": TEXTS.get(key, key)} if len(key) == 1 or key in TEXTS else {}
        number = NUMBERS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        common |= {"modifiers": 8} if shift else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", autoRepeat=repeat, **common, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def middle(self, selector: str) -> tuple[float, float]:
        """Return x, y of the middle of an element that can be seen there."""
        x, y, hit = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}), b = "
            "e.getBoundingClientRect(), x = b.x + b.width / 2, y = b.y + b.height / 2; "
            "return [x, y, e.contains(document.elementFromPoint(x, y))]; })()"
        )
        assert hit, f"{selector} is hidden or covered"
        return x, y

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        x, y = self.middle(selector)
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **where)

    def swipe(self, selector: str, dx: float, dy: float = 0) -> None:
        """Move a finger over an element."""
        x, y = self.middle(selector)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        for part in (0.3, 0.6, 1.0):
            point = {"x": x + part * dx, "y": y + part * dy}
            self.ask("Input.dispatchTouchEvent", type="touchMove", touchPoints=[point])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the page a screen of another size; a phone has fingers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.ask("Emulation.setTouchEmulationEnabled", enabled=phone)

    def picture(self, path: Path) -> None:
        """Keep what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextmanager
def browser(address: str, folder: Path) -> Iterator[Browser]:
    """Show a page, once it is drawn; `folder` gets profile and net.json, the log of the network."""
    assert CHROMIUM is not None
    to_read, answers = os.pipe()
    calls, to_write = os.pipe()
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1200,800",
        f"--log-net-log={folder / 'net.json'}", "--remote-debugging-pipe", address,
    ]  # fmt: skip
    shell = f"exec {shlex.join(command)} 3<&{calls} 4>&{answers}"
    process = subprocess.Popen(
        ["bash", "-c", shell], pass_fds=(calls, answers), stderr=subprocess.DEVNULL
    )
    os.close(calls)
    os.close(answers)
    with open(to_read, "rb") as reading, open(to_write, "wb") as writing:
        try:
            shown = Browser(reading, writing)
            shown.wait("document.body?.dataset.ready !== undefined", seconds=120)
            yield shown
            with suppress(AssertionError):
                shown.ask("Browser.close")
            process.wait(600)
        finally:
            process.kill()
            process.wait()


def asked_hosts(folder: Path) -> set[str]:
    """Return the hosts that a page of `browser` asked for anything, by the log in `folder`."""
    asked = set(re.findall(r'"url":"https?://([^/"]*)', (folder / "net.json").read_text("utf-8")))
    return {host for host in asked if not host.endswith(BROWSERS_OWN)}


@contextmanager
def serve(
    open_session: Callable[[], AbstractContextManager[Any]],
    make_app: Callable[[Any, str], web.Application],
) -> Iterator[str]:
    """Give the address of a local page while a server runs in a thread."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    address: list[str] = []

    async def start(session: Any) -> web.AppRunner:
        token = make_token()
        runner = web.AppRunner(make_app(session, token), access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, 0).start()
        address.append(f"http://{LOOPBACK}:{runner.addresses[0][1]}/{token}/")
        ready.set()
        return runner

    def run() -> None:
        with open_session() as session:
            runner = loop.run_until_complete(start(session))
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(600)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)


def keep(shown: Browser, name: str) -> None:
    """Keep a screenshot to look at, where the environment names a folder for them."""
    if folder := os.environ.get("WPCRACK_SCREENSHOTS"):
        shown.run("new Promise((done) => setTimeout(done, 700))")
        shown.picture(Path(folder) / f"{name}.png")


def step(shown: Browser, act: Callable[[], object]) -> None:
    """Do something and wait until a page of jobs/page is at rest again after a change."""
    before = shown.run("document.getElementById('said').textContent = ''")
    act()
    shown.wait(f"document.getElementById('said').textContent !== {json.dumps(before)}")
    shown.wait("!page.busy")


def text(shown: Browser, name: str) -> str:
    """Return the text of an element."""
    return str(shown.run(f"document.getElementById({name!r}).innerText.trim()"))
