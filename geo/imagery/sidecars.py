"""What may lie beside a raster and is read: a world file, and a .prj with its coordinate system.

Nothing else is: an .aux.xml, .ovr or .msk can name any file or server, and GDAL would ask it.
"""

from __future__ import annotations

import math
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

WORLD_VALUES = 6

MOST_BYTES = 2**16
"""Neither file is larger."""

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
    kind = path.suffix.removeprefix(".")
    return _beside(path, (f"{kind[:1]}{kind[-1:]}w", f"{kind}w", "wld"))


def prj_file(path: Path) -> Path | None:
    """Return the .prj of a raster, if there is one."""
    return _beside(path, ("prj",))


def crs_beside(path: Path) -> CRS | None:
    """Read the CRS in the .prj of a raster; None if there is none that can be understood."""
    text = _decode(prj_file(path))
    if not text:
        return None
    try:
        return CRS.from_wkt(text)
    except CRSError:
        return None


def _beside(path: Path, endings: tuple[str, ...]) -> Path | None:
    """Return the first file of the same stem that there is."""
    for ending in endings:
        for name in dict.fromkeys((ending.lower(), ending.upper(), ending)):
            file = path.with_suffix(f".{name}")
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
