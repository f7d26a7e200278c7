"""A finished map that is damaged or edited, and what reads one: comparison and review."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import shapely

from benchmarks.fuzz.inputs import EAST, NORTH, grid

VALUES: tuple[object, ...] = (
    *(None, "", "x", "ü\0", "x" * 9999, "{}", "[]", "null", '{"a": 1}', "2026-13-45", b"\0\xff"),
    *(0, -1, 7, 2**63 - 1, 1e308, -1e308, 1e-308, float("inf"), float("nan"), 0.5),
)
"""What an edit puts into a cell."""

SHAPES = (
    "POINT (1 2)",
    "LINESTRING (0 0, 0 0)",
    "LINESTRING EMPTY",
    "MULTIPOLYGON EMPTY",
    "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))",
    "LINESTRING (0 0, 1e300 1e300)",
    "MULTILINESTRING ((0 0, 9e9 9e9))",
    "GEOMETRYCOLLECTION (POINT (1 1), LINESTRING (500000 5700000, 500001 5699999))",
    "LINESTRING Z (500000 5700000 1, 500001 5699999 2)",
)


QUERY = "SELECT name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL"

DROPPED, DRAWN = 0.1, 0.7
"""Share of the edits that remove something, and of those of a shape that draw another one."""

DROPS = ('DROP TABLE "{0}"', 'DELETE FROM "{0}"', 'ALTER TABLE "{0}" DROP "{1}"')


def draw_map(folder: Path) -> list[Path]:
    """Write a map with two cracks, a network and road segments, from parts."""
    import geopandas

    from geo.cracks.parts import InspectedRow, write_part
    from geo.cracks.pieces import pieces
    from geo.imagery.mosaic import Block
    from geo.layers.assemble import assemble
    from geo.layers.roads import read_roads
    from geo.layers.run_rows import RunRecord
    from geo.options import AssembleOptions, RoadOptions

    ground, parts = grid(), folder / "parts"
    parts.mkdir()
    mask = np.zeros(ground.shape, bool)
    mask[20:22, 5:90] = mask[60:62, 5:90] = mask[70:90, 30:32] = True
    sound = np.ones((ground.shape[0] + 2, ground.shape[1] + 2), bool)
    window = ground.window
    found = pieces(mask, mask * np.uint8(200), window, ground, sound, None)
    row = InspectedRow.of(Block("r0_c0", window), sound[1:-1, 1:-1], (), ground, seconds=1.0)
    write_part(parts / "r0_c0.parquet", found, row)
    line = shapely.LineString([(EAST, NORTH - 1), (EAST + 1.9, NORTH - 1)])
    table = geopandas.GeoDataFrame({"ref": ["A7"]}, geometry=[line], crs=25832)
    table.to_file(folder / "roads.gpkg")
    roads = RoadOptions(path=folder / "roads.gpkg", id="ref", section_m=1)
    assemble(
        [parts / "r0_c0.parquet"],
        folder / "a.gpkg",
        ground,
        AssembleOptions(roads=roads, run_id="new", model="m"),
        run=RunRecord(config='{"tiles": "tiles"}', inputs="{}"),
        segments_csv=folder / "a.segments.csv",
        roads=read_roads(roads, ground),
    )
    return [folder / "a.gpkg"]


def edit(path: Path, rng: np.random.Generator) -> None:
    """Change one to three cells, columns or tables of a map by SQL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        (triggers, tables) = (
            [name for (name,) in base.execute(QUERY, (kind,)) if not name.startswith("sqlite_")]
            for kind in ("trigger", "table")
        )
        for name in triggers:
            base.execute(f'DROP TRIGGER "{name}"')
        for _ in range(int(rng.integers(1, 4))):
            table = tables[int(rng.integers(0, len(tables)))]
            with suppress(sqlite3.Error, OverflowError):  # an edit may break the next one
                _edit_table(base, table, rng)


def _edit_table(base: sqlite3.Connection, table: str, rng: np.random.Generator) -> None:
    columns = [row[1] for row in base.execute(f'PRAGMA table_info("{table}")')]
    column = columns[int(rng.integers(0, len(columns)))]
    value, how = VALUES[int(rng.integers(0, len(VALUES)))], rng.random()
    if how > 1 - DROPPED:
        base.execute(DROPS[int(rng.integers(0, len(DROPS)))].format(table, column))
        return
    if column == "geom" and how < DRAWN:
        shape = shapely.from_wkt(SHAPES[int(rng.integers(0, len(SHAPES)))])
        value = b"GP\0\1" + (25832).to_bytes(4, "little") + shapely.to_wkb(shape)
    base.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))


def read_map(path: Path) -> object:
    """Compare a map with itself, draw a sample of it, apply its edits, and draw its page."""
    from geo.compare.changes import compare
    from geo.compare.maps import read_map as read_survey
    from geo.compare.options import CompareOptions
    from geo.compare.segments import gather
    from geo.review.places import draw_sample, read_places
    from jobs.review.apply import run_apply
    from jobs.review.source import MapRun

    later = read_survey(path)
    result = compare(read_survey(path, later.crs).survey, later.survey, CompareOptions())
    if later.segments is not None:
        gather(result, later.segments)
    MapRun.read(path)
    draw_sample(read_places(path, 0.5), 20, 0)
    return result, run_apply(path)
