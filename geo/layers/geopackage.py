"""Writing a GeoPackage: one writer, streamed layers, checks, and publication in one step.

GeoParquet 1.1 copies of layers are written while the rows stream into the GeoPackage.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS

from geo import packages
from geo.errors import OutputError
from geo.files import (
    built_locally,
    output_errors,
    remove_leftovers,
    share_as_usual,
    sync,
    whole_file,
)
from geo.layers.partitions import file_or_folder
from geo.layers.qgis import add_project, add_styles
from geo.layers.schema import GEOMETRY, Layer
from geo.layers.style import Style
from geo.outputs import require_replaceable
from geo.paths import literal

GPKG_VERSION = "1.3"
"""Later versions make older desktops warn."""

ROW_GROUP = 20_000
"""Rows that are held and written together."""

BBOX = "bbox"
"""Column of each row's bounds, by which readers skip what lies elsewhere."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class LayerData:
    """A layer to write and its batches, in the layer's Arrow schema."""

    layer: Layer
    batches: Iterator[pa.RecordBatch]


def publish(
    out: Path,
    crs: CRS,
    layers: Sequence[LayerData],
    metadata: Mapping[str, str],
    *,
    looks: Sequence[Style],
    title: str = "Crack map",
    parquet_rows: int = 0,
) -> None:
    """Write layers to a temporary file, check it, and put it in place.

    It lies beside ``out``; if that is on a network, on a local disk first. An existing ``out`` is
    untouched until the new file is complete, whatever happens. One that people have changed is kept
    under another name then (`geo.packages`).

    Args:
        out: the GeoPackage.
        crs: of all layers.
        layers: in the order in which their rows are asked for.
        metadata: kept with each layer.
        looks: of the layers, in the order of a project.
        title: of the project.
        parquet_rows: also write each spatial layer as ``<out stem>_<layer>.parquet``, a file or,
            with more rows than this, a folder (`geo.layers.partitions`); 0: no copies.

    Raises:
        OutputError: the folder or the disk does not take the file, the checks fail, or ``out`` or
            a copy is not ours or open in another program.
    """
    copied = [data.layer for data in layers if parquet_rows and data.layer.is_spatial]
    kinds = (DataLayerError, DataSourceError, FeatureError, GeometryError, sqlite3.Error)
    places = {x.name: out.with_name(f"{out.stem}_{x.name}.parquet") for x in copied}
    require_replaceable([out, *places.values()])
    with output_errors(out, *kinds):
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # left in reverse: the copies appear first
            remove_leftovers(out)
            temporary = stack.enter_context(whole_file(out))
            copies: dict[str, GeoParquetCopy] = {}
            for layer in copied:
                remove_leftovers(places[layer.name])
                beside = stack.enter_context(file_or_folder(places[layer.name], parquet_rows))
                copies[layer.name] = GeoParquetCopy(beside, layer, crs)
            written = [data.layer for data in layers]
            shown = [look for look in looks if look.layer in written]
            with built_locally(temporary) as built:
                for data in layers:
                    if copy := copies.get(data.layer.name):
                        data = LayerData(data.layer, copy.write(data.batches))
                    _check(built, data.layer, _write_layer(built, data, crs, metadata))
                add_styles(built, shown)
                add_project(built, (out.name, title), crs, written, shown)
                packages.seal(built)
                _check_whole(built)
                sync(built)
            share_as_usual(temporary)
            for copy in copies.values():
                copy.check()
            packages.make_way(out)
        sync(out.parent)


def _write_layer(path: Path, data: LayerData, crs: CRS, metadata: Mapping[str, str]) -> int:
    """Write one layer; returns the number of rows that went in."""
    authority = crs.to_authority()
    described = {"DESCRIPTION": data.layer.meaning}
    spatial = {
        "geometry_name": GEOMETRY,
        "geometry_type": data.layer.geometry,
        "crs": ":".join(authority) if authority else crs.to_wkt(),
        "layer_options": described | {"GEOMETRY_NAME": GEOMETRY},
    }
    new: dict[str, Any] = {} if path.exists() else {"dataset_options": {"VERSION": GPKG_VERSION}}
    return write_rows(
        path,
        data.layer.arrow(),
        data.batches,
        layer=data.layer.name,
        driver="GPKG",
        **(spatial if data.layer.is_spatial else {"layer_options": described}),
        layer_metadata=dict(metadata),
        **new,
    )


def write_rows(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], **options: Any
) -> int:
    """Write batches as a layer with GDAL; returns their number of rows.

    What the batches raise, be it Ctrl-C, comes out as it is.
    """
    source = _Source(batches)
    try:
        stream = pa.RecordBatchReader.from_batches(schema, source)
        pyogrio.write_arrow(stream, literal(path), **options)
    except RuntimeError as error:
        raise source.error or error from None
    return source.rows


class _Source:
    """Batches counted, and their exception kept, which the stream would replace by its own."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.error: BaseException | None = None
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield batch
        except BaseException as error:
            self.error = error
            raise


def _check(path: Path, layer: Layer, expected: int) -> None:
    """Compare a layer with what was written into it."""
    name = layer.name
    with closing(sqlite3.connect(path)) as base:
        rows = base.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
        stated = base.execute(
            "SELECT feature_count FROM gpkg_ogr_contents WHERE table_name = ?", (name,)
        ).fetchone()[0]
        found = {"rows": rows, "stated rows": stated}
        if layer.is_spatial:
            shapes = base.execute(f'SELECT count("{GEOMETRY}") FROM "{name}"').fetchone()[0]
            index = f'SELECT count(*) FROM "rtree_{name}_{GEOMETRY}"'
            found["indexed shapes"] = base.execute(index).fetchone()[0] + rows - shapes
    wrong = {what: count for what, count in found.items() if count != expected}
    if wrong:
        raise OutputError(f"layer {name} of {path} has {wrong}, not {expected}; check the disk")


def _check_whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        verdict = base.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        raise OutputError(f"{path} is damaged after writing ({verdict}); check the disk")


class GeoParquetCopy:
    """A copy of one layer as GeoParquet."""

    def __init__(self, path: Path, layer: Layer, crs: CRS) -> None:
        """Name the file; nothing is written yet."""
        self._path = path
        self._rows = 0
        self._layer = layer
        self._crs = crs
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def write(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on and write them; the file is complete when they are exhausted."""
        schema = self._layer.arrow()
        box = pa.struct([pa.field(side, pa.float64()) for side in _SIDES])
        held: list[pa.RecordBatch] = []
        with pq.ParquetWriter(
            self._path, schema.append(pa.field(BBOX, box)), compression="zstd"
        ) as writer:
            for batch in batches:
                held.append(batch)
                if sum(one.num_rows for one in held) >= ROW_GROUP:
                    writer.write_table(self._with_bounds(pa.Table.from_batches(held), box))
                    held = []
                yield batch
            if held:
                writer.write_table(self._with_bounds(pa.Table.from_batches(held), box))
            writer.add_key_value_metadata({"geo": json.dumps(self._geo_metadata())})

    def check(self) -> None:
        """Compare the file with what was written into it, and wait until it is on the disk.

        Raises:
            OutputError: it does not hold the rows that went in.
        """
        written = pq.read_metadata(self._path).num_rows
        if written != self._rows:
            raise OutputError(f"{self._path} has {written} rows, not {self._rows}; check the disk")
        sync(self._path)

    def _with_bounds(self, rows: pa.Table, box: pa.StructType) -> pa.Table:
        self._rows += len(rows)
        bounds = shapely.bounds(shapely.from_wkb(rows[GEOMETRY].to_numpy()))
        known = bounds[~np.isnan(bounds[:, 0])]
        if len(known):
            self._bounds[:2] = np.minimum(self._bounds[:2], known[:, :2].min(axis=0))
            self._bounds[2:] = np.maximum(self._bounds[2:], known[:, 2:].max(axis=0))
        missing = pa.array(np.isnan(bounds[:, 0]))
        sides = [pa.array(np.ascontiguousarray(side)) for side in bounds.T]
        return rows.append_column(
            BBOX, pa.StructArray.from_arrays(sides, fields=list(box), mask=missing)
        )

    def _geo_metadata(self) -> dict[str, Any]:
        """Return the metadata that makes Parquet GeoParquet."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": [self._layer.geometry],
            "crs": self._crs.to_dict(projjson=True),
            "covering": {BBOX: {side: [BBOX, side] for side in _SIDES}},
        }
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
