"""Styles in the GeoPackage."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import xml.etree.ElementTree as ET
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pyogrio
import pytest
from factories import EAST, NORTH, grid_of, write_roads

from geo.layers.assemble import assemble
from geo.layers.qgis import PROJECT, qml, sld
from geo.layers.run_rows import MapTerms
from geo.layers.schema import CHANGE_SEGMENT
from geo.layers.style import CITY_SCALE, STREET_SCALE, change_styles, equals, styles
from geo.layers.words import CLASS_WORDS
from geo.options import AssembleOptions, RoadOptions, Rules, SegmentOptions, SeverityOptions
from geo.packages import additions

STYLES = styles(Rules())
ALL_STYLES = (*STYLES, *change_styles())
GRID = grid_of((8, 8))


@pytest.fixture
def empty(tmp_path) -> Path:
    return assemble([], tmp_path / "out.gpkg", GRID, AssembleOptions()).path


@pytest.fixture
def with_roads(tmp_path) -> Path:
    roads = write_roads(tmp_path / "roads.gpkg", [[(EAST, NORTH), (EAST + 1, NORTH)]])
    options = AssembleOptions(roads=RoadOptions(path=roads))
    return assemble([], tmp_path / "out.gpkg", GRID, options).path


@pytest.mark.parametrize("style", ALL_STYLES, ids=lambda style: style.layer.name)
def test_a_style_is_sound_and_names_columns_that_exist(style):
    root = ET.fromstring(qml(style).split(">", 1)[1])
    rules = root.findall(".//rule")
    symbols = {symbol.get("name") for symbol in root.findall(".//symbol")}
    assert {rule.get("symbol") for rule in rules} == symbols
    columns = {column.name for column in style.layer.columns}
    for rule in style.rules:
        assert rule.filter == "ELSE" or any(f'"{name}"' in rule.filter for name in columns)
    assert {alias.get("field") for alias in root.findall(".//alias")} == columns
    assert {field.get("name") for field in root.findall(".//field")} == columns & {*CLASS_WORDS}
    kinds = {symbol.get("type") for symbol in root.findall(".//symbol")}
    assert kinds == {"fill" if style.layer.geometry == "MultiPolygon" else "line"}


SE, OGC = "{http://www.opengis.net/se}", "{http://www.opengis.net/ogc}"


@pytest.mark.parametrize("style", ALL_STYLES, ids=lambda style: style.layer.name)
def test_sld_has_the_rules_of_the_style(style):
    """Where the scale chooses the width of a line, it has a rule on either side."""
    root = ET.fromstring(sld(style))
    rules = root.findall(f".//{SE}Rule")
    looks = []
    for look in style.rules:
        cuts = [0, STREET_SCALE, look.farthest] if look.far_mm else [0, look.farthest]
        looks += [(look, *ends) for ends in pairwise(cuts)]
    for rule, (look, closest, farthest) in zip(rules, looks, strict=True):
        assert rule.find(f"{SE}Name").text == look.label
        literal = rule.find(f".//{OGC}Literal")
        assert equals("c", "" if literal is None else literal.text) == re.sub(
            r'"\w+"', '"c"', look.filter
        )
        scales = [rule.find(f"{SE}{end}ScaleDenominator") for end in ("Min", "Max")]
        assert [0 if s is None else int(s.text) for s in scales] == [closest, farthest]


def test_a_legend_of_qgis_names_each_class_once():
    """Cracks are drawn thinner from far away: the scale chooses the width, no second rule."""
    (cracks,) = (style for style in STYLES if style.layer.name == "crack")
    labels = [rule.label for rule in cracks.rules]
    assert len(labels) == len(set(labels)) == 4
    widths = {e.get("value") for e in ET.fromstring(qml(cracks).split(">", 1)[1]).iter("Option")}
    assert {"if(@map_scale > 500, 0.3, 0.8)", "if(@map_scale > 500, 0.6, 1.1)"} <= widths


def test_a_map_with_its_project_is_unchanged_until_somebody_saves_it(with_roads):
    assert additions(with_roads) == []
    with closing(sqlite3.connect(with_roads)) as base, base:
        base.execute("UPDATE qgis_projects SET content = '00'")
    assert additions(with_roads) == ["changes in qgis_projects"]


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
    assert [rule.label for rule in own["crack"].rules][:3] == [
        "high (> 12.5 mm)", "medium (3 - 12.5 mm)", "low (< 3 mm)",
    ]  # fmt: skip
    assert [rule.label for rule in own["network"].rules] == [
        "network, high", "network, medium", "network, low", "network, not measurable",
    ]  # fmt: skip
    assert own["road_segment"].rules[1].label == "medium priority (7 - 40 %)"
    assert own["road_segment"].rules[-1].label == "not ranked (seen below 30 %)"
    cells = styles(Rules(segments=SegmentOptions(rank_by="zeb_cell_pct")))[3].rules[-1].label
    assert cells == "not ranked (seen below 50 %, lanes not known or concrete)"
    package = assemble([], tmp_path / "out.gpkg", GRID, options).path
    with closing(sqlite3.connect(package)) as base:
        (stored,) = base.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'crack'")
    assert stored[0] == qml(own["crack"])
    assert MapTerms.read(package).rules == options.rules


def test_sums_of_changes_are_called_as_the_changes():
    called = {column.name: column.label for column in CHANGE_SEGMENT.columns}
    for kind, word in CLASS_WORDS["change"].items():
        assert called[f"{kind}_m"] == word


def test_labels_have_letters_of_normal_weight():
    """QGIS takes a weight that is left out for 0, the thinnest letters of the font."""
    (roads,) = (style for style in STYLES if style.layer.name == "road_segment")
    text = ET.fromstring(qml(roads).split(">", 1)[1]).find(".//text-style")
    assert text.get("fontWeight") == "50"


def test_far_away_only_segments_are_drawn():
    for style in STYLES:
        limited = style.layer.name in ("crack", "network", "outline")
        assert all(0 < rule.farthest <= CITY_SCALE for rule in style.rules) == limited


def test_pieces_and_what_was_inspected_are_off_in_the_project():
    assert {s.layer.name for s in STYLES if not s.is_shown} == {"outline", "inspected"}


def test_a_tip_tells_small_areas():
    """A piece of a crack has some square centimeters."""
    (pieces,) = (style for style in STYLES if style.layer.name == "outline")
    assert 'round("area_m2", 4)' in ET.fromstring(qml(pieces).split(">", 1)[1]).findtext("mapTip")


PROJECT_TREE = """
import json, os, sys
from qgis.core import *
application = QgsApplication([], False)
application.initQgis()
project = QgsProject.instance()
assert project.read(f"geopackage:{sys.argv[1]}?projectName={sys.argv[2]}")
found = [[node.name(), node.isVisible(), node.layer().isValid()]
         for node in project.layerTreeRoot().findLayers()]
(roads,) = project.mapLayersByName("Road segments")
feature = next(roads.getFeatures())
scope = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(roads))
scope.setFeature(feature)
tip = QgsExpression.replaceExpressionText(roads.mapTipTemplate(), scope)
names = [roads.attributeDisplayName(k) for k in roads.attributeList()]
print(json.dumps([found, project.crs().authid(), roads.labelsEnabled(), names, tip]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_qgis_opens_the_project_with_layers_in_order(tmp_path):
    roads = write_roads(tmp_path / "r.gpkg", [[(EAST, NORTH), (EAST + 1, NORTH)]], street=["<b>&"])
    options = AssembleOptions(roads=RoadOptions(path=roads, name="street"))
    package = assemble([], tmp_path / "city #2.gpkg", GRID, options).path
    found, crs, has_labels, names, tip = in_qgis(PROJECT_TREE, quote(str(package)), PROJECT)
    assert [name for name, is_visible, _ in found if is_visible] == [
        "Cracks", "Networks", "Road segments", "How this map was made",
    ]  # fmt: skip
    assert all(is_valid for _, _, is_valid in found)
    assert (crs, has_labels) == ("EPSG:25832", True)
    assert {"crack length (m)", "network area (m²)", "line per area (m/m²)"} <= set(names)
    assert "name: &lt;b>&amp;<br>" in tip


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


def in_qgis(script, *arguments):
    """What a script prints last in QGIS's own Python, as JSON."""
    probe = [QGIS_PYTHON, "-c", "import qgis.core"]
    if not Path(QGIS_PYTHON).exists() or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("Debian's python3-qgis is not installed here")
    answer = subprocess.run(
        [QGIS_PYTHON, "-c", script, *arguments],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_qgis_opens_every_layer_with_its_style(with_roads):
    names = [style.layer.name for style in STYLES]
    found = in_qgis(LOAD, str(with_roads), *names)
    assert found == {style.layer.name: [rule.label for rule in style.rules] for style in STYLES}
