"""What the page of `wpcrack label` can ask for; pictures of the manifest only."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.label.answers import Verdict
from jobs.label.session import Session
from jobs.page.server import bare_app, refuse, send_picture
from wpcrack.data.manifest import FEW_ITEMS

STATIC = {"": "label.html", "label.css": "label.css", "label.js": "label.js"}


class Given(BaseModel):
    """What the page sends with an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    index: int = Field(ge=0)
    verdict: Verdict
    again: bool = False


def make_app(session: Session, token: str) -> web.Application:
    """Make the application; every address begins with the token."""
    app, page = bare_app(token, "wpcrack label", "jobs.label", STATIC), _Page(session)
    app.add_routes(
        [
            web.get(f"/{token}/state", page.state),
            web.get(f"/{token}/view/{{index:[0-9]{{1,9}}}}", page.view),
            web.get(f"/{token}/queue", page.queue),
            web.get(f"/{token}/{{kind:window|surroundings}}/{{index:[0-9]{{1,9}}}}", page.picture),
            web.post(f"/{token}/answer", page.answer),
            web.post(f"/{token}/undo", page.undo),
        ]
    )
    return app


class _Page:
    """What the page can ask for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()

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
            return refuse("this is no answer; reload the page")
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
        return send_picture(self._session.path(index, kind))

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
