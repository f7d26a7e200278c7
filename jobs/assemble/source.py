"""A work folder as the source of further maps: read, never written; parts are made beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS

from geo.cracks.parts import InspectedRow, read_part, write_part
from geo.cracks.pieces import Ground, block_pieces
from geo.errors import InputError
from geo.grid import Grid
from geo.imagery.mosaic import Block
from geo.layers.roads import Segment, roads_digest
from geo.processes import spread
from jobs.assemble.job import AssembleJob
from jobs.infer.job import crack_level, find_work_folder
from jobs.infer.job_log import MAP_KEYS, JobLog, JobRecord, settings_anywhere
from jobs.infer.plan import PARTS, PROBABILITY, part_file
from jobs.infer.probability import ground_file, probability_file, read_probability
from jobs.infer.work_folder import LOCK
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.folder import is_plain_file, try_lock
from wpcrack.errors import ConfigError

BLOCKS_PER_WORKER = 32
"""Fewer are quicker in this process than in another one that has to start."""

NOT_COMPUTED = "not computed yet; the same wpcrack infer command continues, then assemble again"


@dataclass(frozen=True)
class Source:
    """What a work folder holds.

    Attributes:
        root: the folder.
        record: of the job.
        finished: blocks that have a part, also those in which imagery failed.
    """

    root: Path
    record: JobRecord
    finished: tuple[Block, ...]

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Source]:
        """Open the work folder of a job, and keep jobs from changing it meanwhile.

        Args:
            path: the folder, or the GeoPackage of the job.

        Raises:
            ConfigError: There is none, a process works in it, it is damaged or of another version.
            InputError: It holds no job or no finished block.
        """
        root = find_work_folder(path).absolute()
        with _keep_from_changing(root):
            log = JobLog.read(root)
            if log is None:
                raise InputError(
                    f"{root} has no job.jsonl, which says what it holds; give the command of "
                    "`wpcrack infer` again"
                )
            source, blocks = cls(root, log.record, ()), log.record.blocks
            finished = tuple(block for block in blocks if is_plain_file(source.part(block)))
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
        *transform, rows, cols, system = self.record.ground["grid"]
        return Grid(Affine(*transform), CRS.from_wkt(system), (rows, cols))

    @property
    def level(self) -> int:
        """Smallest 8-bit probability that is crack in the parts."""
        return crack_level(self.record.config["threshold"])

    @property
    def first_map(self) -> Path:
        """The GeoPackage of the run itself."""
        return self.root.with_suffix(".gpkg")

    def part(self, block: Block) -> Path:
        """Return the file of a block."""
        return part_file(self.root / PARTS, block)

    def probability(self, block: Block) -> Path:
        """Return the file of the stored probability of a block; there may be none."""
        return probability_file(self.root / PROBABILITY, block)

    def ground(self, block: Block) -> Path:
        """Return the file of what else is stored with it."""
        return ground_file(self.root / PROBABILITY, block)

    def record_of(self, job: AssembleJob, roads: Sequence[Segment]) -> JobRecord:
        """Return the record of a run that had the settings of a map from the beginning."""
        values = settings_anywhere(job)
        given = {key: values[key] for key in ("threshold", *MAP_KEYS)}
        config = self.record.config | given
        return replace(self.record, config=config, roads=roads_digest(roads))

    def require_probability(self, threshold: float) -> None:
        """Refuse a threshold that takes the probability of blocks that do not have it.

        Raises:
            InputError: Some block has none.
        """
        missing = [block for block in self.finished if not is_plain_file(self.probability(block))]
        if missing:
            held = f"{len(missing)} of {len(self.finished)} finished blocks"
            raise InputError(
                f"threshold={threshold:g} is not that of the run "
                f"({self.record.config['threshold']:g}), and {self.root.name} keeps no "
                f"probability of {held}; give the command of `wpcrack infer` once more with "
                "probability=keep, then any threshold can be assembled"
            )


@contextmanager
def _keep_from_changing(root: Path) -> Iterator[None]:
    """Hold the lock of a work folder together with other readers; writes nothing.

    Raises:
        ConfigError: A process works in the folder.
    """
    if not (root / LOCK).exists():
        yield
        return
    with (root / LOCK).open("rb") as lock:
        if not try_lock(lock, shared=True):
            raise ConfigError(
                f"another process works in {root}; wait for its end, or interrupt it: what is "
                "finished then can be assembled"
            )
        yield


@dataclass(frozen=True)
class Order:
    """One block that is to be vectorized anew."""

    block: Block
    probability: Path
    ground: Path
    part: Path
    new_part: Path
    level: int
    grid: Grid


def vectorize_all(orders: Sequence[Order], workers: int | None) -> Iterator[Path]:
    """Write the parts of blocks from their stored probability, in any order.

    Args:
        orders: the blocks.
        workers: processes; None: this one, or one per CPU if there are many blocks.

    Raises:
        InputError: A probability or a part cannot be read.
        OSError: A part cannot be written.
    """
    usable = min(usable_cpus(), len(orders) // BLOCKS_PER_WORKER)
    count = workers or max(1, usable)
    if count == 1:
        yield from map(_vectorize, orders)
        return
    yield from spread(_vectorize, orders, count, "spawn")


def write_missing(block: Block, grid: Grid, path: Path) -> None:
    """Write the part of a block that was not computed: nothing found, nothing inspected."""
    write_part(path, [], InspectedRow.of_failure(block, NOT_COMPUTED, grid))


def _vectorize(order: Order) -> Path:
    probability, ground = read_probability(order.probability), Ground.read(order.ground)
    window = order.block.window
    found = block_pieces(probability, order.level, window, order.grid, ground)
    inspected = read_part(order.part, ["n_pixels"]).inspected
    write_part(order.new_part, found, inspected)
    return order.new_part
