"""map.html: one self-contained page that opens by double click and asks no server."""

from __future__ import annotations

import base64
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import array_bounds
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geo.errors import OutputError
from geo.imagery.overview import Overview
from geo.page.map_data import SCREEN_CRS, MapOptions, bounds_in_degrees, map_data
from geo.page.preview import encoded

IMAGE_QUALITY = 75
"""Of the WebP imagery, percent."""


def write_map(
    package: Path, out: Path, backdrop: Overview | None = None, options: MapOptions | None = None
) -> None:
    """Write map.html from a finished GeoPackage.

    Args:
        package: the GeoPackage.
        out: the page.
        backdrop: reduced imagery for the background; None leaves it out.
        options: bounds of the page.

    Raises:
        OutputError: the page cannot be written.
    """
    chosen = options or MapOptions()
    data = map_data(package, chosen)
    if backdrop is not None:
        data["image"] = _image(backdrop, chosen.max_image_bytes)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page(data), encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise OutputError(f"{out} could not be written ({error}); check the folder") from error


def page(data: dict[str, Any]) -> str:
    """Put the page together; "<" in the data cannot end the script that holds it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    parts = {
        "leaflet.css": re.sub(r"url\(.*?\)", "none", _static("leaflet.css")),
        "map.css": _static("map.css"),
        "data": text.replace("<", "\\u003c"),
        "leaflet.js": _static("leaflet.js"),
        "shapes.js": _static("shapes.js"),
        "map.js": _static("map.js"),
    }
    return re.sub(r"\{\{([\w.]+)\}\}", lambda match: parts[match[1]], _static("map.html"))


def _static(name: str) -> str:
    return files("geo.page").joinpath("static", name).read_text(encoding="utf-8")


def _image(overview: Overview, max_bytes: int) -> dict[str, Any] | None:
    """The imagery brought to the screen's projection, or None if it is too large for a page."""
    rgba = np.dstack((overview.image, overview.valid * np.uint8(255))).transpose(2, 0, 1)
    grid = overview.grid
    rows, cols = grid.shape
    bounds = array_bounds(rows, cols, grid.transform)
    transform, width, height = calculate_default_transform(
        grid.crs, SCREEN_CRS, cols, rows, *bounds
    )
    warped = np.zeros((4, height, width), np.uint8)
    reproject(
        rgba,
        warped,
        src_transform=grid.transform,
        src_crs=grid.crs,
        dst_transform=transform,
        dst_crs=SCREEN_CRS,
        resampling=Resampling.bilinear,
    )
    picture = encoded(warped, "WEBP", QUALITY=IMAGE_QUALITY)
    if len(picture) > max_bytes:
        return None
    url = "data:image/webp;base64," + base64.b64encode(picture).decode("ascii")
    bounds = bounds_in_degrees(SCREEN_CRS, *array_bounds(height, width, transform))
    return {"url": url, "bounds": bounds}
