"""Pieces as an Arrow table, and back.

Geometries are WKB in mosaic pixel corner coordinates, as in the files of `geo.cracks.parts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from geo.cracks.branch_sums import COLUMNS
from geo.cracks.light import Picture
from geo.cracks.pieces import Piece
from geo.grid import Window

SUMS = [pa.field(name, pa.float64()) for name in COLUMNS]

BRANCH = pa.struct(
    [
        pa.field("line", pa.list_(pa.float64())),
        pa.field("from_node", pa.int64()),
        pa.field("to_node", pa.int64()),
        *SUMS,
    ]
)
"""A line is col, row, col, row ...; the sums are those of `geo.cracks.branch_sums`."""

STRIP = pa.struct(
    [
        *(pa.field(f.name, pa.int64()) for f in fields(Window)),
        pa.field("gray", pa.binary()),
    ]
)

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
        pa.field("strip", STRIP),
        pa.field("branches", pa.list_(BRANCH)),
    ]
)

UNMEASURED = tuple(name for name in SCHEMA.names if name != "branches")
"""Columns of a piece at a seam."""


def to_table(pieces: Sequence[Piece]) -> pa.Table:
    """Make a table (`SCHEMA`) of pieces; geometries as WKB in mosaic pixel coordinates."""
    columns: dict[str, Any] = {
        "geometry": shapely.to_wkb(np.array([p.geometry for p in pieces], dtype=object)),
        "n_pixels": [p.n_pixels for p in pieces],
        "probability_sum": [p.probability_sum for p in pieces],
        "top": [p.top for p in pieces],
        "left": [p.left for p in pieces],
        "touches_nodata": [p.touches_nodata for p in pieces],
        "gsd_m": [p.gsd_m for p in pieces],
        "seam_pixels": [p.seam_pixels.ravel() for p in pieces],
        "strip": [None if p.strip is None else _strip(p.strip) for p in pieces],
        "branches": _branches(pieces),
    }
    return pa.table(columns, schema=SCHEMA)


def _strip(picture: Picture) -> dict[str, Any]:
    return asdict(picture.window) | {"gray": picture.gray.tobytes()}


def _branches(pieces: Sequence[Piece]) -> pa.Array:
    """Return one list of branches per piece, null where it is not measured."""
    unknown = pa.array([p.branches is None for p in pieces], pa.bool_())
    groups = [p.branches or () for p in pieces]
    flat = [branch for group in groups for branch in group]
    sums = np.concatenate(
        [np.empty((0, len(COLUMNS))), *(p.sums for p in pieces if p.sums is not None)]
    )
    vertices = np.concatenate([np.empty(0), *(branch.line.ravel() for branch in flat)])
    children = [
        pa.ListArray.from_arrays(_offsets([branch.line.size for branch in flat]), vertices),
        pa.array([branch.from_node for branch in flat], pa.int64()),
        pa.array([branch.to_node for branch in flat], pa.int64()),
        *(pa.array(column) for column in sums.T),
    ]
    values = pa.StructArray.from_arrays(children, fields=list(BRANCH))
    return pa.ListArray.from_arrays(_offsets(map(len, groups)), values, mask=unknown)


def _offsets(lengths: Iterable[int]) -> pa.Array:
    return pa.array(np.cumsum([0, *lengths]).astype(np.int32))


def to_pieces(table: pa.Table) -> list[Piece]:
    """Make unmeasured pieces of a table, to be joined."""
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    columns = ("n_pixels", "probability_sum", "top", "left", "touches_nodata", "gsd_m")
    seams = (np.array(s, np.int64).reshape(-1, 2) for s in table["seam_pixels"].to_pylist())
    strips = (None if s is None else _picture(**s) for s in table["strip"].to_pylist())
    rows = zip(geometry, seams, strips, *(table[name].to_pylist() for name in columns), strict=True)
    return [
        Piece(outline, n, total, top, left, seam, beside, strip=strip, gsd_m=gsd)
        for outline, seam, strip, n, total, top, left, beside, gsd in rows
    ]


def _picture(gray: bytes, **window: int) -> Picture:
    place = Window(**window)
    return Picture(np.frombuffer(gray, np.uint8).reshape(place.height, place.width), place)
