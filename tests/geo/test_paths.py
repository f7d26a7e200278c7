"""Paths that pyogrio takes as they stand."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pyogrio
import pytest
import shapely

from geo.paths import literal

ROWS = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)], crs=25832)


def test_a_usual_path_stays() -> None:
    path = Path("/data/city #2 (new)/50%?/[a] ä'.gpkg")
    assert literal(path) == path


@pytest.mark.parametrize("name", ["a!b/c", "a;b", "a/b;c", "a!", "a\nb", " a", "a.zip!b/c", "?!"])
@pytest.mark.parametrize("ending", ["gpkg", "fgb", "pmtiles"])
def test_files_of_any_name_are_written_and_read_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.{ending}")
    path.parent.mkdir(exist_ok=True)
    pyogrio.write_dataframe(ROWS, literal(path))
    assert pyogrio.read_info(literal(path))["features"]
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path.absolute()]


def test_names_that_differ_in_such_a_character_are_two_files(tmp_path: Path) -> None:
    for k, name in enumerate(("a;b.gpkg", "a!b.gpkg")):
        pyogrio.write_dataframe(ROWS.assign(n=k), literal(tmp_path / name))
    found = [
        pyogrio.read_dataframe(literal(tmp_path / name))["n"][0]
        for name in ("a;b.gpkg", "a!b.gpkg")
    ]
    assert found == [0, 1]
