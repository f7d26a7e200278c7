"""A probability array -> whole, measured cracks, as a table or as a map.

For arrays that fit into memory, without tiles, blocks and a work folder; the cracks are those that
a job over tiles finds in the same pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geo.addresses import address_in
from geo.cracks.collect import BranchCollector
from geo.cracks.light import Picture
from geo.cracks.parts import InspectedRow, write_part
from geo.cracks.piece_table import to_table
from geo.cracks.pieces import Piece, pieces
from geo.errors import InputError, OutputError
from geo.files import folder_of_parts, output_errors
from geo.grid import Grid
from geo.imagery.mosaic import Block
from geo.imagery.placing import false_by, job_crs
from geo.imagery.scale import MOST_ERROR, length_error
from geo.layers.assemble import AssembleReport, assemble
from geo.layers.crack_rows import MapIds, crack_rows
from geo.layers.schema import CRACK, GEOMETRY
from geo.layers.whole_map import find_cracks
from geo.options import AssembleOptions

OF_A_RUN = ("segment_id", "survey_date", "model", "run_id")
"""Columns of the layer crack that mean nothing without roads and a run."""

FORMATS = ("gpkg", "parquet")
"""What a map of an array can be written as."""

CERTAIN = 255
"""The 8-bit probability of 1."""


def polygonize(
    probability: NDArray[np.floating],
    transform: Affine,
    crs: str | CRS,
    threshold: float = 0.5,
    valid: NDArray[np.bool_] | None = None,
    *,
    image: NDArray[np.uint8] | None = None,
    options: AssembleOptions | None = None,
) -> geopandas.GeoDataFrame:
    """Turn crack probabilities into whole cracks with their measures.

    A crack is a chain of centerlines of the pixels at or above the threshold. Its columns are
    those of the layer crack (`geo.layers.schema.CRACK`).

    Args:
        probability: (H, W) in [0, 1] where there is imagery; rounded to 8 bits, as a job does.
        transform: pixel corner (col, row) -> world (x, y).
        crs: a projected system in which lengths are true.
        threshold: smallest probability that is crack.
        valid: (H, W) where there is imagery (True, or not 0); None: everywhere.
        image: (H, W) or (H, W, bands) gray or color, from which widths and severities come; None
            leaves them empty.
        options: limits of links, networks and classes, filters.

    Returns:
        One row per crack outside networks, from west to east.

    Raises:
        InputError: the array or the threshold is no probability, the options are none, or lengths
            cannot be measured in the CRS.

    >>> import numpy as np
    >>> from affine import Affine
    >>> import geo
    >>> probability = np.zeros((100, 100), np.float32)
    >>> probability[50:54, 10:90] = 0.9  # 80 x 4 pixels of 5 mm
    >>> image = np.where(probability > 0, 60, 150).astype(np.uint8)
    >>> place = Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6)
    >>> cracks = geo.polygonize(probability, place, "EPSG:25832", image=image)
    >>> cracks[["length_m", "width_mean_mm", "severity_d6433"]].round(1).values.tolist()
    [[0.4, 19.8, 'medium']]
    """
    chosen = _require_options(options)
    grid, seen = _check(probability, transform, crs, valid, image)
    collector = BranchCollector(grid)
    collector.add(to_table(_pieces(probability, grid, threshold, seen, image)))
    found = find_cracks(collector.branches(), grid, chosen)
    rows = pa.Table.from_batches(crack_rows(found, MapIds.of(found), chosen), CRACK.arrow())
    frame = rows.to_pandas().drop(columns=list(OF_A_RUN))
    geometry = shapely.from_wkb(frame.pop(GEOMETRY).to_numpy())
    return geopandas.GeoDataFrame(frame, geometry=geometry, crs=grid.crs.to_wkt())


def make_map(
    probability: NDArray[np.floating],
    transform: Affine,
    crs: str | CRS,
    out: str | Path,
    *,
    threshold: float = 0.5,
    valid: NDArray[np.bool_] | None = None,
    image: NDArray[np.uint8] | None = None,
    options: AssembleOptions | None = None,
) -> AssembleReport:
    """Write the GeoPackage of crack probabilities: cracks, networks, outlines, roads, styles.

    Args:
        probability: as in `polygonize`, like transform, crs, threshold, valid and image.
        transform: see there.
        crs: see there.
        out: the GeoPackage; its folder is made.
        threshold: see there.
        valid: see there.
        image: see there.
        options: filters, classes, and the roads along which cracks are counted.

    Raises:
        InputError: see there.
        OutputError: the file cannot be written, is not called *.gpkg, or it or a file beside it
            would replace another program's.

    >>> import numpy as np
    >>> from affine import Affine
    >>> import geo
    >>> probability = np.zeros((100, 100), np.float32)
    >>> probability[50:54, 10:90] = 0.9
    >>> transform = Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6)
    >>> report = geo.make_map(probability, transform, "EPSG:25832", "cracks.gpkg")
    >>> report.path.name, report.n_cracks, round(report.length_m, 1)
    ('cracks.gpkg', 1, 0.4)
    """
    if not isinstance(out, str | os.PathLike):
        raise OutputError(f"out is {out!r}; give the path of a file, as text or Path")
    chosen, path = _require_options(options), Path(out)
    if path.suffix.lower() != ".gpkg":
        raise OutputError(f"out is {path}; the file is a GeoPackage, name it *.gpkg")
    if address := address_in(path):
        raise OutputError(f"out is the address {address}; give the path of a file")
    if further := [kind for kind in chosen.formats if kind not in FORMATS]:
        raise InputError(
            f"options.formats has {', '.join(further)}, which only a job over tiles writes; give "
            f"{' and '.join(FORMATS)} at most"
        )
    grid, seen = _check(probability, transform, crs, valid, image)
    found = _pieces(probability, grid, threshold, seen, image)
    row = InspectedRow.of(Block("whole", grid.window), seen, (), grid, seconds=0.0)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_of_parts(path) as folder:
            part = Path(folder) / "whole.parquet"
            write_part(part, found, row)
            return assemble([part], path, grid, chosen)


def _require_options(options: AssembleOptions | None) -> AssembleOptions:
    if not isinstance(options, AssembleOptions | None):
        raise InputError(f"options is {options!r}; give geo.AssembleOptions(...)")
    return options or AssembleOptions()


def _check(
    probability: NDArray[np.floating],
    transform: Affine | Sequence[float],
    crs: str | CRS,
    valid: NDArray[np.bool_] | None,
    image: NDArray[np.uint8] | None,
) -> tuple[Grid, NDArray[np.bool_]]:
    """Return the grid of an array and where there is imagery.

    Raises:
        InputError: the array is no probability, or lengths cannot be measured in the CRS.
    """
    for name, array in (("probability", probability), ("valid", valid), ("image", image)):
        if not isinstance(array, np.ndarray) and (array is not None or name == "probability"):
            raise InputError(f"{name} is of type {type(array).__name__}; give a NumPy array")
        if isinstance(array, np.ma.MaskedArray):
            raise InputError(f"{name} is a masked array; give its data, and valid=~mask")
    if probability.ndim != 2 or not probability.size or probability.dtype.kind not in "bfiu":
        raise InputError(
            f"probability has shape {probability.shape} and type {probability.dtype}; give "
            "(height, width) of floats"
        )
    if valid is not None and (valid.shape != probability.shape or valid.dtype.kind not in "biu"):
        raise InputError(
            f"valid has shape {valid.shape} and type {valid.dtype}; give that of probability, of "
            "bool"
        )
    seen = np.ones(probability.shape, bool) if valid is None else valid != 0
    known = probability if valid is None else probability[seen]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if not 0 <= low <= high <= 1:
        raise InputError(f"probability runs from {low:.9g} to {high:.9g}; give values from 0 to 1")
    if image is not None and (
        image.shape[:2] != seen.shape or image.dtype != np.uint8 or image.ndim > 3 or not image.size
    ):
        raise InputError(
            f"image has shape {image.shape} and type {image.dtype}; give (height, width, bands) of "
            "probability's size as uint8"
        )
    try:
        place = Affine(*tuple(transform)[:6])
    except (TypeError, ValueError) as wrong:
        raise InputError(f"transform={transform!r}; give an Affine, as rasterio does") from wrong
    if not abs(place.determinant) > 0:
        raise InputError(
            f"transform={tuple(place)[:6]} gives pixels without an area; give one as rasterio does"
        )
    grid = Grid(place, job_crs(crs), probability.shape)
    middle = grid.to_world(np.array([[probability.shape[1] / 2, probability.shape[0] / 2]]))
    error = float(length_error(grid.crs, middle)[0])
    if math.isinf(error):
        x, y = middle[0]
        raise InputError(
            f"the array lies at {x:.9g}, {y:.9g}, where crs={crs} is not defined; give a transform "
            "as rasterio does (GDAL has its numbers in another order)"
        )
    if abs(error) > MOST_ERROR:
        raise InputError(
            f"crs={crs} shows lengths {false_by(error)} at this place; warp the array, e.g. to UTM"
        )
    return grid, seen


def _pieces(
    probability: NDArray[np.floating],
    grid: Grid,
    threshold: float,
    seen: NDArray[np.bool_],
    image: NDArray[np.uint8] | None,
) -> list[Piece]:
    """Cut the cracks out of an array whose borders are those of the mosaic.

    Raises:
        InputError: the threshold is no probability.
    """
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold!r}; give a number from 0 to 1")
    rounded = np.rint(CERTAIN * np.where(seen, probability, 0.0)).astype(np.uint8)
    level = max(1, math.ceil(CERTAIN * threshold - 1e-9))
    ring = np.pad(seen, 1, constant_values=False)
    light = None if image is None else Picture.of_bands(image, seen, grid.window)
    return pieces(rounded >= level, rounded, grid.window, grid, ring, light)
