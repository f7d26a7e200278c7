"""Parts -> one GeoPackage: joined, filtered, measured, checked, published atomically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geo.cracks.parts import InspectedRow, read_part
from geo.cracks.seams import SeamJoin
from geo.grid import Grid
from geo.imagery.coverage import CoverageMap
from geo.imagery.headers import TileProblem
from geo.layers.crack_rows import CENTERLINE_NEEDS, centerline_rows, crack_rows, large_enough
from geo.layers.geopackage import LayerData, publish
from geo.layers.roads import RoadNetwork, Segment, read_roads
from geo.layers.run_rows import RunRecord, inspected_rows, run_rows
from geo.layers.schema import CENTERLINE, CRACK, INSPECTED, ROAD_SEGMENT, RUN
from geo.layers.segments import RoadSurvey, segment_rows, write_csv
from geo.options import AssembleOptions

SEGMENTS_CSV = "segments.csv"
"""Written beside the GeoPackage if roads are given."""


@dataclass(frozen=True)
class AssembleReport:
    """What a GeoPackage holds; off_road_m is None if no roads were given."""

    path: Path
    n_cracks: int
    area_m2: float
    length_m: float
    n_dropped: int
    n_inspected: int
    off_road_m: float | None


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

    Pieces that touch a seam are joined when all parts have been read (`geo.cracks.seams`); the
    others stream through. An existing ``out`` stays until the new file is complete and checked.

    Args:
        parts: files of `write_part`, one per block, in any order.
        out: the GeoPackage.
        grid: of the mosaic.
        options: see `AssembleOptions`.
        problems: tiles left out, to be reported in the layer inspected.
        run: what to record in the layer run.
        segments_csv: the table of the segments; None: segments.csv beside ``out``.
        roads: what `read_roads` gives for the options; None: it is read now.

    Raises:
        InputError: a part or the file of roads cannot be read.
        OutputError: ``out`` cannot be written.
    """
    chosen = options or AssembleOptions()
    cracks = _Cracks(sorted(parts), grid, chosen, out)
    survey = _road_survey(chosen, grid, roads)
    table = segments_csv or out.with_name(SEGMENTS_CSV)
    rows = (crack_rows(found, grid, chosen, survey) for found in cracks.tables())
    layers = [
        LayerData(CRACK, rows),
        LayerData(CENTERLINE, _centerlines(cracks)),
        LayerData(INSPECTED, (inspected_rows(c.rows, problems, grid) for c in [cracks])),
        LayerData(RUN, iter([run_rows(run or RunRecord(), chosen)])),
    ]
    if survey is not None:
        layers.append(LayerData(ROAD_SEGMENT, _segment_rows(survey, cracks, table)))
    about = {"model": chosen.model, "run_id": chosen.run_id}
    with cracks.seams:
        publish(
            out, grid.crs, layers, about, rules=chosen.rules, parquet="parquet" in chosen.formats
        )
    return AssembleReport(
        path=out,
        n_cracks=cracks.kept,
        area_m2=cracks.pixels * grid.pixel_area_m2,
        length_m=cracks.length_m,
        n_dropped=cracks.dropped,
        n_inspected=len(cracks.rows),
        off_road_m=None if survey is None else survey.unassigned_m,
    )


def _centerlines(cracks: _Cracks) -> Iterator[pa.RecordBatch]:
    return (centerline_rows(table, cracks.grid) for table in cracks.tables(CENTERLINE_NEEDS))


def _road_survey(
    options: AssembleOptions, grid: Grid, roads: Sequence[Segment] | None
) -> RoadSurvey | None:
    if options.roads is None or options.roads.path is None:
        return None
    segments = read_roads(options.roads, grid) if roads is None else roads
    network = RoadNetwork(segments, grid.unit_m)
    return RoadSurvey(network, grid, options.type, options.roads.lane_m)


def _segment_rows(roads: RoadSurvey, cracks: _Cracks, table: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the segments once all cracks are added; write them as a table besides."""
    grid, options = cracks.grid, cracks.options
    roads.survey(CoverageMap(grid, ((row.window, row.coverage) for row in cracks.rows)))
    rows = segment_rows(roads.sums, grid, options.segments)
    write_csv(table, rows)
    yield rows


class _Cracks:
    """Whole cracks of all parts, as often as they are asked for, and sums over them."""

    def __init__(
        self, parts: Sequence[Path], grid: Grid, options: AssembleOptions, out: Path
    ) -> None:
        self._parts = parts
        self.seams = SeamJoin(parts, grid, out)
        self.grid = grid
        self.options = options
        self.rows: list[InspectedRow] = []
        self.kept = self.dropped = self.pixels = 0
        self.length_m = 0.0

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield tables of large enough cracks: part by part, then those joined across seams.

        The first time all columns are needed, as pieces at seams are joined then.
        """
        first = not self.seams.is_done
        assert columns is None or not first, "pieces cannot be joined without their columns"
        wanted = None if columns is None else (*columns, "seam_pixels")
        for number, path in enumerate(self._parts):
            part = read_part(path, wanted)
            whole = np.equal(pc.list_value_length(part.pieces["seam_pixels"]).to_numpy(), 0)
            if first:
                self.rows.append(part.inspected)
                self.seams.add(number, part.pieces, np.flatnonzero(~whole))
            yield self._keep_large(part.pieces.filter(pa.array(whole)), count=first)
        for table in self.seams.tables(columns):
            yield self._keep_large(table, count=first)

    def _keep_large(self, cracks: pa.Table, *, count: bool) -> pa.Table:
        keep = large_enough(cracks, self.grid, self.options)
        left = cracks.filter(pa.array(keep))
        if count:
            self.kept += len(left)
            self.dropped += len(cracks) - len(left)
            self.pixels += int(np.sum(left["n_pixels"].to_numpy()))
            self.length_m += float(np.sum(left["length_m"].to_numpy()))
        return left
