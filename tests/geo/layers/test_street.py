"""A drawn street through the whole chain: every attribute of every layer against the truth."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from factories import write_parts, write_roads
from rasterio.crs import CRS
from rasterio.features import rasterize

from geo.grid import Grid
from geo.layers import schema
from geo.layers.assemble import assemble
from geo.layers.run_rows import RunRecord
from geo.options import AssembleOptions, RoadOptions, Rules

GSD = 0.005
TURN = 30.0
LENGTH, HEIGHT, SEEN = 18.0, 4.0, 17.7
"""The street runs along u; meters u along, v across and down; no imagery beyond u = SEEN."""

PLACE = Affine.translation(5e5, 5.8e6) @ Affine.rotation(TURN) @ Affine.scale(GSD, -GSD)
GRID = Grid(PLACE, CRS.from_epsg(25832), (round(HEIGHT / GSD), round(LENGTH / GSD)))
ALONG, ACROSS = 90 - TURN, 180 - TURN
"""Directions of u and v, clockwise from north."""


@dataclass(frozen=True)
class Drawn:
    """A crack of straight lines, and what must be found of it."""

    lines: tuple
    width_mm: float
    probability: int
    orientation: float
    kind: str
    d6433: str
    ltpp: str
    segment: str | None
    nodata: bool = False

    @property
    def line(self):
        return shapely.MultiLineString(self.lines)


HALF = GSD / 2  # the ladder's lines run through pixel centers, so that 15 mm are 3 pixels
LEFT, RIGHT, TOP, BOTTOM = np.array([13.02, 13.98, 1.6, 2.5]) + HALF
LADDER = tuple(
    [((LEFT, v), (RIGHT, v)) for v in np.linspace(TOP, BOTTOM, 5)]
    + [((u, TOP), (u, BOTTOM)) for u in np.linspace(LEFT, RIGHT, 7)]
)
CRACKS = {
    "along": Drawn(
        (((0.5, 1.2), (4.95, 1.36)),), 8, 140, ALONG + 2.06,
        "longitudinal", "not_measurable", "not_measurable", "S7-000",
    ),
    "across": Drawn(
        (((8.2, 0.6), (8.3, 3.4)),), 25, 200, ACROSS - 2.05,
        "transverse", "medium", "high", "S7-001",
    ),
    "slanting": Drawn(
        (((9.5, 1.0), (10.9, 2.4)),), 90, 255, ALONG + 45,
        "diagonal", "high", "high", "S7-001",
    ),
    "verge": Drawn(
        (((14.0, 3.88), (17.0, 3.92)),), 25, 220, ALONG + 0.76, "unknown", "medium", "high", None
    ),
    "cut": Drawn(
        (((16.05, 1.0), (SEEN, 1.04)),), 30, 190, ALONG + 1.39,
        "longitudinal", "medium", "high", "S7-002", nodata=True,
    ),
}  # fmt: skip
NETWORK = Drawn(LADDER, 15, 170, ALONG, "alligator", "high", "", "S7-002")
TOO_SHORT = ((6.5, 2.0), (6.56, 2.0))


def drawn():
    """Mask, 8-bit probability, valid and gray image (H, W)."""
    probability = np.zeros(GRID.shape, np.uint8)
    for crack in (*CRACKS.values(), NETWORK, Drawn((TOO_SHORT,), 10, 99, 0, "", "", "", None)):
        cap = "square" if crack is NETWORK else "flat"
        ground = crack.line.buffer(crack.width_mm / 2000, cap_style=cap, join_style="mitre")
        outline = shapely.transform(ground, lambda u_v: u_v / GSD)
        probability[rasterize([outline], out_shape=GRID.shape) > 0] = crack.probability
    valid = np.broadcast_to(np.arange(GRID.shape[1]) < SEEN / GSD, GRID.shape)
    image = np.where(probability > 0, np.uint8(60), np.uint8(150))
    return (probability > 0) & valid, probability, valid, image


def world(geometry):
    return shapely.transform(geometry, lambda u_v: GRID.to_world(u_v / GSD))


@pytest.fixture(scope="module", params=[4000, 411], ids=["one block", "blocks"])
def street(request, tmp_path_factory):
    folder, cut = tmp_path_factory.mktemp("street"), request.param
    mask, probability, valid, image = drawn()
    parts = write_parts(folder, GRID, mask, probability, cut, valid, image, seconds=0.25)
    line = shapely.get_coordinates(world(shapely.LineString([(0, 2), (LENGTH, 2)])))
    columns = {"ref": ["S7"], "called": ["Ringstraße"], "wide": [3.5], "n": [1]}
    roads = write_roads(folder / "roads.gpkg", [line], **columns)
    options = AssembleOptions(
        min_length_m=0.1,
        roads=RoadOptions(
            path=roads, id="ref", name="called", width="wide", lanes="n", section_m=6.0
        ),
        survey_date="2025-05-17",
        model="paper",
        run_id="0123456789ab",
    )
    run = RunRecord("feed", '{"a": 1}', '{"files": 1}', '{"x": "1"}', "2025-05-18", "2025-05-19")
    report = assemble(parts, folder / "out.gpkg", GRID, options, run=run)
    return report, mask


def layer_of(street, layer):
    frame = geopandas.read_file(street[0].path, layer=layer.name)
    assert [name for name in frame.columns if name != "geometry"] == [c.name for c in layer.columns]
    return frame


def found_cracks(street):
    """The rows of the layer by the name of what was drawn."""
    rows = layer_of(street, schema.CRACK)
    assert len(rows) == len(CRACKS)
    nearest = {
        name: rows.distance(world(crack.line.interpolate(0.31))).idxmin()
        for name, crack in CRACKS.items()
    }
    assert len(set(nearest.values())) == len(CRACKS)
    return {name: rows.loc[index] for name, index in nearest.items()}


def test_every_crack_has_the_attributes_that_were_drawn(street):
    report, mask = street
    probability = drawn()[1]
    cracks = found_cracks(street)
    for name, truth in CRACKS.items():
        crack, length = cracks[name], truth.line.length
        pixels = int((mask & (probability == truth.probability)).sum())
        assert crack.area_m2 == pytest.approx(pixels * GSD**2)
        assert crack.length_m == pytest.approx(length, rel=0.02)
        assert crack.geometry.length == pytest.approx(crack.length_m, rel=1e-5)
        assert shapely.hausdorff_distance(crack.geometry, world(truth.line)) < 3 * GSD
        assert crack.gap_m == 0
        if truth.d6433 == "not_measurable":
            assert np.isnan(crack.width_mean_mm)
        else:
            assert crack.width_mean_mm == pytest.approx(truth.width_mm, rel=0.06, abs=1.5)
            assert crack.width_p95_mm == pytest.approx(crack.width_mean_mm)
            assert crack.width_mean_mm <= crack.width_max_mm < 1.2 * truth.width_mm + 2
        turn = (crack.orientation_deg - truth.orientation + 90) % 180 - 90
        assert abs(turn) < 1.0
        assert 0 <= crack.orientation_deg < 180
        assert crack.tortuosity == pytest.approx(1.0, rel=0.02)
        assert (crack.branches, crack.pieces) == (1, 1)
        assert crack["type"] == truth.kind
        assert crack.severity_d6433 == truth.d6433
        assert crack.severity_ltpp == truth.ltpp
        assert crack[f"{truth.d6433}_m"] == pytest.approx(crack.length_m)
        assert crack.confidence == pytest.approx(truth.probability / 255)
        assert crack.gsd_mm == pytest.approx(5)
        assert bool(crack.touches_nodata) == truth.nodata
        assert (None if pd.isna(crack.segment_id) else crack.segment_id) == truth.segment
        assert crack.survey_date.date() == date(2025, 5, 17)
        assert crack.model == "paper"
        assert crack.run_id == "0123456789ab"
        assert len(crack.crack_id) == 16
    assert report.n_dropped == 1
    assert report.length_m == pytest.approx(sum(crack.length_m for crack in cracks.values()))


def test_the_ladder_is_a_network(street):
    report, mask = street
    (network,) = layer_of(street, schema.NETWORK).itertuples()
    hull = (RIGHT - LEFT + 0.015) * (BOTTOM - TOP + 0.015)
    assert network.area_m2 == pytest.approx(hull, rel=0.15)
    assert network.geometry.area == pytest.approx(network.area_m2)
    assert network.crack_length_m == pytest.approx(NETWORK.line.length, rel=0.03)
    assert network.density_m_per_m2 == pytest.approx(network.crack_length_m / network.area_m2)
    assert network.width_mean_mm == pytest.approx(15, abs=2)
    assert (network.kind, network.severity_d6433) == ("alligator", "medium")
    assert network.confidence == pytest.approx(170 / 255)
    assert network.segment_id == "S7-002"
    outlines = layer_of(street, schema.OUTLINE)
    assert (outlines.network_id == network.network_id).sum() == 1
    assert outlines.area_m2.sum() == pytest.approx(report.area_m2)
    assert report.area_m2 == pytest.approx((mask.sum() - 24) * GSD**2, rel=0.001)  # the crumb


def test_every_segment_has_the_figures_that_were_drawn(street):
    report, _ = street
    rows = layer_of(street, schema.ROAD_SEGMENT).set_index("segment_id")
    cracks = found_cracks(street)
    (network,) = layer_of(street, schema.NETWORK).itertuples()
    hit = {"S7-000": 5, "S7-001": 6, "S7-002": 3}  # of 18 cells of 1 m x 1.17 m
    ranks = {"S7-000": 3, "S7-001": 2, "S7-002": 1}
    assert rows.index.tolist() == sorted(hit)
    for number, (name, row) in enumerate(rows.iterrows()):
        own = [key for key, truth in CRACKS.items() if truth.segment == name]
        length = {key: CRACKS[key].line.length for key in own}
        area = 3.5 * (min(6.0 * (number + 1), SEEN) - 6.0 * number)
        assert (row.road_id, row["name"]) == ("S7", "Ringstraße")
        assert (row.from_m, row.to_m) == pytest.approx((6 * number, 6 * number + 6))
        assert (row.length_m, row.width_m) == pytest.approx((6, 3.5))
        assert row.surveyed_area_m2 == pytest.approx(area, rel=0.03)
        assert row.coverage_pct == pytest.approx(100 * area / 21, abs=0.6)
        total = sum(length.values())
        assert row.crack_length_m == pytest.approx(total, rel=0.02)
        assert row.density_m_per_m2 == pytest.approx(row.crack_length_m / row.surveyed_area_m2)
        areas = network.area_m2 if name == "S7-002" else 0.0
        assert row.network_area_m2 == pytest.approx(areas)
        cracked = areas + 0.3 * row.crack_length_m
        assert row.cracking_pct == pytest.approx(100 * cracked / row.surveyed_area_m2)
        assert row.crack_count == len(own)
        assert row.transverse_count == sum(CRACKS[key].kind == "transverse" for key in own)
        for column, attribute in (("severity_d6433", "d6433"), ("type", "kind")):
            for kind in {getattr(truth, attribute) for truth in CRACKS.values()}:
                expected = sum(
                    length[key] for key in own if getattr(CRACKS[key], attribute) == kind
                )
                assert row[f"{kind}_m"] == pytest.approx(expected, rel=0.02), column
        wide = [cracks[key].width_mean_mm for key in own]
        assert row.width_p95_mm == pytest.approx(max(wide), nan_ok=True)
        assert row.zeb_cell_pct == pytest.approx(100 * hit[name] / 18)
        assert row["rank"] == ranks[name]
        assert row.priority == ("medium" if row.cracking_pct >= 5 else "low")
        truth = world(shapely.LineString([(6 * number, 2), (6 * number + 6, 2)]))
        assert shapely.hausdorff_distance(row.geometry, truth) < 1e-3
    assert report.off_road_m == pytest.approx(cracks["verge"].length_m)
    assert rows.crack_length_m.sum() + report.off_road_m == pytest.approx(report.length_m)
    with (report.path.with_suffix(".segments.csv")).open(
        encoding="utf-8-sig", newline=""
    ) as stream:
        table = list(csv.DictReader(stream))
    assert [row["segment_id"] for row in table] == ["S7-002", "S7-001", "S7-000"]
    for row in table:
        assert len(row["crack_length_m"]) <= 8
        exact = rows.crack_length_m[row["segment_id"]]
        assert float(row["crack_length_m"]) == pytest.approx(exact, rel=1e-5)


def test_blocks_and_run_say_what_was_looked_at(street):
    report, _ = street
    blocks = layer_of(street, schema.INSPECTED)
    assert report.n_inspected == len(blocks)
    assert blocks.geometry.area.sum() == pytest.approx(SEEN * HEIGHT)
    assert blocks.block_id.is_unique
    assert set(blocks.status) == {"inspected"}
    assert blocks.reason.isna().all() | (blocks.reason == "").all()
    assert blocks.tiles_failed.isna().all() | (blocks.tiles_failed == "").all()
    assert blocks.gsd_mm.to_numpy() == pytest.approx(5)
    assert set(blocks.survey_date.dt.date) == {date(2025, 5, 17)}
    assert set(blocks.seconds) == {0.25}
    (run,) = layer_of(street, schema.RUN).itertuples(index=False)
    assert run[:-3] == (
        "0123456789ab", "paper", "feed", '{"a": 1}', '{"files": 1}', '{"x": "1"}',
        "2025-05-18", "2025-05-19",
    )  # fmt: skip
    assert Rules.of_text(run.rules) == Rules()
    assert "No pavement condition index" in run.not_claimed
    assert "(longitudinal and transverse, alligator, block)" in run.not_claimed
