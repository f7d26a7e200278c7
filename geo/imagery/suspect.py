"""What a sample of tiles shows of imagery that only seems to be there, or only seems to lack."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj.transformer import TransformerGroup
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geo.addresses import without_secrets
from geo.imagery.headers import ListedTile, Tile, crs_name, same_crs
from geo.imagery.missing import THICK_PX
from geo.imagery.mosaic import Mosaic
from geo.imagery.opening import gdal_settings
from geo.imagery.placing import MOST_RESAMPLING, round_gsd, true_gsd_m
from geo.imagery.reading import OpenRaster, open_raster
from geo.imagery.scale import is_metric

SAMPLED_TILES = 16

SAMPLE_PX = 256
"""Side of a reduced alpha band, and length of the edge that is looked at beside each corner."""

ALPHA_VALUES = 16
"""An alpha band has few values (0, 255 and a few at its rims); near infrared has all."""

COLLAR_SHARE = 0.05
"""Share of a tile's edge that a collar takes at least."""


USUAL_SHIFT_M = 1.0
"""PROJ states this much between ETRS89 and any WGS 84; worse is told."""

FAR_M = 100_000.0
FEW = 0.5
"""Tiles that lie further than this from the middle, if so few do, are told."""


def suspicions(mosaic: Mosaic) -> list[str]:
    """Say what the user should know: a fourth band that is no alpha, masks aside, collars ...

    Tiles that cannot be read are passed over: they are reported when they are mapped.
    """
    opened = [tile for tile in mosaic.tiles if isinstance(tile, Tile)]
    count = min(SAMPLED_TILES, len(opened))
    chosen = [opened[i] for i in np.linspace(0, len(opened) - 1, count).round().astype(int)]
    with gdal_settings(mosaic.reading):
        seen = [(tile, mark) for tile in chosen for mark in _marks(tile, mosaic)]
    sentences = []
    for kind in dict.fromkeys(mark for _, mark in seen):
        tiles = [tile for tile, mark in seen if mark == kind]
        example = without_secrets(tiles[0].path)
        sentences.append(f"{len(tiles)} of {count} sampled tiles {kind} (like {example})")
    return sentences + _coarse(opened, mosaic) + _far(mosaic) + _shifts(mosaic)


def _shifts(mosaic: Mosaic) -> list[str]:
    """State how accurately tiles of another datum are brought into the system of the map."""
    systems = {crs_name(tile.crs): tile for tile in mosaic.tiles}
    systems.pop(crs_name(mosaic.grid.crs), None)
    sentences = []
    for name, tile in systems.items():
        error_m = shift_error_m(tile.crs, mosaic.grid.crs)
        if error_m is None or error_m > USUAL_SHIFT_M:
            known = "an unknown accuracy" if error_m is None else f"an accuracy of {error_m:g} m"
            sentences.append(
                f"tiles in {name} are brought to {crs_name(mosaic.grid.crs)} with {known}, as PROJ "
                "has no better shift between their datums at hand; install its grid (projsync)"
                + (f", or map in the system of the tiles (crs={name})" if _is_true(tile) else "")
            )
    return sentences


def _is_true(tile: Tile | ListedTile) -> bool:
    """Return whether a map can be made in the system of a tile, as far as its header tells."""
    return tile.is_true if isinstance(tile, Tile) else is_metric(tile.crs)


@lru_cache(maxsize=64)
def shift_error_m(source: CRS, target: CRS) -> float | None:
    """Return the stated accuracy of the way between two systems; None: PROJ does not know it."""
    if same_crs(source, target):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a better one is not at hand is what we say
        group = TransformerGroup(source.to_wkt(), target.to_wkt(), always_xy=True)
    stated = [one.accuracy for one in group.transformers[:1] if one.accuracy >= 0]
    return float(stated[0]) if stated else None


def _coarse(opened: Sequence[Tile], mosaic: Mosaic) -> list[str]:
    """Name tiles that are drawn larger than imagery may be, such as an overview of all."""
    limit_m = MOST_RESAMPLING * mosaic.grid.gsd_m
    sizes = [(round_gsd(true_gsd_m(tile, mosaic.grid.crs)), tile) for tile in opened]
    coarse = [(size_m, tile) for size_m, tile in sizes if size_m > round_gsd(limit_m)]
    if not coarse:
        return []
    size_m, tile = coarse[0]
    return [
        f"{len(coarse)} of {len(opened)} tiles have pixels of more than {MOST_RESAMPLING:g} x the "
        f"map's {1000 * mosaic.grid.gsd_m:.3g} mm, like {without_secrets(tile.path)} with "
        f"{1000 * size_m:.3g} mm: where no others lie, their ground counts as surveyed, but shows "
        "no cracks; if they are overviews, take them out"
    ]


def _far(mosaic: Mosaic) -> list[str]:
    """Name the few tiles that lie far from all others."""
    middles = np.array(
        [(w.col_off + w.width / 2, w.row_off + w.height / 2) for w in mosaic.windows]
    )
    offsets = (middles - np.median(middles, axis=0)) * mosaic.grid.gsd_m
    far = np.flatnonzero(np.hypot(*offsets.T) > FAR_M)
    if not len(far) or len(far) > FEW * len(middles):
        return []
    example = without_secrets(mosaic.tiles[far[0]].path)
    return [
        f"{len(far)} of {len(middles)} tiles lie more than {FAR_M / 1000:g} km from the others "
        f"(like {example}); if that is wrong, correct their position"
    ]


_NO_ALPHA = (
    "have a fourth band of many values, of which 0 counts as no imagery; "
    "if it is infrared, set band4=ignore"
)


_UNUSED_ALPHA = (
    "have an alpha band besides a nodata value, which alone counts: what alpha hides counts as "
    "surveyed; if it is not imagery, drop the value: gdal_edit.py -unsetnodata TILE"
)

_MASK_ASIDE = (
    "have their mask in a file .msk, which is not read: what it hides counts as surveyed; move it "
    "in: gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES IN.tif OUT.tif"
)


def _marks(tile: Tile, mosaic: Mosaic) -> Iterator[str]:
    """Yield what is to be said of a tile."""
    try:
        raster = open_raster(tile.path, tile.driver, mosaic.reading)
        if raster.has_mask:
            if _has_many_values(raster):
                yield _NO_ALPHA
        elif os.path.isfile(f"{tile.path}.msk"):
            yield _MASK_ASIDE
        elif raster.nodata is not None:
            if mosaic.reading.band4 == "alpha" and _hides_more(raster):
                yield _UNUSED_ALPHA
        elif (value := _collar(raster)) is not None:
            yield (
                f"have edges of exactly {value:g}, which count as surveyed; "
                f"if they are not imagery, set nodata={value:g}"
            )
    except (OSError, RasterioError):
        return


def _has_many_values(raster: OpenRaster) -> bool:
    alpha = _reduced_alpha(raster)
    return alpha is not None and len(np.unique(alpha)) > ALPHA_VALUES


def _hides_more(raster: OpenRaster) -> bool:
    """Return whether an alpha band hides pixels that do not have the nodata value."""
    alpha = _reduced_alpha(raster)
    if alpha is None or len(np.unique(alpha)) > ALPHA_VALUES:
        return False
    with raster.reading() as dataset:
        bands = dataset.read(raster.bands, out_shape=(len(raster.bands), *alpha.shape))
    return bool(((alpha == 0) & (bands != raster.nodata).any(axis=0)).any())


def _reduced_alpha(raster: OpenRaster) -> NDArray[np.generic] | None:
    kinds = list(raster.dataset.colorinterp)
    if ColorInterp.alpha not in kinds:
        return None
    small = tuple(min(side, SAMPLE_PX) for side in raster.shape)
    with raster.reading() as dataset:
        found: NDArray[np.generic] = dataset.read(
            kinds.index(ColorInterp.alpha) + 1, out_shape=small
        )
    return found


def _collar(raster: OpenRaster) -> float | None:
    """Return the darkest or the brightest value if long runs of a tile's edge have it exactly."""
    if raster.palette is not None:
        return None
    edge = list(_edge(raster))
    for value in (0, np.iinfo(raster.dtype).max):
        marked = [np.asarray((part == value).all(axis=1)) for part in edge]
        share = sum(part.sum() for part in marked) / sum(part.size for part in marked)
        if share >= COLLAR_SHARE and max(map(_longest_run, marked)) >= THICK_PX:
            return float(value)
    return None


def _edge(raster: OpenRaster) -> Iterator[NDArray[np.generic]]:
    """Yield (N, bands) pixels of the first and last row, and of the columns near the corners."""
    rows, cols = raster.shape
    part = min(rows, SAMPLE_PX)
    lines = [RasterWindow(0, row, cols, 1) for row in (0, rows - 1)]
    lines += [RasterWindow(col, row, 1, part) for col in (0, cols - 1) for row in (0, rows - part)]
    for line in lines:
        with raster.reading() as dataset:
            pixels = dataset.read(raster.bands, window=line)
        yield pixels.reshape(len(raster.bands), -1).T


def _longest_run(marked: NDArray[np.bool_]) -> int:
    """Return the longest run of True.

    >>> _longest_run(np.array([True, False, True, True]))
    2
    """
    ends = np.flatnonzero(~np.concatenate(([False], marked, [False])))
    return int(np.diff(ends).max() - 1)
