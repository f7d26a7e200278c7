"""A further map from a work folder: another threshold, other limits or roads; no tiles, no model.

    wpcrack assemble maps/cracks.work out=maps/strict.gpkg threshold=0.7 min_length_m=0.3

Parts of the run are joined as they are; another threshold than theirs takes the stored probability.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo.errors import InputError, count_of
from geo.files import folder_of_parts, output_errors, remove_leftovers
from geo.imagery.overview import blank_backdrop, read_backdrop
from geo.layers.assemble import AssembleReport, assemble
from geo.layers.roads import read_roads
from geo.layers.run_rows import RunRecord
from geo.outputs import require_replaceable
from geo.page.crops import read_crops
from geo.page.preview import OVERVIEW_PX
from geo.page.report import MapReport
from jobs.assemble.job import AssembleJob
from jobs.assemble.source import Order, Source, vectorize_all, write_missing
from jobs.infer.inputs import refuse_among_tiles
from jobs.infer.job_log import settings_anywhere
from jobs.infer.outputs import MapFiles, map_options, require_shown, run_record, warn_of_districts
from jobs.infer.report import failure_lines
from jobs.infer.work_folder import BACKDROP, CROPS
from jobs.runtime.folder import hold_output
from jobs.runtime.terminal import say


@dataclass(frozen=True)
class AssembledMap:
    """What was delivered.

    Attributes:
        files: the GeoPackage and what lies beside it.
        run_id: that of a run with the settings of this map.
        source: parts or probability.
        cracks: of the map.
        report: figures of the map.
        unfinished: blocks that the run has not computed.
        seconds: it took.
    """

    files: MapFiles
    run_id: str
    source: str
    cracks: AssembleReport
    report: MapReport
    unfinished: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: everything was inspected; 3: delivered, but some tiles or blocks are missing."""
        return 3 if self.report.failures else 0

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return {
            "package": str(self.files.package),
            "overview": str(self.files.overview),
            "page": str(self.files.page),
            "report": str(self.files.report),
            "run_id": self.run_id,
            "source": self.source,
            "cracks": self.cracks.n_cracks,
            "dropped": self.cracks.n_dropped,
            "length_m": self.cracks.length_m,
            "area_m2": self.cracks.area_m2,
            "blocks": self.cracks.n_inspected,
            "blocks_unfinished": self.unfinished,
            "failures": [f"{f.where}: {f.reason}" for f in self.report.failures],
            "seconds": round(self.seconds, 3),
        }

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        cracks = self.cracks
        lines = [
            f"{count_of(cracks.n_cracks, 'crack')}, {cracks.length_m:.1f} m, "
            f"{cracks.area_m2:.2f} m2 of pixels, from the {self.source} of "
            f"{count_of(cracks.n_inspected - self.unfinished, 'block')} in {self.seconds:.0f} s",
            f"map       {self.files.package}",
            f"overview  {self.files.overview}",
            f"page      {self.files.page}",
        ]
        return "\n".join([*lines, *failure_lines(self.values()["failures"])])


def run_assemble(source: Source, job: AssembleJob) -> AssembledMap:
    """Make a map of what a work folder holds; an existing one stays until it is complete.

    Blocks that the run has not computed are rows of the layer inspected like those that failed.

    Args:
        source: the work folder.
        job: what to make of it.

    Raises:
        WpcrackError, GeoError: An output in the wrong place, a threshold that takes probability
            which was not stored, a file that cannot be read or written; another process writes
            the same map.
    """
    started, begin = time.time(), time.monotonic()
    _refuse_output(source, job.out)
    files = MapFiles.of(job.out)
    files.prepare(job, job.roads, [path for path in [job.roads.path] if path])
    require_shown(job, source.grid)
    kept = job.level == source.level
    if not kept:
        source.require_probability(job.threshold)
    roads = read_roads(job.roads, source.grid)
    warn_of_districts(job, job.roads, roads)
    record = source.record_of(job, roads)
    unfinished = len(source.record.blocks) - len(source.finished)
    if unfinished:
        say(f"{unfinished} of {len(source.record.blocks)} blocks are not computed yet")
    origin = "parts" if kept else "probability"
    with hold_output(job.out, f"out={job.out}"):
        with _parts(source, job, kept=kept) as parts:
            require_replaceable(files.list_replaced(job, job.roads))  # edited meanwhile?
            report = assemble(
                parts,
                job.out,
                source.grid,
                map_options(job, job.roads, record),
                problems=source.record.problems,
                run=_record(source, job, origin, started),
                segments_csv=files.segments,
                roads=roads,
            )
        backdrop = read_backdrop(source.root / BACKDROP)
        if backdrop is None:
            say("the run was not finished, so there is no imagery behind the map")
        shown, crops = backdrop or blank_backdrop(source.grid, OVERVIEW_PX), source.root / CROPS
        figures = files.draw(shown, read_crops(crops), job)
    seconds = time.monotonic() - begin
    return AssembledMap(files, record.run_id, origin, report, figures, unfinished, seconds)


@contextmanager
def _parts(source: Source, job: AssembleJob, *, kept: bool) -> Iterator[list[Path]]:
    """Give the files of all blocks: of the run, or new ones that last until the map is made."""
    finished = set(source.finished)
    missing = [block for block in source.record.blocks if block not in finished]
    with output_errors(job.out.parent):
        job.out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(job.out)
        with folder_of_parts(job.out) as made:
            folder, grid = Path(made), source.grid
            for block in missing:
                write_missing(block, grid, folder / f"{block.block_id}.parquet")
            if kept:
                old = [source.part(block) for block in source.finished]
                yield [*old, *folder.iterdir()]
                return
            orders = [
                Order(
                    block,
                    source.probability(block),
                    source.ground(block),
                    source.part(block),
                    folder / f"{block.block_id}.parquet",
                    job.level,
                    grid,
                )
                for block in source.finished
            ]
            for number, _ in enumerate(vectorize_all(orders, job.workers), start=1):
                if number % 100 == 0:
                    say(f"{number} of {len(orders)} blocks")
            yield list(folder.iterdir())


def _record(source: Source, job: AssembleJob, origin: str, started: float) -> RunRecord:
    """Return the layer run: the settings as a run with them would have had, and their origin."""
    own = settings_anywhere(job)
    del own["workers"]
    return run_record(
        source.record,
        json.dumps(source.record.config | own),
        started,
        assembled_from=str(source.root),
        assembled_of=origin,
        first_run_id=source.record.run_id,
        blocks_unfinished=len(source.record.blocks) - len(source.finished),
    )


def _refuse_output(source: Source, out: Path) -> None:
    """Refuse to replace the map of the run, or to write where a job looks for tiles or blocks."""
    place = out.resolve()
    if place.with_suffix(".gpkg") == source.first_map.resolve():
        raise InputError(
            f"out={out} is the map of the run itself; choose another name (the command of `wpcrack "
            "infer`, given again, renews it: blocks are kept unless the threshold changes)"
        )
    if place.is_relative_to(source.root.resolve()):
        raise InputError(f"out={out} lies in the work folder; choose a folder outside of it")
    refuse_among_tiles(out, source.record.config["tiles"])
