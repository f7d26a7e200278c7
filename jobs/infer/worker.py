"""One block from pixels to a part file: what an inference actor does, without Ray.

Two blocks may be under way in a worker, called from two threads: while the model works on one, the
pixels of the next are read. Reader and model each serve one block at a time. A read that hangs in
the operating system (a dead network drive) cannot be ended: its thread is left behind and a new
one takes over; the tile that hangs is found, recorded and left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geo.addresses import without_secrets
from geo.cracks.branch_sums import WIDTH_OPTIONS
from geo.cracks.light import Picture
from geo.cracks.parts import InspectedRow, write_part
from geo.cracks.pieces import Ground, Piece, block_pieces
from geo.errors import OutputError
from geo.grid import Window
from geo.imagery.headers import Tile, TileProblem
from geo.imagery.mosaic import Block, Mosaic, Raster
from geo.imagery.thumbnails import PictureGrid
from jobs.infer.attempts import Attempts, FolderMarks
from jobs.infer.block_store import BlockStore, names_of
from jobs.infer.plan import Plan
from jobs.infer.probability import ground_file, probability_file, write_probability
from wpcrack.errors import WpcrackError
from wpcrack.inference.predict import WindowPredictor, predict_block

log = logging.getLogger(__name__)

PredictorFactory = Callable[[], WindowPredictor]

BLOCKS_AT_A_TIME = 2
"""In one worker: one with the model, one being read ahead or written."""

NO_ANSWER = "gave no answer"
"""In the reason of a tile that hangs; nothing should try to read it any more."""

T = TypeVar("T")


class BlockWorker:
    """Holds the model and the mosaic; turns blocks into parts. `run` may be called by threads."""

    def __init__(
        self, plan: Plan, predictor: WindowPredictor, store: BlockStore | None = None
    ) -> None:
        """Prepare to work.

        Args:
            plan: whose folders are of this node where there is a store.
            predictor: the network.
            store: where finished blocks are copied to; None: all nodes share the folders.
        """
        self.plan, self.store = plan, store
        self.predictor = predictor
        self._pixels = BlockReader(plan.mosaic)
        self._model = threading.Lock()
        self._attempts = Attempts(store or FolderMarks(plan.parts.parent))

    def run(self, index: int) -> InspectedRow:
        """Read, predict, vectorize and store a block, unless its part is there already.

        Ray runs a task again whose worker was killed, perhaps after it had written the part. What
        is wrong with a block's data is part of its result; a part is written in any case.

        Returns:
            What was looked at, without its coverage, which is large and lies in the part.

        Raises:
            WpcrackError: The model is unusable, which no other block would mend.
            OutputError: The part cannot be written.
        """
        block, start = self.plan.blocks[index], time.monotonic()
        if known := self.plan.read_result(block):
            self._attempts.forget(block.block_id)  # of a worker killed after it had written
            return known.brief()
        try:
            with self._attempts.begin(block.block_id, "the block"):
                return self._deliver(block, *self._inspect(block, start))
        except (WpcrackError, OutputError):
            raise
        except Exception as error:
            log.exception("block %s failed", block.block_id)
            probability = np.zeros((block.window.height, block.window.width), np.uint8)
            ground = Ground.none(block.window)
            row = InspectedRow.of_failure(
                block,
                f"{type(error).__name__}: {error}",
                self.plan.mosaic.grid,
                seconds=time.monotonic() - start,
            )
            return self._deliver(block, row, [], probability, ground)

    def _deliver(
        self,
        block: Block,
        inspected: InspectedRow,
        found: list[Piece],
        probability: NDArray[np.uint8],
        ground: Ground,
    ) -> InspectedRow:
        """Store what was found in a block."""
        try:
            if (folder := self.plan.probability) is not None:
                path, grid = probability_file(folder, block), self.plan.mosaic.grid
                write_probability(path, probability, block.window, grid)
                ground.write(ground_file(folder, block), probability, block.window)
            write_part(self.plan.part(block), found, inspected)
            self._hand_over(block)
        except (OSError, RasterioError, CPLE_BaseError) as error:
            raise OutputError(
                f"block {block.block_id} cannot be written to {self.plan.parts.parent} ({error}); "
                "check the folder and the free space, then give the same command again: finished "
                "blocks are kept"
            ) from error
        return inspected.brief()

    def _hand_over(self, block: Block) -> None:
        """Copy the files of a block to the store, and keep none of them."""
        if self.store is not None:
            root, names = self.plan.parts.parent, names_of(self.plan, block)
            self.store.put(root, names)
            for name in names:
                (root / name).unlink()

    def _inspect(
        self, block: Block, start: float
    ) -> tuple[InspectedRow, list[Piece], NDArray[np.uint8], Ground]:
        frame = self.plan.mosaic.grid
        inside = self.plan.mosaic.inside(block.window)
        with ExitStack() as turn:  # the model is ours from the end of reading on
            reader = BlockView(self._pixels, block.window, turn, self._model, self.plan.picture)
            probability = predict_block(
                reader.read,
                self.predictor,
                block.window,
                self.plan.lattice,
                wanted=inside,
                batch=self.plan.batch,
            )
        ground = Ground(reader.ring, reader.sizes_m, reader.light)
        found = block_pieces(probability, self.plan.level, block.window, frame, ground)
        inspected = InspectedRow.of(
            block,
            reader.ring[1:-1, 1:-1] & inside,
            reader.failures,
            frame,
            seconds=time.monotonic() - start - reader.waited_s,
        )
        seen = replace(inspected, gsd_mm=1000 * reader.gsd_m, thumbnail=reader.thumbnail)
        return seen, found, probability, ground


class BlockView:
    """Reads what is wanted of a block once, then waits for the model; remembers what it saw."""

    def __init__(
        self,
        pixels: BlockReader,
        block: Window,
        turn: ExitStack,
        model: threading.Lock,
        picture: PictureGrid | None = None,
    ) -> None:
        self.pixels = pixels
        self.block = block
        self.turn = turn
        self.model = model
        self.waited_s = 0.0
        self.ring = np.zeros((block.height + 2, block.width + 2), bool)
        self.failures: tuple[TileProblem, ...] = ()
        self.gsd_m = pixels.mosaic.grid.gsd_m
        self.sizes_m: NDArray[np.float64] | None = None
        self.light: Picture | None = None
        self.picture = picture
        self.thumbnail = ""

    def read(self, *window: int) -> Pixels:
        """Return the pixels of a window (row_off, col_off, height, width).

        More is read around the block: the neighbors of all pixels, and the light beside cracks.
        """
        asked = Window(*window)
        seen = self.block.intersection(asked)
        assert seen is not None, "what is read of a block meets it"
        outer = seen.pad(WIDTH_OPTIONS.reach_px).union(asked.pad(1))
        raster = self.pixels.read(outer)
        self.ring = with_ring(raster.valid, self.block, outer)
        self.failures = raster.failures
        self.gsd_m = raster.gsd_m
        if raster.sizes_m is not None:
            self.sizes_m = np.zeros((self.block.height, self.block.width))
            self.sizes_m[seen.slices_in(self.block)] = raster.sizes_m[seen.slices_in(outer)]
        self.light = Picture.of_bands(raster.image, raster.valid, outer)
        if self.picture is not None:
            part = seen.slices_in(outer)
            self.thumbnail = self.picture.thumbnail(raster.image[part], raster.valid[part], seen)
        start = time.monotonic()
        self.turn.enter_context(self.model)
        self.waited_s = time.monotonic() - start
        here = asked.slices_in(outer)
        return Pixels(raster.image[here], raster.valid[here])


class Pixels(NamedTuple):
    """What the network is shown: (H, W, 3) uint8, and (H, W) bool where there is imagery."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def with_ring(valid: NDArray[np.bool_], block: Window, outer: Window) -> NDArray[np.bool_]:
    """Return where there is imagery in a block and one pixel around it.

    Args:
        valid: (outer.height, outer.width) bool.
        block: the block.
        outer: what was read, which meets the block.

    Returns:
        (block.height + 2, block.width + 2) bool; False where nothing was read.
    """
    around = block.pad(1)
    ring = np.zeros((around.height, around.width), bool)
    common = around.intersection(outer)
    assert common is not None, "what is read of a block meets it"
    ring[common.slices_in(around)] = valid[common.slices_in(outer)]
    return ring


class BlockReader:
    """Reads windows of a mosaic, one after the other; may be called from several threads."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic
        self._reader = _Thread()
        self._turn = threading.Lock()
        self._silent: dict[int, TileProblem] = {}

    def read(self, window: Window) -> Raster:
        """Read like `Mosaic.read`; a tile that does not answer in time is one more failure.

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
        """Ask each tile by itself, all at a time; those that stay silent are named."""
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
        log.warning("%s %s", without_secrets(tile.path), reason)
        footprint = tile.grid.footprint() if isinstance(tile, Tile) else tile.footprint
        return TileProblem(tile.path, reason, footprint, tile.crs)


class _Thread:
    """A thread that runs functions in order, and keeps what GDAL opened in it.

    A daemon: a read that never returns keeps no process alive.
    """

    def __init__(self) -> None:
        self._start()

    def call(self, function: Callable[[], T], timeout_s: float) -> T:
        """Return or raise what a function does.

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
        """Run a function when its turn comes."""
        answer: Future[T] = Future()
        self._queue.put((answer, function))
        return answer

    def close(self) -> None:
        """End the thread after what it was given."""
        self._queue.put(None)

    def _start(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._queue,), name="reader", daemon=True).start()


def _ask(function: Callable[[], T]) -> Future[T]:
    """Run a function in a thread that ends with it."""
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
    """Return whether an answer, be it an exception, comes before a moment (monotonic clock)."""
    try:
        answer.exception(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return answer.done()
    return True
