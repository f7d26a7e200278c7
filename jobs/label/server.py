"""The page's server: this machine only, this token only, pictures of the manifest only."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.label.answers import Verdict
from jobs.label.session import Session
from jobs.label.table import SHOWN
from wpcrack.data.manifest import FEW_ITEMS
from wpcrack.errors import WpcrackError

LOOPBACK = "127.0.0.1"
HOSTS = frozenset({LOOPBACK, "localhost"})
"""Names under which the page may be asked for; any port, so that it can be forwarded by ssh."""

STATIC = {
    "": ("label.html", "text/html"),
    "label.css": ("label.css", "text/css"),
    "label.js": ("label.js", "text/javascript"),
}
MAX_BODY_BYTES = 4096

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

PICTURE_CACHE = "private, max-age=3600"


class Given(BaseModel):
    """What the page sends with an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    index: int = Field(ge=0)
    verdict: Verdict
    again: bool = False


def make_app(session: Session, token: str) -> web.Application:
    """Make the application; every address begins with the token."""
    app = web.Application(middlewares=[_guard(token)], client_max_size=MAX_BODY_BYTES)
    page = _Page(session)
    app.on_response_prepare.append(_add_headers)
    app.add_routes(
        [
            web.get(f"/{token}/state", page.state),
            web.get(f"/{token}/view/{{index:[0-9]{{1,9}}}}", page.view),
            web.get(f"/{token}/queue", page.queue),
            web.get(f"/{token}/{{kind:window|surroundings}}/{{index:[0-9]{{1,9}}}}", page.picture),
            web.get(f"/{token}/{{name:|label.css|label.js}}", page.static),
            web.post(f"/{token}/answer", page.answer),
            web.post(f"/{token}/undo", page.undo),
        ]
    )
    return app


def make_token() -> str:
    """Return a token that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(24)


def _guard(token: str) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.path.split("/")[1] if "/" in request.path else ""
        known = secrets.compare_digest(given.encode(errors="replace"), token.encode())
        if not known or not _is_local(request):
            raise web.HTTPForbidden(text="open the address that `wpcrack label` has printed\n")
        try:
            return await handler(request)
        except WpcrackError as error:
            return web.json_response({"error": str(error)}, status=400)

    return guard


def _is_local(request: web.Request) -> bool:
    """Whether the browser meant this machine; a name that only resolves to it is refused."""
    origin = request.headers.get("Origin")
    hosts = [request.host] + ([] if origin is None else [origin.partition("://")[2]])
    return all(host.rpartition(":")[0] in HOSTS or host in HOSTS for host in hosts)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)


class _Page:
    """What the page can ask for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()
        static = files("jobs.label") / "static"
        self._static = {
            name: (static.joinpath(file).read_text(encoding="utf-8"), media)
            for name, (file, media) in STATIC.items()
        }

    async def static(self, request: web.Request) -> web.Response:
        text, media = self._static[request.match_info["name"]]
        return web.Response(text=text, content_type=media, charset="utf-8")

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response(self._state())

    async def view(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._session.look(int(request.match_info["index"]))))

    async def queue(self, _request: web.Request) -> web.Response:
        """Which windows the arrow keys walk through, and which have two different answers."""
        place = self._session.place
        shown = set(self._session.queue)
        disputed = [place(f) for f in self._session.agreement().open if f in shown]
        return web.json_response(
            {"queue": [place(file) for file in self._session.queue], "disputed": disputed}
        )

    async def answer(self, request: web.Request) -> web.Response:
        try:
            given = Given.model_validate_json(await request.read())
        except ValidationError:
            return web.json_response({"error": "this is no answer; reload the page"}, status=400)
        async with self._turn:
            write = self._session.answer
            await asyncio.to_thread(write, given.index, given.verdict, again=given.again)
            return web.json_response(self._state())

    async def undo(self, _request: web.Request) -> web.Response:
        async with self._turn:
            index = await asyncio.to_thread(self._session.undo)
            return web.json_response(self._state() | {"undone": index})

    async def picture(self, request: web.Request) -> web.StreamResponse:
        kind, index = request.match_info["kind"], int(request.match_info["index"])
        path = self._session.path(index, kind)
        if path is None:
            raise web.HTTPNotFound(text="no such picture\n")
        media = SHOWN[PurePosixPath(path.name).suffix.lower()]
        return web.FileResponse(
            path, headers={"Content-Type": media, "Cache-Control": PICTURE_CACHE}
        )

    def _state(self) -> dict[str, Any]:
        views = self._session.choices()
        last, who = self._session.last(), self._session.who
        return {
            "views": [asdict(view) for view in views],
            "last": asdict(last) if last else None,
            "progress": asdict(self._session.progress()),
            "few": FEW_ITEMS,
            "who": " · ".join(filter(None, (who.name, who.part.text()))),
        }
