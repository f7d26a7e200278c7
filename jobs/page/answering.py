"""What a local page asks while a person answers: its state, one item, an answer, its undo."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.page.server import refuse

INDEX = "{index:[0-9]{1,9}}"
"""The number of an item in an address."""


class Given(BaseModel):
    """What every page sends with an answer; each adds its verdicts."""

    model_config = ConfigDict(extra="forbid", strict=True)
    index: int = Field(ge=0)


G = TypeVar("G", bound=Given)


class AnswerPage(ABC, Generic[G]):
    """What every page can ask for; one answer at a time is written, beside the loop."""

    def __init__(self, given: type[G], undo: Callable[[], int | None]) -> None:
        """Keep what differs.

        Args:
            given: what the page sends.
            undo: takes the last answer back; returns which item it was about, None: there was none.
        """
        self._given, self._undo = given, undo
        self._turn = asyncio.Lock()

    def routes(self, token: str) -> list[web.RouteDef]:
        """Return the addresses that every page asks; all begin with the token."""
        return [
            web.get(f"/{token}/state", self.state),
            web.get(f"/{token}/view/{INDEX}", self.view),
            web.post(f"/{token}/answer", self.answer),
            web.post(f"/{token}/undo", self.undo),
        ]

    @abstractmethod
    async def state(self, request: web.Request) -> web.Response:
        """Answer with what the page shows now."""

    @abstractmethod
    async def view(self, request: web.Request) -> web.Response:
        """Answer with what the page shows of one item."""

    @abstractmethod
    async def _now(self) -> dict[str, Any]:
        """Return the values of `state`, in the turn of the caller."""

    @abstractmethod
    def _write(self, given: G) -> None:
        """Write an answer to disk."""

    async def answer(self, request: web.Request) -> web.Response:
        """Write an answer; the page then shows the state."""
        try:
            given = self._given.model_validate_json(await request.read())
        except ValidationError:
            return refuse("this is not an answer; reload the page")
        async with self._turn:
            await asyncio.to_thread(self._write, given)
            return web.json_response(await self._now())

    async def undo(self, _request: web.Request) -> web.Response:
        """Take back the last answer; the page then shows the state."""
        async with self._turn:
            index = await asyncio.to_thread(self._undo)
            return web.json_response(await self._now() | {"undone": index})
