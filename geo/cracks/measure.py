"""Centerlines and pixel count of a crack -> its measures in meters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo.cracks.centerline import Branch, CenterlineOptions, centerlines
from geo.cracks.formulas import P95, MeasuredBranch, Measures, orientations, width_profiles
from geo.cracks.measure_paths import is_path, measure_paths
from geo.cracks.outlines import Outlines
from geo.cracks.pixel_set import PixelSet, covered
from geo.cracks.skeleton import thinned
from geo.grid import Grid

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
    pixels: PixelSet, traced: Outlines, chosen: NDArray[np.bool_], grid: Grid
) -> dict[int, Measures]:
    """Measure 8-connected components.

    A crack whose bounding box has more than WHOLE_PX pixels is measured in the fixed cells of the
    mosaic's lattice (its centerlines end at their sides), so that what one of them costs stays
    bounded and the result still does not depend on how the area was cut.

    Args:
        pixels: of all components.
        traced: their outlines.
        chosen: (C,) bool, which components to measure.
        grid: of the mosaic.

    Returns:
        Measures by number of the component.
    """
    owner = pixels.components
    n_pixels = np.bincount(owner, minlength=len(chosen))
    large = chosen & (traced.box_areas() > WHOLE_PX)
    measured = {
        number: _measure_in_cells(pixels.with_keys(pixels.keys[owner == number]), grid)
        for number in np.flatnonzero(large).tolist()
    }
    thin = thinned(*_without_pinholes(pixels, traced, chosen & ~large))
    simple = is_path(thin)
    measured |= measure_paths(thin, simple, n_pixels, grid)
    for index in np.flatnonzero(~simple).tolist():
        skeleton, number = thin.skeleton(index), int(thin.names[index])
        found = centerlines(skeleton, grid, CenterlineOptions())
        result = measure(found, int(n_pixels[number]), grid)
        measured[number] = _moved(result, skeleton.corner[::-1])
    return measured


def _measure_in_cells(crack: PixelSet, grid: Grid) -> Measures:
    branches: list[Branch] = []
    n_graphs = n_nodes = 0
    rows, cols = crack.places()
    cells = np.column_stack((rows // CELL_PX, cols // CELL_PX))
    _, cell_of = np.unique(cells, axis=0, return_inverse=True)
    for cell in range(int(cell_of.max()) + 1):
        part = crack.with_keys(crack.keys[cell_of == cell])
        thin = thinned(part, part.components)
        for index in range(len(thin.names)):
            skeleton = thin.skeleton(index)
            found = centerlines(skeleton, grid, CenterlineOptions())
            branches += [
                replace(
                    branch,
                    line=branch.line + skeleton.corner[::-1],
                    from_node=branch.from_node + n_nodes,
                    to_node=branch.to_node + n_nodes,
                )
                for branch in found
            ]
            n_nodes += 1 + max(max(b.from_node, b.to_node) for b in found)
            n_graphs += 1
    return measure(branches, len(crack), grid, n_graphs=n_graphs)


def _without_pinholes(
    pixels: PixelSet, traced: Outlines, chosen: NDArray[np.bool_]
) -> tuple[PixelSet, NDArray[np.int64]]:
    """The pixels of the chosen components and of their small holes, and their components."""
    owner = pixels.components
    small = traced.is_hole & chosen[traced.owner] & (traced.areas() <= PINHOLE_PX)
    if chosen.all() and not small.any():
        return pixels, owner.astype(np.int64)
    lengths = np.diff(traced.ring_starts)
    starts = np.append(0, np.cumsum(lengths[small]))
    vertices = traced.vertices[np.repeat(small, lengths)]
    holes = covered(vertices, starts, traced.owner[small])
    kept = chosen[owner]
    keys = np.append(pixels.keys[kept], pixels.keys_of(holes.rows, holes.cols))
    order = np.argsort(keys)
    owners = np.concatenate((owner[kept].astype(np.int64), holes.owner))
    return pixels.with_keys(keys[order]), owners[order]


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
