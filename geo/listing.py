"""Which files a ``tiles=`` value means: a folder, a glob, one file or a text list of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from geo.errors import InputError

TILE_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg"})
"""Files of a folder that are taken for tiles (whether they are is decided by their content)."""

FOREIGN_SUFFIXES = frozenset(
    {".vrt", ".gti", ".img", ".ecw", ".sid", ".asc", ".bil", ".hdf", ".nc", ".zarr", ".mbtiles"}
)
"""Rasters of a folder that are never opened, but reported, so that none is missed unsaid."""

LIST_SUFFIXES = frozenset({".txt", ".lst"})
GLOB_CHARACTERS = frozenset("*?[")


def find_files(tiles: str | Sequence[str]) -> tuple[Path, ...]:
    """List the files that a ``tiles=`` value names, sorted by path in byte order, each once.

    Args:
        tiles: folder (searched recursively), glob, one raster, a text list (.txt, .lst: one path
            a line, relative to the list; empty lines and lines with # are skipped), or several.

    Returns:
        Absolute paths; entries of a text list are returned even if they do not exist.

    Raises:
        InputError: nothing at all was found under a given value.
    """
    values = [tiles] if isinstance(tiles, str) else list(tiles)
    if not values:
        raise InputError("no tiles given; set tiles= to a folder, a glob, a raster or a text list")
    found = {os.path.abspath(path) for value in values for path in _expand(str(value))}
    return tuple(Path(path) for path in sorted(found, key=os.fsencode))


def _expand(value: str) -> Iterable[Path]:
    path = Path(value).expanduser()
    if path.is_dir():
        return _some(_in_folder(path), f"no raster (.tif .jp2 .png .jpg) in the folder {value}")
    if path.is_file():
        return _in_list(path) if path.suffix.lower() in LIST_SUFFIXES else [path]
    if GLOB_CHARACTERS & set(value):
        matches = (Path(match) for match in glob.iglob(str(path), recursive=True))
        return _some([match for match in matches if match.is_file()], f"no file matches {value}")
    raise InputError(f"tiles={value} does not exist; give a folder, a glob, a raster or a list")


def _in_folder(folder: Path) -> list[Path]:
    wanted = TILE_SUFFIXES | FOREIGN_SUFFIXES
    return [
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted
    ]


def _in_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 list of paths: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return _some([path.parent / name for name in names], f"the list {path} names no file")


def _some(paths: list[Path], complaint: str) -> list[Path]:
    if not paths:
        raise InputError(f"{complaint}; check tiles=")
    return paths
