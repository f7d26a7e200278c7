"""A map that people have edited -> the same map with its totals, ranks and segments made again.

What was deleted, or has the verdict `wrong`, is gone; lines that were drawn or moved are measured
by their geometry. Only the layers are read: no imagery, no work folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely

from geo import packages
from geo.cracks.branches import FloatArray
from geo.cracks.measure import orientations
from geo.layers.classes import D6433_CLASSES, NOT_MEASURABLE
from geo.layers.geopackage import LayerData, publish
from geo.layers.run_rows import not_claimed
from geo.layers.schema import (
    CRACK,
    INSPECTED,
    NETWORK,
    OUTLINE,
    ROAD_SEGMENT,
    RUN,
)
from geo.layers.segment_rows import write_csv
from geo.layers.segments import STEP_M
from geo.layers.style import styles
from geo.options import PARQUET_ROWS
from geo.review.edited_map import EditedMap, to_batch
from geo.review.edited_segments import segment_rows_of
from geo.review.record import parse_accuracy

WRONG = ("wrong", "reject", "rejected", "false")
"""Verdicts, in small letters, by which a person takes a crack out of the map."""


SAME = 0.01
"""Change of a length, as a share, that is rounding."""


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        wrong: cracks and networks with such a verdict.
        drawn, moved: cracks that people have drawn or changed.
        changes: what differs from the map as it was written, in words.
        cracks, length_m: of the new map.
        kept: where the edited file is kept.
    """

    wrong: int
    drawn: int
    moved: int
    changes: tuple[str, ...]
    cracks: int
    length_m: float
    kept: Path | None


def apply_edits(package: Path, segments_csv: Path, *, parquet: bool = False) -> Applied | None:
    """Make an edited map whole again; the edited file is kept under another name.

    Args:
        package: the map; the new one takes its place.
        segments_csv: the table of the segments, written if there are any.
        parquet: also write each layer as a GeoParquet file beside the map.

    Returns:
        None if nothing was edited.

    Raises:
        InputError: a layer is missing.
        OutputError: the map is open in another program, or cannot be written.
    """
    packages.require_closed(package)
    changes = packages.additions(package)
    found = EditedMap.read(package)
    cracks, networks = found.tables[CRACK.name], found.tables[NETWORK.name]
    wrong = [_is_wrong(table) for table in (cracks, networks)]
    cracks, networks = cracks[~wrong[0]], networks[~wrong[1]]
    if not changes and not any(mask.any() for mask in wrong):
        return None
    cracks, drawn, moved = _measured(_placed(cracks, "MultiLineString"), found)
    networks = _placed(networks, "MultiPolygon")
    outlines = found.tables[OUTLINE.name]
    alive = outlines["crack_id"].isin(cracks["crack_id"]) & outlines["crack_id"].notna()
    alive |= outlines["network_id"].isin(networks["network_id"]) & outlines["network_id"].notna()
    tables = found.tables | {
        CRACK.name: cracks,
        NETWORK.name: networks,
        OUTLINE.name: outlines[alive],
    }
    now = replace(found, tables=tables)
    kept = packages.kept_name(package) if changes else None
    applied = Applied(
        wrong=int(sum(mask.sum() for mask in wrong)),
        drawn=drawn,
        moved=moved,
        changes=tuple(changes),
        cracks=len(cracks),
        length_m=float(cracks["length_m"].sum()),
        kept=kept,
    )
    tables[RUN.name] = _run(now, applied)
    layers = [CRACK, NETWORK, OUTLINE, INSPECTED, RUN]
    rows = segment_rows_of(now) if ROAD_SEGMENT.name in tables else None
    batches = {layer.name: to_batch(layer, tables[layer.name]) for layer in layers}
    if rows is not None:
        batches[ROAD_SEGMENT.name] = rows
        layers.append(ROAD_SEGMENT)
    about = {name: str(tables[RUN.name][name].iloc[0] or "") for name in ("model", "run_id")}
    data = [LayerData(layer, iter([batches[layer.name]])) for layer in layers]
    most_rows = PARQUET_ROWS if parquet else 0
    publish(package, found.crs, data, about, looks=styles(found.rules), parquet_rows=most_rows)
    if rows is not None:
        write_csv(segments_csv, rows)
    return applied


def _is_wrong(table: geopandas.GeoDataFrame) -> pd.Series:
    if "verdict" not in table:
        return pd.Series(False, index=table.index)
    return table["verdict"].fillna("").astype(str).str.strip().str.lower().isin(WRONG)


def _placed(table: geopandas.GeoDataFrame, kind: str) -> geopandas.GeoDataFrame:
    """Return the rows with a shape, in the type of their layer."""
    table = table[table.geometry.notna() & ~table.geometry.is_empty].reset_index(drop=True)
    make = shapely.multilinestrings if kind == "MultiLineString" else shapely.multipolygons
    parts, owner = shapely.get_parts(shapely.force_2d(table.geometry.to_numpy()), return_index=True)
    shapes = make(parts, indices=owner) if len(parts) else np.empty(0, object)
    return table.set_geometry(geopandas.GeoSeries(shapes, index=table.index, crs=table.crs))


def _measured(
    cracks: geopandas.GeoDataFrame, found: EditedMap
) -> tuple[geopandas.GeoDataFrame, int, int]:
    """Give lines that people have drawn their columns; scale those of lines that they have moved.

    Returns:
        the cracks, how many were drawn, how many moved.
    """
    cracks = cracks.copy()
    line_m = shapely.length(cracks.geometry.to_numpy()) * found.unit_m
    drawn = cracks["crack_id"].isna().to_numpy() | cracks["length_m"].isna().to_numpy()
    stored = (cracks["length_m"] - cracks["gap_m"].fillna(0)).to_numpy(float)
    moved = ~drawn & (np.abs(line_m - stored) > SAME * np.maximum(stored, STEP_M))
    scale = np.where(moved, line_m / np.maximum(stored, 1e-9), 1.0)
    meters = [f"{name}_m" for name in D6433_CLASSES]
    for name in (*meters, "area_m2"):
        cracks[name] = cracks[name].to_numpy(float) * scale
    cracks.loc[moved, "length_m"] = line_m[moved] + cracks.loc[moved, "gap_m"]
    if drawn.any():
        zero = {name: 0.0 for name in (*meters, "gap_m", "area_m2")}
        parts = shapely.get_num_geometries(cracks.geometry.to_numpy())[drawn]
        new = zero | {"branches": parts, "pieces": parts, "type": "unknown"}
        new |= {name: NOT_MEASURABLE for name in ("severity_d6433", "severity_ltpp")}
        new |= {"length_m": line_m[drawn], f"{NOT_MEASURABLE}_m": line_m[drawn]}
        new |= {"orientation_deg": _directions(cracks.geometry.to_numpy()[drawn])}
        for name, value in new.items():
            cracks.loc[drawn, name] = value
        middles = shapely.get_coordinates(
            shapely.line_interpolate_point(
                shapely.get_geometry(cracks.geometry.to_numpy()[drawn], 0), 0.5, normalized=True
            )
        )
        cracks.loc[drawn, "crack_id"] = [f"drawn-{x:.2f}-{y:.2f}" for x, y in middles]
    return cracks, int(drawn.sum()), int(moved.sum())


def _directions(lines: Any) -> FloatArray:
    points, owner = shapely.get_coordinates(lines, return_index=True)
    inner = np.flatnonzero(np.diff(owner) == 0)
    return orientations(np.diff(points, axis=0)[inner], owner[inner], len(lines))


def _run(found: EditedMap, applied: Applied) -> pd.DataFrame:
    """Return the layer run of the new map."""
    run = found.tables[RUN.name].copy()
    meters = float(found.tables[CRACK.name][f"{NOT_MEASURABLE}_m"].fillna(0).sum())
    inputs = json.loads(run["inputs"].iloc[0] or "{}")
    edits = {"wrong": applied.wrong, "drawn": applied.drawn, "moved": applied.moved}
    run["inputs"] = json.dumps(inputs | {"edits": {**edits, "changes": applied.changes}})
    run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    run["not_claimed"] = not_claimed(found.rules.severity, meters)
    known = parse_accuracy(run["accuracy"].iloc[0])
    if known is not None:
        note = f"{known.estimator}; of the map before it was edited"
        run["accuracy"] = json.dumps(replace(known, estimator=note).values())
    return run
