"""Writing a GeoPackage: one writer, streamed layers, checks, and publication in one step."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS

from geo.errors import OutputError
from geo.schema import GEOMETRY, Layer

GPKG_VERSION = "1.3"
"""Later versions make older desktops warn."""


@dataclass(frozen=True)
class LayerData:
    """A layer to write: its batches (in the layer's Arrow schema) and the rows to expect.

    ``count`` is asked after the batches are used up.
    """

    layer: Layer
    batches: Iterator[pa.RecordBatch]
    count: Callable[[], int]


def publish(out: Path, crs: CRS, layers: Sequence[LayerData], metadata: Mapping[str, str]) -> None:
    """Write layers to a temporary file beside ``out``, check it, and put it in place.

    An existing ``out`` is untouched until the new file is complete, whatever happens.

    Raises:
        OutputError: the folder or the disk does not take the file, or the checks fail.
    """
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp.gpkg")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        for data in layers:
            _write_layer(temporary, data, crs, metadata)
        _check(temporary, {data.layer.name: data.count() for data in layers})
        _sync(temporary)
        os.replace(temporary, out)
        _sync(out.parent)
    except (
        DataLayerError, DataSourceError, FeatureError, GeometryError, OSError, sqlite3.Error
    ) as error:  # fmt: skip
        raise OutputError(
            f"{out} could not be written ({error}); check the folder and the free space, "
            "what was there before is unchanged"
        ) from error
    finally:
        _remove(temporary)


def _write_layer(path: Path, data: LayerData, crs: CRS, metadata: Mapping[str, str]) -> None:
    source = _Source(data.batches)
    authority = crs.to_authority()
    new: dict[str, Any] = {} if path.exists() else {"dataset_options": {"VERSION": GPKG_VERSION}}
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(data.layer.arrow(), source),
            path,
            layer=data.layer.name,
            driver="GPKG",
            geometry_name=GEOMETRY,
            geometry_type=data.layer.geometry,
            crs=":".join(authority) if authority else crs.to_wkt(),
            layer_options={"GEOMETRY_NAME": GEOMETRY, "DESCRIPTION": data.layer.meaning},
            layer_metadata=dict(metadata),
            **new,
        )
    except RuntimeError as error:
        raise source.error or error from None


class _Source:
    """An iterator that keeps its exception, which the Arrow stream would replace by its own."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except Exception as error:
            self.error = error
            raise


def _check(path: Path, counts: Mapping[str, int]) -> None:
    """Compare a finished file with what was written into it."""
    with closing(sqlite3.connect(path)) as base:
        verdict = base.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise OutputError(f"{path} is damaged after writing ({verdict}); check the disk")
        for layer, expected in counts.items():
            rows = base.execute(f'SELECT count(*), count("{GEOMETRY}") FROM "{layer}"').fetchone()
            stated = base.execute(
                "SELECT feature_count FROM gpkg_ogr_contents WHERE table_name = ?", (layer,)
            ).fetchone()[0]
            indexed = base.execute(f'SELECT count(*) FROM "rtree_{layer}_{GEOMETRY}"').fetchone()[0]
            if not rows[0] == stated == expected or rows[1] != indexed:
                raise OutputError(
                    f"layer {layer} of {path} holds {rows[0]} rows, states {stated}, indexes "
                    f"{indexed} of {rows[1]}, expected {expected}; check the disk"
                )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.with_name(path.name + suffix).unlink()
