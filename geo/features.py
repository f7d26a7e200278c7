"""Tables of whole cracks -> rows of the layers crack and centerline."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from geo.crack_type import TypeOptions
from geo.errors import InputError
from geo.grid import Grid
from geo.roads import RoadOptions
from geo.rules import Rules
from geo.schema import CENTERLINE, CRACK, Layer
from geo.segment_rows import SegmentOptions
from geo.segments import RoadSurvey
from geo.severity import SeverityOptions, d6433, ltpp, reliable
from geo.simplification import world_outlines
from geo.tiles import crs_name

ID_DIGITS = 6
"""Decimals of the coordinates that go into a crack_id."""

MM = 1000.0

Format = Literal["gpkg", "parquet"]


@dataclass(frozen=True)
class AssembleOptions:
    """How parts become cracks.

    Attributes:
        min_area_m2: smaller cracks are dropped, after joining.
        min_length_m: shorter cracks are dropped, after joining.
        simplify_px: tolerance of the topology-preserving simplification in pixels; 0 keeps the
            pixel outline. The area is measured before.
        severity: limits of the severity classes.
        roads: lines by which cracks are typed and gathered; None: no road_segment layer.
        types: rules of the types.
        segments: how road segments are judged.
        survey_date: ISO date, for the attribute.
        model: name of the model, for the attribute.
        run_id: fingerprint of the run, for the attribute.
        formats: "gpkg", and "parquet" for GeoParquet files of the spatial layers beside it.
    """

    min_area_m2: float = 0.0
    min_length_m: float = 0.0
    simplify_px: float = 1.0
    severity: SeverityOptions = field(default_factory=SeverityOptions)
    roads: RoadOptions | None = None
    types: TypeOptions = field(default_factory=TypeOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)
    survey_date: str | None = None
    model: str = ""
    run_id: str = ""
    formats: tuple[Format, ...] = ("gpkg",)

    @property
    def rules(self) -> Rules:
        """By which cracks and segments are judged."""
        return Rules(self.severity, self.types, self.segments)

    def __post_init__(self) -> None:
        """Refuse formats that do not exist, and a map without its GeoPackage.

        Raises:
            InputError: such formats are asked for.
        """
        if "gpkg" not in self.formats or not set(self.formats) <= set(get_args(Format)):
            named = ",".join(self.formats)
            raise InputError(f"formats=[{named}]; give [gpkg] or [gpkg,parquet]")


def crack_ids(grid: Grid, top: NDArray[np.int64], left: NDArray[np.int64]) -> list[str]:
    """Stable ids: hash of CRS, pixel size and the world place of the topmost, leftmost pixel.

    No block, tile or mosaic origin is in it, so the same crack keeps its id in another run.
    """
    width, height = grid.pixel_m
    system = f"{crs_name(grid.crs)}|{width:.9g}|{height:.9g}"
    places = grid.to_world(np.column_stack((left + 0.5, top + 0.5)))
    texts = (f"{system}|{x:.{ID_DIGITS}f}|{y:.{ID_DIGITS}f}" for x, y in places)
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


CENTERLINE_NEEDS = ("top", "left", "branches", "n_pixels", "length_m")
"""Columns of the cracks that `large_enough` and `centerline_rows` look at."""


def large_enough(cracks: pa.Table, grid: Grid, options: AssembleOptions) -> NDArray[np.bool_]:
    """(N,) bool: the cracks that reach the smallest area and length."""
    area = cracks["n_pixels"].to_numpy() * grid.pixel_area_m2
    length = cracks["length_m"].to_numpy()
    keep: NDArray[np.bool_] = (area >= options.min_area_m2) & (length >= options.min_length_m)
    return keep


def crack_rows(
    cracks: pa.Table, grid: Grid, options: AssembleOptions, roads: RoadSurvey | None = None
) -> pa.RecordBatch:
    """Rows of the layer crack.

    Args:
        cracks: whole, measured cracks (`geo.piece_table.SCHEMA`).
        grid: of the mosaic.
        options: see `AssembleOptions`.
        roads: to which the cracks are added, and which names their type and segment.
    """
    count = len(cracks)
    gsd_mm = MM * np.nan_to_num(cracks["gsd_m"].to_numpy(), nan=grid.gsd_m)
    values = {name: cracks[name].to_numpy() for name in ("n_pixels", "probability_sum", "length_m")}
    area = values["n_pixels"] * grid.pixel_area_m2
    width = MM * area / values["length_m"]
    severity = d6433(width, gsd_mm, options.severity)
    on_roads = None if roads is None else roads.add(cracks, width, severity)
    survey = date.fromisoformat(options.survey_date) if options.survey_date else None
    geometry = shapely.from_wkb(cracks["geometry"].to_numpy())
    columns: dict[str, Any] = {
        "crack_id": crack_ids(grid, cracks["top"].to_numpy(), cracks["left"].to_numpy()),
        "area_m2": area,
        "length_m": values["length_m"],
        "width_mean_mm": width,
        "width_p95_mm": MM * cracks["width_p95_m"].to_numpy(),
        "width_max_mm": MM * cracks["width_max_m"].to_numpy(),
        "orientation_deg": _number_or_null(cracks["orientation_deg"]),
        "tortuosity": _number_or_null(cracks["tortuosity"]),
        "branches": pc.list_value_length(cracks["branches"]),
        "loops": cracks["loops"].to_numpy().astype(np.int64),
        "type": ["unknown"] * count if on_roads is None else on_roads.types,
        "severity_d6433": severity,
        "severity_ltpp": ltpp(width, gsd_mm, options.severity),
        "confidence": values["probability_sum"] / (255.0 * values["n_pixels"]),
        "gsd_mm": gsd_mm,
        "width_reliable": reliable(width, gsd_mm, options.severity),
        "touches_nodata": cracks["touches_nodata"],
        "segment_id": [None] * count if on_roads is None else on_roads.segment_ids,
        "survey_date": [survey] * count,
        "model": [options.model] * count,
        "run_id": [options.run_id] * count,
        "geom": shapely.to_wkb(world_outlines(geometry, grid, options.simplify_px)),
    }
    return _batch(CRACK, columns)


def centerline_rows(cracks: pa.Table, grid: Grid) -> pa.RecordBatch:
    """Rows of the layer centerline, the branches of each crack in turn."""
    ids = crack_ids(grid, cracks["top"].to_numpy(), cracks["left"].to_numpy())
    counts = pc.list_value_length(cracks["branches"]).to_numpy()
    branches = cracks["branches"].combine_chunks().flatten()
    owner = np.repeat(np.arange(len(ids)), counts)
    numbers = pa.array(np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner])
    owners = pa.array(ids, pa.string()).take(pa.array(owner))
    lines = shapely.from_wkb(branches.field("line").to_numpy(zero_copy_only=False))
    columns: dict[str, Any] = {
        "centerline_id": _numbered(owners, "-", numbers),
        "crack_id": owners,
        "length_m": branches.field("length_m"),
        "width_mean_mm": MM * branches.field("width_mean_m").to_numpy(),
        "width_max_mm": MM * branches.field("width_max_m").to_numpy(),
        "from_node": _numbered(owners, "-n", branches.field("from_node")),
        "to_node": _numbered(owners, "-n", branches.field("to_node")),
        "geom": shapely.to_wkb(shapely.transform(lines, grid.to_world)),
    }
    return _batch(CENTERLINE, columns)


def _numbered(owners: pa.Array, sign: str, numbers: pa.Array) -> pa.Array:
    """Owner, sign and number in one text."""
    return pc.binary_join_element_wise(owners, numbers.cast(pa.string()), sign)


def _number_or_null(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_numpy(), pa.float64(), from_pandas=True)  # nan becomes null


def _batch(layer: Layer, columns: dict[str, Any]) -> pa.RecordBatch:
    schema = layer.arrow()
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
