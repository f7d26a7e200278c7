"""Geometries for map.html: whole numbers, each vertex as its step from the one before.

Nested lists of degrees take a browser seconds to read and to project; a flat list of small numbers
in the projection of the screen takes it a few hundredths.
"""

from __future__ import annotations

import geopandas
import numpy as np
import shapely

SCREEN_CRS = "EPSG:3857"
"""What web maps draw in; nothing is measured in it."""

STEPS_PER_M = 1000
"""Units of a meter of the screen's projection: below half a pixel at any zoom of the page."""


def encoded(shapes: geopandas.GeoSeries) -> dict[str, list[int]]:
    """Lines, or the outer rings of polygons, for `geo/static/shapes.js`.

    Args:
        shapes: N (Multi)LineStrings or (Multi)Polygons with a CRS.

    Returns:
        parts: (N,) number of lines of each; points: vertices of each line; steps: x and y of each
        vertex minus those of the one before it, of whatever line, in STEPS_PER_M.

    >>> street = shapely.LineString([(0, 0), (0.002, 0.003)])
    >>> encoded(geopandas.GeoSeries([street], crs=SCREEN_CRS))
    {'parts': [1], 'points': [2], 'steps': [0, 0, 2, 3]}
    """
    screen = shapes.to_crs(SCREEN_CRS).to_numpy()
    parts, owner = shapely.get_parts(screen, return_index=True)
    areas = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts[areas] = shapely.get_exterior_ring(parts[areas])
    vertices, line = shapely.get_coordinates(parts, return_index=True)
    places = np.rint(vertices * STEPS_PER_M).astype(np.int64)
    return {
        "parts": np.bincount(owner, minlength=len(screen)).tolist(),
        "points": np.bincount(line, minlength=len(parts)).tolist(),
        "steps": np.diff(places, axis=0, prepend=0).ravel().tolist(),
    }
