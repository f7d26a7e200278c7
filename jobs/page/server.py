"""The server of a local page: this machine only, this token only, nothing from elsewhere."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from jobs.runtime.signals import ENDS, keep_handlers
from jobs.runtime.terminal import USER_ERRORS, say
from wpcrack.errors import ConfigError, DataError

LOOPBACK = "127.0.0.1"
HOSTS = frozenset({LOOPBACK, "localhost"})
"""Names under which the page may be asked for; any port, so that it can be forwarded by ssh."""

MAX_PORT = 65535
MAX_BODY_BYTES = 4096
CLOSE_S = 1.0
"""Time for requests under way when the program ends."""

SAVE_EVERY_S = 10.0
"""How often answers are carried from the journal to where they are used."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The page may load from here only, no other page may embed it, and its address stays here."""

SHARED = ("page.css", "page.js")
"""Files of this folder that every page loads."""

FRAME = "page.html"
"""What every page is made of: where the parts of its own file go."""

PART = re.compile(r"^<!-- (\w+) -->\n", re.MULTILINE)

MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
"""Pictures that every browser shows, with their media type."""

PICTURE_CACHE = "private, max-age=3600"


def make_token() -> str:
    """Return a token that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(24)


def bare_app(token: str, name: str) -> web.Application:
    """Make an application that answers with the files of a page; every address has the token.

    Args:
        token: of `make_token`.
        name: of the command that printed the address, as of its package in `jobs`, in whose folder
            static/ the page's own files lie under this name.
    """
    app = web.Application(
        middlewares=[_guard(token, f"wpcrack {name}")], client_max_size=MAX_BODY_BYTES
    )
    app.on_response_prepare.append(_add_headers)
    own = (f"{name}.css", f"{name}.js")
    texts = {file: _file("page", file) for file in SHARED} | {
        file: _file(name, file) for file in own
    }
    app.router.add_get(f"/{token}/", _static(_frame(name), ".html"))
    for file, text in texts.items():
        app.router.add_get(f"/{token}/{file}", _static(text, PurePosixPath(file).suffix))
    return app


def _file(package: str, name: str) -> str:
    return files(f"jobs.{package}").joinpath("static", name).read_text(encoding="utf-8")


def _frame(name: str) -> str:
    """Put the parts of a page, each after a comment with its name, into the frame of all pages."""
    pieces = PART.split(_file(name, f"{name}.html"))[1:]
    parts = {part: text.rstrip("\n") for part, text in zip(pieces[::2], pieces[1::2], strict=True)}
    return Template(_file("page", FRAME)).substitute(parts, name=name)


def _static(text: str, ending: str) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=MEDIA[ending], charset="utf-8")

    return answer


def send_picture(path: Path | None) -> web.StreamResponse:
    """Answer with a picture.

    Raises:
        HTTPNotFound: there is none.
    """
    if path is None:
        raise web.HTTPNotFound(text="no such picture\n")
    media = PICTURES[path.suffix.lower()]
    return web.FileResponse(path, headers={"Content-Type": media, "Cache-Control": PICTURE_CACHE})


def refuse(sentence: str) -> web.Response:
    """Answer that something is wrong, as the page shows it."""
    return web.json_response({"error": sentence}, status=400)


def serve(
    app_of: Callable[[str], web.Application],
    save: Callable[[], None],
    *,
    port: int = 0,
    open_browser: bool = True,
) -> None:
    """Serve a page until Ctrl-C or SIGTERM.

    Args:
        app_of: token -> application.
        save: carries answers to where they are used; called now and then. A failure is said once,
            and tried again.
        port: of the page; 0: any free one.
        open_browser: show the page.

    Raises:
        ConfigError: the port cannot be taken.
    """
    require_port(port)
    with keep_handlers():
        asyncio.run(_serve(app_of, save, port, open_browser))


def require_port(port: int) -> None:
    """Refuse a port that is none.

    Raises:
        ConfigError: so it is.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port {port} is not a port; give a number from 1024 to {MAX_PORT}")


async def _serve(
    app_of: Callable[[str], web.Application],
    save: Callable[[], None],
    port: int,
    open_browser: bool,
) -> None:
    token, ended = make_token(), _end_event()
    runner = web.AppRunner(app_of(token), access_log=None, logger=_log(), shutdown_timeout=CLOSE_S)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, port)
    try:
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(_refusal(port, error)) from error
        address = f"http://{LOOPBACK}:{runner.addresses[0][1]}/{token}/"
        say(f"the page: {address}\nits address is a key: share it with nobody; Ctrl-C ends")
        if open_browser:
            _show(address)
        await _save_until(save, ended)
    finally:
        await runner.cleanup()


def _log() -> logging.Logger:
    """Return where faults of this program go; a request that is no HTTP is answered with 400."""
    log = logging.getLogger(__name__)
    log.addFilter(_is_own_fault)
    return log


def _is_own_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _save_until(save: Callable[[], None], ended: asyncio.Event) -> None:
    failed = False
    while not ended.is_set():
        try:
            await asyncio.wait_for(ended.wait(), SAVE_EVERY_S)
        except TimeoutError:
            try:
                save()
                failed = False
            except DataError as error:
                if not failed:
                    say(f"warning: {error}")
                failed = True


def _end_event() -> asyncio.Event:
    """Make an event that Ctrl-C, SIGTERM and the end of the terminal set.

    Under `nohup`, which ignores SIGHUP, the page stays.
    """
    ended = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *ENDS):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


def _refusal(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} is in use; give another one, or none for any that is free"
    return f"--port {port} cannot be opened ({error.strerror}); give one above 1023"


def _show(address: str) -> None:
    """Open the browser, unless it would be one inside this terminal."""
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen or not sys.platform.startswith("linux"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _guard(token: str, command: str) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.path.split("/")[1] if "/" in request.path else ""
        known = secrets.compare_digest(given.encode(errors="replace"), token.encode())
        if not known or not _is_local(request):
            raise web.HTTPForbidden(text=f"open the address that `{command}` has printed\n")
        try:
            return await handler(request)
        except USER_ERRORS as error:
            return refuse(str(error))
        except OSError as error:  # a folder that was removed meanwhile, a full disk
            return refuse(f"{error.filename or command}: {error.strerror or error}; mend that")

    return guard


def _is_local(request: web.Request) -> bool:
    """Return whether the browser meant this machine, not by a name that only resolves to it."""
    origin = request.headers.get("Origin")
    hosts = [request.host] + ([] if origin is None else [origin.partition("://")[2]])
    return all(host.rpartition(":")[0] in HOSTS or host in HOSTS for host in hosts)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)
