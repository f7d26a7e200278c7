"""A work folder as the source of further maps: read, never written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS

from geo.cracks.parts import InspectedRow, read_part, write_part
from geo.cracks.pieces import block_pieces
from geo.errors import InputError
from geo.grid import Grid
from geo.imagery.mosaic import Block
from jobs.assemble.job import AssembleJob
from jobs.infer.job import crack_level
from jobs.infer.probability import probability_file, read_probability
from jobs.infer.report import work_folder
from jobs.infer.work_folder import ASSEMBLY_KEYS, FORMAT, LOCK, Fingerprint, JobRecord
from wpcrack.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """What a work folder holds.

    Attributes:
        root: the folder.
        record: of the job.
        fingerprint: of its blocks.
        finished: blocks that have a part, also those in which imagery failed.
    """

    root: Path
    record: JobRecord
    fingerprint: Fingerprint
    finished: tuple[Block, ...]

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Source]:
        """Opens the work folder of a job, and keeps jobs from changing it meanwhile.

        Args:
            path: the folder, or the GeoPackage of the job.

        Raises:
            ConfigError: There is none, or a process works in it.
            InputError: It is damaged, of another version, or holds no finished block.
        """
        root = work_folder(path).absolute()
        with _kept_from_changing(root):
            fingerprint = Fingerprint.read(root / "fingerprint.json")
            if fingerprint is None or fingerprint.settings.get("format") != FORMAT:
                raise InputError(
                    f"{root} is of another version of this program, or damaged; give the command "
                    "of `wpcrack infer` again with resume=never"
                )
            record = JobRecord.read(root)
            source = cls(root, record, fingerprint, ())
            finished = tuple(block for block in record.blocks if source.part(block).exists())
            if not finished:
                raise InputError(
                    f"{root} holds no finished block; give the command of `wpcrack infer` again"
                )
            yield replace(source, finished=finished)

    @property
    def settings(self) -> dict[str, Any]:
        """What the run chose for the keys of `AssembleJob`."""
        keys = AssembleJob.model_fields.keys() & self.record.config.keys() - {"out"}
        return {key: self.record.config[key] for key in keys}

    @property
    def grid(self) -> Grid:
        """Of the mosaic."""
        *transform, rows, cols, system = self.fingerprint.settings["grid"]
        return Grid(Affine(*transform), CRS.from_wkt(system), (rows, cols))

    @property
    def level(self) -> int:
        """Smallest 8-bit probability that is crack in the parts."""
        return crack_level(self.fingerprint.settings["threshold"])

    @property
    def first_map(self) -> Path:
        """The GeoPackage of the run itself."""
        return self.root.with_suffix(".gpkg")

    def part(self, block: Block) -> Path:
        """The file of a block."""
        return self.root / "parts" / f"{block.block_id}.parquet"

    def probability(self, block: Block) -> Path:
        """The stored probability of a block; there may be none."""
        return probability_file(self.root / "probability", block)

    def run_id(self, job: AssembleJob) -> str:
        """That of a run which had the settings of this map from the beginning."""
        values = job.model_dump(mode="json")
        given = {key: values[key] for key in ("threshold", *ASSEMBLY_KEYS)}
        return replace(self.fingerprint, settings=self.fingerprint.settings | given).run_id

    def require_probability(self, threshold: float) -> None:
        """Refuses a threshold that takes the probability of blocks that do not have it.

        Raises:
            InputError: Some block has none.
        """
        missing = [block for block in self.finished if not self.probability(block).exists()]
        if missing:
            held = f"{len(missing)} of {len(self.finished)} finished blocks"
            raise InputError(
                f"threshold={threshold:g} is not that of the run "
                f"({self.fingerprint.settings['threshold']:g}), and {self.root.name} keeps no "
                f"probability of {held}; give the command of `wpcrack infer` once more with "
                "probability=keep, then any threshold can be assembled"
            )


@contextmanager
def _kept_from_changing(root: Path) -> Iterator[None]:
    """Holds the lock of a work folder together with other readers."""
    lock_file = root / LOCK
    if not lock_file.exists():
        yield
        return
    with lock_file.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process works in {root}; wait for its end, or interrupt it: what is "
                "finished then can be assembled"
            ) from None
        yield


# ==== jobs.assemble.source: Parts of blocks at another threshold, and of blocks that were never computed.


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
    found = block_pieces(probability, order.level, window, order.grid, ground)
    inspected = read_part(order.part, ["n_pixels"]).inspected
    write_part(order.new_part, found, inspected)
    return order.new_part
