"""Vector files of users: five formats by content; what would break the work later is refused."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from factories import EAST, NORTH, grid_of, write_roads

from geo.dbf import doubt_about_text
from geo.errors import InputError
from geo.imagery.area import Area
from geo.layers.roads import read_roads
from geo.options import RoadOptions
from geo.vectors import AREAS, LINES, read_features, read_vectors

GRID = grid_of((500, 1500), 0.02)
"""30 m x 10 m."""

STREET = [(EAST, NORTH - 5), (EAST + 30, NORTH - 5)]

NAN, FAR = float("nan"), 5e8
"""500 000 km."""


def wkb(points):
    """Encode a line whatever its points are: shapely refuses to make some."""
    head = struct.pack("<BII", 1, 2, len(points))
    return head + b"".join(struct.pack("<dd", *point) for point in points)


def write_wkb(path, lines, **columns):
    """Write lines as GeoParquet."""
    import pyarrow.parquet as pq

    described = {"encoding": "WKB", "crs": "EPSG:25832"}
    about = {"primary_column": "geometry", "columns": {"geometry": described}}
    table = pa.table({"geometry": pa.array(lines, pa.binary()), **columns})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(about)}), path)
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (wkb([(NAN, NORTH), (EAST, NORTH)]), "1 of 2 lines that lie beyond the Earth"),
        (wkb([(EAST, NORTH), (np.inf, NORTH)]), "1 of 2 lines that lie beyond the Earth"),
        (wkb([(EAST, NORTH), (1e308, NORTH)]), "1 of 2 lines that lie beyond the Earth"),
        (wkb([(EAST, NORTH), (EAST + FAR, NORTH)]), "1 of 2 lines that lie beyond the Earth"),
        (wkb([(EAST, NORTH)]), "1 broken geometries"),
        (wkb([(EAST - 3e7 * k, NORTH) for k in (0, 1, 0, 1)]), "a road of 90"),
    ],
    ids=["nan", "infinity", "1e308", "500 000 km", "one point", "90 000 km"],
)
def test_lines_that_cannot_be_roads_are_counted_and_refused(tmp_path, line, message):
    path = write_wkb(tmp_path / "roads.parquet", [wkb(STREET), line])
    with pytest.raises(InputError, match=message):
        read_roads(RoadOptions(path=path), GRID)


@pytest.mark.parametrize(
    "content",
    [
        b'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>http://127.0.0.1:9/a.gpkg'
        b"</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
        b"<OGRWFSDataSource><URL>http://127.0.0.1:9/wfs</URL></OGRWFSDataSource>",
        b'<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml"/>',
        b"ref,width\na,3\n",
        b"PK\x03\x04",
        b"7z\xbc\xaf\x27\x1c",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["roads.gpkg", "roads.vrt", "roads.gml", "roads.csv"])
def test_formats_that_point_elsewhere_are_not_opened(tmp_path, monkeypatch, content, name):
    monkeypatch.setattr(pyogrio, "list_layers", lambda path: pytest.fail("GDAL was asked"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"roads\.path=.*(is not a GeoPackage|is a (ZIP|7z))"):
        read_roads(RoadOptions(path=tmp_path / name), GRID)


def test_a_database_in_a_folder_is_refused_with_what_makes_a_file_of_it(tmp_path):
    (tmp_path / "city.gdb").mkdir()
    with pytest.raises(InputError, match=r"is a folder.*ogr2ogr -f GPKG out\.gpkg city\.gdb"):
        read_roads(RoadOptions(path=tmp_path / "city.gdb"), GRID)


def test_values_of_negative_length_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.fgb"
    geopandas.GeoDataFrame(geometry=[shapely.LineString(STREET)], crs=25832).to_file(path)
    sound = pyogrio.read_arrow

    def damaged(path, **how):  # what GDAL makes of some damaged files
        about, table = sound(path, **how)
        ends = pa.py_buffer(np.array([9, 0], np.int32))
        column = pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(bytes(9))])
        return about, table.set_column(0, about["geometry_name"] or "wkb_geometry", column)

    monkeypatch.setattr(pyogrio, "read_arrow", damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read_roads(RoadOptions(path=path), GRID)


def test_json_that_runs_a_program_is_no_geojson(tmp_path):
    path = tmp_path / "roads.geojson"
    path.write_text('{"type": "gdal_streamed_alg", "command_line": "gdal vector read /etc/hosts"}')
    with pytest.raises(InputError, match="cannot be read"):
        read_roads(RoadOptions(path=path), GRID)


@pytest.mark.parametrize("text", ["{", "{}", "[" * 10**5, '{"type": "FeatureCollection"}', "{1}"])
def test_json_of_any_kind_is_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "Feature", "x":' + text if text[0] == "[" else text)
    with pytest.raises(InputError):
        read_vectors(path, "aoi", AREAS)


@pytest.mark.parametrize("text", ["{}", '{"cracks": 3}', '{"type": "FeatureCollection"}'])
def test_json_that_is_no_geojson_is_called_so(tmp_path, text):
    """A report in place of the roads was told ('type')."""
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"it is JSON, but not GeoJSON of features"):
        read_features(path)


def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path):
    frame = geopandas.GeoDataFrame({"ref": ["a"]}, geometry=[shapely.LineString(STREET)], crs=25832)
    frame.to_parquet(tmp_path / "roads.data")
    write_roads(tmp_path / "roads.gpkg", [STREET], ref=["a"]).rename(tmp_path / "roads.parquet")
    frame.to_file(tmp_path / "roads.json", driver="GeoJSON")
    frame.to_file(tmp_path / "roads.shp")
    frame.to_file(tmp_path / "roads.fgb")
    for name in ("roads.data", "roads.parquet", "roads.json", "roads.shp", "roads.fgb"):
        (segment,) = read_roads(RoadOptions(path=tmp_path / name, id="ref", section_m=None), GRID)
        assert segment.road_id == "a"
        assert shapely.get_coordinates(segment.line) == pytest.approx(np.array(STREET), abs=1e-3)


@pytest.mark.parametrize("page", ["system", "ANSI 1252", "OEM 850", None, "1252", "ISO-8859-1"])
@pytest.mark.parametrize("language", [0, 0x57])
def test_umlauts_of_a_shapefile_are_read_whatever_names_its_code_page(tmp_path, page, language):
    path = tmp_path / "roads.shp"
    columns = {"ref": ["a"], "straße": ["Hauptstraße"]}
    shapes = [shapely.LineString(STREET)]
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=25832).to_file(path, encoding="cp1252")
    path.with_suffix(".cpg").unlink()
    if page:
        path.with_suffix(".cpg").write_text(page)
    table = path.with_suffix(".dbf")
    content = bytearray(table.read_bytes())
    content[29] = language
    table.write_bytes(content)
    (segment,) = read_roads(RoadOptions(path=path, name="straße", section_m=None), GRID)
    assert segment.name == "Hauptstraße"


@pytest.mark.parametrize(
    ("name", "encoding", "is_told"),
    [("Ленина", "cp1251", True), ("Ленина", "utf-8", False), ("Lenin", "cp1251", False)],
)
@pytest.mark.parametrize("language", [0, 0x57, 0xC9])
def test_a_shapefile_that_does_not_say_how_its_text_is_encoded_is_doubted_unless_it_is_utf8(
    tmp_path, name, encoding, is_told, language
):
    path = tmp_path / "roads.shp"
    rows = {"ref": ["a"], "name": [name]}
    shapes = [shapely.LineString(STREET)]
    geopandas.GeoDataFrame(rows, geometry=shapes, crs=25832).to_file(path, encoding=encoding)
    path.with_suffix(".cpg").unlink()
    content = bytearray(path.with_suffix(".dbf").read_bytes())
    content[29] = language
    path.with_suffix(".dbf").write_bytes(content)
    says_russian = language == 0xC9
    doubt = doubt_about_text(path)
    assert bool(doubt) == (is_told and not says_russian)
    if doubt:
        assert "write the encoding, such as CP1251, into a file roads.cpg beside it" in doubt
        path.with_suffix(".cpg").write_text("CP1251")
        assert doubt_about_text(path) is None
    if not says_russian or encoding == "cp1251":
        (segment,) = read_roads(RoadOptions(path=path, name="name", section_m=None), GRID)
        assert segment.name == name


def test_ids_keep_their_text_and_lanes_surfaces_and_districts_are_read(tmp_path):
    lines = [[(EAST, NORTH - y), (EAST + 30, NORTH - y)] for y in (2, 5, 8)]
    columns = {"ref": [10**15 + 1, 2, 3], "n": [2, None, 4], "top": ["asphalt", None, "beton"]}
    columns["area"] = ["Old Town", None, "=New"]
    path = write_roads(tmp_path / "roads.gpkg", lines, **columns)
    names = {"id": "ref", "lanes": "n", "surface": "top", "district": "area"}
    options = RoadOptions(path=path, section_m=None, **names)
    found = read_roads(options, GRID)
    assert [segment.road_id for segment in found] == ["1000000000000001", "2", "3"]
    assert [segment.lanes for segment in found] == [2, None, 4]
    assert [segment.width_m for segment in found] == [7.0, 7.0, 14.0]
    assert [segment.surface for segment in found] == ["asphalt", "", "beton"]
    assert [segment.district for segment in found] == ["Old Town", "", "=New"]


def test_roads_count_from_their_begin_and_end_at_the_tiles(tmp_path):
    lines = [
        [(EAST - 1000, NORTH - 5), (EAST + 2000, NORTH - 5)],
        [(EAST - 5000, NORTH), (EAST - 4000, NORTH)],  # elsewhere
    ]
    path = write_roads(tmp_path / "roads.gpkg", lines, ref=["near", "far"])
    found = read_roads(RoadOptions(path=path, id="ref"), GRID)
    assert {segment.road_id for segment in found} == {"near"}
    assert [segment.from_m for segment in found] == [900, 1000]  # buffer_m reaches into the first
    assert [segment.segment_id for segment in found] == ["near-009", "near-010"]
    path = write_roads(tmp_path / "far.gpkg", lines[1:])
    with pytest.raises(InputError, match=r"nothing of roads\.path=.* lies on the tiles"):
        read_roads(RoadOptions(path=path), GRID)


def test_roads_of_the_whole_world_are_never_projected_where_the_map_is_not_defined(tmp_path):
    street = geopandas.GeoSeries([shapely.LineString(STREET)], crs=25832).to_crs(4326)
    lines = [*street, *(shapely.LineString([(x, 40), (x + 9, 60)]) for x in range(-180, 180, 20))]
    geopandas.GeoSeries(lines, crs=4326).to_file(tmp_path / "roads.fgb")
    found = read_roads(RoadOptions(path=tmp_path / "roads.fgb"), GRID)
    assert [segment.line.length for segment in found] == pytest.approx([30], abs=1e-3)


def test_an_area_of_the_whole_world_is_the_whole_map(tmp_path):
    world = geopandas.GeoSeries([shapely.box(-180, -90, 180, 90)], crs=4326)
    world.to_file(tmp_path / "aoi.fgb")
    assert Area.read(GRID, tmp_path / "aoi.fgb", buffer_m=1).mask(GRID.window).all()


def test_views_and_chosen_layers_of_a_geopackage_are_read(tmp_path):
    path = write_roads(tmp_path / "roads.gpkg", [STREET, [(x, y + 2) for x, y in STREET]], k=[1, 2])
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE VIEW one AS SELECT fid AS OGC_FID, geom, k FROM roads WHERE k = 1")
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
            "VALUES ('one', 'features', 'one', 25832)"
        )
        base.execute(
            "INSERT INTO gpkg_geometry_columns VALUES ('one', 'geom', 'LINESTRING', 25832, 0, 0)"
        )
    assert len(read_roads(RoadOptions(path=path), GRID)) == 2
    assert len(read_roads(RoadOptions(path=path, layer="one"), GRID)) == 1
    with pytest.raises(InputError, match=r"gpkg has no layer two; give one of roads, one$"):
        read_roads(RoadOptions(path=path, layer="two"), GRID)


def test_of_many_layers_the_first_that_may_hold_what_is_wanted_is_read(tmp_path):
    """As ogr2ogr writes an extract of OpenStreetMap: points first."""
    path = tmp_path / "city.gpkg"
    street = shapely.LineString(STREET)
    shapes = {"points": street.centroid, "lines": street, "areas": street.buffer(1)}
    for name, shape in shapes.items():
        geopandas.GeoDataFrame(geometry=[shape], crs=25832).to_file(path, layer=name)
    assert len(read_roads(RoadOptions(path=path), GRID)) == 1
    assert Area.read(GRID, path, buffer_m=1) is not None
    with pytest.raises(InputError, match="holds no line"):
        read_roads(RoadOptions(path=path, layer="points"), GRID)


@pytest.mark.parametrize("ending", ["geojson", "parquet", "fgb", "shp", "gpkg"])
def test_a_layer_that_a_file_lacks_is_refused_and_an_empty_line_is_none(tmp_path, ending):
    path = tmp_path / f"roads.{ending}"
    shapes = [shapely.LineString(STREET), shapely.LineString()]
    frame = geopandas.GeoDataFrame(geometry=shapes[: 1 if ending == "fgb" else 2], crs=25832)
    frame.to_parquet(path) if ending == "parquet" else frame.to_file(path)
    for layer in (None, "roads"):
        assert len(read_roads(RoadOptions(path=path, layer=layer), GRID)) == 1
    with pytest.raises(InputError, match=f"{ending} has no layer two"):
        read_roads(RoadOptions(path=path, layer="two"), GRID)


@pytest.mark.parametrize("kind", [8, 9, 11], ids=["circular", "compound", "multi"])
def test_curves_are_refused_with_what_makes_lines_of_them(tmp_path, kind):
    path = tmp_path / "roads.gpkg"
    curve = bytearray(wkb([STREET[0], (EAST + 15, NORTH - 6), STREET[1]]))
    curve[1] = 8
    encoded = bytes(curve) if kind == 8 else struct.pack("<BII", 1, kind, 1) + bytes(curve)
    table = pa.table({"geom": pa.array([wkb(STREET), encoded], pa.binary())})
    about = {"driver": "GPKG", "geometry_name": "geom", "geometry_type": "Unknown"}
    pyogrio.write_arrow(table, path, crs="EPSG:25832", **about)
    told = "holds curves; make lines of them: ogr2ogr -nlt CONVERT_TO_LINEAR out.gpkg roads.gpkg"
    with pytest.raises(InputError, match=told):
        read_roads(RoadOptions(path=path), GRID)


@pytest.mark.parametrize("kinds", [LINES, AREAS])
def test_curves_in_a_collection_are_refused_too(tmp_path, kinds):
    curve = bytearray(wkb([STREET[0], (EAST + 15, NORTH - 6), STREET[1]]))
    curve[1] = 8
    collection = struct.pack("<BII", 1, 7, 2) + wkb(STREET) + bytes(curve)
    nested = struct.pack("<BII", 1, 7, 1) + collection
    path = write_wkb(tmp_path / "roads.parquet", [wkb(STREET), nested])
    told = "roads.parquet holds curves; make lines of them: ogr2ogr -nlt CONVERT_TO_LINEAR"
    with pytest.raises(InputError, match=told):
        read_vectors(path, "roads.path", kinds)


@pytest.mark.parametrize("kinds", [LINES, AREAS])
def test_lines_and_areas_in_a_collection_are_read(tmp_path, kinds):
    path = tmp_path / "a.gpkg"
    line, area = shapely.LineString(STREET), shapely.box(EAST, NORTH - 5, EAST + 5, NORTH)
    several = shapely.multilinestrings([line, line]), shapely.multipolygons([area])
    inner = shapely.geometrycollections([*several, line.centroid])
    shapes = [shapely.geometrycollections([inner, line, area]), line.centroid, inner, line, area]
    columns = {"n": range(5)}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=25832).to_file(path, driver="GPKG")
    found = read_vectors(path, "aoi", kinds, columns=["n"])
    assert list(found.columns["n"]) == ([0, 2, 3] if kinds is LINES else [0, 2, 4])
    assert len(shapely.get_parts(found.shapes)) == (6 if kinds is LINES else 4)
    assert set(shapely.get_type_id(found.shapes)) <= {int(kind) for kind in kinds}


def test_rows_without_a_geometry_are_left_out(tmp_path):
    path = write_wkb(tmp_path / "a.parquet", [wkb(STREET), None], k=[1, 2])
    assert read_vectors(path, "x", LINES, columns=["k"]).columns == {"k": [1]}
    assert len(read_features(path)) == 2


def test_roads_with_distances_along_them_are_read_without_a_warning(tmp_path):
    """As those who keep roads give them: pyogrio warns of each such layer, several times."""
    path = write_roads(tmp_path / "roads.gpkg", [STREET])
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE gpkg_geometry_columns SET z = 1, m = 1")
    (shape,) = read_vectors(path, "roads.path", LINES).shapes
    assert shape.length == 30


@pytest.mark.parametrize("width", ["0", "7,5", "-3", "nan", "inf", "1e400"])
def test_widths_that_are_none_are_refused(tmp_path, width):
    path = write_roads(tmp_path / "roads.gpkg", [STREET], wide=[width])
    if width == "nan":
        assert read_roads(RoadOptions(path=path), GRID)
    with pytest.raises(InputError, match=r"wide=.*1 of 1 roads"):
        read_roads(RoadOptions(path=path, width="wide"), GRID)
