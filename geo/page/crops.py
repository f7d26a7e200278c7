"""Crops of the original imagery at full resolution around the worst cracks and networks.

They are cut at the end of a job by the process that draws the map, as only then it is known which
cracks are whole and which of them the worst. Number and bytes are bounded whatever the map's size.
The work folder keeps them, and a map made again finds them by place.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform as warp

from geo.files import write_text
from geo.grid import Grid, Window
from geo.imagery.mosaic import Mosaic
from geo.layers.schema import CRACK, NETWORK
from geo.page.preview import WEBP_METHOD, encode_picture
from geo.paths import literal

DEGREES = "EPSG:4326"

SEAM_DEG = -169.5
"""A page shows what lies west of it beyond 180 degrees, in one piece with Fiji and Chukotka; no
street leads across it."""

CROP_PX = 320
"""Side of a crop: 1.6 m at 5 mm."""

MAX_CROPS = {CRACK.name: 240, NETWORK.name: 60}
"""Crops of each layer: reading them from tiles takes seconds."""

MAX_CROP_BYTES = 6_000_000
"""Of all crops together; what does not fit is left out, the worst come first."""

CROP_QUALITY = 70
"""Of the WebP pictures, percent."""

WORST_FIRST = ("high", "medium", "low")
"""Severities in which cracks are drawn, listed and cropped, any others after them."""


@dataclass(frozen=True)
class Crop:
    """A picture of original pixels: WebP, its corners, and its side on the ground.

    Attributes:
        picture: WebP.
        corners: (4, 2) longitude and latitude, from the top left one clockwise.
        side_m: of the square.
    """

    picture: bytes
    corners: tuple[tuple[float, float], ...]
    side_m: float

    def record(self) -> dict[str, Any]:
        """Return what a page takes."""
        picture = base64.b64encode(self.picture).decode("ascii")
        return {
            "url": f"data:image/webp;base64,{picture}",
            "corners": self.corners,
            "side_m": self.side_m,
        }


def cut_crops(mosaic: Mosaic, package: Path) -> list[Crop]:
    """Cut the imagery around the worst cracks and the largest networks.

    A place inside a crop that is there already gets no further one. Tiles that cannot be read
    leave their crops out.

    Args:
        mosaic: the imagery.
        package: a finished GeoPackage on the grid of the mosaic.
    """
    crops: list[Crop] = []
    done: list[Window] = []
    left = MAX_CROP_BYTES
    for col, row in _places(package, mosaic.grid):
        if any(_is_well_inside(window, col, row) for window in done):
            continue
        window = Window(int(row) - CROP_PX // 2, int(col) - CROP_PX // 2, CROP_PX, CROP_PX)
        done.append(window)
        seen = mosaic.read(window)
        if not seen.valid[CROP_PX // 2, CROP_PX // 2]:
            continue
        image = np.where(seen.valid[..., None], seen.image, np.uint8(255)).transpose(2, 0, 1)
        picture = encode_picture(image, "WEBP", QUALITY=CROP_QUALITY, METHOD=WEBP_METHOD)
        left -= len(picture)
        if left < 0:
            break
        side_m = round(CROP_PX * mosaic.grid.gsd_m, 3)
        crops.append(Crop(picture, _corners(window, mosaic.grid), side_m))
    return crops


def _places(package: Path, grid: Grid) -> Iterable[NDArray[np.float64]]:
    """Yield col, row of the middles of the worst cracks and the largest networks."""
    for layer, by in ((CRACK, "length_m"), (NETWORK, "area_m2")):
        columns = ["severity_d6433", by]
        table = pyogrio.read_dataframe(
            literal(package),
            layer=layer.name,
            columns=columns,
            read_geometry=False,
            fid_as_index=True,
        )
        worst = worst_first(table, by) if layer is CRACK else table.sort_values(by)[::-1]
        fids = list(worst.index[: MAX_CROPS[layer.name]])
        if fids:
            shapes = pyogrio.read_dataframe(
                literal(package), layer=layer.name, columns=[], fids=fids, fid_as_index=True
            )
            yield from grid.to_pixel(middles(shapes.geometry.loc[fids]))


def worst_first(table: Any, by: str) -> Any:
    """Return the rows of a table by severity, then by a column, the largest first."""
    grade = table["severity_d6433"].map({name: k for k, name in enumerate(WORST_FIRST)})
    ranked = table.assign(grade=grade.fillna(len(WORST_FIRST)), place=np.arange(len(table)))
    order = ranked.sort_values(["grade", by, "place"], ascending=[True, False, True]).index
    return table.loc[order]


def middles(shapes: geopandas.GeoSeries) -> NDArray[np.float64]:
    """Return (N, 2) x, y: half way along the first line, or a place inside of an area."""
    first = shapely.get_geometry(shapes.to_numpy(), 0)
    areas = shapely.get_type_id(first) == shapely.GeometryType.POLYGON
    places = np.empty(len(first), object)
    places[areas] = shapely.point_on_surface(first[areas])
    places[~areas] = shapely.line_interpolate_point(first[~areas], 0.5, normalized=True)
    return np.asarray(shapely.get_coordinates(places), np.float64)


def _is_well_inside(window: Window, col: float, row: float) -> bool:
    """Return whether a place lies in the inner half of a window."""
    away = max(abs(col - window.col_off - CROP_PX / 2), abs(row - window.row_off - CROP_PX / 2))
    return away < CROP_PX / 4


def _corners(window: Window, grid: Grid) -> tuple[tuple[float, float], ...]:
    cols = np.array([0, 1, 1, 0]) * window.width + window.col_off
    rows = np.array([0, 0, 1, 1]) * window.height + window.row_off
    x, y = grid.to_world(np.column_stack((cols, rows))).T
    east, north = warp(grid.crs, DEGREES, x, y)
    return tuple((round(beyond_seam(e), 9), round(n, 9)) for e, n in zip(east, north, strict=True))


def beyond_seam(longitude: float) -> float:
    """Return a longitude as a page shows it.

    >>> beyond_seam(-179.75), beyond_seam(9.0)
    (180.25, 9.0)
    """
    return longitude + 360 * (longitude < SEAM_DEG)


def save_crops(path: Path, crops: Iterable[Crop]) -> None:
    """Keep crops in a file, as `read_crops` takes them.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps([crop.record() for crop in crops]) + "\n")


def read_crops(path: Path) -> list[Crop]:
    """Read the crops of a file; none if it is missing or damaged."""
    try:
        return [_crop(record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _crop(record: dict[str, Any]) -> Crop:
    picture = base64.b64decode(record["url"].partition(",")[2], validate=True)
    corners = tuple((float(east), float(north)) for east, north in record["corners"])
    return Crop(picture, corners, float(record["side_m"]))
