"""An edited map: what people took out, drew or moved stands in totals, segments, ranks, report."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely.affinity
from factories import layer
from typer.testing import CliRunner

from geo.errors import OutputError
from geo.layers.run_rows import MapTerms
from geo.page.report import summarize
from jobs.cli import app
from jobs.review.apply import run_apply
from jobs.review.run import ReviewOptions, run_review


def rewrite(package, change, name="crack"):
    """Edit a layer as a desktop does: rows, values and shapes; the seal stays as it was."""
    rows = pyogrio.read_dataframe(package, layer=name)
    pyogrio.write_dataframe(change(rows), package, layer=name)


def rows_of(package, name="crack"):
    return pyogrio.read_dataframe(package, layer=name)


def test_a_map_that_nobody_edited_stays_as_it_is(package):
    before = package.read_bytes()
    result = CliRunner().invoke(app, ["review", "--apply", str(package)])
    assert result.exit_code == 0, result.output
    assert "nothing to apply" in result.output
    assert package.read_bytes() == before


def test_a_change_without_meaning_keeps_every_figure(package):
    before = {name: layer(package, name) for name in ("crack", "outline", "road_segment")}
    rewrite(package, lambda rows: rows.assign(verdict="right"))
    assert run_apply(package).applied is not None
    for name, table in before.items():
        after = layer(package, name).drop(columns="verdict", errors="ignore")
        assert after.equals(table.drop(columns="verdict", errors="ignore")), name


@pytest.mark.parametrize("how", ["deleted", "verdict"])
def test_what_a_person_took_out_is_gone_everywhere(package, how):
    old = rows_of(package).sort_values("length_m", ascending=False, ignore_index=True)
    gone, roads = old.iloc[0], rows_of(package, "road_segment")

    def edit(rows):
        own = rows["crack_id"] == gone["crack_id"]
        return rows[~own] if how == "deleted" else rows.assign(verdict=np.where(own, "Wrong", None))

    rewrite(package, edit)
    applied = run_apply(package).applied
    assert applied.kept is not None
    assert applied.kept.is_file()
    assert applied.wrong == (how == "verdict")
    now = rows_of(package)
    assert set(now["crack_id"]) == set(old["crack_id"]) - {gone["crack_id"]}
    assert not (rows_of(package, "outline")["crack_id"] == gone["crack_id"]).any()
    report = summarize(package)
    assert report.length_m == pytest.approx(old["length_m"].sum() - gone["length_m"])
    segments = rows_of(package, "road_segment")
    assert segments["crack_length_m"].sum() == pytest.approx(
        roads["crack_length_m"].sum() - gone["length_m"], abs=0.06
    )
    assert segments["crack_count"].sum() == roads["crack_count"].sum() - 1
    assert sorted(segments["rank"].dropna()) == list(range(1, len(segments) + 1))
    assert f"{report.cracks} cracks" in package.with_name("cracks.report.md").read_text("utf-8")


def test_a_drawn_line_gets_an_id_a_length_and_a_street(package):
    def draw(rows):
        line = shapely.affinity.translate(rows.geometry.iloc[0], 0, -0.2)
        more = geopandas.GeoDataFrame(geometry=[line], crs=rows.crs)
        return geopandas.GeoDataFrame(pd.concat([rows, more], ignore_index=True), crs=rows.crs)

    before = rows_of(package)
    rewrite(package, draw)
    applied = run_apply(package).applied
    assert (applied.drawn, applied.cracks) == (1, len(before) + 1)
    new = rows_of(package)
    (row,) = new[new["crack_id"].str.startswith("drawn-")].itertuples()
    assert row.length_m == pytest.approx(row.geometry.length)
    assert row.type == "longitudinal"
    assert row.segment_id in set(rows_of(package, "road_segment")["segment_id"])


def test_the_run_says_that_the_map_was_edited(package):
    rewrite(package, lambda rows: rows.iloc[1:])
    with sqlite3.connect(package) as base:
        base.execute("UPDATE run SET accuracy = NULL")
    run_apply(package)
    run = pyogrio.read_dataframe(package, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["changes"] == ["changes in crack"]
    assert MapTerms.read(package).run_id == run["run_id"]
    assert "nothing to apply" in run_apply(package).summary()


@pytest.mark.parametrize("cell", ["5", "[1]", "{", "nothing"])
def test_an_accuracy_that_nobody_can_read_does_not_stop_an_edit(package, cell):
    rewrite(package, lambda rows: rows.iloc[1:])
    with sqlite3.connect(package) as base:
        base.execute("UPDATE run SET accuracy = ?", (cell,))
    run_apply(package)
    run = pyogrio.read_dataframe(package, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["changes"] == ["changes in crack", "changes in run"]


def beside(package):
    """Cracks in the files beside a map, and the bytes of its pages."""
    tables = [pyogrio.read_info(package.with_name("cracks_crack.pmtiles"))["features"]]
    tables.append(len(pd.read_parquet(package.with_name("cracks_crack.parquet"))))
    return tables, package.with_name("cracks.streets.pdf").read_bytes()


def test_every_format_that_stands_beside_the_map_is_made_again(package):
    before = beside(package)
    rewrite(package, lambda rows: rows.iloc[1:])
    report = run_apply(package)
    assert report.formats == ("parquet", "pmtiles", "pdf")
    assert "also made again, beside it: parquet, pmtiles, pdf" in report.summary()
    after = beside(package)
    assert after[0][1] == before[0][1] - 1 == report.applied.cracks
    assert after[0][0] < before[0][0]
    assert after[1] != before[1]


def test_formats_that_nobody_asked_for_do_not_appear(package):
    for path in package.parent.glob("cracks*"):
        if path.suffix in (".parquet", ".pmtiles", ".pdf"):
            path.unlink()
    rewrite(package, lambda rows: rows.iloc[1:])
    assert run_apply(package).formats == ()
    assert not [*package.parent.glob("*.parquet"), *package.parent.glob("*.pmtiles")]


def test_pages_that_need_the_imagery_are_named_where_it_is_gone(package, capsys):
    shutil.rmtree(package.with_suffix(".work"))
    before = beside(package)
    rewrite(package, lambda rows: rows.iloc[1:])
    assert run_apply(package).formats == ("parquet", "pmtiles")
    assert "cracks.overview.png and cracks.streets.pdf still show the map before" in (
        capsys.readouterr().err
    )
    assert beside(package)[1] == before[1]


def test_a_read_only_folder_is_refused_before_any_work(package, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: path != package.parent)  # root may do all
    before = {path.name: path.read_bytes() for path in package.parent.glob("*.*") if path.is_file()}
    for review in (run_apply, lambda package: run_review(package, ReviewOptions())):
        with pytest.raises(OutputError, match="is read-only"):
            review(package)
    assert all((package.parent / name).read_bytes() == data for name, data in before.items())


def test_a_file_of_others_with_the_name_of_a_format_is_refused_first(package):
    package.with_name("cracks_crack.parquet").write_bytes(b"mine")
    rewrite(package, lambda rows: rows.iloc[1:])
    edited = package.read_bytes()
    with pytest.raises(OutputError, match=r"cracks_crack\.parquet"):
        run_apply(package)
    assert package.read_bytes() == edited
