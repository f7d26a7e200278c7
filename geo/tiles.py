"""The rasters of a job, found and checked without reading their pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing import get_context

from rasterio.crs import CRS

from geo.errors import InputError, first_line
from geo.headers import inspect
from geo.listing import find_tiles
from geo.opening import ReadOptions, gdal_settings, is_remote, stamp_of
from geo.tile import ListedTile, Tile, TileProblem, crs_name

__all__ = [
    "ListedTile",
    "Scan",
    "Tile",
    "TileProblem",
    "crs_name",
    "inspect",
    "inspect_all",
    "scan",
    "summary",
]

NAMED_REASONS = 3
"""Problems that an error about a whole set of tiles spells out."""

CHUNK = 500
"""Headers that a process reads at a time; fewer files than two chunks are read in this one."""

REQUESTS_AT_ONCE = 16
"""Servers answer late, not slowly: headers of this many URLs are asked for together."""


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
        tiles: see `geo.listing.find_tiles`.
        options: how patiently headers are read.

    Raises:
        InputError: nothing was found, or none of it can be used.
    """
    listing = find_tiles(tiles)
    checked = [*inspect_all(listing.paths, options), *map(_stamped, listing.indexed)]
    found = Scan(
        tuple(item for item in checked if isinstance(item, Tile)),
        tuple(item for item in checked if isinstance(item, TileProblem)),
        tuple(item for item in checked if isinstance(item, ListedTile)),
    )
    if not found.tiles and not found.listed:
        raise InputError(f"no usable tile in {tiles}: {summary(found.problems)}")
    return found


def inspect_all(
    paths: Sequence[str], options: ReadOptions | None = None
) -> list[Tile | TileProblem]:
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
        with ProcessPoolExecutor(os.cpu_count(), get_context("forkserver")) as processes:
            found += processes.map(read, chunks)
    by_path = {item.path: item for item in _sharing_crs(chain.from_iterable(found))}
    return [by_path[path] for path in paths]


def summary(problems: Sequence[TileProblem]) -> str:
    """Spell out the first problems in one sentence and count the rest."""
    named = "; ".join(f"{p.path} {p.reason}" for p in problems[:NAMED_REASONS])
    rest = len(problems) - NAMED_REASONS
    return f"{named}; and {rest} more" if rest > 0 else named


def _inspect_chunk(paths: Sequence[str], options: ReadOptions | None) -> list[Tile | TileProblem]:
    with gdal_settings(options):
        return _sharing_crs([inspect(path, options) for path in paths])


def _stamped(tile: ListedTile) -> ListedTile | TileProblem:
    try:
        return replace(tile, stamp=stamp_of(tile.path))
    except OSError as error:
        reason = (
            f"is in the index, but cannot be found ({first_line(error)}); copy it or list it anew"
        )
        return TileProblem(tile.path, reason, tile.footprint, tile.crs)


def _sharing_crs(found: Iterable[Tile | TileProblem]) -> list[Tile | TileProblem]:
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
