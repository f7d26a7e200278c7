"""Pieces as an Arrow table and back: the form in which they are stored and streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from geo.measures import MeasuredBranch
from geo.polygonize import Piece

BRANCH = pa.struct(
    [
        pa.field("line", pa.binary()),
        pa.field("length_m", pa.float64()),
        pa.field("width_mean_m", pa.float64()),
        pa.field("width_max_m", pa.float64()),
        pa.field("from_node", pa.int64()),
        pa.field("to_node", pa.int64()),
    ]
)

MEASURES = ("length_m", "width_p95_m", "width_max_m", "orientation_deg", "tortuosity", "loops")
"""Columns named like the attributes of `geo.measures.Measures`; null for a piece at a seam."""

SCHEMA = pa.schema(
    [
        pa.field("geometry", pa.binary()),
        pa.field("n_pixels", pa.int64()),
        pa.field("probability_sum", pa.int64()),
        pa.field("top", pa.int64()),
        pa.field("left", pa.int64()),
        pa.field("touches_nodata", pa.bool_()),
        pa.field("gsd_m", pa.float64()),
        pa.field("seam_pixels", pa.list_(pa.int64())),
        *(pa.field(name, pa.float64()) for name in MEASURES),
        pa.field("branches", pa.list_(BRANCH)),
    ]
)


UNMEASURED = tuple(name for name in SCHEMA.names if name not in (*MEASURES, "branches"))
"""Columns of a piece at a seam."""


def to_table(pieces: Sequence[Piece]) -> pa.Table:
    """Columns of `SCHEMA`; geometries as WKB in mosaic pixel coordinates."""
    columns: dict[str, Any] = {
        "geometry": shapely.to_wkb(np.array([p.geometry for p in pieces], dtype=object)),
        "n_pixels": [p.n_pixels for p in pieces],
        "probability_sum": [p.probability_sum for p in pieces],
        "top": [p.top for p in pieces],
        "left": [p.left for p in pieces],
        "touches_nodata": [p.touches_nodata for p in pieces],
        "gsd_m": [p.gsd_m for p in pieces],
        "seam_pixels": [p.seam_pixels.ravel() for p in pieces],
        "branches": _branches(pieces),
    }
    for name in MEASURES:
        columns[name] = [None if p.measures is None else getattr(p.measures, name) for p in pieces]
    return pa.table(columns, schema=SCHEMA)


def to_pieces(table: pa.Table) -> list[Piece]:
    """Unmeasured pieces of a table, to be joined."""
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    columns = ("n_pixels", "probability_sum", "top", "left", "touches_nodata", "gsd_m")
    seams = (np.array(s, np.int64).reshape(-1, 2) for s in table["seam_pixels"].to_pylist())
    rows = zip(geometry, seams, *(table[name].to_pylist() for name in columns), strict=True)
    return [
        Piece(outline, n, total, top, left, seam, ragged, gsd_m=gsd)
        for outline, seam, n, total, top, left, ragged, gsd in rows
    ]


def _branches(pieces: Sequence[Piece]) -> pa.Array:
    """One list of branches per piece, null where it is not measured."""
    known = [p.measures is not None for p in pieces]
    groups = [p.measures.branches if p.measures else () for p in pieces]
    flat: list[MeasuredBranch] = [branch for group in groups for branch in group]
    vertices = np.concatenate([branch.line for branch in flat] or [np.empty((0, 2))])
    counts = np.array([len(branch.line) for branch in flat], dtype=np.int64)
    lines = shapely.linestrings(vertices, indices=np.repeat(np.arange(len(flat)), counts))
    children = [pa.array(shapely.to_wkb(lines), pa.binary())]
    for field in list(BRANCH)[1:]:
        children.append(pa.array([getattr(branch, field.name) for branch in flat], field.type))
    values = pa.StructArray.from_arrays(children, fields=list(BRANCH))
    offsets = np.concatenate(([0], np.cumsum([len(group) for group in groups]))).astype(np.int32)
    unknown = pa.array([not k for k in known], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=unknown)
