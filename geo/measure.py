"""Centerlines and pixel count of a crack -> its measures in meters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import MultiPolygon, Polygon
from skimage.measure import label

from geo.centerline import Branch, CenterlineOptions, centerlines
from geo.grid import Grid, Window
from geo.measure_paths import is_path, measure_paths
from geo.measures import P95, MeasuredBranch, Measures, orientations, width_profiles
from geo.polygon_pixels import burned
from geo.skeleton import skeletons, thinned

FloatArray = NDArray[np.float64]

PINHOLE_PX = 8
"""Holes up to this size carry no centerline around them (an island needs a hole of 9 pixels)."""

WHOLE_PX = 50_000_000
"""Largest bounding box of a crack that is measured in one piece."""

CELL_PX = 4096
"""Side of the cells in which larger ones are measured."""


def measure(
    branches: Sequence[Branch], n_pixels: int, grid: Grid, *, n_graphs: int = 1
) -> Measures:
    """Measure a crack from its centerlines and its number of pixels.

    The mean width is area / length, which is right to .03 pixels. The distance transform knows
    the width only up to a constant that depends on the angle (up to .7 pixels), so it gives the
    differences along the crack and area / length gives the level.

    Args:
        branches: at least one.
        n_pixels: of the crack.
        grid: the pixels' size and shape.
        n_graphs: number of unconnected graphs that the branches form.
    """
    length_m = sum(branch.length_m for branch in branches)
    profiles = [width_profiles(branch.reach_m[None])[0] for branch in branches]
    means = [float(profile.mean()) for profile in profiles]
    weighted = sum(b.length_m * mean for b, mean in zip(branches, means, strict=True)) / length_m
    level = n_pixels * grid.pixel_area_m2 / length_m - weighted
    least = min(grid.pixel_m) / 2
    widths = [np.maximum(profile + level, least) for profile in profiles]
    every = np.concatenate(widths)
    return Measures(
        length_m=length_m,
        width_p95_m=float(np.percentile(every, P95)),
        width_max_m=float(every.max()),
        orientation_deg=_orientation(branches, grid),
        tortuosity=_tortuosity(branches, grid),
        loops=_loops(branches, n_graphs),
        branches=tuple(
            MeasuredBranch(
                line=branch.line,
                length_m=branch.length_m,
                width_mean_m=float(width.mean()),
                width_max_m=float(width.max()),
                from_node=branch.from_node,
                to_node=branch.to_node,
            )
            for branch, width in zip(branches, widths, strict=True)
        ),
    )


def measure_components(
    labels: NDArray[np.int32],
    polygons: dict[int, MultiPolygon],
    n_pixels: NDArray[np.int64],
    window: Window,
    grid: Grid,
) -> dict[int, Measures]:
    """Measure every component of a label image.

    Args:
        labels: (H, W) int32, 0 = background or not to be measured.
        polygons: canonical polygon of each label in mosaic pixel coordinates.
        n_pixels: pixels of each label.
        window: the place of the array in the mosaic.
        grid: of the mosaic.
    """
    corner = np.array([window.col_off, window.row_off])
    thin = thinned(_without_pinholes(labels, polygons, window))
    simple = is_path(thin)
    measured = measure_paths(thin, simple, n_pixels, corner, grid)
    for index in np.flatnonzero(~simple).tolist():
        skeleton, number = thin.skeleton(index), int(thin.names[index])
        found = centerlines(skeleton, grid, CenterlineOptions())
        result = measure(found, int(n_pixels[number]), grid)
        measured[number] = _moved(result, corner + skeleton.corner[::-1])
    return measured


def measure_polygon(
    geometry: MultiPolygon, n_pixels: int, grid: Grid, *, max_px: int = WHOLE_PX
) -> Measures:
    """Measure a crack from its polygon; the same as from its pixels, wherever they came from.

    A crack whose bounding box has more than ``max_px`` pixels is measured in the fixed cells of
    the mosaic's lattice (its centerlines end at their sides), so that memory stays bounded and the
    result still does not depend on how the area was cut.
    """
    left, top, right, bottom = geometry.bounds
    if (right - left) * (bottom - top) > max_px:
        return _measure_in_cells(geometry, n_pixels, grid)
    marked, window = burned(geometry)
    counts = np.array([0, n_pixels])
    return measure_components(marked.astype(np.int32), {1: geometry}, counts, window, grid)[1]


def _measure_in_cells(geometry: MultiPolygon, n_pixels: int, grid: Grid) -> Measures:
    branches: list[Branch] = []
    n_graphs = n_nodes = 0
    for part in _cells(geometry):
        marked, window = burned(part)
        labels = label(marked, connectivity=2).astype(np.int32)  # type: ignore[no-untyped-call]
        for _, skeleton in skeletons(labels):
            corner = skeleton.corner[::-1] + np.array([window.col_off, window.row_off])
            found = centerlines(skeleton, grid, CenterlineOptions())
            branches += [
                replace(
                    branch,
                    line=branch.line + corner,
                    from_node=branch.from_node + n_nodes,
                    to_node=branch.to_node + n_nodes,
                )
                for branch in found
            ]
            n_nodes += 1 + max(max(b.from_node, b.to_node) for b in found)
            n_graphs += 1
    return measure(branches, n_pixels, grid, n_graphs=n_graphs)


def _cells(geometry: MultiPolygon) -> Iterator[shapely.Geometry]:
    """What of a crack lies in each cell, cell by cell, from the top left."""
    left, top, right, bottom = (int(value) for value in geometry.bounds)
    for row in range(top // CELL_PX, -(-bottom // CELL_PX)):
        band = shapely.box(left, row * CELL_PX, right, (row + 1) * CELL_PX)
        in_band = shapely.intersection(geometry, band)
        for col in range(left // CELL_PX, -(-right // CELL_PX)):
            cell = shapely.box(
                col * CELL_PX, row * CELL_PX, (col + 1) * CELL_PX, (row + 1) * CELL_PX
            )
            part = shapely.intersection(in_band, cell)
            if part.area > 0:
                yield part


def _without_pinholes(
    labels: NDArray[np.int32], polygons: dict[int, MultiPolygon], window: Window
) -> NDArray[np.int32]:
    """Close the small holes of the components."""
    outlines = np.array(list(polygons.values()), dtype=object)
    parts, owner = shapely.get_parts(outlines, return_index=True)
    pierced = shapely.get_num_interior_rings(parts) > 0
    numbers = np.array(list(polygons), dtype=np.int64)[owner[pierced]]
    holes = [
        (Polygon(ring), number)
        for part, number in zip(parts[pierced], numbers.tolist(), strict=True)
        for ring in part.interiors
        if Polygon(ring).area <= PINHOLE_PX
    ]
    if not holes:
        return labels
    closed = labels.copy()
    rasterize(holes, out=closed, transform=Affine.translation(window.col_off, window.row_off))
    return closed


def _moved(measures: Measures, corner: NDArray[np.int64]) -> Measures:
    branches = tuple(replace(b, line=b.line + corner) for b in measures.branches)
    return replace(measures, branches=branches)


def _orientation(branches: Sequence[Branch], grid: Grid) -> float:
    steps = np.concatenate([np.diff(grid.to_meters(branch.line), axis=0) for branch in branches])
    return float(orientations(steps, np.zeros(len(steps), np.int64), 1)[0])


def _tortuosity(branches: Sequence[Branch], grid: Grid) -> float:
    length = chord = 0.0
    for branch in branches:
        if branch.from_node != branch.to_node:
            ends = grid.to_meters(branch.line[[0, -1]])
            length += branch.length_m
            chord += float(np.hypot(*(ends[1] - ends[0])))
    return length / chord if chord > 0 else math.nan


def _loops(branches: Sequence[Branch], n_graphs: int) -> int:
    """Independent cycles of graphs: branches - nodes + graphs."""
    nodes = {node for branch in branches for node in (branch.from_node, branch.to_node)}
    return len(branches) - len(nodes) + n_graphs
