"""Parts -> one GeoPackage: joined, linked, filtered, measured, checked, published atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geo.cracks.collect import BranchCollector, MapBranches
from geo.cracks.parts import InspectedRow, read_part
from geo.cracks.piece_table import SCHEMA
from geo.cracks.regions import Region, read_rows
from geo.cracks.seams import SeamJoin
from geo.files import output_errors
from geo.grid import Grid
from geo.imagery.coverage import CoverageMap
from geo.imagery.headers import TileProblem
from geo.layers.geopackage import LayerData, publish
from geo.layers.region_map import (
    ROW_LAYERS,
    MapSetting,
    RegionMap,
    RegionSteps,
    add_roads,
    rows_of,
    stored_rows,
)
from geo.layers.region_rest import decide_rest
from geo.layers.roads import Segment, read_roads
from geo.layers.run_rows import RunRecord, inspected_rows, run_rows
from geo.layers.schema import INSPECTED, ROAD_SEGMENT, RUN
from geo.layers.segment_rows import segment_rows, write_csv
from geo.layers.segments import RoadSurvey
from geo.layers.style import styles
from geo.layers.totals import MapTotals
from geo.layers.whole_map import find_cracks
from geo.options import AssembleOptions
from geo.outputs import require_replaceable

SEGMENTS_CSV = "segments.csv"
"""Written beside the GeoPackage if roads are given."""

OUTLINE_NEEDS = ("geometry", "n_pixels", "probability_sum", "top", "left")
"""Columns of pieces that the layer outline takes."""

BRANCH_NEEDS = tuple(
    name for name in SCHEMA.names if name not in ("geometry", "seam_pixels", "strip")
)
"""Columns that cracks and networks are made of."""


@dataclass(frozen=True)
class AssembleReport(MapTotals):
    """What a GeoPackage holds.

    Attributes:
        path: of it.
        n_inspected: blocks.
        off_road_m: of cracks; None if no roads were given.
    """

    path: Path = Path()
    n_inspected: int = 0
    off_road_m: float | None = None


def assemble(
    parts: Iterable[Path],
    out: Path,
    grid: Grid,
    options: AssembleOptions | None = None,
    *,
    problems: Sequence[TileProblem] = (),
    run: RunRecord | None = None,
    segments_csv: Path | None = None,
    roads: Sequence[Segment] | None = None,
) -> AssembleReport:
    """Write all layers from the parts of all blocks.

    Pieces that touch a seam are joined when all parts have been read (`geo.cracks.seams`). Then
    the branches of all pieces, which are held together, are linked to cracks; outlines stream
    through. An existing ``out`` stays until the new file is complete and checked.

    Args:
        parts: files of `write_part`, one per block, in any order.
        out: the GeoPackage.
        grid: of the mosaic.
        options: see `AssembleOptions`.
        problems: tiles left out, to be reported in the layer inspected.
        run: what to record in the layer run.
        segments_csv: the table of the segments; None: `cracks.segments.csv` beside `cracks.gpkg`.
        roads: what `read_roads` gives for the options; None: it is read now.

    Raises:
        InputError: a part or the file of roads cannot be read.
        OutputError: ``out`` cannot be written.
    """
    at = _setting(grid, options, roads)
    pieces = _Pieces(sorted(parts), grid, out)
    survey = at.survey()
    with pieces.seams:
        with output_errors(out):  # pieces at seams are joined in a file beside the map
            out.parent.mkdir(parents=True, exist_ok=True)
            branches = pieces.branches()
        found = find_cracks(branches, grid, at.options)
        rows = rows_of(RegionMap(found, pieces.tables(OUTLINE_NEEDS)), at, survey)
        content = _Content(rows, pieces.rows, MapTotals.of(found), problems, run)
        return _publish(out, at, content, survey, segments_csv)


Run = Callable[[Callable[[Region], None], Sequence[Region], Callable[[Region], Path]], None]
"""Calls a function for regions, in any order and in whatever processes, until all have returned;
it is told which file each call leaves last."""


def assemble_regions(
    regions: Sequence[Region],
    out: Path,
    grid: Grid,
    options: AssembleOptions,
    *,
    folder: Path,
    run_all: Run,
    problems: Sequence[TileProblem] = (),
    run: RunRecord | None = None,
    roads: Sequence[Segment] | None = None,
) -> AssembleReport:
    """Write the same layers as `assemble`, of a map that is too large for one process.

    Regions are joined, linked and measured by themselves (`geo.layers.region_map`), then what
    crosses their sides in windows over these; here the rest is, and all rows are written.

    Args:
        regions: the whole map, see `cut_into_regions`.
        out: the GeoPackage.
        grid: of the mosaic.
        options: see `AssembleOptions`.
        folder: for the results of regions; what lies there of an earlier try is used again.
        run_all: runs the work of regions.
        problems: as for `assemble`.
        run: as for `assemble`.
        roads: as for `assemble`.

    Raises:
        InputError, OutputError: as for `assemble`.
    """
    at = _setting(grid, options, roads)
    folder.mkdir(parents=True, exist_ok=True)
    steps = RegionSteps.of(regions, folder, at)

    def run_missing(
        work: Callable[[Region], None], places: Sequence[Region], last: Callable[[Region], Path]
    ) -> None:
        run_all(work, [place for place in places if not last(place).exists()], last)

    run_missing(steps.merge, regions, steps.merged_last)
    if not steps.joined_last.exists():
        steps.join()
    run_missing(steps.decide, regions, steps.decided_last)
    run_missing(steps.settle, steps.windows, steps.decided_last)
    decided = [steps.decision_files(place) for place in (*regions, *steps.windows)]
    decided += decide_rest(steps)
    survey, totals = at.survey(), MapTotals()
    for files in decided:
        totals += MapTotals(**json.loads(files.path("totals.json").read_text("utf-8")))
        if survey is not None:
            add_roads(survey, files.path("roads.npz"))
    rows = tuple(stored_rows(layer, decided) for layer in ROW_LAYERS)
    inspected = [row for region in regions for row in read_rows(steps.merge_files(region))]
    return _publish(out, at, _Content(rows, inspected, totals, problems, run), survey, None)


@dataclass(frozen=True)
class _Content:
    """Rows of ROW_LAYERS, and what the other layers are made of."""

    rows: tuple[Iterator[pa.RecordBatch], ...]
    inspected: Sequence[InspectedRow]
    totals: MapTotals
    problems: Sequence[TileProblem]
    run: RunRecord | None


def _setting(
    grid: Grid, options: AssembleOptions | None, roads: Sequence[Segment] | None
) -> MapSetting:
    chosen = options or AssembleOptions()
    if chosen.roads is None or chosen.roads.path is None:
        return MapSetting(grid, chosen, None)
    segments = read_roads(chosen.roads, grid) if roads is None else roads
    return MapSetting(grid, chosen, tuple(segments))


def _publish(
    out: Path, at: MapSetting, content: _Content, survey: RoadSurvey | None, table: Path | None
) -> AssembleReport:
    chosen, totals, inspected = at.options, content.totals, content.inspected
    record = content.run or RunRecord()
    layers = [LayerData(layer, rows) for layer, rows in zip(ROW_LAYERS, content.rows, strict=True)]
    layers += [
        LayerData(
            INSPECTED,
            iter([inspected_rows(inspected, content.problems, at.grid, chosen.survey_date)]),
        ),
        LayerData(RUN, iter([run_rows(record, chosen, totals.not_measurable_m)])),
    ]
    if survey is not None:
        place = table or out.with_name(f"{out.stem}.{SEGMENTS_CSV}")
        require_replaceable([place])
        layers.append(LayerData(ROAD_SEGMENT, _segment_rows(survey, at, inspected, place)))
    about = {"model": chosen.model, "run_id": chosen.run_id}
    looks = styles(chosen.rules)
    most_rows = chosen.parquet_rows if "parquet" in chosen.formats else 0
    publish(out, at.grid.crs, layers, about, looks=looks, parquet_rows=most_rows)
    off_road_m = None if survey is None else survey.unassigned_m
    return AssembleReport(
        **vars(totals), path=out, n_inspected=len(inspected), off_road_m=off_road_m
    )


def _segment_rows(
    roads: RoadSurvey, at: MapSetting, inspected: Sequence[InspectedRow], table: Path
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the segments; write them as a table besides."""
    roads.survey(CoverageMap(at.grid, ((row.window, row.coverage) for row in inspected)))
    rows = segment_rows(roads, at.options.segments)
    write_csv(table, rows)
    yield rows


class _Pieces:
    """Whole pieces of all parts, as often as they are asked for, and the rows of the parts."""

    def __init__(self, parts: Sequence[Path], grid: Grid, out: Path) -> None:
        self._parts = parts
        self.seams = SeamJoin(parts, grid, out)
        self.grid = grid
        self.rows: list[InspectedRow] = []

    def branches(self) -> MapBranches:
        """Join the pieces at seams and return all branches."""
        collector = BranchCollector(self.grid)
        for table in self.tables(BRANCH_NEEDS):
            collector.add(table)
        return collector.branches()

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield tables of whole pieces: part by part, then those joined across seams.

        The first time these are joined.
        """
        first = not self.seams.is_done
        for number, path in enumerate(self._parts):
            part = read_part(path, (*columns, "seam_pixels"))
            whole = np.equal(pc.list_value_length(part.pieces["seam_pixels"]).to_numpy(), 0)
            if first:
                self.rows.append(part.inspected)
                self.seams.add(number, part.pieces, np.flatnonzero(~whole))
            yield part.pieces if whole.all() else part.pieces.filter(pa.array(whole))
        yield from self.seams.tables(columns)
