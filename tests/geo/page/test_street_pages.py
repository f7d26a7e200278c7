"""A PDF with one page per street."""

from __future__ import annotations

import re
import zlib
from base64 import a85decode

import geopandas
import numpy as np
import pytest
from factories import EAST, NORTH, grid_of, write_parts, write_roads, write_tile
from reportlab.pdfbase.pdfmetrics import stringWidth

from geo import read_tiles
from geo.errors import OutputError
from geo.imagery.overview import blank_backdrop, reduce
from geo.layers.assemble import assemble
from geo.options import AssembleOptions, RoadOptions, SegmentOptions
from geo.outputs import is_own
from geo.page.kinds import map_kinds
from geo.page.letters import BOLD, FONT
from geo.page.report import summarize
from geo.page.street_pages import COLUMNS, MAP_WIDTH, places, write_street_pages


def texts(path):
    """What the pages say, page by page."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", path.read_bytes(), re.DOTALL)
    pages = []
    for stream in streams:
        if not stream.strip().endswith(b"~>"):  # an embedded font
            continue
        page = zlib.decompress(a85decode(b"<~" + stream.strip(), adobe=True))
        if b" Tj" in page:
            told = page.decode("latin-1").replace(r"\262", "²")
            pages.append(re.findall(r"\((.*?)\) Tj", told))
    return pages


@pytest.fixture
def street(tmp_path):
    grid = grid_of((200, 800), 0.02)
    mask = np.zeros(grid.shape, bool)
    mask[50:53, 50:600] = mask[150, 100:200] = True
    write_tile(tmp_path / "tiles" / "a.tif", np.where(mask, 40, 120).astype(np.uint8), gsd=0.02)
    lines = [[(EAST, NORTH - y), (EAST + 16, NORTH - y)] for y in (1.0, 3.0)]
    columns = {"street": ["Allee ü \u4e2d", "Beta (x)"], "wide": [2.0, 2.0]}
    path = write_roads(tmp_path / "roads.gpkg", lines, **columns)
    roads = RoadOptions(path=path, name="street", width="wide")
    parts = write_parts(tmp_path, grid, mask)
    options = AssembleOptions(roads=roads, survey_date="2026-05-04", model="m-1", run_id="0123")
    assemble(parts, tmp_path / "out.gpkg", grid, options)
    assemble(parts, tmp_path / "no_roads.gpkg", grid)
    return tmp_path / "out.gpkg", reduce(read_tiles(tmp_path / "tiles"), 400)


def test_each_street_has_a_page_with_map_table_and_legend(street, tmp_path):
    package, backdrop = street
    assert write_street_pages(package, tmp_path / "s.pdf", backdrop) == 2
    first, second = texts(tmp_path / "s.pdf")
    assert places(package) == ([], ["Allee ü \u4e2d", "Beta (x)"])
    assert first[1:2] == ["surveyed 2026-05-04, model m-1, run 0123"]
    assert re.fullmatch(r"16 m of road in 1 segment: 11\.0 m .* 0\.00 m² of networks\.", first[2])
    assert second[0] == "Beta \\(x\\)"
    assert {"1", "0-000", "11.0", "medium \\(10 - 75 mm\\)"} <= set(first)
    assert {"2", "1-000"} <= set(second)
    assert "Cracks and networks \\(alligator: by pattern\\)" in first
    assert any(line.startswith("Not claimed, of the whole map: No pavement") for line in first)
    assert is_own(tmp_path / "s.pdf")
    with (tmp_path / "s.pdf").open("ab") as file:
        file.write(b"% a note\n")
    assert not is_own(tmp_path / "s.pdf")


def test_each_district_has_a_page_with_its_streets_before_those_of_the_streets(
    street, tmp_path, monkeypatch
):
    _, backdrop = street
    lines = [[(EAST, NORTH - y), (EAST + 16, NORTH - y)] for y in (1.0, 2.0, 3.0)]
    areas = ["North", "South", "South"]
    path = write_roads(tmp_path / "roads.gpkg", lines, street=["A", "B", "C"], area=areas)
    roads = RoadOptions(
        path=path, name="street", district="area", section_m=8, lane_m=0.5, default_lanes=2
    )
    parts = sorted(tmp_path.rglob("*.parquet"))
    assemble(parts, tmp_path / "d.gpkg", grid_of((200, 800), 0.02), AssembleOptions(roads=roads))
    segments = geopandas.read_file(tmp_path / "d.gpkg", layer="road_segment")
    assert segments["district"].tolist() == ["North"] * 2 + ["South"] * 4
    assert places(tmp_path / "d.gpkg") == (["North", "South"], ["A", "B", "C"])
    assert write_street_pages(tmp_path / "d.gpkg", tmp_path / "d.pdf", backdrop) == 5
    pages = texts(tmp_path / "d.pdf")
    assert [page[0] for page in pages] == ["North", "South", "A", "C", "B"]
    south = pages[1]
    at = south.index("C")
    assert south[at - 1 : at + 2] == ["3", "C", "100"]
    assert float(south[at + 3]) == pytest.approx(
        segments.loc[segments["name"] == "C", "crack_length_m"].sum(), abs=0.05
    )
    assert "B" in south
    assert "A" not in south
    monkeypatch.setattr("geo.page.street_pages.MAX_PAGES", 1)
    write_street_pages(tmp_path / "d.gpkg", tmp_path / "d.pdf", backdrop)
    assert [page[0] for page in texts(tmp_path / "d.pdf")] == ["North", "A"]  # the worst of either


@pytest.mark.parametrize(
    ("rank_by", "title", "digits"),
    [("zeb_cell_pct", "cells %", 1), ("density_m_per_m2", "m/m²", 2)],
)
def test_the_table_has_the_figure_by_which_segments_are_ranked(
    street, tmp_path, rank_by, title, digits
):
    """It had the cracked area, whatever the ranks went by."""
    _, backdrop = street
    lines = [[(EAST, NORTH - y), (EAST + 16, NORTH - y)] for y in (1.0, 2.0)]
    path = write_roads(tmp_path / "roads.gpkg", lines, name=["A", "B"], lanes=[2, 2])
    roads = RoadOptions(path=path, name="name", district="name", lanes="lanes", lane_m=0.5)
    options = AssembleOptions(roads=roads, segments=SegmentOptions(rank_by=rank_by))
    parts = sorted(tmp_path.rglob("*.parquet"))
    assemble(parts, tmp_path / "z.gpkg", grid_of((200, 800), 0.02), options)
    segments = geopandas.read_file(tmp_path / "z.gpkg", layer="road_segment")
    write_street_pages(tmp_path / "z.gpkg", tmp_path / "z.pdf", backdrop)
    for page in texts(tmp_path / "z.pdf"):  # of districts and of streets
        assert title in page
        assert "cracked %" not in page
        row = segments[segments["name"] == page[0]].iloc[0]
        at = page.index(str(row["rank"]))
        assert page[at + 3] == f"{row[rank_by]:.{digits}f}"
    assert (rank_by, title, False) in map_kinds(rank_by)["segments"].table.columns


def test_pages_and_report_say_the_same_of_how_much_of_a_street_was_seen(street, tmp_path):
    """Ground is what is nearest to a street, and where nothing was seen length by width."""
    package, backdrop = street
    rows = geopandas.read_file(package, layer="road_segment").assign(district="North")
    rows["surveyed_area_m2"], rows["coverage_pct"] = [4.0, 0.0], [50.0, 0.0]
    rows["name"], rows["length_m"], rows["width_m"] = "Allee", 4.0, 3.0
    rows.to_file(package, layer="road_segment")
    assert write_street_pages(package, tmp_path / "s.pdf", backdrop) == 2
    (found,) = summarize(package).streets
    assert found.coverage_pct == pytest.approx(100 * 4 / (8 + 12))
    page = texts(tmp_path / "s.pdf")[0]
    assert page[page.index("Allee") + 1] == f"{found.coverage_pct:.0f}"


def test_long_names_stay_on_the_page_and_long_ids_apart(street, tmp_path):
    package, backdrop = street
    name = "Street of the " + "Old and New Bridges over the River " * 4
    rows = geopandas.read_file(package, layer="road_segment").assign(name=name.strip())
    road = "{3f2504e0-4f89-11d3-9a0c-0305e82c3301}"
    rows["segment_id"] = [f"{road}-000", f"{road}-001"]
    rows.to_file(package, layer="road_segment")
    assert write_street_pages(package, tmp_path / "s.pdf", backdrop) == 1
    (page,) = texts(tmp_path / "s.pdf")
    title = page[: page.index(next(text for text in page if text.startswith("surveyed")))]
    assert " ".join(reversed(title)) == name.strip()
    assert all(stringWidth(line, BOLD, 9) <= MAP_WIDTH for line in title)
    assert [text for text in page if "4f89" in text] == [
        f"{{3f2504e0-4f89\\2053301}}-00{k}" for k in (0, 1)
    ]
    rows["segment_id"] = ["BOULEVARD-DE-LA-MADELEINE-000", "MM WARWICK DOWN WAY-001"]
    rows.to_file(package, layer="road_segment")
    write_street_pages(package, tmp_path / "s.pdf", backdrop)
    wide = [text for text in texts(tmp_path / "s.pdf")[0] if text.endswith(("EINE-000", "WAY-001"))]
    place = (COLUMNS[2][3] - COLUMNS[1][3]) * MAP_WIDTH  # up to the next column
    assert len(wide) == 2
    assert all(stringWidth(text.replace("\\205", "…"), FONT, 7.5) < place for text in wide)


def test_a_map_without_roads_or_imagery_has_one_page(street, tmp_path):
    package, backdrop = street
    blank = blank_backdrop(backdrop.grid, 100)
    assert write_street_pages(package.with_name("no_roads.gpkg"), tmp_path / "s.pdf", blank) == 1
    (page,) = texts(tmp_path / "s.pdf")
    assert page[0] == "Crack map"
    rows = geopandas.read_file(package, layer="inspected").assign(survey_date=["2026-05-04"])
    rows.to_file(package, layer="inspected")
    cracks = geopandas.read_file(package, layer="crack")
    cracks.assign(survey_date=None).to_file(package, layer="crack")
    write_street_pages(package, tmp_path / "s.pdf", blank)  # a road without a crack has a day, too
    assert texts(tmp_path / "s.pdf")[0][1].startswith("surveyed 2026-05-04, ")
    with pytest.raises(OutputError, match="absent"):
        write_street_pages(package, tmp_path / "absent" / "s.pdf", blank)
