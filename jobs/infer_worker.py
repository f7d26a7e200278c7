"""One block from pixels to a part file: what an inference actor does, without Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo import grid
from geo.errors import OutputError
from geo.mosaic import Block, Mosaic, Raster, TileProblem
from geo.parts import InspectedRow, Status, write_part
from geo.polygonize import Piece, pieces
from wpcrack.errors import WpcrackError
from wpcrack.lattice import Lattice, Window
from wpcrack.predict import WindowPredictor, predict_block

log = logging.getLogger(__name__)

PredictorFactory = Callable[[], WindowPredictor]


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
    """Holds the model and the mosaic; turns blocks into parts."""

    def __init__(self, plan: Plan, predictor: WindowPredictor) -> None:
        self.plan = plan
        self.predictor = predictor

    def run(self, index: int) -> BlockResult:
        """Reads, predicts, vectorizes and stores a block.

        What is wrong with a block's data is part of its result; a part is written in any case.

        Raises:
            WpcrackError: The model is unusable, which no other block would mend.
            OutputError: The part cannot be written.
        """
        block, start = self.plan.blocks[index], time.monotonic()
        try:
            inspected, found = self._inspect(block, start)
        except WpcrackError:
            raise
        except Exception as error:
            log.exception("block %s failed", block.block_id)
            inspected, found = self._failed(block, error, start), []
        part = self.plan.part(block)
        try:
            write_part(part, found, inspected)
        except OSError as error:
            raise OutputError(
                f"{part} cannot be written ({error}); check the folder and the free space, then "
                "give the same command again"
            ) from error
        return BlockResult.of(inspected, len(found))

    def _inspect(self, block: Block, start: float) -> tuple[InspectedRow, list[Piece]]:
        reader = _Reader(self.plan.mosaic, block.window)
        core = Window(*astuple(block.window))
        probability = predict_block(
            reader.read, self.predictor, core, self.plan.lattice, batch=self.plan.batch
        )
        frame = self.plan.mosaic.grid
        inside = self.plan.mosaic.inside(block.window)
        probability *= inside
        found = pieces(probability >= self.plan.level, probability, block.window, frame)
        inspected = InspectedRow.of(
            block,
            reader.valid & inside,
            reader.failures,
            frame,
            seconds=time.monotonic() - start,
            survey_date=self.plan.survey_date,
        )
        return replace(inspected, gsd_mm=1000 * reader.gsd_m), found

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


class _Reader:
    """Reads a block with its halo once; remembers what was valid in it and what failed."""

    def __init__(self, mosaic: Mosaic, block: grid.Window) -> None:
        self.mosaic = mosaic
        self.block = block
        self.valid: NDArray[np.bool_] = np.zeros((block.height, block.width), bool)
        self.failures: tuple[TileProblem, ...] = ()
        self.gsd_m = mosaic.grid.gsd_m

    def read(self, window: Window) -> Raster:
        """Pixels of a window that contains the block."""
        outer = grid.Window(*astuple(window))
        raster = self.mosaic.read(outer)
        self.valid = raster.valid[self.block.slices_in(outer)]
        self.failures = raster.failures
        self.gsd_m = raster.gsd_m
        return raster
