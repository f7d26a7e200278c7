"""What an output may replace, and what becomes of a map that people have changed."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pytest
from affine import Affine
from factories import UTM32
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.crs import CRS
from shapely.geometry import LineString

import geo
from geo.errors import OutputError
from geo.grid import Grid
from geo.outputs import is_own, require_replaceable, seal_csv, seal_png, seal_text
from geo.packages import additions, kept_name, make_way, seal

PLACE = Grid(Affine(0.005, 0, 5e5, 0, -0.005, 5.7e6), CRS.from_string(UTM32), (60, 80))


def write_map(path: Path) -> Path:
    probability = np.zeros(PLACE.shape, np.float32)
    probability[20:24, 5:70] = 0.9
    geo.make_map(probability, PLACE.transform, UTM32, path)
    return path


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        for statement in statements:
            base.execute(statement)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map for tests to copy."""
    return write_map(tmp_path_factory.mktemp("map") / "cracks.gpkg")


@pytest.fixture
def package(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path / "cracks.gpkg"))


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_a_map_has_the_permissions_of_other_new_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = write_map(tmp_path / "a.gpkg")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_that_may_not_be_read_is_not_called_that_of_somebody_else(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != package)  # root may read all
    with pytest.raises(OutputError, match=r"cracks\.gpkg may not be read"):
        require_replaceable([package])


def test_a_table_is_ours_until_somebody_adds_a_note_or_a_spreadsheet_saves_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cracks.segments.csv"
    plain = "segment_id,name,rank\r\n1-000,Mill Street,1\r\n"
    path.write_text(seal_csv(plain), "utf-8-sig", newline="")
    assert is_own(path)
    read = [list(csv.reader(io.StringIO(text))) for text in (path.read_text("utf-8-sig"), plain)]
    assert read[0] == read[1]
    for edited in (
        plain.replace("rank", "rank,my note").replace(",1\r", ",1,mill in May\r"),
        seal_csv(plain).replace("Street,1", "Street,2"),
        plain,
    ):
        path.write_text(edited, "utf-8-sig", newline="")
        assert not is_own(path)


def png(path: Path) -> bytes:
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(path)
    return path.read_bytes()


def test_a_text_is_ours_until_somebody_edits_it(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(seal_text("# Map\n\n12 cracks\n"))
    assert is_own(path)
    path.write_text(path.read_text().replace("12", "13"))
    assert not is_own(path)


def test_a_picture_is_ours_until_somebody_paints_in_it(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(seal_png(png(path)))
    assert is_own(path)
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == 7
        assert picture.text["Software"].startswith("wpcrack")
        picture.load()
        other, text = picture.point(lambda gray: gray + 1), PngInfo()
        text.add_text("Software", picture.text["Software"])  # as some editors keep it
    other.save(path, pnginfo=text)
    assert not is_own(path)


@pytest.mark.parametrize("name", ["map.html", "x.png", "x.json", "x.csv", "x.md", "x.parquet", "x"])
def test_files_of_others_are_never_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"name": "user", "version": 1}')
    assert not is_own(path)
    with pytest.raises(OutputError, match="was not written by this program"):
        require_replaceable([path])


def test_an_output_that_is_an_input_is_refused_by_whatever_name(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link.gpkg"
    link.symlink_to(package)
    for named in (Path("cracks.gpkg"), link, Path("../") / tmp_path.name / "cracks.gpkg"):
        with pytest.raises(OutputError, match="would replace the input"):
            require_replaceable([package], [named])
    require_replaceable([package, tmp_path / "new.gpkg"], [tmp_path / "other.gpkg"])


def test_a_map_does_not_replace_roads_of_the_user(tmp_path: Path) -> None:
    roads = tmp_path / "roads.gpkg"
    line = LineString([(5e5, 5.7e6), (5e5 + 1, 5.7e6)])
    geopandas.GeoDataFrame({"name": ["Mill Street"]}, geometry=[line], crs=UTM32).to_file(roads)
    before = roads.read_bytes()
    with pytest.raises(OutputError, match="was not written by this program"):
        write_map(roads)
    assert roads.read_bytes() == before


def test_a_map_as_it_was_written_is_replaced_without_a_copy(package: Path) -> None:
    assert additions(package) == []
    write_map(package)
    assert [path.name for path in package.parent.iterdir()] == ["cracks.gpkg"]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE crack SET severity_d6433 = 'repaired'", "changes in crack"),
        ("ALTER TABLE crack ADD COLUMN note TEXT", "changes in crack"),
        ("DELETE FROM crack", "changes in crack"),
        ("INSERT INTO qgis_projects VALUES ('mine', '', '')", "changes in qgis_projects"),
        ("UPDATE layer_styles SET styleQML = 'mine'", "changes in layer_styles"),
        ("DROP TABLE layer_styles", "changes in layer_styles"),
    ],
)
def test_a_map_that_people_changed_is_kept_under_another_name(
    package: Path, statement: str, what: str
) -> None:
    edit(package, statement)
    assert additions(package) == [what]
    before, kept = package.read_bytes(), kept_name(package)
    write_map(package)
    assert kept.read_bytes() == before
    assert additions(package) == []
    write_map(package)
    assert kept_name(package).name == "cracks.kept-2.gpkg"


def edit(package: Path, statement: str) -> None:
    """Edit a spatial layer without GDAL, whose functions its triggers call."""
    with closing(sqlite3.connect(package)) as base, base:
        names = base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            base.execute(f'DROP TRIGGER "{name}"')
        base.execute(statement)


HOLDER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
base.execute("SELECT count(*) FROM crack").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_map_that_is_open_elsewhere_is_refused_and_stays(package: Path, mode: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(package), mode]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "open\n"
        before = package.read_bytes()
        for attempt in (lambda: require_replaceable([package]), lambda: write_map(package)):
            with pytest.raises(OutputError, match=r"is open in another program .*same command"):
                attempt()
        assert package.read_bytes() == before
        holder.stdin.close()
    write_map(package)


LEFT = """
import os, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("PRAGMA journal_mode = WAL")
base.execute("CREATE TABLE notes (text)")
base.execute("INSERT INTO notes VALUES ('keep me')")
os._exit(0)
"""


def test_a_log_left_by_a_program_that_died_is_taken_into_the_old_map(package: Path) -> None:
    subprocess.run([sys.executable, "-c", LEFT, str(package)], check=True)
    assert package.with_name("cracks.gpkg-wal").stat().st_size
    write_map(package)
    assert {p.name for p in package.parent.iterdir()} == {"cracks.gpkg", "cracks.kept.gpkg"}
    with closing(sqlite3.connect(package.with_name("cracks.kept.gpkg"))) as base:
        assert base.execute("SELECT text FROM notes").fetchall() == [("keep me",)]
    assert len(geopandas.read_file(package, layer="crack")) == 1


def test_a_log_without_its_map_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    other = write_map(tmp_path / "cracks.gpkg")
    subprocess.run([sys.executable, "-c", LEFT, str(other)], check=True)
    other.unlink()
    write_map(other)
    assert additions(other) == []


def test_a_kept_map_never_takes_the_name_of_another(package: Path) -> None:
    names = []
    for number in range(3):
        sql(package, f"CREATE TABLE mine{number} (x)")
        kept = make_way(package)
        assert kept is not None
        names.append(kept.name)
        seal(package)
    assert names == ["cracks.kept.gpkg", "cracks.kept-2.gpkg", "cracks.kept-3.gpkg"]
