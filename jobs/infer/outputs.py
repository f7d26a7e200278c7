"""From finished blocks to what a job delivers: GeoPackage, segments, pictures, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from geo.cracks.parts import read_row
from geo.cracks.regions import cut_into_regions
from geo.dbf import doubt_about_text
from geo.errors import OutputError
from geo.files import NOT_UTF8, is_utf8, readable, remove_leftovers
from geo.grid import Grid
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import READERS, Overview, reduce, save_backdrop
from geo.layers.assemble import SEGMENTS_CSV as SEGMENTS
from geo.layers.assemble import AssembleReport, assemble, assemble_regions
from geo.layers.roads import Segment
from geo.layers.run_rows import RunRecord
from geo.layers.schema import LAYERS, ROAD_SEGMENT
from geo.layers.web_tiles import TILED, require_on_web, tiles_path, write_web_tiles
from geo.options import AssembleOptions, Format, MapRules, RoadOptions
from geo.outputs import require_replaceable
from geo.packages import additions, kept_name
from geo.page.crops import Crop, cut_crops, save_crops
from geo.page.letters import is_unwritable
from geo.page.map_page import write_map
from geo.page.preview import OVERVIEW_PX, draw_overview
from geo.page.report import MapReport, write_report
from geo.page.street_pages import MAX_PAGES, places, write_street_pages
from jobs.infer import spread
from jobs.infer.job import OVERVIEW, InferJob
from jobs.infer.job_log import JobRecord
from jobs.infer.plan import Plan
from jobs.infer.work_folder import ASSEMBLY, BACKDROP, CROPS
from jobs.runtime.folder import require_writable
from jobs.runtime.terminal import say
from jobs.runtime.versions import versions
from wpcrack.errors import first_few

RECORDED_VERSIONS = (
    *("wpcrack", "ray", "torch", "openvino"),
    *("numpy", "rasterio", "shapely", "pyogrio"),
)
"""Recorded in the layer run."""


def assemble_map(
    job: InferJob,
    plan: Plan,
    record: JobRecord,
    roads: Sequence[Segment],
    *,
    local: bool = False,
) -> AssembleReport:
    """Join the parts of all blocks into the GeoPackage; with roads also the table of segments.

    Args:
        job: what to do.
        plan: its blocks.
        record: as the work folder keeps it.
        roads: read before the first block, so that no error in them costs the work.
        local: never join RAY_ADDRESS, where many blocks are joined on Ray.

    Raises:
        WpcrackError, GeoError: A part cannot be read, or the output cannot be written.
    """
    options, grid = map_options(job, job.roads, record), plan.mosaic.grid
    origin: dict[str, Any] = {
        "problems": plan.mosaic.problems,
        "run": run_record(record, json.dumps(record.config), record.started),
        "roads": roads,
    }
    if len(plan.blocks) < spread.SPREAD_FROM:
        parts = [plan.part(block) for block in plan.blocks]
        return assemble(parts, job.out, grid, options, **origin)
    blocks = [(block.window, plan.part(block)) for block in plan.blocks]
    regions = cut_into_regions(blocks, grid, spread.REGION_BLOCKS * job.block_px)
    folder = job.work_folder.absolute() / ASSEMBLY
    report: AssembleReport = spread.spread_on_ray(
        folder,
        lambda run_all: assemble_regions(
            regions, job.out, grid, options, folder=folder, run_all=run_all, **origin
        ),
        local=local,
    )
    return report


def map_options(rules: MapRules, roads: RoadOptions, record: JobRecord) -> AssembleOptions:
    """Return the rules and roads of a map, and what its attributes say of its run."""
    return AssembleOptions.of(
        rules,
        roads=roads,
        model=record.model_label,
        run_id=record.run_id,
    )


def run_record(record: JobRecord, config: str, started: float, **origin: object) -> RunRecord:
    """Return what the layer run says of a map.

    Args:
        record: of the run that computed the blocks.
        config: settings of the map, as JSON.
        started: when the map was asked for, seconds since 1970.
        origin: further facts about its inputs.
    """
    inputs = {
        "tiles": str(record.config["tiles"]),
        "files": len(record.inputs),
        "bytes": sum(values[0] for values in record.inputs.values()),
    }
    return RunRecord(
        model_hash=record.model_hash,
        config=config,
        inputs=json.dumps(inputs | origin),
        versions=json.dumps(versions(RECORDED_VERSIONS)),
        started=_iso(started),
        finished=_iso(time.time()),
    )


def draw_map(job: InferJob, plan: Plan, mosaic: Mosaic) -> None:
    """Draw picture, page and report of a finished GeoPackage; keep the imagery behind them.

    Args:
        job: what to do.
        plan: its blocks.
        mosaic: the tiles that answer.

    Raises:
        GeoError: A file cannot be read or written.
    """
    backdrop = _of_thumbnails(plan) or reduce(mosaic, OVERVIEW_PX)
    save_backdrop(job.work_folder / BACKDROP, backdrop)
    crops = cut_crops(mosaic, job.out)
    save_crops(job.work_folder / CROPS, crops)
    MapFiles.of(job.out).draw(backdrop, crops, job)


def _of_thumbnails(plan: Plan) -> Overview | None:
    """Return the picture that the workers made; None if they did not make all of it."""
    if plan.picture is None:
        return None
    with ThreadPoolExecutor(READERS) as readers:
        rows = readers.map(read_row, map(plan.part, plan.blocks))
        return plan.picture.compose(row.thumbnail for row in rows if row.valid_px)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


PAGE, STREETS = "map.html", "streets.pdf"
"""Ends of the names of the page, and of the file with a page per street."""


@dataclass(frozen=True)
class MapFiles:
    """Where the files of a map lie; segments only with roads."""

    package: Path
    overview: Path
    page: Path
    segments: Path
    report: Path
    figures: Path
    streets: Path

    @classmethod
    def of(cls, out: Path) -> MapFiles:
        """Name the files of a map: all begin with the GeoPackage's name, so folders hold several.

        >>> MapFiles.of(Path("maps/strict.gpkg")).page.name
        'strict.map.html'
        """
        return cls(
            package=out,
            overview=_beside(out, OVERVIEW),
            page=_beside(out, PAGE),
            segments=_beside(out, SEGMENTS),
            report=_beside(out, "report.md"),
            figures=_beside(out, "report.json"),
            streets=_beside(out, STREETS),
        )

    def copies(self, kind: Format) -> list[Path]:
        """List the files that a format has beside the GeoPackage."""
        stem = self.package.stem
        if kind == "parquet":
            return [self.package.with_name(f"{stem}_{x.name}.parquet") for x in LAYERS]
        if kind == "pmtiles":
            return [tiles_path(self.package, layer) for layer in TILED]
        return [self.streets] if kind == "pdf" else []

    def formats(self) -> tuple[Format, ...]:
        """Return the formats of which a file is there now, beside the GeoPackage."""
        kinds: tuple[Format, ...] = get_args(Format)
        return tuple(kind for kind in kinds if any(path.exists() for path in self.copies(kind)))

    def list_replaced(self, rules: MapRules, roads: RoadOptions) -> list[Path]:
        """List the files that a map of these rules and roads replaces."""
        table = [self.segments] if roads.path else []
        copies = [path for kind in rules.formats for path in self.copies(kind)]
        return [*astuple(self)[:3], self.report, self.figures, *table, *copies]

    def list_outdated(self, rules: MapRules, roads: RoadOptions) -> list[Path]:
        """List files of an earlier map that one of these rules and roads does not make again."""
        kinds: tuple[Format, ...] = get_args(Format)
        made = set(self.list_replaced(rules, roads))
        if not roads.path:
            made -= {path for path in made if path.name.endswith(f"_{ROAD_SEGMENT.name}.parquet")}
        every = [self.segments, *(path for kind in kinds for path in self.copies(kind))]
        return [path for path in every if path not in made and path.exists()]

    def prepare(self, rules: MapRules, roads: RoadOptions, inputs: Iterable[Path]) -> None:
        """Refuse to replace what is not ours, before any work; say what is kept, and what stays.

        Args:
            rules: of the map.
            roads: of the map.
            inputs: files that are read.

        Raises:
            OutputError: See `geo.outputs.require_replaceable`.
        """
        require_writable(self.package.parent, f"out={self.package}")
        if not is_utf8(self.package):
            raise OutputError(f"out={readable(self.package)} {NOT_UTF8}")
        require_replaceable(self.list_replaced(rules, roads), inputs)
        has_text = roads.id or roads.name or roads.district or roads.surface
        if roads.path and has_text and (doubt := doubt_about_text(roads.path)):
            say(f"warning: roads.path={doubt}")
        if added := additions(self.package):
            say(
                f"{self.package} was changed by you or another program ({first_few(added)}): it "
                f"will be kept as {kept_name(self.package).name} when the new map is complete"
            )
        if left := self.list_outdated(rules, roads):
            say(
                f"of an earlier map and not made again: {first_few(path.name for path in left)}; "
                "remove them, or ask for them (formats, roads.path)"
            )

    def draw(self, backdrop: Overview, crops: Sequence[Crop], rules: MapRules) -> MapReport:
        """Write what is made from a finished GeoPackage: picture, page, report.

        Args:
            backdrop: the imagery reduced.
            crops: imagery at full resolution.
            rules: of the map; they say whether streets get pages.

        Raises:
            GeoError: A file cannot be written.
        """
        for path in astuple(self)[1:]:
            remove_leftovers(path)
        draw_overview(backdrop, self.package, self.overview)
        write_map(self.package, self.page, backdrop if backdrop.valid.any() else None, crops)
        if "pmtiles" in rules.formats:
            write_web_tiles(self.package)
        if "pdf" in rules.formats:
            self.draw_streets(backdrop)
        return write_report(self.package, self.report, self.figures)

    def draw_streets(self, backdrop: Overview) -> None:
        """Write pages of districts and streets; say which letters they lack, and who has none.

        Raises:
            GeoError: the file cannot be written.
        """
        write_street_pages(self.package, self.streets, backdrop)
        districts, streets = places(self.package)
        if lacking := list(filter(is_unwritable, streets)):
            say(
                f"{self.streets.name} has no letters for {first_few(lacking)}: ? stands for them, "
                "with the id of the road beside"
            )
        for names, kind in ((districts, "districts"), (streets, "streets")):
            if len(names) > MAX_PAGES:
                say(
                    f"{self.streets.name} has pages of the worst {MAX_PAGES} of {len(names)} "
                    f"{kind}; the others are in {self.segments.name}"
                )


def warn_of_districts(rules: MapRules, roads: RoadOptions, segments: Sequence[Segment]) -> None:
    """Say before any work that there are too many districts for pages, as of a column of ids."""
    names = {segment.district for segment in segments} - {""}
    if "pdf" in rules.formats and len(names) > MAX_PAGES:
        say(
            f"warning: roads.district={roads.district} names {len(names)} districts, of which the "
            f"worst {MAX_PAGES} get a page; if that is another column, stop and set the right one"
        )


def require_shown(rules: MapRules, grid: Grid) -> None:
    """Refuse formats that cannot show the ground of a map, before any work.

    Raises:
        OutputError: so it is.
    """
    if "pmtiles" in rules.formats:
        require_on_web(grid)


def _beside(out: Path, ending: str) -> Path:
    """Return `cracks.<ending>` for `cracks.gpkg`, in the same folder."""
    return out.parent / f"{out.stem}.{ending}"
