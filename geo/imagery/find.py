"""The rasters of a job, found and checked without reading their pixels.

A ``tiles=`` value is a folder, a glob, files, URLs, lists of them, or tile indices: vector files
whose rows name a raster and outline where it lies. An index lets a job be planned without opening
its rasters: 100 000 of them in seconds.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS

from geo import archives
from geo.addresses import meant_by, without_secrets
from geo.archives import is_packed
from geo.errors import InputError, reason_of
from geo.imagery.headers import ListedTile, Tile, TileProblem, inspect
from geo.imagery.opening import gdal_settings, is_remote, stamp_of, url_of
from geo.imagery.sidecars import names_beside
from geo.imagery.stac import read_stac
from geo.options import ReadOptions
from geo.processes import processors, spread
from geo.vectors import Features, chosen_column, read_features

NAMED_REASONS = 3
"""Problems that an error about a whole set of tiles spells out."""

CHUNK = 500
"""Headers that a process reads at a time; fewer files than two chunks are read in this one."""

REQUESTS_AT_ONCE = 16
"""Servers answer late, not slowly: headers of this many URLs are asked for together."""

TILE_SUFFIXES = frozenset(
    {".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".j2c", ".jpc", ".png", ".jpg", ".jpeg", ".jfif"}
)
"""Files of a folder that are taken for tiles (whether they are is decided by their content)."""

FOREIGN_SUFFIXES = frozenset(
    {".vrt", ".gti", ".img", ".ecw", ".sid", ".asc", ".bil", ".hdf", ".nc", ".zarr", ".mbtiles"}
    | {".heic", ".heif", ".avif", ".dng", ".webp", ".bmp", ".ntf", ".nitf", ".ers", ".pix"}
)
"""Rasters of a folder that are never opened, but reported, so that none is missed unsaid."""

LIST_SUFFIXES = frozenset({".txt", ".lst"})

GLOB_CHARACTERS = frozenset("*?[")

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
"""How any address begins, also of a kind that is not read."""

FOREIGN_ADDRESS = (
    "an address of a kind that is not read (those that begin with https:// or s3:// are); "
    "download it"
)

FOLDERS = 16
"""Folders whose names are kept; tiles of an index come in the order of their paths."""

INDEX_SUFFIXES = frozenset(
    {".gpkg", ".parquet", ".geoparquet", ".fgb", ".geojson", ".json", ".shp"}
)

STAC_SUFFIXES = frozenset({".json", ".geojson", ".parquet", ".geoparquet"})

LON_LAT = CRS.from_epsg(4326)
"""Of all footprints in STAC."""

PATH_COLUMNS = ("location", "path", "filepath", "filename", "file", "href", "url", "uri")
"""Names of the column with the raster, the first one found counts; gdaltindex calls it location."""

NAMED_COLUMNS = 8
"""Columns that an error lists."""


class ForeignAddress(InputError):
    """A tile on a server of a kind that is not asked; the message does not name the list."""


@dataclass(frozen=True)
class Scan:
    """What was found under a ``tiles=`` value, in byte order of the paths."""

    tiles: tuple[Tile, ...]
    problems: tuple[TileProblem, ...]
    listed: tuple[ListedTile, ...] = ()


def scan(tiles: str | Sequence[str], options: ReadOptions | None = None) -> Scan:
    """Find and check rasters; a file that cannot be used is a problem, not an exception.

    Those of a tile index are not opened: whether they can be used is known when they are read.

    Args:
        tiles: see `find_tiles`.
        options: how patiently headers are read.

    Raises:
        InputError: nothing was found, or none of it can be used.
    """
    tiles = meant_by(tiles) if isinstance(tiles, str) else [meant_by(name) for name in tiles]
    listing = find_tiles(tiles)
    described = inspect_all(listing.paths, options or ReadOptions())
    checked = [*described, *_with_stamps(listing.indexed)]
    found = Scan(
        tuple(item for item in checked if isinstance(item, Tile)),
        tuple(item for item in checked if isinstance(item, TileProblem)),
        tuple(item for item in checked if isinstance(item, ListedTile)),
    )
    if not found.tiles and not found.listed:
        raise InputError(without_secrets(f"no usable tile in {tiles}: {summary(found.problems)}"))
    return found


def inspect_all(paths: Sequence[str], options: ReadOptions) -> list[Tile | TileProblem]:
    """Describe rasters as `inspect` does: many files with all processors, URLs side by side."""
    read = partial(_inspect_chunk, options=options)
    urls = [[path] for path in paths if is_remote(path)]
    files = [path for path in paths if not is_remote(path)]
    chunks = [files[first : first + CHUNK] for first in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        found = list(threads.map(read, urls))
    if len(chunks) < 2:
        found += map(read, chunks)
    else:
        found += spread(read, chunks, processors(), "forkserver")
    in_order = [path for (path,) in urls] + files
    by_path = dict(zip(in_order, _share_crs(chain.from_iterable(found)), strict=True))
    return [by_path[path] for path in paths]


def summary(problems: Sequence[TileProblem]) -> str:
    """Spell out the first problems in one sentence and count the rest."""
    named = "; ".join(f"{p.path} {p.reason}" for p in problems[:NAMED_REASONS])
    rest = len(problems) - NAMED_REASONS
    return f"{named}; and {rest} more" if rest > 0 else named


def _inspect_chunk(paths: Sequence[str], options: ReadOptions) -> list[Tile | TileProblem]:
    with gdal_settings(options):
        return _share_crs([inspect(path, options) for path in paths])


def _share_crs(found: Iterable[Tile | TileProblem]) -> list[Tile | TileProblem]:
    """Make equal systems one object: quick to compare, and sent between processes once."""
    by_text: dict[str, CRS] = {}
    return [
        replace(item, crs=_first_equal(item.crs, by_text)) if isinstance(item, Tile) else item
        for item in found
    ]


def _first_equal(crs: CRS, by_text: dict[str, CRS]) -> CRS:
    text = crs.to_wkt()
    if text not in by_text:
        by_text[text] = next((known for known in by_text.values() if known == crs), crs)
    return by_text[text]


def _with_stamps(tiles: Iterable[ListedTile]) -> Iterator[ListedTile | TileProblem]:
    """Note size and time of tiles that an index names, as far as they are there."""
    names_in = lru_cache(FOLDERS)(_names_in)
    for tile in tiles:
        try:
            size, time_ns = stamp_of(tile.path)
            if not is_remote(tile.path):
                folder, name = os.path.split(tile.path)
                beside = names_in(folder).intersection(names_beside(name))
                times = [os.stat(os.path.join(folder, one)).st_mtime_ns for one in beside]
                time_ns = max([time_ns, *times])
            yield replace(tile, stamp=(size, time_ns))
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            reason = (
                f"is in the index, but cannot be found ({reason_of(error)}); write the index again"
            )
            yield TileProblem(tile.path, reason, tile.footprint, tile.crs)


def _names_in(folder: str) -> frozenset[str]:
    """List a folder, which is quicker than to ask for each file that may lie beside a tile."""
    with suppress(OSError):
        return frozenset(os.listdir(folder))
    return frozenset()


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
    given = [meant_by(str(value)) for value in ([tiles] if isinstance(tiles, str) else tiles)]
    values = [value if is_remote(value) else os.path.expanduser(value) for value in given]
    if not values or "" in values:  # which would be the working folder
        raise InputError("no tiles given; set tiles= to a folder, a glob, a raster or a list")
    indices = [value for value in values if _is_index(value)]
    placed = {tile.path: tile for value in indices for tile in read_index(Path(value))}
    paths = {path for value in values if not _is_index(value) for path in _expand(value)}
    listed = (placed[path] for path in _in_byte_order(placed.keys() - paths))
    return Listing(tuple(_in_byte_order(paths)), tuple(listed))


def _in_byte_order(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=os.fsencode)


def _is_index(value: str) -> bool:
    suffix = os.path.splitext(value)[1].lower()
    return suffix in INDEX_SUFFIXES and not is_remote(value) and os.path.isfile(value)


def _expand(value: str) -> Iterable[str]:
    if is_remote(value):
        return [_raster_url(value)]
    path = Path(value)
    if path.is_dir():
        files = _in_folder(path)
        if not files and (archive := next(path.rglob("*.zip"), None)):
            raise InputError(f"no raster in the folder {value}, but {archive.name}; unpack it")
        return _some(files, f"no raster (.tif .jp2 .png .jpg) in the folder {value}")
    if path.exists():
        return _in_list(path) if path.suffix.lower() in LIST_SUFFIXES else [os.path.abspath(path)]
    if GLOB_CHARACTERS & set(value) and not ADDRESS.match(value):
        matches = glob.iglob(str(path), recursive=True)
        files = [os.path.abspath(match) for match in matches if not os.path.isdir(match)]
        return _some(files, f"no file matches {value}")
    if ADDRESS.match(value):
        raise InputError(f"tiles={value} is {FOREIGN_ADDRESS}, and give the folder")
    raise InputError(f"tiles={value} does not exist; give a folder, a glob, a raster or a list")


def _raster_url(url: str) -> str:
    shown = without_secrets(url)
    suffix = os.path.splitext(shown)[1].lower()
    if suffix in LIST_SUFFIXES | INDEX_SUFFIXES:
        raise InputError(f"tiles={shown} is a list on a server; download it and give the copy")
    if shown.endswith("/") or "*" in shown:
        raise InputError(
            f"tiles={shown} names no single raster, and servers are not asked for lists; write the "
            "addresses into a text file, one a line, and give that"
        )
    return url


def _in_folder(folder: Path) -> list[str]:
    """List the rasters below a folder; a folder that cannot be listed stands for itself."""
    wanted = TILE_SUFFIXES | FOREIGN_SUFFIXES | archives.SUFFIXES
    unlisted: list[OSError] = []
    listed = list(_walk(folder, unlisted))
    files = [
        os.path.abspath(os.path.join(root, name))
        for root, names in listed
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted
    ]
    there = {os.path.basename(place) for place in (*files, *(root for root, _ in listed))}
    there |= {
        os.path.splitext(os.path.basename(file))[0] for file in files if not _is_archive(file)
    }
    files = [f for f in files if not _is_archive(f) or is_packed(f, there, TILE_SUFFIXES)]
    return files + [os.path.abspath(error.filename) for error in unlisted]


def _is_archive(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in archives.SUFFIXES


def _walk(folder: Path, unlisted: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below one with its files, links to folders too, but none twice."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=unlisted.append, followlinks=True):
        status = os.stat(root)
        place = status.st_dev, status.st_ino
        if place in seen:  # a link that leads back, or to a folder that was listed
            folders.clear()
            continue
        seen.add(place)
        shown = (name for name in folders if not name.startswith("."))  # no trash, no snapshots
        folders[:] = sorted(
            shown, key=lambda name: (os.path.islink(os.path.join(root, name)), name)
        )
        yield root, names


def _in_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 list of paths: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    here = os.path.abspath(path.parent)
    try:
        return _some([_locate(here, n) for n in names], f"the list {path} names no file")
    except ForeignAddress as error:
        raise InputError(f"the list {path} {error}") from error


def _some(paths: list[str], complaint: str) -> list[str]:
    if not paths:
        raise InputError(f"{complaint}; check tiles=")
    return paths


def read_index(path: Path) -> tuple[ListedTile, ...]:
    """Read a tile index: a column of paths (relative to the index) or URLs, and footprints.

    Args:
        path: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON or Shapefile; in a file of several layers
            the first one with a column of paths. Or STAC: an ItemCollection, or its GeoParquet.

    Raises:
        InputError: not readable, no column of paths, no CRS, a row without path or footprint.
    """
    try:
        if path.suffix.lower() in STAC_SUFFIXES and (items := read_stac(path)) is not None:
            here = os.path.abspath(path.parent)
            return tuple(
                ListedTile(_locate(here, item.href), item.outline, LON_LAT, valid_only=True)
                for item in items
            )
        features = read_features(path, like=PATH_COLUMNS)
        column = chosen_column(features.names, PATH_COLUMNS)
        if column is None:
            names = ", ".join(features.names[:NAMED_COLUMNS])
            raise InputError(
                f"has no column of raster paths (it has {names}); name the right one "
                f"{', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]}"
            )
        return _list_features(features, features.columns[column])
    except InputError as error:
        raise InputError(f"tiles={path} is not a tile index: it {error}") from error


def _list_features(features: Features, rasters: Sequence[Any]) -> tuple[ListedTile, ...]:
    crs, shapes = features.crs, features.shapes
    if crs is None:
        raise InputError("has no coordinate system; write it again with one")
    if not len(features):
        raise InputError("lists no raster; check tiles=")
    bounds = shapely.bounds(shapes)
    outlined = np.isfinite(bounds).all(axis=1)
    outlined &= (bounds[:, 2:] > bounds[:, :2]).all(axis=1)  # a point is no footprint
    for row, name in enumerate(rasters):
        if not isinstance(name, str) or not name or not outlined[row]:
            raise InputError(f"has no path or no footprint in row {row}; complete or remove it")
    here = os.path.abspath(features.path.parent)
    outlines = shapely.box(*bounds.T)
    return tuple(
        ListedTile(_locate(here, name), outline, crs)
        for name, outline in zip(rasters, outlines, strict=True)
    )


def _locate(folder: str, name: str) -> str:
    """Return the absolute path or the URL that a list or an index in a folder means.

    >>> _locate("/city", "a.tif"), _locate("/city", "file:///data/a%20b.tif")
    ('/city/a.tif', '/data/a b.tif')

    Raises:
        ForeignAddress: It is an address of a kind that is not read.
    """
    name = meant_by(url_of(name))
    if is_remote(name):
        return name
    if ADDRESS.match(name):
        raise ForeignAddress(f"names {without_secrets(name)}, {FOREIGN_ADDRESS}")
    return os.path.abspath(os.path.join(folder, os.path.expanduser(name)))
