"""Styles and a project for desktop GIS, stored in the GeoPackage: QML, SLD and `qgis_projects`.

The documents are written as QGIS writes them, with what differs from its defaults alone: rules and
scales, labels, names of columns in words with units, classes in words, map tips. The project opens
the layers in their order, under their titles.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from rasterio.crs import CRS

from geo.layers.schema import GEOMETRY, Layer, class_words
from geo.layers.style import CASING, CITY_SCALE, OPAQUE, STREET_SCALE, Rule, Style, rgba

PROJECT = "cracks"
"""Name of the project in the GeoPackage."""

ID = "wpcrack_layer_"
"""Begin of the names by which a project refers to layers: QGIS takes none below 11 letters."""

TITLES = {"run": "How this map was made"}
"""Of tables, in a project."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Time in an archive: equal maps are equal files."""

AREA_DIGITS = 4
"""Of square meters in a map tip: a piece of a crack may have a few square centimeters."""

PX_MM = 0.28
"""Size of a pixel in SLD."""

CASING_MM = 0.3
"""By which the border of a line makes it wider."""

_EQUALS = re.compile(r"\"(\w+)\" = '(\w+)'")
"""What `geo.layers.style.equals` writes."""

_STYLES_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
    f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""

_STYLES_CONTENTS = """
INSERT INTO gpkg_contents (table_name, data_type, identifier, description)
VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles that QGIS applies on opening')"""

_PROJECTS_TABLE = "CREATE TABLE qgis_projects (name TEXT PRIMARY KEY, metadata BLOB, content BLOB)"


def add_styles(package: Path, looks: Sequence[Style]) -> None:
    """Store the styles of the layers of a GeoPackage, as defaults."""
    with closing(sqlite3.connect(package)) as base, base:
        base.execute(_STYLES_TABLE)
        base.execute(_STYLES_CONTENTS)
        base.executemany(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner) "
            "VALUES ('', '', ?, ?, ?, ?, ?, 1, ?, '')",
            [
                (
                    *(s.layer.name, GEOMETRY, s.name, qml(s), sld(s)),
                    f"{s.layer.name} by {s.name}",
                )
                for s in looks
            ],
        )


def add_project(
    package: Path, names: tuple[str, str], crs: CRS, layers: Sequence[Layer], looks: Sequence[Style]
) -> None:
    """Store a project of QGIS that opens the layers of a GeoPackage.

    Args:
        package: the file as it is being written.
        names: that under which the file will be opened, and the project's title.
        crs: of its layers.
        layers: that it has.
        looks: of the spatial ones, in their order.
    """
    tables = [layer for layer in layers if not layer.is_spatial]
    with closing(sqlite3.connect(package)) as base, base:
        extent = base.execute(
            "SELECT min(min_x), min(min_y), max(max_x), max(max_y) FROM gpkg_contents"
        ).fetchone()
        known = None if None in extent else extent
        document = project(names, crs, looks, tables, known)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"{PROJECT}.qgs", LONG_AGO), document)
        about = {"last_modified_time": None, "last_modified_user": "wpcrack"}
        base.execute(_PROJECTS_TABLE)
        base.execute(
            "INSERT INTO qgis_projects VALUES (?, ?, ?)",
            (PROJECT, json.dumps(about), packed.getvalue().hex()),
        )


def project(
    names: tuple[str, str],
    crs: CRS,
    looks: Sequence[Style],
    tables: Sequence[Layer],
    extent: tuple[float, float, float, float] | None,
) -> str:
    """Write a project as QGIS's own document: layers in the order of the styles, then tables."""
    (file_name, caption), system = names, _system(crs)
    tree, layers = [], []
    for style in looks:
        name, title = style.layer.name, style.title or style.layer.name
        checked = "Qt::Checked" if style.is_shown else "Qt::Unchecked"
        tree.append(_tree_entry(name, title, checked, _source(file_name, name)))
        layers.append(
            f'<maplayer type="vector" labelsEnabled="{int(bool(style.label))}">'
            f"{_layer_head(file_name, name, title)}<srs>{system}</srs>{_look(style)}"
            "</maplayer>"
        )
    for table in tables:
        name, title = table.name, TITLES.get(table.name, table.name)
        tree.append(_tree_entry(name, title, "Qt::Checked", _source(file_name, name)))
        head = _layer_head(file_name, name, title)
        layers.append(f'<maplayer type="vector">{head}{_fields(table)}</maplayer>')
    sides = zip(("xmin", "ymin", "xmax", "ymax"), extent or (), strict=False)
    box = "".join(f"<{side}>{value!r}</{side}>" for side, value in sides)
    view = f"<extent>{box}</extent>" if extent else ""
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        f'<qgis version="3.22.0" projectname={quoteattr(caption)}>'
        f"<title>{escape(caption)}</title>"
        f"<projectCrs>{system}</projectCrs><layer-tree-group>{''.join(tree)}</layer-tree-group>"
        f'<mapcanvas name="theMapCanvas" annotationsVisible="1">{view}'
        f"<destinationsrs>{system}</destinationsrs></mapcanvas>"
        f"<projectlayers>{''.join(layers)}</projectlayers>"
        '<properties><Paths><Absolute type="bool">false</Absolute></Paths><SpatialRefSys>'
        '<ProjectionsEnabled type="int">1</ProjectionsEnabled></SpatialRefSys></properties></qgis>'
    )


def _source(file_name: str, layer: str) -> str:
    return f"./{file_name}|layername={layer}"


def _tree_entry(name: str, title: str, checked: str, source: str) -> str:
    return (
        f"<layer-tree-layer id={quoteattr(ID + name)} name={quoteattr(title)} "
        f'checked="{checked}" expanded="0" providerKey="ogr" source={quoteattr(source)}/>'
    )


def _layer_head(file_name: str, name: str, title: str) -> str:
    return (
        f"<id>{ID}{name}</id><datasource>{escape(_source(file_name, name))}</datasource>"
        f'<layername>{escape(title)}</layername><provider encoding="UTF-8">ogr</provider>'
    )


def _system(crs: CRS) -> str:
    authority = crs.to_authority()
    code = f"<authid>{':'.join(authority)}</authid>" if authority else ""
    wkt = escape(crs.to_wkt(version="WKT2_2019"))
    return f"<spatialrefsys><wkt>{wkt}</wkt>{code}</spatialrefsys>"


def qml(style: Style) -> str:
    """Write a style as QGIS's own document: one rule and one symbol per look."""
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22.0" styleCategories="Symbology|Labeling|Fields|Forms|MapTips" '
        f'labelsEnabled="{int(bool(style.label))}">{_look(style)}</qgis>'
    )


def _look(style: Style) -> str:
    symbol = _fill if style.layer.geometry == "MultiPolygon" else _line
    rules = "".join(
        f"<rule key={quoteattr(str(k))} symbol={quoteattr(str(k))} "
        f"filter={quoteattr(rule.filter)} label={quoteattr(rule.label)}{_scales(rule)}/>"
        for k, rule in enumerate(style.rules)
    )
    symbols = "".join(symbol(k, rule) for k, rule in enumerate(style.rules))
    return (
        '<renderer-v2 type="RuleRenderer" symbollevels="0" enableorderby="0" forceraster="0">'
        f'<rules key="root">{rules}</rules><symbols>{symbols}</symbols></renderer-v2>'
        f"{_labels(style)}{_fields(style.layer)}<mapTip>{escape(_tip(style))}</mapTip>"
    )


def _labels(style: Style) -> str:
    """Write labels along lines, in dark letters with a bright border, from a street's scale on."""
    if not style.label:
        return ""
    dark = rgba(CASING, OPAQUE)
    return (
        '<labeling type="simple"><settings calloutType="simple">'
        f'<text-style fieldName={quoteattr(style.label)} isExpression="1" fontSize="9" '
        f'fontSizeUnit="Point" fontWeight="50" textColor="{dark}" textOpacity="1">'
        '<text-buffer bufferDraw="1" bufferSize="1" bufferSizeUnits="MM" '
        'bufferColor="255,255,255,255" bufferOpacity="1"/></text-style>'
        '<placement placement="2" placementFlags="10" dist="1" distUnits="MM"/>'
        f'<rendering drawLabels="1" scaleVisibility="1" scaleMin="0" scaleMax="{CITY_SCALE}" '
        'mergeLines="0" obstacle="0"/></settings></labeling>'
    )


def _fields(layer: Layer) -> str:
    """Write the columns' names in words, and their classes as value maps."""
    aliases = "".join(
        f'<alias index="{k}" field={quoteattr(c.name)} name={quoteattr(c.alias)}/>'
        for k, c in enumerate(layer.columns, start=1)
    )
    words = class_words(layer)
    widgets = "".join(_value_map(name, words[name]) for name in words)
    return f"<fieldConfiguration>{widgets}</fieldConfiguration><aliases>{aliases}</aliases>"


def _value_map(column: str, words: Mapping[str, str]) -> str:
    pairs = "".join(
        f'<Option type="Map"><Option type="QString" name={quoteattr(word)} '
        f"value={quoteattr(value)}/></Option>"
        for value, word in words.items()
    )
    return (
        f'<field name={quoteattr(column)}><editWidget type="ValueMap"><config>'
        f'<Option type="Map"><Option type="List" name="map">{pairs}</Option></Option>'
        "</config></editWidget></field>"
    )


def _tip(style: Style) -> str:
    """Write what is told where the mouse rests; text of users cannot become markup."""
    columns = {column.name: column for column in style.layer.columns}
    lines = [f"<b>{style.title or style.layer.name}</b>"]
    for column in (columns[name] for name in style.tip):
        value = f'represent_value("{column.name}")'
        unit = f" {column.sign}" if column.sign else ""
        if column.type == "real":
            digits = AREA_DIGITS if column.unit == "m2" else 2
            value = f"round(\"{column.name}\", {digits}) || '{unit}'"
        elif column.name not in class_words(style.layer):
            value = f'"{column.name}"'
        safe = f"replace(coalesce(to_string({value}), '-'), map('&', '&amp;', '<', '&lt;'))"
        lines.append(f"{column.label}: [% {safe} %]")
    return "<br>".join(lines)


def _scales(rule: Rule) -> str:
    """Return the scale of a rule: the larger denominator is QGIS's smallest scale."""
    return f' scalemaxdenom="{rule.farthest}"' if rule.farthest else ""


def _fill(key: int, rule: Rule) -> str:
    options = {
        "color": rule.color,
        "style": rule.brush,
        "outline_color": rule.color,
        "outline_style": "solid",
        "outline_width": f"{rule.size_mm}",
        "outline_width_unit": "MM",
    }
    return _symbol(key, "fill", _layer("SimpleFill", options))


def _line(key: int, rule: Rule) -> str:
    both = {"line_style": "solid", "line_width_unit": "MM", "capstyle": "round"}
    layers = []
    for color, wider_mm in ((rgba(CASING, OPAQUE), CASING_MM), (rule.color, 0.0)):
        options = {"line_color": color, "line_width": f"{rule.size_mm + wider_mm:g}"}
        far = f"{rule.far_mm + wider_mm:g}" if rule.far_mm else ""
        layers.append(_layer("SimpleLine", options | both, far))
    return _symbol(key, "line", "".join(layers))


def _layer(kind: str, options: dict[str, str], far: str = "") -> str:
    """Write a layer of a symbol; `far`: width of its line beyond STREET_SCALE."""
    pairs = options.items()
    entries = "".join(f'<Option type="QString" name="{k}" value="{v}"/>' for k, v in pairs)
    old = "".join(f'<prop k="{k}" v="{v}"/>' for k, v in pairs)  # read by QGIS before 3.26
    wide = _by_scale(far, options["line_width"]) if far else ""
    return (
        f'<layer class="{kind}" enabled="1" locked="0" pass="0">'
        f'<Option type="Map">{entries}</Option>{old}{wide}</layer>'
    )


def _by_scale(far: str, near: str) -> str:
    """Let the scale choose the width of a line: with two rules, legends name each class twice."""
    expression = quoteattr(f"if(@map_scale > {STREET_SCALE}, {far}, {near})")
    return (
        '<data_defined_properties><Option type="Map"><Option type="QString" name="name" value=""/>'
        '<Option type="Map" name="properties"><Option type="Map" name="outlineWidth">'
        '<Option type="bool" name="active" value="true"/>'
        f'<Option type="QString" name="expression" value={expression}/>'
        '<Option type="int" name="type" value="3"/></Option></Option>'
        '<Option type="QString" name="type" value="collection"/></Option></data_defined_properties>'
    )


def _symbol(key: int, kind: str, layers: str) -> str:
    return f'<symbol name="{key}" type="{kind}" alpha="1" clip_to_extent="1">{layers}</symbol>'


def sld(style: Style) -> str:
    """Write a style as SLD 1.1, for programs other than QGIS; "" if its rules compare columns."""
    if any(rule.filter != "ELSE" and not _EQUALS.fullmatch(rule.filter) for rule in style.rules):
        return ""
    rules = "".join(_sld_rules(rule, style.layer) for rule in style.rules)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<StyledLayerDescriptor xmlns="http://www.opengis.net/sld" version="1.1.0" '
        'xmlns:se="http://www.opengis.net/se" xmlns:ogc="http://www.opengis.net/ogc">'
        f"<NamedLayer><se:Name>{style.layer.name}</se:Name><UserStyle>"
        f"<se:Name>{style.name}</se:Name><se:FeatureTypeStyle>{rules}</se:FeatureTypeStyle>"
        "</UserStyle></NamedLayer></StyledLayerDescriptor>"
    )


def _sld_rules(rule: Rule, layer: Layer) -> str:
    """Write a rule, or one for each side of STREET_SCALE, as SLD's widths know no scale."""
    if not rule.far_mm:
        return _sld_rule(rule, layer)
    near = replace(rule, farthest=STREET_SCALE)
    far = replace(rule, size_mm=rule.far_mm)
    return _sld_rule(near, layer) + _sld_rule(far, layer, closest=STREET_SCALE)


def _sld_rule(rule: Rule, layer: Layer, closest: int = 0) -> str:
    chosen = "<se:ElseFilter/>"
    if found := _EQUALS.fullmatch(rule.filter):
        column, value = found.groups()
        chosen = (
            f"<ogc:Filter><ogc:PropertyIsEqualTo><ogc:PropertyName>{column}</ogc:PropertyName>"
            f"<ogc:Literal>{value}</ogc:Literal></ogc:PropertyIsEqualTo></ogc:Filter>"
        )
    near = f"<se:MinScaleDenominator>{closest}</se:MinScaleDenominator>"
    far = f"<se:MaxScaleDenominator>{rule.farthest}</se:MaxScaleDenominator>"
    scales = (near if closest else "") + (far if rule.farthest else "")
    *parts, opacity = map(int, rule.color.split(","))
    color, share = "#" + bytes(parts).hex(), f"{opacity / OPAQUE:.2f}"
    stroke = _sld_stroke(color, share, rule.size_mm)
    if layer.geometry == "MultiPolygon":
        solid = (
            f"{_sld_value('fill', color)}{_sld_value('fill-opacity', f'{float(share) / 3:.2f}')}"
        )
        fill = "" if rule.brush == "no" else f"<se:Fill>{solid}</se:Fill>"
        symbols = f"<se:PolygonSymbolizer>{fill}{stroke}</se:PolygonSymbolizer>"
    else:
        casing = _sld_stroke(CASING, "1", rule.size_mm + CASING_MM)
        symbols = "".join(f"<se:LineSymbolizer>{s}</se:LineSymbolizer>" for s in (casing, stroke))
    return f"<se:Rule><se:Name>{escape(rule.label)}</se:Name>{chosen}{scales}{symbols}</se:Rule>"


def _sld_stroke(color: str, opacity: str, size_mm: float) -> str:
    values = {"stroke": color, "stroke-opacity": opacity, "stroke-width": f"{size_mm / PX_MM:.1f}"}
    return f"<se:Stroke>{''.join(_sld_value(*pair) for pair in values.items())}</se:Stroke>"


def _sld_value(name: str, value: str) -> str:
    return f'<se:SvgParameter name="{name}">{value}</se:SvgParameter>'
