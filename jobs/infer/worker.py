"""One block from pixels to a part file: what an inference actor does, without Ray.

Two blocks may be under way in a worker, called from two threads: while the model works on one, the
pixels of the next are read. Reader and model each serve one block at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geo import grid
from geo.cracks.parts import InspectedRow, Status, read_part, write_part
from geo.cracks.pieces import Ground, Piece, block_pieces
from geo.errors import InputError, OutputError
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block, Mosaic
from jobs.infer.probability import probability_file, write_probability
from jobs.infer.reading import BlockReader
from wpcrack.errors import WpcrackError
from wpcrack.inference.lattice import Lattice, Window
from wpcrack.inference.predict import WindowPredictor, predict_block

log = logging.getLogger(__name__)

PredictorFactory = Callable[[], WindowPredictor]

BLOCKS_AT_A_TIME = 2
"""In one worker: one with the model, one being read ahead or written."""


@dataclass(frozen=True)
class Plan:
    """Everything that a worker must know; sent to each of them once."""

    mosaic: Mosaic
    blocks: tuple[Block, ...]
    parts: Path
    lattice: Lattice
    level: int
    """Smallest 8-bit probability that is crack."""
    batch: int
    survey_date: str | None
    probability: Path | None = None
    """Folder for the probability of each block; None: it is not kept."""

    @property
    def block_px(self) -> int:
        """Pixels of all blocks together."""
        return sum(block.window.area_px for block in self.blocks)

    @property
    def most_px(self) -> int:
        """At most so many pixels have imagery: those of all blocks, or of all tiles."""
        return min(self.block_px, sum(window.area_px for window in self.mosaic.windows))

    def part(self, block: Block) -> Path:
        """The file of a block; its name says which, so that a second try replaces the first."""
        return self.parts / f"{block.block_id}.parquet"

    def is_complete(self, block: Block) -> bool:
        """Whether all files of a block are there."""
        kept = self.probability is None or probability_file(self.probability, block).exists()
        return kept and self.part(block).exists()

    def stored(self, block: Block) -> BlockResult | None:
        """The result of a block that is finished; None if a file of it is missing or damaged."""
        if not self.is_complete(block):
            return None
        try:
            content = read_part(self.part(block))
        except InputError:
            return None
        return BlockResult.of(content.inspected, len(content.n_pixels))


@dataclass(frozen=True)
class BlockResult:
    """What comes back about a block: one small row."""

    block_id: str
    status: Status
    reason: str
    tiles_failed: tuple[str, ...]
    valid_px: int
    n_pieces: int
    seconds: float

    def row(self) -> dict[str, object]:
        """As a row of a data set or a line of the manifest."""
        return asdict(self) | {"tiles_failed": list(self.tiles_failed)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> BlockResult:
        """The inverse of `row`."""
        return cls(**{**row, "tiles_failed": tuple(row["tiles_failed"])})

    @classmethod
    def of(cls, inspected: InspectedRow, n_pieces: int) -> BlockResult:
        """The result that belongs to a part."""
        return cls(
            block_id=inspected.block_id,
            status=inspected.status,
            reason=inspected.reason,
            tiles_failed=inspected.tiles_failed,
            valid_px=round(inspected.valid_pct / 100 * inspected.window.area_px),
            n_pieces=n_pieces,
            seconds=inspected.seconds,
        )


class BlockWorker:
    """Holds the model and the mosaic; turns blocks into parts. `run` may be called by threads."""

    def __init__(self, plan: Plan, predictor: WindowPredictor) -> None:
        self.plan = plan
        self.predictor = predictor
        self._pixels = BlockReader(plan.mosaic)
        self._model = threading.Lock()

    def run(self, index: int) -> BlockResult:
        """Reads, predicts, vectorizes and stores a block, unless its part is there already.

        Ray runs a task again whose worker was killed, perhaps after it had written the part. What
        is wrong with a block's data is part of its result; a part is written in any case.

        Raises:
            WpcrackError: The model is unusable, which no other block would mend.
            OutputError: The part cannot be written.
        """
        block, start = self.plan.blocks[index], time.monotonic()
        if known := self.plan.stored(block):
            return known
        try:
            inspected, found, probability, ground = self._inspect(block, start)
        except WpcrackError:
            raise
        except Exception as error:
            log.exception("block %s failed", block.block_id)
            inspected, found = self._failed(block, error, start), []
            probability = np.zeros((block.window.height, block.window.width), np.uint8)
            ground = Ground(np.zeros((block.window.height + 2, block.window.width + 2), bool))
        try:
            if (folder := self.plan.probability) is not None:
                path, grid = probability_file(folder, block), self.plan.mosaic.grid
                write_probability(path, probability, block.window, grid, ground)
            write_part(self.plan.part(block), found, inspected)
        except (OSError, RasterioError, CPLE_BaseError) as error:
            raise OutputError(
                f"block {block.block_id} cannot be written to {self.plan.parts.parent} ({error}); "
                "check the folder and the free space, then give the same command again: finished "
                "blocks are kept"
            ) from error
        return BlockResult.of(inspected, len(found))

    def _inspect(
        self, block: Block, start: float
    ) -> tuple[InspectedRow, list[Piece], NDArray[np.uint8], Ground]:
        core, frame = Window(*astuple(block.window)), self.plan.mosaic.grid
        inside = self.plan.mosaic.inside(block.window)
        with ExitStack() as turn:  # the model is ours from the end of reading on
            reader = BlockView(self._pixels, block.window, turn, self._model)
            probability = predict_block(
                reader.read,
                self.predictor,
                core,
                self.plan.lattice,
                wanted=inside,
                batch=self.plan.batch,
            )
        ground = Ground(reader.ring, reader.sizes_m)
        found = block_pieces(probability, self.plan.level, block.window, frame, ground)
        inspected = InspectedRow.of(
            block,
            reader.ring[1:-1, 1:-1] & inside,
            reader.failures,
            frame,
            seconds=time.monotonic() - start - reader.waited_s,
            survey_date=self.plan.survey_date,
        )
        return replace(inspected, gsd_mm=1000 * reader.gsd_m), found, probability, ground

    def _failed(self, block: Block, error: Exception, start: float) -> InspectedRow:
        return InspectedRow(
            block_id=block.block_id,
            window=block.window,
            status="failed",
            reason=f"{type(error).__name__}: {error}",
            tiles_failed=(),
            valid_pct=0.0,
            gsd_mm=1000 * self.plan.mosaic.grid.gsd_m,
            survey_date=self.plan.survey_date,
            seconds=time.monotonic() - start,
        )


# ==== jobs.infer.worker: What a worker sees of one block: read once, cut for the network, remembered for the map.


class BlockView:
    """Reads what is wanted of a block once, then waits for the model; remembers what it saw."""

    def __init__(
        self, pixels: BlockReader, block: grid.Window, turn: ExitStack, model: threading.Lock
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

    def read(self, window: Window) -> Pixels:
        """Pixels of a window; one pixel more on each side is read to know all their neighbors."""
        asked = grid.Window(*astuple(window))
        outer = asked.pad(1)
        raster = self.pixels.read(outer)
        self.ring = with_ring(raster.valid, self.block, outer)
        self.failures = raster.failures
        self.gsd_m = raster.gsd_m
        if raster.sizes_m is not None:
            self.sizes_m = np.zeros((self.block.height, self.block.width))
            seen = self.block.intersection(outer)
            assert seen is not None, "what is read of a block meets it"
            self.sizes_m[seen.slices_in(self.block)] = raster.sizes_m[seen.slices_in(outer)]
        start = time.monotonic()
        self.turn.enter_context(self.model)
        self.waited_s = time.monotonic() - start
        here = asked.slices_in(outer)
        return Pixels(raster.image[here], raster.valid[here])


class Pixels(NamedTuple):
    """What the network is shown: (H, W, 3) uint8, and (H, W) bool where there is imagery."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def with_ring(
    valid: NDArray[np.bool_], block: grid.Window, outer: grid.Window
) -> NDArray[np.bool_]:
    """Where there is imagery in a block and one pixel around it.

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
