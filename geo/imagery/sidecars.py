"""What may lie beside a raster and is read: a world file, and a .prj with its coordinate system.

Nothing else is: an .aux.xml, .ovr or .msk can name any file or server, and GDAL would ask it. Where
a place is missing, an .aux.xml is looked through as text, to say that it stands there.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geo.imagery.opening import is_remote

WORLD_VALUES = 6

MOST_BYTES = 2**16
"""Neither file is larger."""

RPC_ENDINGS = ("_RPC.TXT", "_rpc.txt", ".RPB", ".rpb")
"""Of files with rational polynomial coefficients (RPCs)."""

ENCODINGS = ("utf-8-sig", "cp1252")
"""Of .prj files; desktops on Windows write the second one."""


def world_transform(path: Path) -> Affine | None:
    """Read the place of a raster in its world file; None if there is none that holds six numbers.

    Its names for `a.tif` are `a.tfw`, `a.tifw` and `a.wld`, in small or capital letters.
    """
    text = _decode(world_file(path))
    try:
        values = [float(word.replace(",", ".")) for word in (text or "").split()]
    except ValueError:
        return None
    if len(values) != WORLD_VALUES or not all(map(math.isfinite, values)):
        return None
    a, d, b, e, x, y = values  # of the center of the first pixel
    return Affine(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)


def world_file(path: Path) -> Path | None:
    """Return the world file of a raster, if there is one."""
    return _first(path, _world_names(path.name))


def prj_file(path: Path) -> Path | None:
    """Return the .prj of a raster, if there is one."""
    return _first(path, _prj_names(path.name))


def no_crs(path: str) -> str:
    """Say how a raster without a coordinate system gets one."""
    if is_remote(path):
        return "has no coordinate system; set tiles_crs=EPSG:..."
    if prj_file(Path(path)):
        return "has no coordinate system, and its .prj is not understood; set tiles_crs=EPSG:..."
    return _aside(Path(path)) or (
        "has no coordinate system; set tiles_crs=EPSG:..., or add a .prj file"
    )


def no_place(path: str) -> str:
    """Say how a raster without a pixel grid gets one."""
    if is_remote(path):
        return "has no position; add a geotransform"
    return _aside(Path(path)) or "has no position; add a geotransform or a world file"


def names_beside(name: str) -> list[str]:
    """Return the names that the world file and the .prj of a raster may have.

    >>> names_beside("a.tif")[:3], names_beside("a.tif")[-2:]
    (['a.tfw', 'a.TFW', 'a.tifw'], ['a.prj', 'a.PRJ'])
    """
    return _world_names(name) + _prj_names(name)


def crs_beside(path: Path) -> CRS | None:
    """Read the CRS in the .prj of a raster; None if there is none that can be understood."""
    text = _decode(prj_file(path))
    if not text:
        return None
    try:
        return CRS.from_wkt(text)
    except CRSError:
        return None


def _aside(path: Path) -> str | None:
    """Say that the place of a raster stands in its .aux.xml, or as RPCs; None if it does not."""
    name, aux = path.name, path.with_name(f"{path.name}.aux.xml")
    if aux.is_file():
        with aux.open("rb") as stream:
            text = stream.read(MOST_BYTES)
        if b"<GeoTransform" in text or b"<SRS" in text:
            remedy = f"gdal_translate {name} placed.tif"
            return f"has its place in {aux.name}, which is not read; move it in: {remedy}"
    if coefficients := _first(path, [path.stem + ending for ending in RPC_ENDINGS]):
        remedy = f"gdalwarp -rpc -r bilinear {name} placed.tif"
        return f"has coefficients in {coefficients.name}, but no pixel grid; make one: {remedy}"
    return None


def _world_names(name: str) -> list[str]:
    kind = os.path.splitext(name)[1].removeprefix(".")
    return _names(name, (f"{kind[:1]}{kind[-1:]}w", f"{kind}w", "wld"))


def _prj_names(name: str) -> list[str]:
    return _names(name, ("prj",))


def _names(name: str, endings: tuple[str, ...]) -> list[str]:
    stem = os.path.splitext(name)[0]
    spelt = ((ending.lower(), ending.upper(), ending) for ending in endings)
    return [f"{stem}.{ending}" for ways in spelt for ending in dict.fromkeys(ways)]


def _first(path: Path, names: list[str]) -> Path | None:
    """Return the first of some files beside a raster that there is."""
    for file in map(path.with_name, names):
        if file.is_file() and file.stat().st_size <= MOST_BYTES:
            return file
    return None


def _decode(file: Path | None) -> str | None:
    if file is None:
        return None
    content = file.read_bytes()
    for encoding in ENCODINGS:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None
