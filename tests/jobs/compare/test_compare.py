"""`wpcrack compare`: files in, files out, and one sentence for what cannot be compared."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import geopandas
import pyogrio
import pytest
from typer.testing import CliRunner

from benchmarks.compare_draw import second_epoch, write_map
from geo.errors import GeoError
from geo.layers.schema import CHANGE_LAYERS
from geo.layers.style import change_styles
from jobs.cli import app
from jobs.compare.run import run_compare


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    drawn = second_epoch(3, street_m=80)
    for name, survey in (("old", drawn.old), ("new", drawn.new)):
        write_map(folder / f"{name}.gpkg", survey, drawn.streets, name)
    return folder / "old.gpkg", folder / "new.gpkg"


def test_the_command_writes_styled_layers_a_report_and_figures(maps, tmp_path):
    out, figures = tmp_path / "changes.gpkg", tmp_path / "figures.json"
    words = ["compare", *map(str, maps), "--out", str(out), "--json", str(figures)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert {name for name, _ in pyogrio.list_layers(out)} >= {layer.name for layer in CHANGE_LAYERS}
    values = json.loads(figures.read_text())
    change = geopandas.read_file(out, layer="change")
    assert change.crs.to_epsg() == 25832
    assert change.loc[change["change"] == "new", "after_m"].sum() == pytest.approx(
        values["meters"]["new"]
    )
    segment = geopandas.read_file(out, layer="change_segment")
    on_roads = change[change["segment_id"].notna() & (change["change"] != "not_inspected")]
    assert segment["after_m"].sum() == pytest.approx(on_roads["after_m"].sum())
    assert "## Road segments" in (tmp_path / "changes.report.md").read_text()
    with closing(sqlite3.connect(out)) as base:
        styled = base.execute("SELECT f_table_name FROM layer_styles").fetchall()
    assert {name for (name,) in styled} == {one.layer.name for one in change_styles()}


def test_another_coordinate_system_of_the_old_map_gives_the_same_changes(maps, tmp_path):
    old, new = maps
    moved = tmp_path / "utm33.gpkg"
    for layer, _ in pyogrio.list_layers(old):
        table = pyogrio.read_dataframe(old, layer=layer)
        if layer != "run":
            table = table.to_crs(25833)
        pyogrio.write_dataframe(table, moved, layer=layer)
    same = run_compare(old, new, tmp_path / "same.gpkg").figures["meters"]
    other = run_compare(moved, new, tmp_path / "other.gpkg").figures["meters"]
    assert other == pytest.approx(same, abs=0.2)


def test_what_cannot_be_compared_is_refused_in_one_sentence(maps, tmp_path):
    old, new = maps
    out, link = tmp_path / "out.gpkg", tmp_path / "link.gpkg"
    link.symlink_to(old)
    foreign = tmp_path / "foreign.gpkg"
    geopandas.read_file(old, layer="crack").to_file(foreign, layer="lines")
    text = tmp_path / "text.gpkg"
    text.write_text("no map")
    twin = shutil.copy(old, tmp_path / "twin.gpkg")
    cases = {
        "is no file": (tmp_path / "none.gpkg", new, out),
        "are one file": (old, link, out),
        "one of the two maps": (old, new, new),
        "name it": (old, new, tmp_path / "out.shp"),
        "no layer crack": (foreign, new, out),
        "cannot be opened": (text, new, out),
        "come from one run": (old, twin, out),
    }
    for words, paths in cases.items():
        with pytest.raises(GeoError, match=words) as told:
            run_compare(*paths)
        assert "\n" not in str(told.value)
    assert not out.exists()
