"""`wpcrack compare`: files in, files out, and one sentence for what cannot be compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import cv2
import geopandas
import numpy as np
import pyogrio
import pytest
from affine import Affine
from browser import browser, needs_browser
from pyproj import CRS
from typer.testing import CliRunner

import geo
from benchmarks.compare_draw import second_epoch, write_map
from geo.compare import maps as compared
from geo.compare.options import CompareOptions
from geo.errors import GeoError, InputError
from geo.layers.schema import CHANGE_LAYERS, INSPECTED
from geo.layers.style import change_styles
from geo.options import AssembleOptions
from jobs.cli import app
from jobs.compare.run import run_compare
from jobs.runtime.folder import hold_output


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


def drawn_map(path, lines, moved):
    """The map of straight lines (pixels of 5 mm), as the usual way from a mask makes it."""
    mask = np.zeros((1800, 1800), np.uint8)
    for begin, end in lines:
        cv2.line(mask, *(tuple(np.add(place, moved)) for place in (begin, end)), 1, 3)
    options = AssembleOptions(run_id=path.stem, survey_date=f"20{path.stem}-05-04")
    transform = Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6)
    geo.make_map(mask.astype(np.float32), transform, "EPSG:25832", path, options=options)
    return path


def test_maps_from_masks_are_compared(tmp_path):
    same = [((100, 100), (700, 160)), ((150, 900), (300, 1500)), ((1300, 200), (1200, 900))]
    old = [*same, ((600, 600), (900, 700)), ((1000, 1500), (1500, 1400))]
    new = [*same, ((600, 600), (1050, 750)), ((600, 1500), (700, 1100))]
    maps = (
        drawn_map(tmp_path / "24.gpkg", old, (0, 0)),
        drawn_map(tmp_path / "26.gpkg", new, (9, -6)),
    )
    report = run_compare(*maps, tmp_path / "changes.gpkg")
    meters = {kind: length for kind, length in report.figures["meters"].items() if length > 0}
    assert meters.keys() == {"unchanged", "grown", "new", "gone"}
    assert meters["grown"] == pytest.approx(np.hypot(150, 50) * 0.005, abs=0.05)
    assert meters["new"] == pytest.approx(np.hypot(100, 400) * 0.005, abs=0.05)
    assert meters["gone"] == pytest.approx(np.hypot(500, 100) * 0.005, abs=0.05)
    shift = report.figures["registration"]["shift_median_m"]
    assert shift == pytest.approx(np.hypot(9, 6) * 0.005, abs=0.003)
    assert report.figures["new"]["survey_date"] == "2026-05-04"
    text = report.files.page.read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert set(data["cracks"]["columns"][0]["values"]) == meters.keys()
    assert data["header"][0] == ["old", "24.gpkg, 2024-05-04, pixels of 5 mm"]
    told = report.files.report.read_text("utf-8")
    assert "- The old survey: 24.gpkg, of 2024-05-04, run 24, pixels of 5 mm.\n" in told
    assert json.loads(report.files.figures.read_text("utf-8")) == report.figures


@needs_browser
def test_the_page_opens_a_change_from_its_table(maps, tmp_path):
    report = run_compare(*maps, tmp_path / "changes.gpkg")
    with browser(report.files.page.as_uri(), tmp_path) as shown:
        shown.run("document.querySelectorAll('#tables details').forEach((d) => { d.open = true; })")
        shown.run("document.querySelectorAll('#tables details')[1].querySelector('button').click()")
        assert shown.run("document.querySelector('#chosen h2').textContent") == "Crack: new"
        shown.run(
            "(() => { const list = document.querySelector('select[name=class]'); "
            "list.value = 'grown'; list.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        assert shown.run("document.getElementById('shown').textContent").endswith(
            f"changes, {report.figures['meters']['grown']:.1f} m"
        )


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


def test_maps_of_one_name_and_of_long_systems_are_told_in_few_words(maps, tmp_path, capsys):
    old, new = (tmp_path / year / "city" / "map.gpkg" for year in ("2024", "2026"))
    for path, source in zip((old, new), maps, strict=True):
        path.parent.mkdir(parents=True)
        shutil.copy(source, path)
    high = CRS("EPSG:25833+7837")  # with heights, as drones deliver
    for layer, kind in pyogrio.list_layers(old):
        if kind is not None:
            table = pyogrio.read_dataframe(old, layer=layer).to_crs(high)
            pyogrio.write_dataframe(table, old, layer=layer)
    report = run_compare(old, new, tmp_path / "changes.gpkg")
    names, system = ("2024/city/map.gpkg", "2026/city/map.gpkg"), high.name
    assert f"{names[0]} is brought from {system} into the system of {names[1]}" in (
        capsys.readouterr().err
    )
    (run,) = pyogrio.read_dataframe(tmp_path / "changes.gpkg", layer="run").itertuples()
    assert (run.old, run.new, run.old_crs) == (*names, system)
    assert report.figures["old"]["moved_from_crs"] == system
    assert f"# Changes from {names[0]} to {names[1]}\n" in report.files.report.read_text("utf-8")
    assert names[0] in report.files.page.read_text("utf-8")


def test_maps_in_the_wrong_order_of_their_days_are_warned_of(maps, tmp_path, monkeypatch, capsys):
    earlier = Mock(survey_date="2026-05-04", run_id="a", moved_from=None)
    later = Mock(survey_date="2024-05-04", run_id="a")
    monkeypatch.setattr(
        "jobs.compare.run.read_map", lambda path, crs=None: later if crs is None else earlier
    )
    with pytest.raises(InputError, match="come from one run"):
        run_compare(*maps, tmp_path / "out.gpkg")
    told = capsys.readouterr().err
    assert "old.gpkg was surveyed on 2026-05-04, after new.gpkg (2024-05-04): if that is" in told
    earlier.survey_date = "2023-05-04"
    with pytest.raises(InputError, match="come from one run"):
        run_compare(*maps, tmp_path / "out.gpkg")
    assert "surveyed on" not in capsys.readouterr().err


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_map_that_is_replaced_while_it_is_read_is_refused(maps, tmp_path, monkeypatch, is_gone):
    """Its cracks would be those of one map, its ground that of another."""
    old, new = (Path(shutil.copy(path, tmp_path)) for path in maps)
    read = compared._read

    def replaced(path, layer):
        if layer is INSPECTED:
            new.unlink() if is_gone else Path(shutil.copy(old, f"{new}.tmp")).replace(new)
        return read(path, layer)

    monkeypatch.setattr(compared, "_read", replaced)
    with pytest.raises(InputError, match="was replaced while it was read"):
        run_compare(old, new, tmp_path / "changes.gpkg")
    assert not (tmp_path / "changes.gpkg").exists()


def test_what_cannot_be_compared_is_refused_in_one_sentence(maps, tmp_path, monkeypatch):
    old, new = maps
    out, link = tmp_path / "out.gpkg", tmp_path / "link.gpkg"
    link.symlink_to(old)
    foreign = tmp_path / "foreign.gpkg"
    geopandas.read_file(old, layer="crack").to_file(foreign, layer="lines")
    text = tmp_path / "text.gpkg"
    text.write_text("no map")
    before = tmp_path / "before.gpkg"
    shutil.copy(old, before)
    areas = geopandas.read_file(old, layer="crack")
    areas.set_geometry(areas.buffer(0.01)).to_file(before, layer="crack")
    twin = shutil.copy(old, tmp_path / "twin.gpkg")
    cases = {
        "is not a file": (tmp_path / "none.gpkg", new, out),
        "are one file": (old, link, out),
        "one of the two maps": (old, new, new),
        "name it": (old, new, tmp_path / "out.shp"),
        "is not a folder": (old, new, text / "out.gpkg"),
        "is read-only": (old, new, tmp_path / "shut" / "maps" / "out.gpkg"),
        "is not UTF-8": (old, new, tmp_path / os.fsdecode(b"a\xdf.gpkg")),
        "no layer crack": (foreign, new, out),
        "is not a GeoPackage": (text, new, out),
        "come from one run": (old, twin, out),
        "an earlier version wrote it": (before, new, out),
    }
    (tmp_path / "shut").mkdir()
    writable = os.access  # as root is allowed everything
    monkeypatch.setattr(
        os, "access", lambda path, mode: path.name != "shut" and writable(path, mode)
    )
    for words, paths in cases.items():
        with pytest.raises(GeoError, match=words) as told:
            run_compare(*paths)
        assert "\n" not in str(told.value)
    assert not out.exists()
    with hold_output(out, "x"), pytest.raises(GeoError, match="another process writes --out"):
        run_compare(old, new, out)
    for limit in (0, -1, 3, float("nan")):
        with pytest.raises(GeoError, match="limit of the shift"):
            CompareOptions.with_limit(limit)
