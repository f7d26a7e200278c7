"""What an inference job delivered, and what failed on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geo.errors import InputError
from geo.mosaic import Mosaic
from jobs.infer_job import InferJob
from jobs.infer_reading import NO_ANSWER
from jobs.infer_worker import BlockResult

SHOWN_FAILURES = 5
"""Failures that the summary spells out; the layer inspected names all."""


@dataclass(frozen=True)
class InferReport:
    """What a job delivered.

    Attributes:
        package: The GeoPackage.
        overview: The picture.
        map_page: The page to open in a browser.
        run_id: Fingerprint of settings, model and inputs.
        n_cracks: Rows of the layer crack.
        area_m2: Area of all cracks.
        n_tiles: Files that were found.
        n_blocks: Blocks of the mosaic.
        surveyed_mpx: Valid pixels, in millions.
        failures: One text per file or block that failed, with the reason.
        infer_s: Seconds from the start of Ray to the last block.
        assemble_s: Seconds for joining, writing and drawing.
    """

    package: Path
    overview: Path
    map_page: Path
    run_id: str
    n_cracks: int
    area_m2: float
    n_tiles: int
    n_blocks: int
    surveyed_mpx: float
    failures: tuple[str, ...]
    infer_s: float
    assemble_s: float

    @property
    def exit_code(self) -> int:
        """0: everything was inspected; 3: delivered, but something failed."""
        return 3 if self.failures else 0

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [
            f"{counted(self.n_cracks, 'crack')}, {self.area_m2:.2f} m2, on "
            f"{counted(self.n_tiles, 'tile')} "
            f"({self.surveyed_mpx:.1f} Mpx surveyed) in {self.infer_s + self.assemble_s:.0f} s",
            f"map       {self.package}",
            f"overview  {self.overview}",
            f"page      {self.map_page}",
        ]
        return "\n".join([*lines, *listed(self.failures)])

    def values(self) -> dict[str, Any]:
        """The figures of `--json`."""
        files = ("package", "overview", "map_page")
        return asdict(self) | {name: str(getattr(self, name)) for name in files}


class Failures:
    """Files and blocks that failed so far; stops the job where the user wants that."""

    def __init__(self, job: InferJob, mosaic: Mosaic) -> None:
        self._stops_at_once = job.on_bad_tile == "stop"
        self._allowed = job.failures_allowed(len(mosaic.tiles) + len(mosaic.problems))
        self._reasons = {problem.path: problem.reason for problem in mosaic.problems}

    def count(self, results: Iterable[BlockResult]) -> None:
        """Takes in what failed in some blocks.

        Raises:
            InputError: The job is to stop at the first failure, or after so many.
        """
        for result in results:
            failed = result.tiles_failed or (
                (f"block {result.block_id}",) if result.status == "failed" else ()
            )
            for name in failed:
                self._reasons.setdefault(name, result.reason)
            if failed and self._stops_at_once:
                raise InputError(
                    f"{failed[0]}: {result.reason}; mend it, or set on_bad_tile=record to leave "
                    "such tiles out, and give the same command again"
                )
        if len(self._reasons) > self._allowed:
            last = list(self.texts())[-1]
            raise InputError(
                f"{len(self._reasons)} tiles or blocks failed, allowed are {self._allowed} "
                f"(max_failed); the last: {last}; finished blocks are kept"
            )

    def without_silent_tiles(self, mosaic: Mosaic) -> Mosaic:
        """The mosaic without the tiles that gave no answer, which would hang the next reader."""
        kept = [
            (tile, window)
            for tile, window in zip(mosaic.tiles, mosaic.windows, strict=True)
            if f"{os.path.basename(tile.path)} {NO_ANSWER}" not in self._reasons.get(tile.path, "")
        ]
        tiles, windows = zip(*kept, strict=True)
        return replace(mosaic, tiles=tiles, windows=windows)

    def texts(self) -> tuple[str, ...]:
        """One text per failure."""
        return tuple(f"{name}: {reason}" for name, reason in self._reasons.items())


def listed(failures: Sequence[str]) -> list[str]:
    """Lines for the terminal about what failed, none if nothing did."""
    if not failures:
        return []
    lines = [f"{len(failures)} failed, see the layer inspected:"]
    lines += [f"  {failure}" for failure in failures[:SHOWN_FAILURES]]
    more = len(failures) - SHOWN_FAILURES
    return [*lines, f"  and {more} more"] if more > 0 else lines


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "tile"), counted(0, "tile")
    ('1 tile', '0 tiles')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
