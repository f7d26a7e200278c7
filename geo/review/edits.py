"""A map that people have edited -> the same map with its totals, ranks and segments made again.

What was deleted, or has the verdict `wrong`, is gone; lines that were drawn or moved are measured
by their geometry. Only the layers are read: no imagery, no work folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from geo import packages
from geo.arrays import BoolArray, FloatArray, IntArray
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
from geo.layers.sound_map import has_shape
from geo.layers.style import styles
from geo.review.edited_map import EditedMap, to_batch
from geo.review.edited_segments import Edited, segment_rows_of
from geo.review.record import parse_accuracy

WRONG = ("wrong", "reject", "rejected", "false")
"""Verdicts, in small letters, by which a person takes a crack out of the map."""

SAME = 1e-3
"""Change of a length, as a share, that is rounding."""

SAME_DEG = 0.1
"""Change of a direction that is rounding."""

BESIDE_M, BESIDE_PX = 0.05, 2
"""A line that lies farther than both from every piece was moved: it ran in the middle of one."""


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        wrong: cracks and networks with such a verdict.
        drawn, moved: cracks and networks that people have drawn, or whose shape they have changed.
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


def apply_edits(package: Path, segments_csv: Path, *, parquet_rows: int = 0) -> Applied | None:
    """Make an edited map whole again; the edited file is kept under another name.

    Args:
        package: the map; the new one takes its place.
        segments_csv: the table of the segments, written if there are any.
        parquet_rows: also write each layer as GeoParquet beside the map, a folder of files if it
            has more rows than this; 0: no copies.

    Returns:
        None if nothing was edited.

    Raises:
        InputError: a layer is missing.
        OutputError: the map is open in another program, or cannot be written.
    """
    packages.require_closed(package)
    changes = packages.additions(package)
    found = EditedMap.read(package)
    wrong = sum(int(_is_wrong(found.tables[layer.name]).sum()) for layer in (CRACK, NETWORK))
    if not changes and not wrong:
        return None
    now, seen = _without_wrong(found)
    cracks, rows = now.tables[CRACK.name], None
    if ROAD_SEGMENT.name in now.tables:
        before = cracks["segment_id"].fillna("")
        rows = segment_rows_of(now, Edited(seen.drawn | seen.moved, seen.left, seen.areas))
        elsewhere = (before != cracks["segment_id"].fillna("")).to_numpy()
        seen = replace(seen, moved=seen.moved | (~seen.drawn & elsewhere))
    applied = Applied(
        wrong=wrong,
        drawn=int(seen.drawn.sum() + seen.drawn_areas.sum()),
        moved=int(seen.moved.sum() + seen.cut_areas.sum()),
        changes=tuple(changes),
        cracks=len(cracks),
        length_m=float(cracks["length_m"].sum()),
        kept=packages.kept_name(package) if changes else None,
    )
    now.tables[RUN.name] = _run(now, applied)
    if rows is not None:
        write_csv(segments_csv, rows)  # before the map: what fails later is tried again
    _publish(package, now, rows, parquet_rows)
    return applied


@dataclass(frozen=True, eq=False)
class _Seen:
    """What people have drawn and changed of K cracks and M networks.

    Attributes:
        drawn, moved: (K,) cracks that are new, or whose line is another one.
        left: (K,) those of them that no longer lie where they were seen.
        drawn_areas, cut_areas: (M,) networks that are new, or whose area is another one.
    """

    drawn: BoolArray
    moved: BoolArray
    left: BoolArray
    drawn_areas: BoolArray
    cut_areas: BoolArray

    @property
    def areas(self) -> BoolArray:
        """(M,) networks that are new or changed."""
        return self.drawn_areas | self.cut_areas


def _without_wrong(found: EditedMap) -> tuple[EditedMap, _Seen]:
    """Return a map without what is wrong, with the columns of the shapes that it has now."""
    cracks, networks = (
        found.tables[layer.name][~_is_wrong(found.tables[layer.name])] for layer in (CRACK, NETWORK)
    )
    cracks, outlines = _place(cracks, "MultiLineString"), found.tables[OUTLINE.name]
    left = _left_pieces(cracks, outlines, found.unit_m)
    cracks, drawn, moved = _measure(cracks, found, left)
    networks, new, cut = _measured_areas(_place(networks, "MultiPolygon"), found.unit_m)
    there = cracks["crack_id"][~left]
    alive = outlines["crack_id"].isin(there) & outlines["crack_id"].notna()
    alive |= outlines["network_id"].isin(networks["network_id"]) & outlines["network_id"].notna()
    own = {CRACK.name: cracks, NETWORK.name: networks, OUTLINE.name: outlines[alive]}
    return replace(found, tables=found.tables | own), _Seen(drawn, moved, left, new, cut)


def _publish(
    package: Path, now: EditedMap, segments: pa.RecordBatch | None, parquet_rows: int
) -> None:
    layers = (CRACK, NETWORK, OUTLINE, INSPECTED, RUN)
    data = [LayerData(layer, iter([to_batch(layer, now.tables[layer.name])])) for layer in layers]
    if segments is not None:
        data.append(LayerData(ROAD_SEGMENT, iter([segments])))
    run = now.tables[RUN.name].iloc[0]
    about = {name: str(run[name] or "") for name in ("model", "run_id")}
    publish(package, now.crs, data, about, looks=styles(now.rules), parquet_rows=parquet_rows)


def _is_wrong(table: geopandas.GeoDataFrame) -> pd.Series:
    if "verdict" not in table:
        return pd.Series(False, index=table.index)
    return table["verdict"].fillna("").astype(str).str.strip().str.lower().isin(WRONG)


def _place(table: geopandas.GeoDataFrame, kind: str) -> geopandas.GeoDataFrame:
    """Return the rows with a shape, in the type of their layer."""
    table = table[has_shape(table)].reset_index(drop=True)
    make = shapely.multilinestrings if kind == "MultiLineString" else shapely.multipolygons
    parts, owner = shapely.get_parts(shapely.force_2d(table.geometry.to_numpy()), return_index=True)
    shapes = make(parts, indices=owner) if len(parts) else np.empty(0, object)
    return table.set_geometry(geopandas.GeoSeries(shapes, index=table.index, crs=table.crs))


@dataclass(frozen=True, eq=False)
class _Figures:
    """What follows from the lines of K cracks, (K,) each.

    Attributes:
        parts: number of centerlines.
        line_m: length of these.
        apart_m: distance from the end of each to the begin of the next, added up.
        chord_m: distance of the ends of the whole.
        turn_deg: mean direction; nan if there is none.
    """

    parts: IntArray
    line_m: FloatArray
    apart_m: FloatArray
    chord_m: FloatArray
    turn_deg: FloatArray

    @classmethod
    def of(cls, lines: Any, unit_m: float) -> _Figures:
        """Measure MultiLineStrings (K,)."""
        count = len(lines)
        parts, owner = shapely.get_parts(lines, return_index=True)
        begin, end = (shapely.get_coordinates(shapely.get_point(parts, at)) for at in (0, -1))
        within = np.flatnonzero(np.diff(owner) == 0)
        jump = np.hypot(*(begin[within + 1] - end[within]).T)
        last = np.cumsum(np.bincount(owner, minlength=count)) - 1
        first = np.append(0, last + 1)[:count]
        points, part = shapely.get_coordinates(parts, return_index=True)
        inner = np.flatnonzero(np.diff(part) == 0)  # a gap between two parts has no direction
        return cls(
            parts=np.bincount(owner, minlength=count),
            line_m=shapely.length(lines) * unit_m,
            apart_m=unit_m * np.bincount(owner[within], jump, count).astype(np.float64),
            chord_m=np.hypot(*(end[last] - begin[first]).T) * unit_m,
            turn_deg=orientations(np.diff(points, axis=0)[inner], owner[part[inner]], count),
        )

    def tortuosity(self, gap_m: FloatArray) -> FloatArray:
        """Return (K,) length with gaps / distance of the ends; nan for a loop."""
        chord = np.where(self.chord_m > 0, self.chord_m, np.nan)
        return (self.line_m + gap_m) / chord

    def differ(self, cracks: pd.DataFrame) -> BoolArray:
        """Return (K,) whether the columns of a crack are those of another line."""
        gap_m = cracks["gap_m"].to_numpy(float)
        stored = cracks["length_m"].to_numpy(float) - gap_m
        turn = self.turn_deg - cracks["orientation_deg"].to_numpy(float)
        bent = self.tortuosity(gap_m) / cracks["tortuosity"].to_numpy(float) - 1
        moved = np.abs(self.line_m - stored) > SAME * np.maximum(stored, STEP_M)
        moved |= np.abs((turn + 90) % 180 - 90) > SAME_DEG
        return np.asarray(moved | (np.abs(bent) > SAME))


def _left_pieces(
    cracks: geopandas.GeoDataFrame, outlines: geopandas.GeoDataFrame, unit_m: float
) -> BoolArray:
    """Tell (K,) whether a crack with own pieces lies beside all pieces, as if it was moved."""
    own = cracks["crack_id"].isin(outlines["crack_id"]) & cracks["crack_id"].notna()
    if not own.any():
        return np.zeros(len(cracks), bool)
    parts, owner = shapely.get_parts(cracks.geometry.to_numpy(), return_index=True)
    middles = shapely.line_interpolate_point(parts, 0.5, normalized=True)
    (part, _), away = outlines.sindex.nearest(middles, return_all=False, return_distance=True)
    pixel_m = cracks["gsd_mm"].fillna(0).to_numpy(float)[owner[part]] / 1000
    beside = away * unit_m > np.maximum(BESIDE_M, BESIDE_PX * pixel_m)
    return np.asarray(own & (np.bincount(owner[part], beside, len(cracks)) > 0), bool)


def _measure(
    cracks: geopandas.GeoDataFrame, found: EditedMap, left: BoolArray
) -> tuple[geopandas.GeoDataFrame, BoolArray, BoolArray]:
    """Give lines that people have drawn their columns, and those that they changed new ones.

    A program links what lies apart, a person does not: an edited crack has no more gap than before.

    Args:
        cracks: K of them.
        found: the map.
        left: (K,) those that no longer lie where they were seen.

    Returns:
        the cracks; which were drawn (K,) and which changed (K,).
    """
    cracks = cracks.copy()
    figures = _Figures.of(cracks.geometry.to_numpy(), found.unit_m)
    meters = [f"{name}_m" for name in D6433_CLASSES]
    named = (cracks["crack_id"].fillna("") != "").to_numpy()
    drawn = ~named | cracks[["length_m", *meters]].isna().any(axis=1).to_numpy()
    cracks["gap_m"] = cracks["gap_m"].fillna(pd.Series(figures.apart_m, cracks.index))
    cracks["type"] = cracks["type"].fillna("unknown")
    cracks = _with_severity(cracks, "severity_d6433", "severity_ltpp")
    moved = ~drawn & (figures.differ(cracks) | left)
    stored = (cracks["length_m"] - cracks["gap_m"]).to_numpy(float)
    scale = np.where(moved, figures.line_m / np.maximum(stored, 1e-9), 1.0)
    for name in (*meters, "area_m2"):
        cracks[name] = cracks[name].to_numpy(float) * scale
    gap_m = np.where(drawn, 0.0, np.minimum(cracks["gap_m"].to_numpy(float), figures.apart_m))
    new = {
        "gap_m": gap_m,
        "length_m": figures.line_m + gap_m,
        "orientation_deg": figures.turn_deg,
        "tortuosity": figures.tortuosity(gap_m),
        "branches": figures.parts,
        "pieces": np.fmin(cracks["pieces"].to_numpy(float), figures.parts),
    }
    for name, values in new.items():
        cracks.loc[drawn | moved, name] = values[drawn | moved]
    if drawn.any():
        line_m = figures.line_m[drawn]
        plain: dict[str, Any] = {name: 0.0 for name in (*meters, "area_m2")}
        plain |= {"type": "unknown", f"{NOT_MEASURABLE}_m": line_m}
        plain |= {name: NOT_MEASURABLE for name in ("severity_d6433", "severity_ltpp")}
        for name, value in plain.items():
            cracks.loc[drawn, name] = value
    first = shapely.get_geometry(cracks.geometry.to_numpy(), 0)
    middles = shapely.line_interpolate_point(first, 0.5, normalized=True)
    cracks["crack_id"] = _name(cracks["crack_id"], middles)
    return cracks, drawn, moved


def _measured_areas(
    networks: geopandas.GeoDataFrame, unit_m: float
) -> tuple[geopandas.GeoDataFrame, BoolArray, BoolArray]:
    """Give networks that people have drawn or cut their area; line is taken to be even in it.

    Returns:
        the networks; which were drawn (M,) and of which the area changed (M,).
    """
    networks = _with_severity(networks.copy(), "severity_d6433")
    area_m2 = shapely.area(networks.geometry.to_numpy()) * unit_m**2
    stored = networks["area_m2"].to_numpy(float)
    drawn = np.isnan(stored) | (networks["network_id"].fillna("") == "").to_numpy()
    changed = ~drawn & (np.abs(area_m2 - stored) > SAME * stored)
    line_m = networks["crack_length_m"].to_numpy(float) * area_m2 / stored
    networks.loc[changed, "crack_length_m"] = line_m[changed]
    networks.loc[drawn | changed, "area_m2"] = area_m2[drawn | changed]
    middles = shapely.point_on_surface(networks.geometry.to_numpy())
    networks["network_id"] = _name(networks["network_id"], middles)
    return networks, drawn, changed


def _with_severity(table: geopandas.GeoDataFrame, *columns: str) -> geopandas.GeoDataFrame:
    """Say of what has no class that it could not be measured."""
    return table.assign(**{name: table[name].fillna(NOT_MEASURABLE) for name in columns})


def _name(ids: pd.Series, middles: Any) -> list[str]:
    """Name what people have drawn by its middle; each name stands once."""
    names = ids.fillna("").to_numpy(object, copy=True)
    new = names == ""
    names[new] = [f"drawn-{x:.2f}-{y:.2f}" for x, y in shapely.get_coordinates(middles[new])]
    return _unique(names.tolist())


def _unique(ids: Sequence[str]) -> list[str]:
    """Give ids that occur again a number, as those of the parts of a crack that was split.

    >>> _unique(["a", "b", "a", "a-2", "a"])
    ['a', 'b', 'a-3', 'a-2', 'a-4']
    """
    taken, seen, result = set(ids), set[str](), []
    for name in ids:
        free = name
        if name in seen:
            free = next(n for k in count(2) if (n := f"{name}-{k}") not in taken)
            taken.add(free)
        seen.add(free)
        result.append(free)
    return result


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
