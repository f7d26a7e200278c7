"""What the page of `wpcrack review` can ask for."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.page.server import bare_app, refuse, send_picture
from jobs.review.session import Session, Verdict

STATIC = {"": "review.html", "review.css": "review.css", "review.js": "review.js"}


class Given(BaseModel):
    """What the page sends with an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    index: int = Field(ge=0)
    verdict: Verdict


def make_app(session: Session, token: str) -> web.Application:
    """Make the application; every address begins with the token."""
    app, page = bare_app(token, "wpcrack review", "jobs.review", STATIC), _Page(session)
    app.add_routes(
        [
            web.get(f"/{token}/state", page.state),
            web.get(f"/{token}/view/{{index:[0-9]{{1,9}}}}", page.view),
            web.get(f"/{token}/picture/{{index:[0-9]{{1,9}}}}", page.picture),
            web.post(f"/{token}/answer", page.answer),
            web.post(f"/{token}/undo", page.undo),
        ]
    )
    return app


class _Page:
    """What the page can ask for; one thing at a time reads imagery or writes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()

    async def state(self, _request: web.Request) -> web.Response:
        async with self._turn:
            return web.json_response(await asyncio.to_thread(self._state))

    async def view(self, request: web.Request) -> web.Response:
        number = int(request.match_info["index"])
        async with self._turn:
            return web.json_response(await asyncio.to_thread(self._session.view, number))

    async def picture(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["index"])
        async with self._turn:
            return send_picture(await asyncio.to_thread(self._session.picture, number))

    async def answer(self, request: web.Request) -> web.Response:
        try:
            given = Given.model_validate_json(await request.read())
        except ValidationError:
            return refuse("this is no answer; reload the page")
        async with self._turn:
            await asyncio.to_thread(self._session.answer, given.index, given.verdict)
            return web.json_response(await asyncio.to_thread(self._state))

    async def undo(self, _request: web.Request) -> web.Response:
        async with self._turn:
            number = await asyncio.to_thread(self._session.undo)
            return web.json_response(await asyncio.to_thread(self._state) | {"undone": number})

    def _state(self) -> dict[str, Any]:
        accuracy, following = self._session.accuracy(), self._session.next_places()
        return {
            "next": self._session.view(following[0]) if following else None,
            "ahead": following[1:],
            "progress": self._session.progress(),
            "precision": accuracy.precision.text() if accuracy.precision else None,
            "recall": accuracy.recall.text() if accuracy.recall else None,
        }
