"""What an inference job tells: what failed, how far it is, what it delivered.

wpcrack infer --status maps/cracks.gpkg
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from geo.addresses import without_secrets
from geo.cracks.parts import InspectedRow
from geo.errors import InputError, count_of
from geo.imagery.mosaic import Mosaic
from jobs.infer.job import InferJob, find_work_folder
from jobs.infer.job_log import JobLog
from jobs.infer.work_folder import LOCK
from jobs.infer.worker import NO_ANSWER
from jobs.runtime.folder import is_locked
from jobs.runtime.terminal import clock
from wpcrack.errors import ConfigError

SHOWN_FAILURES = 5
"""Failures that the summary spells out; the layer inspected names all."""

LOG_INTERVAL_S = 10.0
"""Without a terminal a new line of progress is written at most this often."""


@dataclass(frozen=True)
class InferReport:
    """What a job delivered.

    Attributes:
        package: The GeoPackage.
        overview: The picture.
        map_page: The page to open in a browser.
        run_id: Fingerprint of settings, model and inputs.
        n_cracks: Rows of the layer crack.
        area_m2: Area of the pixels of cracks and networks.
        n_tiles: Files that were found.
        n_blocks: Blocks of the mosaic.
        surveyed_mpx: Valid pixels, in millions.
        failures: One text per file or block that failed, with the reason.
        infer_s: Seconds from the start of Ray to the last block.
        assemble_s: Seconds for joining, writing and drawing.
        copies: Addresses of the files in object storage, the GeoPackage first.
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
    copies: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: everything was inspected; 3: delivered, but something failed."""
        return 3 if self.failures else 0

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        lines = [
            f"{count_of(self.n_cracks, 'crack')}, {self.area_m2:.2f} m2 of pixels, on "
            f"{count_of(self.n_tiles, 'tile')} "
            f"({self.surveyed_mpx:.1f} Mpx surveyed) in {self.infer_s + self.assemble_s:.0f} s",
            f"map       {self.package}",
            f"overview  {self.overview}",
            f"page      {self.map_page}",
        ]
        if self.copies:
            lines.append(f"copied    {self.copies[0]} and what lies beside it")
        return "\n".join([*lines, *failure_lines(self.failures)])

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        files = ("package", "overview", "map_page")
        return asdict(self) | {name: str(getattr(self, name)) for name in files}


class Failures:
    """Files and blocks that failed so far; stops the job where the user wants that."""

    def __init__(self, job: InferJob, mosaic: Mosaic) -> None:
        self._stops_at_once = job.on_bad_tile == "stop"
        self._allowed = job.failures_allowed(len(mosaic.tiles) + len(mosaic.problems))
        self._reasons = {problem.path: problem.reason for problem in mosaic.problems}

    def count(self, results: Iterable[InspectedRow]) -> None:
        """Take in what failed in some blocks.

        Raises:
            InputError: The job is to stop at the first failure, or after so many.
        """
        for result in results:
            failed = result.failures()
            for name, reason in failed.items():
                self._reasons.setdefault(name, reason)
            if failed and self._stops_at_once:
                name, reason = next(iter(failed.items()))
                raise InputError(
                    f"{name}: {reason}; repair it, or set on_bad_tile=record to leave "
                    "such tiles out, and give the same command again"
                )
        self.refuse_too_many("finished blocks are kept")

    def refuse_too_many(self, rest: str = "repair these, or set a larger max_failed") -> None:
        """Stop if more failed than the job allows; by headers alone, before the first block.

        Args:
            rest: of the sentence.

        Raises:
            InputError: There are too many.
        """
        if len(self._reasons) > self._allowed:
            last = list(self.texts())[-1]
            raise InputError(
                f"{len(self._reasons)} tiles or blocks failed, max_failed allows "
                f"{self._allowed}; the last: {last}; {rest}"
            )

    def without_silent_tiles(self, mosaic: Mosaic) -> Mosaic:
        """Return the mosaic without tiles that gave no answer: they would hang the next reader."""
        kept = [
            (tile, window)
            for tile, window in zip(mosaic.tiles, mosaic.windows, strict=True)
            if not self._is_silent(without_secrets(tile.path))
        ]
        return replace(
            mosaic,
            tiles=tuple(tile for tile, _ in kept),
            windows=tuple(window for _, window in kept),
        )

    def _is_silent(self, name: str) -> bool:
        return f"{os.path.basename(name)} {NO_ANSWER}" in self._reasons.get(name, "")

    def texts(self) -> tuple[str, ...]:
        """Return one text per failure."""
        return tuple(f"{name}: {reason}" for name, reason in self._reasons.items())


def failure_lines(failures: Sequence[str]) -> list[str]:
    """Return lines for the terminal about what failed, none if nothing did."""
    if not failures:
        return []
    lines = [f"{len(failures)} failed, see the layer inspected:"]
    lines += [f"  {failure}" for failure in failures[:SHOWN_FAILURES]]
    more = len(failures) - SHOWN_FAILURES
    return [*lines, f"  and {more} more"] if more > 0 else lines


class Progress:
    """Counts finished blocks; rewrites its line on a terminal, else writes one now and then."""

    def __init__(
        self, total: int, done: Sequence[InspectedRow] = (), stream: TextIO | None = None
    ) -> None:
        self.total = total
        self.done = len(done)
        self.failed = sum(has_failure(result) for result in done)
        self.stream = stream or sys.stderr
        self._timed_blocks = 0
        self._timed_px = 0
        self._began = math.inf
        self._written = time.monotonic()
        self._width = 0

    def add(self, result: InspectedRow) -> None:
        """Count a block and show the line."""
        self.done += 1
        self.failed += has_failure(result)
        now = time.monotonic()
        self._timed_blocks += 1
        self._timed_px += result.valid_px
        # From the work on a block on: before it came the start of Ray, and blocks arrive in bursts.
        self._began = min(self._began, now - result.seconds)
        due = now - self._written >= LOG_INTERVAL_S or self.done == self.total
        if self.stream.isatty():
            self._show(end="")
        elif due:
            self._written = now
            self._show(end="\n")

    def close(self) -> None:
        """End the line of a terminal, so that what follows starts on a line of its own."""
        if self._width:
            print(file=self.stream)

    def line(self) -> str:
        """Return a line like `infer 12/96 blocks, 3.4 Mpx/s, ETA 0:42, 1 with failures`."""
        parts = [f"infer {self.done}/{self.total} blocks"]
        elapsed = time.monotonic() - self._began
        if elapsed > 0:
            remaining = (self.total - self.done) * elapsed / self._timed_blocks
            parts += [f"{self._timed_px / elapsed / 1e6:.1f} Mpx/s", f"ETA {clock(remaining)}"]
        if self.failed:
            parts.append(f"{self.failed} with failures")
        return ", ".join(parts)

    def _show(self, end: str) -> None:
        text = self.line()
        if self.stream.isatty():
            padding = " " * max(0, self._width - len(text))
            self._width = len(text)
            text = f"\r{text}{padding}"
        print(text, end=end, file=self.stream, flush=True)


def has_failure(result: InspectedRow) -> bool:
    """Return whether a block is less than wholly inspected, because something failed."""
    return result.status in ("partial", "failed")


@dataclass(frozen=True)
class JobStatus:
    """State of a job.

    Attributes:
        work: its work folder.
        total: blocks of the job.
        done: blocks that are finished, also the failed ones.
        failed: those of them that failed, wholly or in part.
        is_running: whether a process works on them now.
        mpx_per_s: speed since work on blocks began, at the last start; None before the first block.
        eta_s: seconds to the last block at that speed.
    """

    work: Path
    total: int
    done: int
    failed: int
    is_running: bool
    mpx_per_s: float | None
    eta_s: float | None

    def text(self) -> str:
        """Return one line.

        >>> JobStatus(Path("a.work"), 96, 12, 1, True, 3.42, 42).text()
        'a.work: 12/96 blocks, 1 with failures, 3.4 Mpx/s, ETA 0:42, running'
        """
        parts = [f"{self.done}/{self.total} blocks", f"{self.failed} with failures"]
        if self.mpx_per_s is not None:
            parts.append(f"{self.mpx_per_s:.1f} Mpx/s")
        if self.is_running and self.eta_s is not None:
            parts.append(f"ETA {clock(self.eta_s)}")
        stopped = "all blocks finished" if self.done == self.total else "not running"
        parts.append("running" if self.is_running else stopped)
        return f"{self.work}: {', '.join(parts)}"

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return asdict(self) | {"work": str(self.work)}


def read_status(path: Path) -> JobStatus:
    """Read the state of a job; changes nothing and disturbs nobody.

    Args:
        path: The GeoPackage of the job, its work folder, or a folder that holds one work folder.

    Raises:
        ConfigError: There is no job.
    """
    work = find_work_folder(path)
    log = JobLog.read(work)
    if log is None:
        raise ConfigError(f"{work} holds no job; give the GeoPackage of one")
    total, lines = len(log.record.blocks), log.lines.values()
    recent = [line for line in lines if line.at >= log.record.started]
    began = min((line.at - line.inspected.seconds for line in recent), default=math.inf)
    speed = eta = None
    if recent and (elapsed := max(line.at for line in recent) - began) > 0:
        speed = sum(line.inspected.valid_px for line in recent) / 1e6 / elapsed
        eta = (total - len(lines)) * elapsed / len(recent)
    failed = sum(has_failure(line.inspected) for line in lines)
    return JobStatus(work, total, len(lines), failed, is_locked(work / LOCK), speed, eta)
