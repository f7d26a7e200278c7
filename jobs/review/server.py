"""What the page of `wpcrack review` can ask for."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from jobs.page.answering import INDEX, AnswerPage, Given
from jobs.page.server import bare_app, send_picture
from jobs.review.session import Session, Verdict


class GivenVerdict(Given):
    """What the page sends with an answer."""

    verdict: Verdict


def make_app(session: Session, token: str) -> web.Application:
    """Make the application; every address begins with the token."""
    app, page = bare_app(token, "review"), _Page(session)
    app.add_routes([*page.routes(token), web.get(f"/{token}/picture/{INDEX}", page.picture)])
    return app


class _Page(AnswerPage[GivenVerdict]):
    """What the page can ask for; one thing at a time reads imagery or writes."""

    def __init__(self, session: Session) -> None:
        super().__init__(GivenVerdict, session.undo)
        self._session = session

    async def state(self, _request: web.Request) -> web.Response:
        async with self._turn:
            return web.json_response(await self._now())

    async def view(self, request: web.Request) -> web.Response:
        number = int(request.match_info["index"])
        async with self._turn:
            return web.json_response(await asyncio.to_thread(self._session.view, number))

    async def picture(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["index"])
        async with self._turn:
            return send_picture(await asyncio.to_thread(self._session.picture, number))

    def _write(self, given: GivenVerdict) -> None:
        self._session.answer(given.index, given.verdict)

    async def _now(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._state)

    def _state(self) -> dict[str, Any]:
        accuracy, following = self._session.accuracy(), self._session.next_places()
        return {
            "next": self._session.view(following[0]) if following else None,
            "ahead": following[1:],
            "progress": self._session.progress(),
            "precision": accuracy.precision.text() if accuracy.precision else None,
            "recall": accuracy.recall.text() if accuracy.recall else None,
        }
