"""Styles in the GeoPackage."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import pyogrio
import pytest
from factories import EAST, NORTH, grid_of, write_roads

from geo.layers.assemble import assemble
from geo.layers.run_rows import MapTerms
from geo.layers.style import qml, styles
from geo.options import AssembleOptions, RoadOptions, Rules, SegmentOptions, SeverityOptions

STYLES = styles(Rules())
GRID = grid_of((8, 8))


@pytest.fixture
def empty(tmp_path) -> Path:
    return assemble([], tmp_path / "out.gpkg", GRID, AssembleOptions()).path


@pytest.fixture
def with_roads(tmp_path) -> Path:
    roads = write_roads(tmp_path / "roads.gpkg", [[(EAST, NORTH), (EAST + 1, NORTH)]])
    options = AssembleOptions(roads=RoadOptions(path=roads))
    return assemble([], tmp_path / "out.gpkg", GRID, options).path


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.layer.name)
def test_a_style_is_sound_and_names_columns_that_exist(style):
    root = ET.fromstring(qml(style).split(">", 1)[1])
    rules = root.findall(".//rule")
    symbols = {symbol.get("name") for symbol in root.findall(".//symbol")}
    assert {rule.get("symbol") for rule in rules} == symbols
    columns = {column.name for column in style.layer.columns}
    for rule in style.rules:
        assert rule.filter == "ELSE" or any(f'"{name}"' in rule.filter for name in columns)
    kinds = {symbol.get("type") for symbol in root.findall(".//symbol")}
    assert kinds == {"fill" if style.layer.geometry == "MultiPolygon" else "line"}


def test_each_layer_written_has_its_default_style_and_no_other(empty):
    with closing(sqlite3.connect(empty)) as base:
        rows = base.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault FROM layer_styles"
        )
        assert rows.fetchall() == [
            ("crack", "geom", 1),
            ("network", "geom", 1),
            ("outline", "geom", 1),
            ("inspected", "geom", 1),
        ]
        kind = base.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'")
        assert kind.fetchall() == [("attributes",)]
    assert "layer_styles" in {str(name) for name, _ in pyogrio.list_layers(empty)}


def test_the_legends_name_the_limits_of_the_run(tmp_path):
    limits = SeverityOptions(d6433_mm=(3, 12.5))
    options = AssembleOptions(
        severity=limits, segments=SegmentOptions(min_coverage_pct=30, medium_pct=7, high_pct=40)
    )
    own = {style.layer.name: style for style in styles(options.rules)}
    assert [rule.label for rule in own["crack"].rules][:5:2] == [
        "high (> 12.5 mm)", "medium (3 - 12.5 mm)", "low (< 3 mm)",
    ]  # fmt: skip
    assert own["road_segment"].rules[1].label == "medium priority (7 - 40 %)"
    assert own["road_segment"].rules[-1].label == "not ranked (seen below 30 %)"
    package = assemble([], tmp_path / "out.gpkg", GRID, options).path
    with closing(sqlite3.connect(package)) as base:
        (stored,) = base.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'crack'")
    assert stored[0] == qml(own["crack"])
    assert MapTerms.read(package).rules == options.rules


QGIS_PYTHON = "/usr/bin/python3"  # Debian's python3-qgis belongs to the system's interpreter

LOAD = """
import json, os, sys
from qgis.core import QgsApplication, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
found = {}
for name in sys.argv[2:]:
    layer = QgsVectorLayer(f"{sys.argv[1]}|layername={name}", name, "ogr")
    items = layer.renderer().legendSymbolItems() if layer.isValid() else []
    found[name] = [item.label() for item in items]
print(json.dumps(found))
sys.stdout.flush()
os._exit(0)  # taking the application down crashes in some releases
"""


@pytest.mark.slow
def test_qgis_opens_every_layer_with_its_style(with_roads):
    names = [style.layer.name for style in STYLES]
    probe = [QGIS_PYTHON, "-c", "import qgis.core"]
    if not Path(QGIS_PYTHON).exists() or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("Debian's python3-qgis is not installed here")
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    answer = subprocess.run(
        [QGIS_PYTHON, "-c", LOAD, str(with_roads), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    assert found == {style.layer.name: [rule.label for rule in style.rules] for style in STYLES}
