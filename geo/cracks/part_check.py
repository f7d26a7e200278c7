"""Whether the table of a stored part can be what a block wrote; it may have been damaged since."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geo.cracks.single_rings import SingleRings, a_few_at_once
from geo.grid import Window

NULLABLE = frozenset({"strip", "branches", "gsd_m"})
"""Columns that are empty where nothing is known."""

HALO_PX = 2
"""Pixels of neighbors that a piece names."""

MOST_PROBABILITY = 255
"""Of a pixel."""


def check_pieces(table: pa.Table, window: Window) -> None:
    """Refuse a table of pieces (some columns of `piece_table.SCHEMA`) of no possible block.

    Args:
        table: in the types of the schema.
        window: of the block.

    Raises:
        ValueError, pa.ArrowException, shapely.errors.ShapelyError: a column holds something else.
    """
    for name in table.column_names:
        if name not in NULLABLE and table[name].null_count:
            raise ValueError(f"column {name} has gaps")
    rows, cols = (window.row_off, window.height), (window.col_off, window.width)
    ranges: dict[str, tuple[float, float]] = {
        "n_pixels": (1, window.area_px),
        "probability_sum": (0, MOST_PROBABILITY * window.area_px),
        "top": (rows[0], sum(rows) - 1),
        "left": (cols[0], sum(cols) - 1),
        "gsd_m": (sys.float_info.min, sys.float_info.max),
    }
    for name in ranges.keys() & set(table.column_names):
        _require_between(name, table[name].drop_null().to_numpy(), *ranges[name])
    reach = min(rows[0], cols[0]) - HALO_PX, max(sum(rows), sum(cols)) + HALO_PX
    checks = {"geometry": _check_outlines, "seam_pixels": _check_points, "branches": _check_lines}
    for name in checks.keys() & set(table.column_names):
        checks[name](table[name].combine_chunks(), reach)
    if "strip" in table.column_names:
        _check_strips(table["strip"].combine_chunks())


def _require_between(name: str, values: np.ndarray, low: float, high: float) -> None:
    if not bool(np.all((values >= low) & (values <= high))):  # false for what is no number
        raise ValueError(f"column {name} has values that no block has")


def _check_outlines(column: pa.Array, reach: tuple[int, int]) -> None:
    for outlines in a_few_at_once(column):
        rings = SingleRings.of(outlines)
        _require_between("geometry", rings.points, *reach)
        if rings.chosen.all():
            continue
        others = outlines.filter(pa.array(~rings.chosen)).to_numpy(zero_copy_only=False)
        shapes = shapely.from_wkb(np.asarray(others, object))
        if not np.isin(shapely.get_type_id(shapes), (3, 6)).all():
            raise ValueError("column geometry has shapes that are not areas")
        _require_between("geometry", shapely.bounds(shapes), *reach)


def _check_points(column: pa.Array, reach: tuple[int, int]) -> None:
    if (np.asarray(pc.list_value_length(column)) % 2).any():
        raise ValueError("column seam_pixels has half a pixel")
    _require_between("seam_pixels", column.flatten().to_numpy(zero_copy_only=False), *reach)


def _check_lines(column: pa.Array, reach: tuple[int, int]) -> None:
    branches = column.flatten()
    lines = branches.field("line")
    if any(branches.field(k).null_count for k in range(branches.type.num_fields)):
        raise ValueError("column branches has gaps")
    lengths = np.asarray(pc.list_value_length(lines))
    if (lengths % 2).any() or (lengths < 4).any():
        raise ValueError("column branches has half a line")
    _require_between("branches", lines.flatten().to_numpy(zero_copy_only=False), *reach)


def _check_strips(column: pa.Array) -> None:
    known = column.drop_null()
    sides = [known.field(name).to_numpy(zero_copy_only=False) for name in ("height", "width")]
    sizes = np.asarray(pc.binary_length(known.field("gray")).to_numpy(zero_copy_only=False))
    if not np.array_equal(sides[0] * sides[1], sizes) or (np.asarray(sides) < 0).any():
        raise ValueError("column strip has pixels that are not a picture")
