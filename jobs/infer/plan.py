"""The plan of an inference job: its blocks, and what they will cost, before any work.

wpcrack infer configs/infer.yaml tiles=tiles/ model=runs/city out=maps/cracks.gpkg --plan
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geo.cracks.parts import InspectedRow, read_part
from geo.errors import InputError, count_of
from geo.imagery.headers import crs_name
from geo.imagery.mosaic import Block, Mosaic
from geo.imagery.thumbnails import PictureGrid
from geo.page.preview import OVERVIEW_PX
from jobs.infer.job import InferJob
from jobs.infer.probability import probability_file
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.folder import is_plain_file
from jobs.runtime.terminal import clock
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.machine import native_bfloat16

PARTS, PROBABILITY = "parts", "probability"
"""Folders of the blocks' files in a work folder."""

PICTURED_FROM = 1000
"""Blocks from which on workers make the picture behind the map; of fewer the tiles are read."""

ASSUMED_MPX_PER_S = {True: 1.4, False: 0.4}
"""Per CPU core, read to part: with bfloat16 instructions what the demo city reached on two AMD EPYC
cores, without them what `benchmarks.inference.scale throughput` did with the shipped model (AVX2,
docs/speed.md). Of other machines an assumption, and said to be one, until a block is measured."""

PART_BYTES = 24 * 2**10
"""A part without any crack, and its row in the GeoPackage: mostly Parquet's own description."""

CRACK_BYTES_PER_MPX = 60_000
"""Outlines and centerlines in parts and GeoPackage together, on a much cracked street."""

PROBABILITY_BYTES_PER_PX = 0.3
"""8-bit probability after compression; most of it is near 0."""


def make_plan(job: InferJob, mosaic: Mosaic) -> Plan:
    """Cut the mosaic of a job into blocks, and gather what every actor must know."""
    work, blocks = job.work_folder.absolute(), mosaic.blocks(job.block_px)
    return Plan(
        mosaic=mosaic,
        blocks=blocks,
        parts=work / PARTS,
        lattice=job.lattice,
        level=job.level,
        batch=job.batch,
        probability=work / PROBABILITY if job.probability == "keep" else None,
        picture=PictureGrid(mosaic.grid, OVERVIEW_PX) if len(blocks) >= PICTURED_FROM else None,
    )


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
    probability: Path | None = None
    """Folder for the probability of each block; None: it is not kept."""
    picture: PictureGrid | None = None
    """Of which the workers make thumbnails; None: it is made of the tiles at the end."""

    @property
    def block_px(self) -> int:
        """Pixels of all blocks together."""
        return sum(block.window.area_px for block in self.blocks)

    @property
    def most_px(self) -> int:
        """At most so many pixels have imagery: those of all blocks, or of all tiles."""
        return min(self.block_px, sum(window.area_px for window in self.mosaic.windows))

    def moved_to(self, root: Path) -> Plan:
        """Return this plan with its folders made anew in another one, which exists."""
        parts = root / PARTS
        parts.mkdir()
        probability = None if self.probability is None else root / PROBABILITY
        if probability is not None:
            probability.mkdir()
        return replace(self, parts=parts, probability=probability)

    def part(self, block: Block) -> Path:
        """Return the file of a block, which a second try replaces."""
        return part_file(self.parts, block)

    def is_complete(self, block: Block) -> bool:
        """Return whether all files of a block are there."""
        kept = self.probability is None or is_plain_file(probability_file(self.probability, block))
        return kept and is_plain_file(self.part(block))

    def read_result(self, block: Block) -> InspectedRow | None:
        """Return the row of a finished block; None if a file of it is missing or damaged."""
        if not self.is_complete(block):
            return None
        try:
            return read_part(self.part(block)).inspected
        except InputError:
            return None


def part_file(folder: Path, block: Block) -> Path:
    """Return the file of a block's pieces; its name says which block it is."""
    return folder / f"{block.block_id}.parquet"


@dataclass(frozen=True)
class Forecast:
    """What a job will cost.

    Attributes:
        plan: of the job.
        finished: results of blocks that need not be computed again.
        actors: processes that hold the model.
        mpx_per_s: of all actors together; measured on the finished blocks if there are any.
        disk_bytes: what parts, probabilities and GeoPackage may take.
        free_bytes: what the disk of the output has left.
        origin: where the speed is known from.
    """

    plan: Plan
    finished: tuple[InspectedRow, ...]
    actors: int
    mpx_per_s: float
    disk_bytes: int
    free_bytes: int
    origin: str = "assumed"

    @classmethod
    def of(
        cls,
        job: InferJob,
        plan: Plan,
        finished: Sequence[InspectedRow],
        earlier: Sequence[InspectedRow] = (),
    ) -> Forecast:
        """Forecast a job on this machine (a cluster has more).

        Args:
            job: what was asked.
            plan: its blocks.
            finished: those of them that need not be computed again.
            earlier: all that was computed for the same output, with whatever settings: its speed
                is a better guess than none.
        """
        cores = usable_cpus()
        actors = job.actors or max(1, cores // job.cpus_per_actor)
        usable = min(cores, actors * job.cpus_per_actor)
        known = finished or earlier
        seconds = sum(result.seconds for result in known)
        measured = sum(result.valid_px for result in known) / 1e6
        assumed = ASSUMED_MPX_PER_S[native_bfloat16()]
        speed, origin = usable * assumed, "assumed from another machine"
        if measured and seconds:
            speed = actors * measured / seconds
            origin = f"measured on {count_of(len(known), 'block')}{'' if finished else ' before'}"
        disk = len(plan.blocks) * PART_BYTES + plan.most_px / 1e6 * CRACK_BYTES_PER_MPX
        if plan.probability is not None:
            disk += plan.most_px * PROBABILITY_BYTES_PER_PX
        free = shutil.disk_usage(_existing(job.out.absolute().parent)).free
        return cls(plan, tuple(finished), actors, speed, round(disk), free, origin)

    @property
    def seconds(self) -> float:
        """Time for the blocks that are left; starting Ray and joining come on top."""
        done = {result.block_id for result in self.finished}
        left = [block for block in self.plan.blocks if block.block_id not in done]
        share = sum(b.window.area_px for b in left) / max(1, self.plan.block_px)
        return share * self.plan.most_px / 1e6 / self.mpx_per_s

    def text(self) -> str:
        """Return a few lines for the terminal."""
        plan, grid = self.plan, self.plan.mosaic.grid
        lines = [
            outline(plan),
            f"grid      {crs_name(grid.crs)}, {grid.shape[1]} x {grid.shape[0]} pixels",
            f"area      at most {plan.most_px * grid.pixel_area_m2:.0f} m2",
            f"finished  {len(self.finished)} of {len(plan.blocks)} blocks",
            f"time      about {clock(self.seconds)} at {self.mpx_per_s:.1f} Mpx/s ({self.origin}) "
            f"with {count_of(self.actors, 'actor')}",
            f"disk      up to {_size(self.disk_bytes)} of {_size(self.free_bytes)} free",
        ]
        if problems := plan.mosaic.problems:
            lines.append(f"unusable  {count_of(len(problems), 'file')}, like {problems[0].path}")
        if self.disk_bytes > self.free_bytes:
            lines.append("warning: the disk may be too small; free some or choose another out")
        return "\n".join(lines)

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        mosaic = self.plan.mosaic
        return {
            "tiles": len(mosaic.tiles),
            "unusable": [problem.path for problem in mosaic.problems],
            "crs": mosaic.grid.crs.to_string(),
            "shape_px": list(mosaic.grid.shape),
            "gsd_mm": 1000 * mosaic.grid.gsd_m,
            "mpx": self.plan.most_px / 1e6,
            "area_m2": self.plan.most_px * mosaic.grid.pixel_area_m2,
            "blocks": len(self.plan.blocks),
            "blocks_finished": len(self.finished),
            "actors": self.actors,
            "mpx_per_s": self.mpx_per_s,
            "speed": self.origin,
            "seconds": self.seconds,
            "disk_bytes": self.disk_bytes,
            "free_bytes": self.free_bytes,
        }


def outline(plan: Plan) -> str:
    """Return a plan in a line, like `100 tiles, 64.0 Mpx of 5 mm in 9 blocks`."""
    mosaic = plan.mosaic
    return (
        f"{count_of(len(mosaic.tiles), 'tile')}, {plan.most_px / 1e6:.1f} Mpx of "
        f"{1000 * mosaic.grid.gsd_m:.3g} mm in {count_of(len(plan.blocks), 'block')}"
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists already."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _size(count: float) -> str:
    """Write bytes as people do.

    >>> _size(2_500_000), _size(3e11)
    ('2.5 MB', '300.0 GB')
    """
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / unit:.1f} {name}"
