"""A large GeoParquet file as a folder of files by place, which readers open as one table.

Each file holds a square of the web's quadtree of tiles and is named after its quadkey
(https://learn.microsoft.com/bingmaps/articles/bing-maps-tile-system). Squares are cut into four
until none holds more rows than wanted, so that a dense city gets small ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
from numpy.typing import NDArray

from geo.files import folder_of_parts

LEVELS = 20
"""The smallest square has a side of 38 m at the equator."""

NOWHERE = "nowhere"
"""Name of the file of rows without a shape."""

SQUARE = "q{}"
"""Names of the others."""


@contextmanager
def file_or_folder(path: Path, most_rows: int) -> Iterator[Path]:
    """Give a name for a GeoParquet file, which takes its place at the end.

    With more rows than wanted a folder of that name takes it, see `split`. What was there before,
    file or folder, is replaced.

    Args:
        path: of the file; its folder exists.
        most_rows: of a file.
    """
    with folder_of_parts(path) as folder:
        whole, parts = Path(folder) / path.name, Path(folder) / "parts"
        yield whole
        if pq.read_metadata(whole).num_rows > most_rows:
            split(whole, parts, most_rows)
            if path.exists():
                os.replace(path, Path(folder) / "old")
            os.replace(parts, path)
            return
        if path.is_dir():
            os.replace(path, Path(folder) / "old")
        os.replace(whole, path)


def split(source: Path, folder: Path, most_rows: int) -> None:
    """Write the rows of a GeoParquet file with a column `bbox` into a new folder.

    Args:
        source: the file.
        folder: to be made.
        most_rows: of each file; more only where they lie within a square of the last level.
    """
    file = pq.ParquetFile(source)
    about = json.loads(file.metadata.metadata[b"geo"])
    (column,) = about["columns"].values()
    column.pop("bbox", None)  # that of the whole
    schema = file.schema_arrow.with_metadata({"geo": json.dumps(about)})
    to_degrees = pyproj.Transformer.from_crs(
        pyproj.CRS.from_json_dict(column["crs"]), "EPSG:4326", always_xy=True
    )
    groups = range(file.num_row_groups)
    keys = [_keys(file.read_row_group(k, ["bbox"]), to_degrees) for k in groups]
    squares = dict(_squares(np.sort(np.concatenate(keys)), most_rows))
    starts = np.array(list(squares))
    folder.mkdir()
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for k in groups:
            rows = file.read_row_group(k)
            square = starts[np.searchsorted(starts, keys[k], "right") - 1]
            for start in np.unique(square):
                name = squares[start]
                if name not in writers:
                    path = folder / f"{name}.parquet"
                    writer = pq.ParquetWriter(path, schema, compression="zstd")
                    writers[name] = stack.enter_context(writer)
                writers[name].write_table(rows.filter(pa.array(square == start)))


def _keys(rows: pa.Table, to_degrees: pyproj.Transformer) -> NDArray[np.int64]:
    """Return the quadkey of the last level as a number, of the middle of each row; -1: nowhere."""
    box = rows["bbox"].combine_chunks()
    x, y = (
        (
            pc.struct_field(box, f"{axis}min").to_numpy(zero_copy_only=False)
            + pc.struct_field(box, f"{axis}max").to_numpy(zero_copy_only=False)
        )
        / 2
        for axis in "xy"
    )
    known = np.isfinite(x) & np.isfinite(y) & ~np.asarray(pc.is_null(box))
    keys = np.full(len(x), -1)
    keys[known] = quadkeys(*to_degrees.transform(x[known], y[known]))
    return keys


def quadkeys(east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the quadkey of LEVELS digits of places in degrees, read as a number of base 4."""
    sine = np.sin(np.radians(north))
    across = (east + 180) / 360
    down = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    most = 2**LEVELS - 1
    col, row = (np.clip(side * 2**LEVELS, 0, most).astype(np.int64) for side in (across, down))
    bits = np.arange(LEVELS)
    digits = (col[:, None] >> bits & 1) + 2 * (row[:, None] >> bits & 1)
    return np.asarray((digits << 2 * bits).sum(axis=1), np.int64)


def _squares(
    keys: NDArray[np.int64], most_rows: int, square: int = 0, level: int = 0
) -> Iterator[tuple[int, str]]:
    """Yield the first key of each square that holds some of the sorted keys, and its name."""
    if level == 0 and len(keys) and keys[0] < 0:
        yield -1, NOWHERE
        keys = keys[np.searchsorted(keys, 0) :]
    first = square << 2 * (LEVELS - level)
    if not len(keys):
        return
    if len(keys) <= most_rows or level == LEVELS:
        yield first, SQUARE.format(np.base_repr(square, 4).zfill(level) if level else "")
        return
    size = 1 << 2 * (LEVELS - level - 1)
    cuts = np.searchsorted(keys, first + size * np.arange(5))
    for digit, (begin, end) in enumerate(pairwise(cuts)):
        yield from _squares(keys[begin:end], most_rows, 4 * square + digit, level + 1)
