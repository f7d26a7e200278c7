"""An edited map: what people took out, drew or moved stands in totals, segments, ranks, report."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely.affinity
from factories import EAST, NORTH, layer
from typer.testing import CliRunner

from geo.errors import OutputError
from geo.layers.run_rows import MapTerms
from geo.page.report import summarize
from geo.review.edits import apply_edits
from jobs.cli import app
from jobs.review.apply import run_apply
from jobs.review.run import ReviewOptions, run_review
from jobs.runtime.folder import hold_output


def rewrite(package, change, name="crack"):
    """Edit a layer as a desktop does: rows, values and shapes; the seal stays as it was."""
    rows = pyogrio.read_dataframe(package, layer=name)
    pyogrio.write_dataframe(change(rows), package, layer=name)


def rows_of(package, name="crack"):
    return pyogrio.read_dataframe(package, layer=name)


@pytest.fixture
def alone(package):
    """The map without its further formats, which take half of the time when it is made again."""
    for path in package.parent.glob("cracks*"):
        if path.suffix in (".parquet", ".pmtiles", ".pdf"):
            path.unlink()
    return package


def test_a_map_that_nobody_edited_stays_as_it_is(package):
    before = package.read_bytes()
    result = CliRunner().invoke(app, ["review", "--apply", str(package)])
    assert result.exit_code == 0, result.output
    assert "nothing to apply" in result.output
    assert package.read_bytes() == before


def test_a_change_without_meaning_keeps_every_figure(alone):
    before = {name: layer(alone, name) for name in ("crack", "outline", "road_segment")}
    rewrite(alone, lambda rows: rows.assign(verdict="right"))
    assert run_apply(alone).applied is not None
    for name, table in before.items():
        after = layer(alone, name).drop(columns="verdict", errors="ignore")
        assert after.equals(table.drop(columns="verdict", errors="ignore")), name


@pytest.mark.parametrize("how", ["deleted", "verdict"])
def test_what_a_person_took_out_is_gone_everywhere(alone, how):
    old = rows_of(alone).sort_values("length_m", ascending=False, ignore_index=True)
    gone, roads = old.iloc[0], rows_of(alone, "road_segment")

    def edit(rows):
        own = rows["crack_id"] == gone["crack_id"]
        return rows[~own] if how == "deleted" else rows.assign(verdict=np.where(own, "Wrong", None))

    rewrite(alone, edit)
    applied = run_apply(alone).applied
    assert applied.kept is not None
    assert applied.kept.is_file()
    assert applied.wrong == (how == "verdict")
    now = rows_of(alone)
    assert set(now["crack_id"]) == set(old["crack_id"]) - {gone["crack_id"]}
    assert not (rows_of(alone, "outline")["crack_id"] == gone["crack_id"]).any()
    report = summarize(alone)
    assert report.length_m == pytest.approx(old["length_m"].sum() - gone["length_m"])
    segments = rows_of(alone, "road_segment")
    assert segments["crack_length_m"].sum() == pytest.approx(
        roads["crack_length_m"].sum() - gone["length_m"], abs=0.06
    )
    assert segments["crack_count"].sum() == roads["crack_count"].sum() - 1
    assert sorted(segments["rank"].dropna()) == list(range(1, len(segments) + 1))
    assert f"{report.cracks} cracks" in alone.with_name("cracks.report.md").read_text("utf-8")


def test_a_drawn_line_gets_an_id_a_length_and_a_street(alone):
    def draw(rows):
        line = shapely.affinity.translate(rows.geometry.iloc[0], 0, -0.2)
        more = geopandas.GeoDataFrame(geometry=[line], crs=rows.crs)
        return geopandas.GeoDataFrame(pd.concat([rows, more], ignore_index=True), crs=rows.crs)

    before = rows_of(alone)
    rewrite(alone, draw)
    applied = run_apply(alone).applied
    assert (applied.drawn, applied.cracks) == (1, len(before) + 1)
    new = rows_of(alone)
    (row,) = new[new["crack_id"].str.startswith("drawn-")].itertuples()
    assert row.length_m == pytest.approx(row.geometry.length)
    assert row.type == "longitudinal"
    assert row.segment_id in set(rows_of(alone, "road_segment")["segment_id"])


def edited(package, change):
    """Change cracks and apply that; return cracks and segments before, and both after."""
    before = [rows_of(package, name) for name in ("crack", "road_segment")]
    rewrite(package, lambda rows: change(rows).reset_index(drop=True))
    apply_edits(package, package.with_name("cracks.segments.csv"))
    after = [rows_of(package, name) for name in ("crack", "road_segment")]
    assert after[0]["crack_id"].is_unique
    assert not after[0][["length_m", "gap_m", "type"]].isna().any(axis=None)
    totals = after[1][["longitudinal_m", "transverse_m", "diagonal_m", "unknown_m"]].sum().sum()
    assert after[1]["crack_length_m"].sum() == pytest.approx(totals)
    return *before, *after


def row(frame, **values):
    """Return a row that a person adds, with what is given alone."""
    line = values.pop("line")
    table = {name: [value] for name, value in values.items()}
    new = geopandas.GeoDataFrame(table, geometry=[line], crs=frame.crs)
    return geopandas.GeoDataFrame(pd.concat([frame, new], ignore_index=True), crs=frame.crs)


def test_a_crack_with_an_id_and_a_length_alone_is_measured(package):
    line = shapely.MultiLineString([[(EAST + 1, NORTH - 1), (EAST + 1.8, NORTH - 1)]])
    _, roads, cracks, segments = edited(
        package, lambda rows: row(rows, line=line, crack_id="mine", length_m=1.5)
    )
    (mine,) = cracks[cracks["crack_id"] == "mine"].itertuples()
    assert (mine.length_m, mine.gap_m, mine.type) == (pytest.approx(0.8), 0, "longitudinal")
    assert mine.not_measurable_m == pytest.approx(0.8)
    more = segments["crack_length_m"].sum() - roads["crack_length_m"].sum()
    assert more == pytest.approx(0.8, abs=0.01)
    assert (segments["cracking_pct"] < 100).all()


def test_halves_of_a_crack_have_ids_of_their_own_and_no_more_gap_than_it_had(package):
    def split(rows):
        at = rows["length_m"].idxmax()
        (x, y), (u, v) = (rows.geometry[at].centroid.coords[0], (0.1, 0))
        first, gap = [(x - 3 * u, y), (x - u, y + v)], [(x + u, y), (x + 3 * u, y)]
        whole = shapely.MultiLineString([first, gap])
        rows.loc[at, ["gap_m", "length_m"]] = 2 * u, whole.length + 2 * u
        rows.loc[at, "not_measurable_m"] = whole.length
        rows.loc[at, ["low_m", "medium_m", "high_m"]] = 0.0
        middle = (x - 2 * u, y)
        halves = [[first[0], middle]], [[middle, first[1]], gap]
        rows.loc[at, "geometry"] = shapely.MultiLineString(halves[0])
        again = rows.loc[[at]].set_geometry([shapely.MultiLineString(halves[1])], crs=rows.crs)
        return geopandas.GeoDataFrame(pd.concat([rows, again], ignore_index=True), crs=rows.crs)

    old, _, cracks, _ = edited(package, split)
    name = old["crack_id"][old["length_m"].idxmax()]
    halves = cracks[cracks["crack_id"].isin([name, f"{name}-2"])]
    assert halves["gap_m"].to_list() == pytest.approx([0, 0.2])
    assert halves["length_m"].to_list() == pytest.approx([0.1, 0.5])
    assert halves["branches"].to_list() == [1, 2]
    assert halves["not_measurable_m"].to_list() == pytest.approx([0.1, 0.3])


def test_lines_drawn_across_each_other_have_two_ids(package):
    east, north = [(0.5, -1), (1.5, -1)], [(1, -0.5), (1, -1.5)]
    move = np.array([EAST, NORTH])
    lines = [shapely.MultiLineString([np.array(line) + move]) for line in (east, north)]
    *_, cracks, _ = edited(package, lambda rows: row(row(rows, line=lines[0]), line=lines[1]))
    drawn = cracks[cracks["crack_id"].str.startswith("drawn-")]
    assert drawn["type"].to_list() == ["longitudinal", "transverse"]
    assert drawn["tortuosity"].to_list() == pytest.approx([1, 1])


def test_a_drawn_line_has_the_direction_of_its_parts_not_of_the_way_between_them(package):
    parts = [(0.5, -1), (1, -1)], [(0.5, -1.4), (1, -1.4)]
    line = shapely.MultiLineString([np.array(part) + np.array([EAST, NORTH]) for part in parts])
    *_, cracks, _ = edited(package, lambda rows: row(rows, line=line))
    (new,) = cracks[cracks["crack_id"].str.startswith("drawn-")].itertuples()
    assert (new.orientation_deg, new.length_m, new.gap_m) == (pytest.approx(90), 1, 0)


def test_a_turned_crack_has_another_direction_and_type(package):
    old, _, cracks, _ = edited(package, turn_longest)
    at = old["length_m"].idxmax()
    was, now = old.loc[at], cracks.set_index("crack_id").loc[old["crack_id"][at]]
    assert (was["type"], now["type"]) == ("longitudinal", "transverse")
    assert now["orientation_deg"] == pytest.approx((was["orientation_deg"] + 90) % 180)
    assert now["length_m"] == pytest.approx(was["length_m"], rel=1e-5)
    assert now["tortuosity"] == pytest.approx(was["tortuosity"], rel=1e-5)
    same = [name for name in old if name != "geometry"]
    assert cracks.loc[cracks.index != at, same].equals(old.loc[old.index != at, same])
    run = pyogrio.read_dataframe(package, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["moved"] == 1


def turn_longest(rows):
    at = rows["length_m"].idxmax()
    rows.loc[at, "geometry"] = shapely.affinity.rotate(rows.geometry[at], 90)
    return rows


def test_a_moved_crack_lies_on_the_street_where_it_is_now(package):
    def move(rows):
        rows.loc[0, "geometry"] = shapely.affinity.translate(rows.geometry[0], 1.9, 0)
        return rows

    old, roads, cracks, _ = edited(package, move)
    assert old["segment_id"][0] != cracks["segment_id"][0] == roads["segment_id"].iloc[-1]
    run = pyogrio.read_dataframe(package, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["moved"] == 1


def test_a_crack_moved_off_every_road_has_no_street_and_no_type(package):
    def move(rows):
        rows.loc[0, "geometry"] = shapely.affinity.translate(rows.geometry[0], 0, 500)
        return rows

    *_, cracks, _ = edited(package, move)
    assert cracks["segment_id"].isna()[0]
    assert cracks["type"][0] == "unknown"


def test_a_map_without_a_crack_is_left_when_all_were_taken_out(package):
    rewrite(package, lambda rows: rows.assign(verdict="wrong"))
    assert run_apply(package).applied.cracks == 0
    assert (rows_of(package, "road_segment")["crack_length_m"] == 0).all()


def test_the_run_says_that_the_map_was_edited(alone):
    rewrite(alone, lambda rows: rows.iloc[1:])
    with closing(sqlite3.connect(alone)) as base, base:
        base.execute("UPDATE run SET accuracy = NULL")
    run_apply(alone)
    run = pyogrio.read_dataframe(alone, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["changes"] == ["changes in crack"]
    assert MapTerms.read(alone).run_id == run["run_id"]
    assert "nothing to apply" in run_apply(alone).summary()


@pytest.mark.parametrize("cell", ["5", "[1]", "{", "nothing"])
def test_an_accuracy_that_nobody_can_read_does_not_stop_an_edit(alone, cell):
    rewrite(alone, lambda rows: rows.iloc[1:])
    with closing(sqlite3.connect(alone)) as base, base:
        base.execute("UPDATE run SET accuracy = ?", (cell,))
    run_apply(alone)
    run = pyogrio.read_dataframe(alone, layer="run").iloc[0]
    assert json.loads(run["inputs"])["edits"]["changes"] == ["changes in crack", "changes in run"]


def beside(package):
    """Cracks in the files beside a map, and the bytes of its pages."""
    tables = [pyogrio.read_info(package.with_name("cracks_crack.pmtiles"))["features"]]
    tables.append(len(pd.read_parquet(package.with_name("cracks_crack.parquet"))))
    return tables, package.with_name("cracks.streets.pdf").read_bytes()


def test_every_format_that_stands_beside_the_map_is_made_again(package):
    before, parts = beside(package), package.with_name("cracks_crack.parquet")
    with closing(sqlite3.connect(package)) as base, base:
        base.execute("UPDATE run SET config = json_set(config, '$.parquet_rows', 1)")
    rewrite(package, lambda rows: rows.iloc[1:])
    report = run_apply(package)
    assert parts.is_dir()  # as a map with that setting has it
    assert report.formats == ("parquet", "pmtiles", "pdf")
    assert "also made again, beside it: parquet, pmtiles, pdf" in report.summary()
    after = beside(package)
    assert after[0][1] == before[0][1] - 1 == report.applied.cracks
    assert after[0][0] < before[0][0]
    assert after[1] != before[1]


def test_formats_that_nobody_asked_for_do_not_appear(alone):
    rewrite(alone, lambda rows: rows.iloc[1:])
    assert run_apply(alone).formats == ()
    assert not [*alone.parent.glob("*.parquet"), *alone.parent.glob("*.pmtiles")]


def test_pages_that_need_the_imagery_are_named_where_it_is_gone(package, capsys):
    shutil.rmtree(package.with_suffix(".work"))
    before = beside(package)
    rewrite(package, lambda rows: rows.iloc[1:])
    assert run_apply(package).formats == ("parquet", "pmtiles")
    assert "cracks.overview.png and cracks.streets.pdf still show the map before" in (
        capsys.readouterr().err
    )
    assert beside(package)[1] == before[1]


@pytest.mark.parametrize("fails", ["write_report", "write_csv"])
def test_what_a_full_disk_left_of_the_map_before_is_made_again(alone, monkeypatch, fails):
    whole = alone.parent / "whole"
    shutil.copytree(alone.parent, whole)
    for package in (alone, whole / alone.name):
        rewrite(package, lambda rows: rows.iloc[1:])
    run_apply(whole / alone.name)

    def full(*_):
        raise OutputError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(
            f"{'jobs.review.run' if fails == 'write_report' else 'geo.review.edits'}.{fails}", full
        )
        with pytest.raises(OutputError, match="no space"):
            run_apply(alone)
    run_apply(alone)
    for name in ("cracks.report.json", "cracks.segments.csv"):
        assert (alone.parent / name).read_bytes() == (whole / name).read_bytes()
    assert run_apply(alone).applied is None


def test_a_read_only_folder_is_refused_before_any_work(package, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: path != package.parent)  # root may do all
    before = {path.name: path.read_bytes() for path in package.parent.glob("*.*") if path.is_file()}
    for review in (run_apply, lambda package: run_review(package, ReviewOptions())):
        with pytest.raises(OutputError, match="is read-only"):
            review(package)
    assert all((package.parent / name).read_bytes() == data for name, data in before.items())


def test_a_map_that_another_process_writes_is_left_alone(package):
    rewrite(package, lambda rows: rows.iloc[1:])
    edited = package.read_bytes()
    with hold_output(package, "x"), pytest.raises(OutputError, match="and give the same command"):
        run_apply(package)
    assert package.read_bytes() == edited


def test_a_file_of_others_with_the_name_of_a_format_is_refused_first(package):
    package.with_name("cracks_crack.parquet").write_bytes(b"mine")
    rewrite(package, lambda rows: rows.iloc[1:])
    edited = package.read_bytes()
    with pytest.raises(OutputError, match=r"cracks_crack\.parquet"):
        run_apply(package)
    assert package.read_bytes() == edited
