"""What the page of `wpcrack label` can ask for; pictures of the manifest only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from jobs.label.answers import Verdict
from jobs.label.session import Session
from jobs.page.answering import INDEX, AnswerPage, Given
from jobs.page.server import bare_app, send_picture
from wpcrack.data.manifest import FEW_ITEMS


class GivenLabel(Given):
    """What the page sends with an answer."""

    verdict: Verdict
    again: bool = False


def make_app(session: Session, token: str) -> web.Application:
    """Make the application; every address begins with the token."""
    app, page = bare_app(token, "label"), _Page(session)
    app.add_routes(
        [
            *page.routes(token),
            web.get(f"/{token}/queue", page.queue),
            web.get(f"/{token}/{{kind:window|surroundings}}/{INDEX}", page.picture),
        ]
    )
    return app


class _Page(AnswerPage[GivenLabel]):
    """What the page can ask for."""

    def __init__(self, session: Session) -> None:
        super().__init__(GivenLabel, session.undo)
        self._session = session

    async def state(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._now())

    async def view(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._session.look(int(request.match_info["index"]))))

    async def queue(self, _request: web.Request) -> web.Response:
        """Send which windows the arrow keys walk through, and which have two different answers."""
        place = self._session.place
        shown = set(self._session.queue)
        disputed = [place(f) for f in self._session.agreement().open if f in shown]
        return web.json_response(
            {"queue": [place(file) for file in self._session.queue], "disputed": disputed}
        )

    async def picture(self, request: web.Request) -> web.StreamResponse:
        kind, index = request.match_info["kind"], int(request.match_info["index"])
        return send_picture(self._session.path(index, kind))

    def _write(self, given: GivenLabel) -> None:
        self._session.answer(given.index, given.verdict, again=given.again)

    async def _now(self) -> dict[str, Any]:
        views = self._session.choices()
        last, who = self._session.last(), self._session.who
        return {
            "views": [asdict(view) for view in views],
            "last": asdict(last) if last else None,
            "progress": asdict(self._session.progress()),
            "few": FEW_ITEMS,
            "who": " · ".join(filter(None, (who.name, who.part.text()))),
        }
