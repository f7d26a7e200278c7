"""The report in words and numbers."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from factories import EAST, NORTH, grid_of, write_parts, write_roads

from geo.errors import OutputError
from geo.imagery.headers import TileProblem
from geo.layers.assemble import assemble
from geo.options import AssembleOptions, RoadOptions
from geo.page.report import render, summarize, write_report

TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"


def package(tmp_path, mask, roads=None, problems=(), **place):
    grid, valid = grid_of(mask.shape, **place), np.ones_like(mask)
    valid[:, : mask.shape[1] // 2] = False
    parts = write_parts(tmp_path, grid, mask, valid=valid)
    run = {"survey_date": "2026-05-04", "model": "m-1", "run_id": "0123"}
    options = AssembleOptions(roads=roads, **run)
    return assemble(parts, tmp_path / "out.gpkg", grid, options, problems=problems)


@pytest.fixture
def mask():
    drawn = np.zeros((200, 800), bool)
    drawn[50:54, 450:750] = True
    drawn[150, 450:650] = True
    return drawn


def test_totals_streets_and_failures_are_those_of_the_package(tmp_path, mask):
    lines = [[(EAST, NORTH - y), (EAST + 4, NORTH - y)] for y in (0.25, 0.75)]
    columns = {"street": ["[A|B](javascript:x) <b>", None], "wide": [0.5, 0.5]}
    path = write_roads(tmp_path / "r.gpkg", lines, **columns)
    roads = RoadOptions(path=path, name="street", width="wide")
    lost = [TileProblem("/tiles/cut.tif", "is truncated")]
    built = package(tmp_path, mask, roads, lost)
    report = write_report(built.path, tmp_path / "report.md", tmp_path / "report.json")
    assert report.cracks == 2
    assert report.length_m == pytest.approx(built.length_m)
    assert report.not_measurable_m == pytest.approx(report.length_m)  # no light, no width
    assert report.inspected_m2 == pytest.approx(200 * 400 * 25e-6)
    assert sum(report.length_by_type.values()) == pytest.approx(built.length_m)
    assert report.smallest_width_mm == 10
    named, other = sorted(report.streets, key=lambda s: s.name)
    assert named.crack_length_m == pytest.approx(1.5, rel=0.02)
    assert named.coverage_pct == pytest.approx(50, abs=1)
    assert other.name == "road 1"
    assert [failure.where for failure in report.failures] == ["/tiles/cut.tif"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| \\[A\\|B\\](javascript:x) &lt;b> | 1 |" in text
    assert re.search(r"\| low m \| medium m \| high m \| not measurable % \|", text)
    assert "| 0.0 | 0.0 | 0.0 | 100 |" in text
    assert "\n\nSurveyed 2026-05-04, model m-1, run 0123.\n\n" in text
    assert "/tiles/cut.tif: is truncated" in text
    assert "No pavement condition index" in text
    stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert stored["cracks"] == 2
    assert stored["streets"][0]["crack_length_m"] == pytest.approx(1.5, rel=0.02)
    assert "\n\nModel m-1, run 0123.\n\n" in render(replace(report, survey_date=None))
    gaps = replace(report, gap_m=0.5, length_m=report.length_m + 0.5)
    assert (
        f"severity add up to the line that was seen, {report.length_m:.1f} m; those by type to the "
        f"cracks with their gaps, {gaps.length_m:.1f} m.\n\n" in render(gaps)
    )  # the tables differ in their sums
    drawn = replace(report, length_by_type={"a|b <i>": 1.0})  # as somebody wrote in QGIS
    assert "| a\\|b &lt;i> | 1.0 |" in render(drawn)


def test_streets_and_what_lies_on_none_of_them_add_up_to_the_totals(tmp_path, mask):
    path = write_roads(tmp_path / "r.gpkg", [[(EAST, NORTH - 0.25), (EAST + 4, NORTH - 0.25)]])
    built = package(tmp_path, mask, RoadOptions(path=path, default_lanes=1, lane_m=0.5))
    report = summarize(built.path)
    (street,) = report.streets
    assert street.crack_length_m == pytest.approx(1.5, rel=0.02)
    assert report.off_road_m == pytest.approx(report.length_m - street.crack_length_m)
    assert report.off_road_m == pytest.approx(built.off_road_m, abs=1e-6)
    assert "\n\n1.0 m of cracks and 0.00 m² of networks lie on none of these streets." in render(
        report
    )


def test_the_worst_street_comes_first_as_in_the_pages(tmp_path, mask):
    """They stood in the order of a figure that the table does not show."""
    lines = [[(EAST + 2, NORTH - y), (EAST + 4, NORTH - y)] for y in (0.25, 0.75)]
    path = write_roads(tmp_path / "r.gpkg", lines, name=["Z", "A"], wide=[0.5, 0.5])
    found = package(tmp_path, mask, RoadOptions(path=path, name="name", width="wide")).path
    assert [street.name for street in summarize(found).streets] == ["Z", "A"]
    with closing(sqlite3.connect(found)) as base, base:  # as of alligator cracking on the other
        for (name,) in base.execute(TRIGGERS).fetchall():
            base.execute(f'DROP TRIGGER "{name}"')  # they need functions of GDAL
        base.execute("UPDATE road_segment SET rank = 3 - rank")
    assert [street.name for street in summarize(found).streets] == ["A", "Z"]
    assert "| worst segment | its cracked % |" in render(summarize(found))


def test_an_empty_map_is_reported_as_empty(tmp_path):
    built = package(tmp_path, np.zeros((10, 10), bool))
    write_report(built.path, tmp_path / "report.md", tmp_path / "report.json")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "0 cracks" in text
    assert "No crack was found" in text
    assert "Nothing failed." in text


def test_areas_are_square_meters_where_the_crs_counts_feet(tmp_path, mask):
    report = summarize(package(tmp_path, mask, crs=2263, gsd=0.01).path)
    assert report.inspected_m2 == pytest.approx(200 * 400 * (0.01 * 0.3048006096) ** 2)


def test_coarse_pixels_have_no_width_and_no_crack_is_called_thin_there(tmp_path, mask):
    """A crack of 80 mm was said to be too thin."""
    report = summarize(package(tmp_path, mask, gsd=0.02).path)
    assert report.smallest_width_mm is None
    assert "have no width and no severity: the pixels are too coarse; " in render(report)
    mixed = replace(report, gsd_mm=5.0, smallest_width_mm=10.0)
    assert "they are too thin, or the pixels too coarse; " in render(mixed)
    fine = replace(mixed, coarsest_gsd_mm=5.0)
    assert "are too thin for a width and a severity; " in render(fine)
    for text in map(render, (report, mixed, fine)):
        assert "| not measurable | " in text


def test_a_report_that_cannot_be_written_is_said(tmp_path, mask):
    built = package(tmp_path, mask)
    with pytest.raises(OutputError, match="absent"):
        write_report(built.path, tmp_path / "absent" / "r.md", tmp_path / "r.json")
