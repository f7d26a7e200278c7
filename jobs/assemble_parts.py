"""Parts of blocks at another threshold, and of blocks that were never computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from geo.grid import Grid
from geo.ground import vectorized
from geo.mosaic import Block
from geo.parts import InspectedRow, read_part, write_part
from jobs.infer_probability import read_probability

BLOCKS_PER_WORKER = 32
"""Fewer are quicker in this process than in another one that has to start."""

NOT_COMPUTED = "not computed yet; the same wpcrack infer command continues, then assemble again"


@dataclass(frozen=True)
class Order:
    """One block that is to be vectorized anew."""

    block: Block
    probability: Path
    part: Path
    new_part: Path
    level: int
    grid: Grid


def vectorize_all(orders: Sequence[Order], workers: int | None) -> Iterator[Path]:
    """Writes the parts of blocks from their stored probability, in any order.

    Args:
        orders: the blocks.
        workers: processes; None: this one, or one per CPU if there are many blocks.

    Raises:
        InputError: A probability or a part cannot be read.
        OSError: A part cannot be written.
    """
    usable = min(os.cpu_count() or 1, len(orders) // BLOCKS_PER_WORKER)
    count = workers or max(1, usable)
    if count == 1:
        yield from map(_vectorize, orders)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_vectorize, orders)


def write_missing(block: Block, grid: Grid, survey_date: str | None, path: Path) -> None:
    """Writes the part of a block that was not computed: nothing found, nothing inspected."""
    row = InspectedRow(
        block_id=block.block_id,
        window=block.window,
        status="failed",
        reason=NOT_COMPUTED,
        tiles_failed=(),
        valid_pct=0.0,
        gsd_mm=1000 * grid.gsd_m,
        survey_date=survey_date,
        seconds=0.0,
    )
    write_part(path, [], row)


def _vectorize(order: Order) -> Path:
    probability, ground = read_probability(order.probability)
    window = order.block.window
    found = vectorized(probability, order.level, window, order.grid, ground)
    inspected = read_part(order.part, ["n_pixels"]).inspected
    write_part(order.new_part, found, inspected)
    return order.new_part
