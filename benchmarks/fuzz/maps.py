"""A finished map that is damaged or edited, and what reads one: comparison and review."""

from __future__ import annotations

import sqlite3
from contextlib import closing
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
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("PRAGMA writable_schema = ON")
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL"
        tables = [name for (name,) in base.execute(query) if not name.startswith("sqlite_")]
        for (trigger,) in base.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            base.execute(f'DROP TRIGGER "{trigger}"')
        for _ in range(int(rng.integers(1, 4))):
            table = tables[int(rng.integers(0, len(tables)))]
            columns = [row[1] for row in base.execute(f'PRAGMA table_info("{table}")')]
            if not columns:
                continue
            _edit_table(base, table, columns[int(rng.integers(0, len(columns)))], rng)


def _edit_table(
    base: sqlite3.Connection, table: str, column: str, rng: np.random.Generator
) -> None:
    how = rng.random()
    value = VALUES[int(rng.integers(0, len(VALUES)))]
    if column == "geom":
        shape = shapely.from_wkt(SHAPES[int(rng.integers(0, len(SHAPES)))])
        header = b"GP\0\1" + (25832).to_bytes(4, "little")
        value = header + shapely.to_wkb(shape) if how < 0.7 else value
    statements = ["UPDATE {0} SET {1} = ?"]
    if how > 0.9:
        statements, value = ["DROP TABLE {0}", "DELETE FROM {0}", "ALTER TABLE {0} DROP {1}"], None
    statement = statements[int(rng.integers(0, len(statements)))]
    try:
        text = statement.format(f'"{table}"', f'"{column}"')
        base.execute(text, (value,) if value is not None or "?" in text else ())
    except (sqlite3.Error, OverflowError):
        return


def read_map(path: Path) -> object:
    """Compare a map with the sound one, draw a sample of it, apply its edits, and draw its page."""
    from geo.compare.changes import compare
    from geo.compare.maps import read_map as read_survey
    from geo.compare.options import CompareOptions
    from geo.compare.segments import gather
    from geo.review.places import draw_sample, read_places
    from jobs.infer.outputs import MapFiles
    from jobs.review.apply import run_apply
    from jobs.review.run import draw_again
    from jobs.review.source import MapRun

    later = read_survey(path)
    result = compare(read_survey(path, later.crs).survey, later.survey, CompareOptions())
    if later.segments is not None:
        gather(result, later.segments)
    run = MapRun.read(path)
    draw_sample(read_places(path, 0.5), 20, 0)
    run_apply(path)
    draw_again(MapFiles.of(path), run.work_folder(path), None)
    return result
