"""Which rasters a ``tiles=`` value means: a folder, a glob, files, URLs, or lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geo.errors import InputError
from geo.opening import is_remote
from geo.tile import ListedTile
from geo.tile_index import INDEX_SUFFIXES, read_index

TILE_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg"})
"""Files of a folder that are taken for tiles (whether they are is decided by their content)."""

FOREIGN_SUFFIXES = frozenset(
    {".vrt", ".gti", ".img", ".ecw", ".sid", ".asc", ".bil", ".hdf", ".nc", ".zarr", ".mbtiles"}
)
"""Rasters of a folder that are never opened, but reported, so that none is missed unsaid."""

LIST_SUFFIXES = frozenset({".txt", ".lst"})
GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class Listing:
    """Rasters by name in byte order, each once: those to be opened, those that an index places."""

    paths: tuple[str, ...]
    indexed: tuple[ListedTile, ...]


def find_tiles(tiles: str | Sequence[str]) -> Listing:
    """List the rasters that a ``tiles=`` value names.

    Args:
        tiles: a folder (searched recursively), glob, raster, URL (https:// or s3://), text list
            (.txt, .lst: one path or URL a line, relative to the list; empty lines and lines with #
            are skipped), tile index (.gpkg, .parquet, ...: see `read_index`), or several of these.

    Returns:
        Absolute paths and URLs; entries of a list are returned even if they do not exist.

    Raises:
        InputError: nothing at all was found under a given value, or an index is unusable.
    """
    values = [tiles] if isinstance(tiles, str) else [str(value) for value in tiles]
    if not values:
        raise InputError("no tiles given; set tiles= to a folder, a glob, a raster or a list")
    indices = [value for value in values if _is_index(value)]
    placed = {tile.path: tile for value in indices for tile in read_index(Path(value).expanduser())}
    paths = {path for value in values if not _is_index(value) for path in _expand(value)}
    listed = (placed[path] for path in _sorted(placed.keys() - paths))
    return Listing(tuple(_sorted(paths)), tuple(listed))


def _sorted(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=os.fsencode)


def _is_index(value: str) -> bool:
    suffix = os.path.splitext(value)[1].lower()
    return suffix in INDEX_SUFFIXES and not is_remote(value) and os.path.isfile(value)


def _expand(value: str) -> Iterable[str]:
    if is_remote(value):
        return [_raster_url(value)]
    path = Path(value).expanduser()
    if path.is_dir():
        return _some(_in_folder(path), f"no raster (.tif .jp2 .png .jpg) in the folder {value}")
    if path.exists():
        return _in_list(path) if path.suffix.lower() in LIST_SUFFIXES else [os.path.abspath(path)]
    if GLOB_CHARACTERS & set(value):
        matches = glob.iglob(str(path), recursive=True)
        files = [os.path.abspath(match) for match in matches if not os.path.isdir(match)]
        return _some(files, f"no file matches {value}")
    raise InputError(f"tiles={value} does not exist; give a folder, a glob, a raster or a list")


def _raster_url(url: str) -> str:
    suffix = os.path.splitext(url)[1].lower()
    if suffix in LIST_SUFFIXES | INDEX_SUFFIXES:
        raise InputError(f"tiles={url} is a list on a server; download it and give the copy")
    return url


def _in_folder(folder: Path) -> list[str]:
    """Rasters below a folder; a folder that cannot be listed stands for itself."""
    wanted = TILE_SUFFIXES | FOREIGN_SUFFIXES
    unlisted: list[OSError] = []
    files = [
        os.path.abspath(os.path.join(root, name))
        for root, _, names in os.walk(folder, onerror=unlisted.append)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted
    ]
    return files + [os.path.abspath(error.filename) for error in unlisted]


def _in_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 list of paths: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    here = os.path.abspath(path.parent)
    files = [n if is_remote(n) else os.path.abspath(os.path.join(here, n)) for n in names]
    return _some(files, f"the list {path} names no file")


def _some(paths: list[str], complaint: str) -> list[str]:
    if not paths:
        raise InputError(f"{complaint}; check tiles=")
    return paths
