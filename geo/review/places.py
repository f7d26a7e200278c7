"""The places of a map that a person can judge: squares of a lattice, in strata, and a sample.

A place is marked if the map has a quarter of its side of crack line in it, or its middle lies in a
network. Squares that a crack only grazes belong to neither kind and are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray
from geo.cracks.pixel_set import ramps
from geo.errors import InputError
from geo.grid import Grid
from geo.layers.schema import CRACK, INSPECTED, NETWORK, Layer
from geo.layers.sound_map import has_shape
from geo.paths import literal

LEAST_LINE = 0.25
"""Line in a marked place, in sides."""

STEPS = 16
"""Points per side at which lines are looked at."""

BESIDE = 1e-3
"""Of a side: a square is looked at so far from its middle, which two blocks may share."""

CONFIDENCES = ("low", "middle", "high")
"""Thirds of the marked places by confidence."""

NEAR_CELLS = 2
"""Squares around a marked one where a crack is more often missed than elsewhere: it goes on."""

SMALL = 16
"""Strata with fewer places are put together: a few verdicts say nothing of a class."""

LEAST_DRAWN = 8
"""Places drawn of each stratum."""

SEEN = ("inspected", "partial")

SAME_AXES = 1e-6
"""Difference of axes from those of the world that is rounding: a pixel in a million."""


def axes_of(grid: Grid) -> FloatArray:
    """Return the directions (2, 2) of a grid's columns and, upward, rows: what a square looks like.

    Its columns are x, y in sides of a square; those of north-up pixels are the axes of the world.

    >>> from affine import Affine
    >>> from rasterio.crs import CRS
    >>> axes_of(Grid(Affine(0.5, 0, 100, 0, -0.5, 200), CRS.from_epsg(25832), (8, 8))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    a, b, _, d, e, _ = grid.transform[:6]
    axes = np.array([[a, -b], [d, -e]]) * grid.unit_m / grid.gsd_m
    return np.eye(2) if np.allclose(axes, np.eye(2), atol=SAME_AXES) else axes


@dataclass(frozen=True, eq=False)
class Places:
    """N squares of a map.

    Attributes:
        cell: (N, 2) number of the square along each axis.
        marked: (N,) whether the map has a crack there.
        confidence: (N,) of the crack with most line; nan without.
        kind, severity: (N,) text of that crack, "" without.
        near: (N,) whether a marked one is near.
        side: in units of the CRS.
        crs: of the map.
        axes: (2, 2) of the squares, as `axes_of` gives them.
    """

    cell: IntArray
    marked: NDArray[np.bool_]
    confidence: FloatArray
    kind: NDArray[np.object_]
    severity: NDArray[np.object_]
    near: NDArray[np.bool_]
    side: float
    crs: str
    axes: FloatArray = field(default_factory=lambda: np.eye(2))

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def middle(self) -> FloatArray:
        """(N, 2) x, y of the middles."""
        return (self.cell + 0.5) * self.side @ self.axes.T

    @cached_property
    def strata(self) -> tuple[tuple[str, ...], IntArray]:
        """Names of the strata, and the number of the one of each place (N,).

        Marked places are told by confidence and type, others by how near a crack is.
        """
        third = np.zeros(len(self), np.int64)
        if self.marked.any():
            limits = np.quantile(self.confidence[self.marked], (1 / 3, 2 / 3))
            third[self.marked] = np.digitize(self.confidence[self.marked], limits)
        words = np.array(CONFIDENCES, object)[third]
        fine = words + " confidence, " + self.kind
        names, place, count = np.unique(fine.astype(str), return_inverse=True, return_counts=True)
        coarse = words + " confidence, rare types"
        chosen = np.where(count[place] < SMALL, coarse, names[place].astype(object))
        empty = np.where(self.near, "no crack, near one", "no crack, far from any")
        chosen = np.where(self.marked, chosen, empty).astype(str)
        found, number = np.unique(chosen, return_inverse=True)
        return tuple(map(str, found)), number.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Sample:
    """Places to be judged.

    Attributes:
        index: (K,) numbers of places, in the order in which they are shown.
        stratum: (K,) name.
        sizes: stratum -> its number of places.
    """

    index: IntArray
    stratum: NDArray[np.object_]
    sizes: dict[str, int]


def read_places(package: Path, side_m: float, axes: FloatArray | None = None) -> Places:
    """Divide the inspected ground of a map into places.

    Args:
        package: a map that `geo.layers.sound_map.require_map` does not refuse.
        side_m: of a place.
        axes: (2, 2) of the squares, as `axes_of` gives them; None: those of the world.

    Raises:
        InputError: nothing was inspected.
    """
    cracks = _layer(package, CRACK, ["confidence", "type", "severity_d6433"])
    networks = _layer(package, NETWORK, ["confidence", "kind", "severity_d6433"])
    ground = _layer(package, INSPECTED, ["status"])
    side = side_m / float(ground.crs.axis_info[0].unit_conversion_factor)
    axes = np.eye(2) if axes is None else axes
    cracks, networks, ground = (_along(axes, table) for table in (cracks, networks, ground))
    seen = ground[ground["status"].isin(SEEN) & has_shape(ground)]
    inspected = np.unique(np.concatenate([np.empty(0, np.int64), *_cells_in(seen, side)]))
    if not len(inspected):
        raise InputError(f"{package} holds no ground that was inspected; map its imagery first")
    marks, grazed = _marks(cracks, networks, side)
    own = pd.DataFrame(index=inspected).join(marks)
    marked = own["confidence"].notna().to_numpy()
    kept = marked | ~np.isin(inspected, grazed)
    own, marked, cells = own[kept], marked[kept], inspected[kept]
    return Places(
        cell=_unpack(cells),
        marked=marked,
        confidence=own["confidence"].to_numpy(float),
        kind=own["kind"].fillna("").to_numpy(object),
        severity=own["severity"].fillna("").to_numpy(object),
        near=np.isin(cells, _around(marks.index.to_numpy(np.int64))),
        side=side,
        crs=ground.crs.to_wkt(),
        axes=axes,
    )


def _along(axes: FloatArray, table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return shapes in coordinates along the axes of the squares."""
    if np.array_equal(axes, np.eye(2)):
        return table
    back = np.linalg.inv(axes).T
    shapes = shapely.transform(table.geometry.to_numpy(), lambda places: places @ back)
    return table.set_geometry(geopandas.GeoSeries(shapes, index=table.index, crs=table.crs))


def draw_sample(places: Places, count: int, seed: int) -> Sample:
    """Draw places to be judged: half of them marked, half not, by strata.

    In each stratum every k-th place is taken, from a random one on, along a curve that keeps
    neighbors together: so they are spread over the map. The order of showing is random, so what
    was judged when a person stops is a sample, too.
    """
    rng = np.random.default_rng(seed)
    names, stratum = places.strata
    sizes = dict(zip(names, np.bincount(stratum, minlength=len(names)).tolist(), strict=True))
    chosen: list[IntArray] = []
    for marked in (True, False):
        own = [name for name in sizes if name.startswith("no crack") != marked]
        shares = _shares([sizes[name] for name in own], count // 2, equal=not marked)
        for name, share in zip(own, shares, strict=True):
            members = np.flatnonzero(stratum == names.index(name))
            members = members[np.argsort(_curve(places.cell[members]), kind="stable")]
            steps = (rng.random() + np.arange(share)) * len(members) / max(share, 1)
            chosen.append(members[steps.astype(np.int64)])
    index = rng.permutation(np.concatenate([np.empty(0, np.int64), *chosen]))
    return Sample(index, np.array(names, object)[stratum[index]], sizes)


def _shares(sizes: Sequence[int], count: int, *, equal: bool) -> list[int]:
    """Split a number over strata, alike or by size; none gets more than it has."""
    total = max(sum(sizes), 1)
    wanted = [count / len(sizes) if equal else count * size / total for size in sizes]
    return [
        min(size, max(LEAST_DRAWN, round(part))) for size, part in zip(sizes, wanted, strict=True)
    ]


def _marks(
    cracks: geopandas.GeoDataFrame, networks: geopandas.GeoDataFrame, side: float
) -> tuple[pd.DataFrame, IntArray]:
    """Return the marked squares with their longest crack, and those that are only grazed."""
    cells, owner = _cells_along(cracks, side)
    table = pd.DataFrame({"cell": cells, "owner": owner})
    each = table.groupby(["cell", "owner"]).size().rename("points").reset_index()
    total = each.groupby("cell")["points"].sum()
    longest = each.sort_values(["points", "owner"]).drop_duplicates("cell", keep="last")
    longest = longest.set_index("cell").sort_index()
    enough = longest[(total >= LEAST_LINE * STEPS).loc[longest.index]]
    marks = _about(cracks, enough["owner"], "type")
    areas = [
        _about(networks, pd.Series(row, index=inside), "kind")
        for row, inside in enumerate(_cells_in(networks, side))
    ]
    marks = pd.concat([*areas, marks]) if areas else marks
    marks = marks[~marks.index.duplicated()]
    touched = [total.index.to_numpy(np.int64), *_cells_touched(networks, side)]
    return marks, np.setdiff1d(np.concatenate(touched), marks.index)


def _about(table: geopandas.GeoDataFrame, owner: pd.Series, kind: str) -> pd.DataFrame:
    rows = table.iloc[owner.to_numpy(np.int64)]
    return pd.DataFrame(
        {
            "confidence": rows["confidence"].fillna(0.0).to_numpy(float),
            "kind": rows[kind].fillna("unknown").to_numpy(object),
            "severity": rows["severity_d6433"].fillna("unknown").to_numpy(object),
        },
        index=owner.index,
    )


def _cells_along(lines: geopandas.GeoDataFrame, side: float) -> tuple[IntArray, IntArray]:
    """Return the square (P,) of points along lines, STEPS per side, and their row."""
    parts, row = shapely.get_parts(lines.geometry.to_numpy(), return_index=True)
    length = shapely.length(parts)
    count = np.maximum(np.rint(length * STEPS / side), 1).astype(np.int64)
    part, step = ramps(count)
    along = (step + 0.5) * (length / count)[part]
    points = shapely.get_coordinates(shapely.line_interpolate_point(parts[part], along))
    return _pack(np.floor(points / side).astype(np.int64)), row[part].astype(np.int64)


def _cells_in(areas: geopandas.GeoDataFrame, side: float) -> Iterator[IntArray]:
    """Yield the squares whose middle lies in each area."""
    for shape, cells in _candidates(areas, side):
        yield _pack(cells[shapely.contains_xy(shape, (cells + 0.5 + BESIDE) * side)])


def _cells_touched(areas: geopandas.GeoDataFrame, side: float) -> Iterator[IntArray]:
    for shape, cells in _candidates(areas, side):
        corner = cells * side
        yield _pack(cells[shapely.intersects(shape, shapely.box(*corner.T, *(corner + side).T))])


def _candidates(
    areas: geopandas.GeoDataFrame, side: float
) -> Iterator[tuple[shapely.Geometry, IntArray]]:
    for shape in areas.geometry:
        left, bottom, right, top = np.floor(np.array(shape.bounds) / side).astype(np.int64)
        east, north = np.mgrid[left : right + 1, bottom : top + 1].reshape(2, -1)
        shapely.prepare(shape)
        yield shape, np.column_stack((east, north))


def _around(cells: IntArray) -> IntArray:
    """Return the squares within NEAR_CELLS of any of these."""
    reach = np.arange(-NEAR_CELLS, NEAR_CELLS + 1)
    place = _unpack(cells)
    steps = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2)
    return np.unique(_pack((place[:, None] + steps).reshape(-1, 2)))


_HALF = 1 << 31


def _pack(cell: IntArray) -> IntArray:
    """Return one number per square (N, 2)."""
    return np.asarray((cell[:, 0] << 32) + (cell[:, 1] + _HALF), np.int64)


def _unpack(number: IntArray) -> IntArray:
    return np.column_stack((number >> 32, (number & ((1 << 32) - 1)) - _HALF))


def _curve(cell: IntArray) -> IntArray:
    """Return the place of squares (N, 2) on Morton's curve."""
    low = cell - cell.min(axis=0) if len(cell) else cell
    result = np.zeros(len(cell), np.int64)
    for bit in range(24):
        for axis in (0, 1):
            result |= ((low[:, axis] >> bit) & 1) << (2 * bit + axis)
    return result


def _layer(package: Path, layer: Layer, columns: list[str]) -> geopandas.GeoDataFrame:
    """Return the rows of a layer that have a shape."""
    table = pyogrio.read_dataframe(literal(package), layer=layer.name, columns=columns)
    return table[has_shape(table)].reset_index(drop=True)
