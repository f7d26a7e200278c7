"""What is not a map of ours, or a damaged one, is refused before anything is made from it."""

from __future__ import annotations

import importlib
import shutil
import sqlite3
from contextlib import closing

import pytest

from geo.compare.maps import read_map
from geo.errors import InputError
from geo.layers.sound_map import require_map
from geo.page.map_page import map_data
from jobs.review.apply import run_apply
from jobs.review.source import MapRun


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    return importlib.import_module("benchmarks.fuzz.maps").draw_map(folder)[0]


@pytest.fixture
def package(drawn, tmp_path):
    return shutil.copy(drawn, tmp_path / "a.gpkg")


def change(package, *statements):
    with closing(sqlite3.connect(package)) as base, base:
        for (name,) in base.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            base.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            base.execute(statement)


def test_a_map_is_one_and_so_is_an_edited_one(package):
    require_map(package)
    change(
        package,
        "UPDATE crack SET crack_id = NULL, length_m = NULL, verdict = 'wrong'",
        *(f"ALTER TABLE {x} ADD COLUMN note TEXT" for x in ("crack", "road_segment", "inspected")),
        "CREATE TABLE own (x)",
    )
    require_map(package)
    map_data(package, 10)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE crack SET length_m = 9e999", r"damaged \(crack.length_m is inf"),
        ("UPDATE inspected SET gsd_mm = -1e300", r"damaged \(inspected.gsd_mm"),
        ("UPDATE road_segment SET geom = NULL", "rows without a line"),
        ("UPDATE road_segment SET to_m = NULL", r"road_segment.to_m is empty"),
        ("UPDATE run SET rules = '{'", "damaged"),
        ("DELETE FROM run", "damaged"),
        ("ALTER TABLE network DROP COLUMN area_m2", "no column area_m2 in its layer network"),
        ("DELETE FROM gpkg_contents WHERE table_name = 'inspected'", "no layer inspected"),
        ("DELETE FROM gpkg_contents WHERE table_name = 'outline'", "no layer outline"),
        ("ALTER TABLE run DROP COLUMN accuracy", "no column accuracy in its layer run"),
        ("ALTER TABLE crack DROP COLUMN survey_date", "no column survey_date in its layer crack"),
        ("ALTER TABLE road_segment DROP COLUMN name", "no column name in its layer road_segment"),
    ],
)
def test_what_no_map_has_is_one_sentence(package, statement, words):
    change(package, statement)
    for read in (MapRun.read, run_apply):
        with pytest.raises(InputError, match=words) as told:
            read(package)
        assert "\n" not in str(told.value)


def test_a_page_of_other_bytes_is_found_before_work(package):
    content = bytearray(package.read_bytes())
    with closing(sqlite3.connect(package)) as base:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'crack'"
        (page,) = base.execute(query).fetchone()
        (size,) = base.execute("PRAGMA page_size").fetchone()
    content[(page - 1) * size : page * size] = bytes(size)
    package.write_bytes(content)
    for read in (MapRun.read, run_apply, read_map):
        with pytest.raises(InputError, match="damaged"):
            read(package)


def test_no_other_format_is_opened(tmp_path):
    path = tmp_path / "a.gpkg"
    path.write_text("<OGRVRTDataSource><OGRVRTLayer name='crack'/></OGRVRTDataSource>")
    for read in (MapRun.read, run_apply, read_map):
        with pytest.raises(InputError, match="is not a GeoPackage"):
            read(path)
