"""Reads the pixels of blocks in a thread of its own, which one file without an answer cannot stop.

A read that hangs in the operating system (a dead network drive) cannot be ended. Its thread is
left behind and a new one takes over; the tile that hangs is found, recorded and left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from geo.grid import Window
from geo.imagery.headers import Tile, TileProblem
from geo.imagery.mosaic import Mosaic, Raster

log = logging.getLogger(__name__)

NO_ANSWER = "gave no answer"
"""In the reason of a tile that hangs; nothing should try to read it any more."""

T = TypeVar("T")


class BlockReader:
    """Reads windows of a mosaic, one after the other; may be called from several threads."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic
        self._reader = _Thread()
        self._turn = threading.Lock()
        self._silent: dict[int, TileProblem] = {}

    def read(self, window: Window) -> Raster:
        """Reads like `Mosaic.read`; a tile that does not answer in time is one more failure.

        Raises:
            TimeoutError: Even the tiles that answer take too long together.
        """
        with self._turn:
            near, patience = self.mosaic.touching(window), self.mosaic.reading.timeout_s
            while True:
                try:
                    return self._read_answering(near, window, patience)
                except TimeoutError:
                    silent = self._without_answer(near, window)
                    if not silent and patience > self.mosaic.reading.timeout_s:
                        raise
                    if not silent:  # all answer, but slowly
                        patience *= len(near) + 1
                    self._silent |= silent

    def _read_answering(self, near: Sequence[int], window: Window, patience_s: float) -> Raster:
        answering = [index for index in near if index not in self._silent]
        problems = tuple(self._silent[index] for index in near if index in self._silent)
        if problems and not answering:
            shape = window.height, window.width
            image, valid = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
            return Raster(image, valid, problems, self.mosaic.grid.gsd_m)
        mosaic = self._only(answering) if problems else self.mosaic
        raster = self._reader.call(partial(mosaic.read, window), patience_s)
        return replace(raster, failures=(*raster.failures, *problems))

    def _without_answer(self, near: Sequence[int], window: Window) -> dict[int, TileProblem]:
        """Asks each tile by itself, all at a time; those that stay silent are named."""
        end = time.monotonic() + self.mosaic.reading.timeout_s
        hopeful = [index for index in near if index not in self._silent]
        asked = {i: _ask(partial(self._only([i]).read, window)) for i in hopeful}
        return {i: self._problem(i) for i, answer in asked.items() if not _is_done(answer, end)}

    def _only(self, indices: Sequence[int]) -> Mosaic:
        tiles = tuple(self.mosaic.tiles[index] for index in indices)
        return replace(
            self.mosaic, tiles=tiles, windows=tuple(self.mosaic.windows[i] for i in indices)
        )

    def _problem(self, index: int) -> TileProblem:
        tile = self.mosaic.tiles[index]
        reason = f"{NO_ANSWER} within {self.mosaic.reading.timeout_s:g} s; check its drive"
        log.warning("%s %s", tile.path, reason)
        footprint = tile.grid.footprint() if isinstance(tile, Tile) else tile.footprint
        return TileProblem(tile.path, reason, footprint, tile.crs)


class _Thread:
    """A thread that runs functions in order, and keeps what GDAL opened in it.

    A daemon: a read that never returns keeps no process alive.
    """

    def __init__(self) -> None:
        self._start()

    def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """What a function returns or raises.

        Raises:
            TimeoutError: It took too long; the thread that runs it is left behind.
        """
        answer = self.submit(function)
        if not _is_done(answer, time.monotonic() + timeout_s):
            self.close()  # ends the old thread, should it ever wake
            self._start()
            raise TimeoutError(f"reading took longer than {timeout_s:g} s")
        return answer.result()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Runs a function when its turn comes."""
        answer: Future[T] = Future()
        self._queue.put((answer, function))
        return answer

    def close(self) -> None:
        """Ends the thread after what it was given."""
        self._queue.put(None)

    def _start(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._queue,), name="reader", daemon=True).start()


def _ask(function: Callable[[], T]) -> Future[T]:
    """Runs a function in a thread that ends with it."""
    thread = _Thread()
    answer = thread.submit(function)
    thread.close()
    return answer


def _serve(queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (order := queue.get()) is not None:
        answer, function = order
        try:
            answer.set_result(function())
        except Exception as error:
            answer.set_exception(error)
        del answer, function, order  # a block's pixels are not kept until the next order comes


def _is_done(answer: Future[Any], end: float) -> bool:
    """Whether there is an answer, be it an exception, before a moment of the monotonic clock."""
    try:
        answer.exception(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return answer.done()
    return True
