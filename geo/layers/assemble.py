"""Parts -> one GeoPackage: joined, linked, filtered, measured, checked, published atomically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geo.cracks.collect import BranchCollector, MapBranches
from geo.cracks.parts import InspectedRow, read_part
from geo.cracks.seams import SeamJoin
from geo.files import output_errors
from geo.grid import Grid
from geo.imagery.coverage import CoverageMap
from geo.imagery.headers import TileProblem
from geo.layers.classes import NOT_MEASURABLE
from geo.layers.crack_rows import MapIds, crack_rows, network_rows, outline_rows
from geo.layers.geopackage import LayerData, publish
from geo.layers.roads import RoadNetwork, Segment, read_roads
from geo.layers.run_rows import RunRecord, inspected_rows, run_rows
from geo.layers.schema import CRACK, INSPECTED, NETWORK, OUTLINE, ROAD_SEGMENT, RUN
from geo.layers.segments import RoadSurvey, segment_rows, write_csv
from geo.layers.style import styles
from geo.layers.whole_map import CrackMap, find_cracks
from geo.options import AssembleOptions

SEGMENTS_CSV = "segments.csv"
"""Written beside the GeoPackage if roads are given."""

OUTLINE_NEEDS = ("geometry", "n_pixels", "probability_sum", "top", "left")
"""Columns of pieces that the layer outline takes."""


@dataclass(frozen=True)
class AssembleReport:
    """What a GeoPackage holds.

    Attributes:
        path: of it.
        n_cracks, n_networks: how many.
        length_m: of cracks with their gaps.
        area_m2: of the pixels of cracks and networks.
        network_m2: area of networks.
        network_line_m: centerlines in them.
        not_measurable_m: line of cracks too thin for its pixels.
        n_dropped: cracks that were too small.
        n_inspected: blocks.
        off_road_m: of cracks; None if no roads were given.
    """

    path: Path
    n_cracks: int
    n_networks: int
    length_m: float
    area_m2: float
    network_m2: float
    network_line_m: float
    not_measurable_m: float
    n_dropped: int
    n_inspected: int
    off_road_m: float | None

    @classmethod
    def of(
        cls, path: Path, found: CrackMap, n_inspected: int, roads: RoadSurvey | None
    ) -> AssembleReport:
        """Add up a map."""
        kept, count = found.kept, found.n_cracks
        return cls(
            path=path,
            n_cracks=int(kept.sum()),
            n_networks=len(found.networks),
            length_m=float(found.length_m[kept].sum()),
            area_m2=float(found.area_m2[:count][kept].sum() + found.area_m2[count:].sum()),
            network_m2=float(found.networks.area_m2.sum()),
            network_line_m=float(found.networks.crack_length_m.sum()),
            not_measurable_m=float(found.meters_by_class(NOT_MEASURABLE)[:count][kept].sum()),
            n_dropped=int((~kept).sum()),
            n_inspected=n_inspected,
            off_road_m=None if roads is None else roads.unassigned_m,
        )


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
        segments_csv: the table of the segments; None: segments.csv beside ``out``.
        roads: what `read_roads` gives for the options; None: it is read now.

    Raises:
        InputError: a part or the file of roads cannot be read.
        OutputError: ``out`` cannot be written.
    """
    chosen = options or AssembleOptions()
    pieces = _Pieces(sorted(parts), grid, out)
    survey = _road_survey(chosen, grid, roads)
    with pieces.seams:
        with output_errors(out):  # pieces at seams are joined in a file beside the map
            out.parent.mkdir(parents=True, exist_ok=True)
            branches = pieces.branches()
        found = find_cracks(branches, grid, chosen)
        on_roads = None if survey is None else survey.add(found)
        ids, report = MapIds.of(found), AssembleReport.of(out, found, len(pieces.rows), survey)
        layers = [
            LayerData(CRACK, crack_rows(found, ids, chosen, on_roads)),
            LayerData(NETWORK, iter([network_rows(found, ids, chosen, on_roads)])),
            LayerData(OUTLINE, outline_rows(pieces.tables(OUTLINE_NEEDS), found, ids, chosen)),
            LayerData(INSPECTED, iter([inspected_rows(pieces.rows, problems, grid)])),
            LayerData(RUN, iter([run_rows(run or RunRecord(), chosen, report.not_measurable_m)])),
        ]
        if survey is not None:
            rows = _segment_rows(
                survey, pieces, chosen, segments_csv or out.with_name(SEGMENTS_CSV)
            )
            layers.append(LayerData(ROAD_SEGMENT, rows))
        about = {"model": chosen.model, "run_id": chosen.run_id}
        looks, has_copies = styles(chosen.rules), "parquet" in chosen.formats
        publish(out, grid.crs, layers, about, looks=looks, parquet=has_copies)
    return report


def _road_survey(
    options: AssembleOptions, grid: Grid, roads: Sequence[Segment] | None
) -> RoadSurvey | None:
    if options.roads is None or options.roads.path is None:
        return None
    segments = read_roads(options.roads, grid) if roads is None else roads
    network = RoadNetwork(segments, grid.unit_m)
    return RoadSurvey(network, grid, options.type, options.roads.lane_m)


def _segment_rows(
    roads: RoadSurvey, pieces: _Pieces, options: AssembleOptions, table: Path
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the segments; write them as a table besides."""
    roads.survey(CoverageMap(pieces.grid, ((row.window, row.coverage) for row in pieces.rows)))
    rows = segment_rows(roads, options.segments)
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
        for table in self.tables():
            collector.add(table)
        return collector.branches()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield tables of whole pieces: part by part, then those joined across seams.

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
            yield part.pieces.filter(pa.array(whole))
        yield from self.seams.tables(columns)
