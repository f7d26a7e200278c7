"""Crack maps: imagery as one mosaic, cracks as polygons with measures, layers, pages.

What a program needs is here, loaded when it is asked for:

* `read_tiles`: rasters of any place, CRS and pixel size as one `Mosaic`, read by `Window`.
* `polygonize`: an array of crack probabilities -> a table of whole, measured cracks.
* `make_map`: the same as a styled GeoPackage, with `AssembleOptions` and `RoadOptions`.
* `GeoError`: the base of `InputError` and `OutputError`, which name the file and the remedy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geo.errors import GeoError, InputError, OutputError
    from geo.grid import Grid, Window
    from geo.imagery.mosaic import Mosaic, read_tiles
    from geo.layers.polygonize import make_map, polygonize
    from geo.options import AssembleOptions, RoadOptions

__all__ = [
    "AssembleOptions",
    "GeoError",
    "Grid",
    "InputError",
    "Mosaic",
    "OutputError",
    "RoadOptions",
    "Window",
    "make_map",
    "polygonize",
    "read_tiles",
]

_HOMES = {
    "geo.errors": ("GeoError", "InputError", "OutputError"),
    "geo.grid": ("Grid", "Window"),
    "geo.imagery.mosaic": ("Mosaic", "read_tiles"),
    "geo.layers.polygonize": ("make_map", "polygonize"),
    "geo.options": ("AssembleOptions", "RoadOptions"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
