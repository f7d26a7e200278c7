"""The demo's crack map against the drawn truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from jobs.demo_draw import ORIGIN_M
from jobs.demo_score import (
    PixelCounts,
    Share,
    burn,
    found_length,
    pixel_counts,
    right_length,
)
from wpcrack.synthetic import City, Frame

TOLERANCE_M = 0.02
"""A centerline counts as found, a skeleton as right, within this distance."""

SCORE_HALO_PX = 32
"""Around each tile, so that skeletons do not end at tile borders."""


@dataclass(frozen=True)
class MapScore:
    """Agreement of the map with the truth."""

    pixel_iou: float
    f1: float
    recall_2cm: float
    """Share of the length of true centerlines within 2 cm of a predicted polygon; cracks of at
    least one pixel mean width."""
    precision_2cm: float
    """Share of the length of the predicted skeleton within 2 cm of a true crack of any width."""
    recall_2cm_thin: float
    """recall_2cm of the cracks thinner than one pixel on average."""
    true_m: float
    """Length of the true centerlines of at least one pixel mean width."""
    thin_m: float
    predicted_m: float
    """Length of the predicted skeleton."""
    cracks: int
    """Predicted cracks."""


def score_map(geopackage: Path, city: City) -> MapScore:
    """Compare the layer `crack` of a GeoPackage with the city's truth."""
    world = geopandas.read_file(geopackage, layer="crack").geometry.to_numpy()
    polygons = shapely.transform(world, lambda xy: _to_plane(xy, city.gsd_m))
    tolerance_px = TOLERANCE_M / city.gsd_m
    found = found_length([crack.points_px for crack in city.cracks], polygons, tolerance_px)
    wide = [float(np.mean(crack.width_px)) >= 1.0 for crack in city.cracks]
    recall = sum((s for s, w in zip(found, wide, strict=True) if w), Share(0, 0))
    thin = sum((s for s, w in zip(found, wide, strict=True) if not w), Share(0, 0))
    counts, right = _score_pixels(polygons, city, tolerance_px)
    return MapScore(
        pixel_iou=round(counts.iou, 4),
        f1=round(counts.f1, 4),
        recall_2cm=round(recall.value, 4),
        precision_2cm=round(right.value, 4),
        recall_2cm_thin=round(thin.value, 4),
        true_m=round(recall.whole * city.gsd_m, 2),
        thin_m=round(thin.whole * city.gsd_m, 2),
        predicted_m=round(right.whole * city.gsd_m, 2),
        cracks=len(polygons),
    )


def _score_pixels(
    polygons: npt.NDArray[np.object_], city: City, tolerance_px: float
) -> tuple[PixelCounts, Share]:
    """Pixel counts and right length, tile by tile."""
    tree = shapely.STRtree(polygons)
    counts, right = PixelCounts(), Share(0, 0)
    size = city.config.tile_px
    inner = slice(SCORE_HALO_PX, SCORE_HALO_PX + size)
    for row, col in city.places:
        tile = Frame(row * size, col * size, size, size)
        frame = tile.grown(SCORE_HALO_PX)
        area = shapely.box(
            frame.col_off,
            frame.row_off,
            frame.col_off + frame.width,
            frame.row_off + frame.height,
        )
        near = tree.geometries[tree.query(area, predicate="intersects")]
        predicted = burn(near, frame.row_off, frame.col_off, (frame.height, frame.width))
        true = city.mask(frame)
        core = (inner, inner)
        counts += pixel_counts(predicted[core], true[core], city.valid(tile))
        right += right_length(predicted, true, tolerance_px, core)
    return counts, right


def _to_plane(world: npt.NDArray[np.float64], gsd_m: float) -> npt.NDArray[np.float64]:
    """Easting, northing (N, 2) to plane pixels x, y."""
    east, north = ORIGIN_M
    return np.stack([(world[:, 0] - east) / gsd_m, (north - world[:, 1]) / gsd_m], axis=1)
