"""`wpcrack label`: say crack or road to the windows of a folder, on a local page.

    wpcrack label windows
    wpcrack label windows --part 1/3 --name anna --again 0.1

The page is for this machine alone. Ctrl-C ends the program; the same command goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import sys
import threading
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from jobs.label.agreement import Agreement
from jobs.label.server import LOOPBACK, make_app, make_token
from jobs.label.session import Session, Who, open_session
from jobs.runtime.terminal import counted, say
from wpcrack.data.manifest import Label
from wpcrack.errors import ConfigError, DataError, first_few

MANIFEST_EVERY_S = 10.0
"""How often answers are carried into the manifest."""

MAX_PORT = 65535
CLOSE_S = 1.0
"""Time for requests under way when the program ends."""


@dataclass(frozen=True)
class LabelReport:
    """What the folder holds at the end: labels by class, answers left here, agreement."""

    root: Path
    balance: Mapping[Label, int]
    left: int
    agreement: Agreement

    def summary(self) -> str:
        """Return one sentence for the terminal."""
        crack, road = self.balance["crack"], self.balance["road"]
        parts = [f"{counted(crack + road, 'window')} labeled ({crack} crack, {road} road)"]
        if self.left:
            parts.append(f"{self.left} to go")
        if self.agreement.pairs:
            parts.append(self.agreement.text())
        if self.agreement.open:
            number = counted(len(self.agreement.open), "window")
            parts.append(f"{number} in dispute: {first_few(self.agreement.open)}")
        return f"{'; '.join(parts)}; next: {self._next()}"

    def _next(self) -> str:
        root = shlex.quote(str(self.root))
        lacking = [label for label, count in self.balance.items() if not count]
        if lacking:
            return f"wpcrack label {root} (a training needs {' and '.join(lacking)} windows, too)"
        return f"wpcrack train data.root={root}"


def run_label(
    root: Path, who: Who | None = None, *, port: int = 0, open_browser: bool = True
) -> LabelReport:
    """Serve the page until Ctrl-C or SIGTERM, writing each answer at once.

    Args:
        root: folder of windows with a manifest.
        who: labels which part, under what name.
        port: of the page; 0: any free one.
        open_browser: show the page.

    Raises:
        ConfigError: name, share or port cannot be taken.
        DataError: no folder, no manifest, no window, or something cannot be written.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port {port} is no port; give a number from 1024 to {MAX_PORT}")
    with open_session(root, who or Who()) as session:
        if session.left_out:
            say(
                f"left out: {counted(len(session.left_out), 'window')} that the manifest lists and "
                f"that no browser can show from this folder ({first_few(session.left_out)})"
            )
        asyncio.run(_serve(session, port, open_browser))
    return LabelReport(root, session.balance(), session.progress().left, session.agreement())


async def _serve(session: Session, port: int, open_browser: bool) -> None:
    token, ended = make_token(), _ended()
    runner = web.AppRunner(make_app(session, token), access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, port)
    try:
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(_refused(port, error)) from error
        address = f"http://{LOOPBACK}:{runner.addresses[0][1]}/{token}/"
        say(f"the page: {address}\nits address is a key: share it with nobody; Ctrl-C ends")
        if open_browser:
            _show(address)
        await _write_until(session, ended)
    finally:
        await runner.cleanup()


async def _write_until(session: Session, ended: asyncio.Event) -> None:
    """Carry answers into the manifest now and then; a failure is said once, and tried again."""
    failed = False
    while not ended.is_set():
        try:
            await asyncio.wait_for(ended.wait(), MANIFEST_EVERY_S)
        except TimeoutError:
            try:
                session.write_manifest()
                failed = False
            except DataError as error:
                if not failed:
                    say(f"warning: {error}")
                failed = True


def _ended() -> asyncio.Event:
    """Make an event that Ctrl-C, SIGTERM and the end of the terminal set."""
    ended = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


def _refused(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} is in use; give another one, or none for any that is free"
    return f"--port {port} cannot be opened ({error.strerror}); give one above 1023"


def _show(address: str) -> None:
    """Open the browser, unless it would be one inside this terminal."""
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen or not sys.platform.startswith("linux"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
