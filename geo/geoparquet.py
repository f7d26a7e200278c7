"""GeoParquet 1.1 copies of layers, written while the rows stream into the GeoPackage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from rasterio.crs import CRS

from geo.errors import OutputError
from geo.schema import GEOMETRY, Layer

ROW_GROUP = 20_000
"""Rows that are held and written together."""

BBOX = "bbox"
"""Column of each row's bounds, by which readers skip what lies elsewhere."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class GeoParquetCopy:
    """A copy of one layer: a temporary file until `publish` puts it in place."""

    def __init__(self, package: Path, layer: Layer, crs: CRS) -> None:
        """Name the files; nothing is written yet."""
        self.path = package.with_name(f"{package.stem}_{layer.name}.parquet")
        self.rows = 0
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp.parquet")
        self._layer = layer
        self._crs = crs
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on and write them; the file is complete when they are exhausted."""
        schema = self._layer.arrow()
        box = pa.struct([pa.field(side, pa.float64()) for side in _SIDES])
        held: list[pa.RecordBatch] = []
        with pq.ParquetWriter(
            self._temporary, schema.append(pa.field(BBOX, box)), compression="zstd"
        ) as writer:
            for batch in batches:
                held.append(batch)
                if sum(one.num_rows for one in held) >= ROW_GROUP:
                    writer.write_table(self._with_bounds(pa.Table.from_batches(held), box))
                    held = []
                yield batch
            if held:
                writer.write_table(self._with_bounds(pa.Table.from_batches(held), box))
            writer.add_key_value_metadata({"geo": json.dumps(self._described())})

    def check(self) -> None:
        """Compare the file with what was written into it.

        Raises:
            OutputError: it does not hold the rows that went in.
        """
        written = pq.read_metadata(self._temporary).num_rows
        if written != self.rows:
            raise OutputError(f"{self.path} has {written} rows, not {self.rows}; check the disk")

    def publish(self) -> None:
        """Put the file in place of an earlier one."""
        with self._temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Remove what is not in place."""
        self._temporary.unlink(missing_ok=True)

    def _with_bounds(self, rows: pa.Table, box: pa.StructType) -> pa.Table:
        self.rows += len(rows)
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

    def _described(self) -> dict[str, Any]:
        """The metadata that makes Parquet GeoParquet."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": [self._layer.geometry],
            "crs": self._crs.to_dict(projjson=True),
            "covering": {BBOX: {side: [BBOX, side] for side in _SIDES}},
        }
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
