"""Vector files of a user: roads, areas, tile indices. Five formats, known by content, no others.

A format that points elsewhere (a VRT, a WFS description, a GML with a schema on a server) is never
opened, under whatever name. What would break the work later is refused at once and counted: lines
of one point, coordinates that are no numbers or lie beyond the Earth.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geo.addresses import address_in
from geo.archives import archive_of
from geo.arrays import Shapes
from geo.dbf import UTF8, unsaid_encoding
from geo.errors import InputError, first_line
from geo.files import NOT_UTF8, is_utf8
from geo.grid import Grid
from geo.paths import literal

FORMATS = "GeoPackage, GeoParquet, FlatGeobuf, GeoJSON or Shapefile"
CURVES = "holds curves; make lines of them: ogr2ogr -nlt CONVERT_TO_LINEAR out.gpkg {}"

SQLITE, PARQUET = b"SQLite format 3\0", b"PAR1"
FLATGEOBUF, SHAPEFILE = b"fgb\x03fgb", b"\0\0\x27\x0a"
"""First bytes of files."""

APPLICATION_ID = slice(68, 72)
"""Where SQLite says what its file is."""

GEOPACKAGE_IDS = (b"GPKG", b"GP10", b"GP11")
HEAD_BYTES = 100
FARTHEST_M = 1e8
"""No projected coordinate of a place on the Earth is larger: it has a circumference of 4e7 m, and
some systems put a zone's number before the easting."""

FARTHEST_DEG = (360.0, 90.000001)
"""Limits of longitude and latitude."""

EDGE_POINTS = 32
"""Points along each edge of the imagery's frame that are brought into the system of a file."""

LINES = (shapely.GeometryType.LINESTRING, shapely.GeometryType.MULTILINESTRING)
AREAS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
COLLECTION = shapely.GeometryType.GEOMETRYCOLLECTION
MULTIPLE = (LINES[1], AREAS[1], COLLECTION, shapely.GeometryType.MULTIPOINT)

OTHERS = {LINES: ("Point", "Polygon", "Surface"), AREAS: ("Point", "Line")}
"""What is in GDAL's names of the types of layers that hold none of a kind."""

ROWS_AT_ONCE = 20_000
"""Rows whose shapes are looked at together."""

Kinds = tuple[shapely.GeometryType, ...]

_UNREADABLE = (
    *(OSError, ValueError, LookupError, OverflowError, TypeError),
    *(RuntimeError, AttributeError),  # pyogrio's, too deep JSON; descriptions may hold anything
    *(pa.ArrowException, shapely.errors.ShapelyError, ProjError, CRSError),
)


@dataclass(frozen=True, eq=False)
class Features:
    """N rows of a vector file.

    Attributes:
        path: of the file.
        shapes: (N,) geometries in two dimensions; None where there is none.
        columns: name -> N values of each column that was asked for.
        names: of all columns.
        crs: of the shapes; None if the file has none.
        broken: rows whose geometry is none, like a line of one point.
    """

    path: Path
    shapes: Shapes
    columns: Mapping[str, Sequence[Any]]
    names: tuple[str, ...]
    crs: CRS | None
    broken: int = 0

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: NDArray[np.integer]) -> Features:
        """Return some of the rows."""
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Features(self.path, self.shapes[rows], columns, self.names, self.crs, self.broken)


def read_features(
    path: Path,
    layer: str | None = None,
    *,
    columns: Sequence[str] = (),
    like: Sequence[str] = (),
    kinds: Kinds = (),
) -> Features:
    """Read one layer of a vector file.

    Args:
        path: a file in one of `FORMATS`.
        layer: its name; None: the first with geometries, of the kinds if there is one.
        columns: to read, those of them that there are.
        like: lower-case names; the first column that has one is read besides, and without a layer
            the first layer that has one is taken.
        kinds: `LINES` or `AREAS`; none: any.

    Raises:
        InputError: it is of another format, or damaged; the message does not name the file.
    """
    try:
        if path.is_dir():
            raise InputError(f"is a folder; make one file: ogr2ogr -f GPKG out.gpkg {path.name}")
        if not is_utf8(path):
            raise InputError(NOT_UTF8)
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        is_geojson = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        if layer not in (None, path.stem) and (is_geojson or head.startswith(PARQUET)):
            raise InputError(f"has no layer {layer}, but a single one without a name; name none")
        if head.startswith(PARQUET):
            return _of_parquet(path, columns, like)
        if is_geojson:
            return _of_geojson(path, columns, like)
        if is_geopackage(head) or head.startswith((FLATGEOBUF, SHAPEFILE)):
            with warnings.catch_warnings():  # what matters is refused below, in our words
                warnings.simplefilter("ignore")
                return _of_database(path, layer, columns, like, kinds)
    except NotImplementedError as error:  # shapely's for curves
        raise InputError(CURVES.format(path.name)) from error
    except _UNREADABLE as error:
        raise InputError(f"cannot be read ({first_line(error)}); write it again") from error
    if kind := archive_of(path):
        raise InputError(f"is a {kind}; unpack it, and give the file in it: {FORMATS}")
    raise InputError(f"is not a {FORMATS}; convert it: ogr2ogr -f GPKG out.gpkg {path.name}")


def is_geopackage(head: bytes) -> bool:
    """Return whether the first HEAD_BYTES of a file are those of a GeoPackage."""
    return head.startswith(SQLITE) and head[APPLICATION_ID] in GEOPACKAGE_IDS


def chosen_column(names: Sequence[str], like: Sequence[str]) -> str | None:
    """Return the first column whose lower-case name is wanted, in the order of the wanted ones."""
    by_name = {name.lower(): name for name in reversed(names)}
    return next((by_name[name] for name in like if name in by_name), None)


def _choose(names: Sequence[str], columns: Sequence[str], like: Sequence[str]) -> list[str]:
    chosen = chosen_column(names, like)
    return [name for name in names if name in columns or name == chosen]


def _of_database(
    path: Path, layer: str | None, columns: Sequence[str], like: Sequence[str], kinds: Kinds
) -> Features:
    """Read a format that GDAL is trusted with."""
    types = {str(name): kind for name, kind in pyogrio.list_layers(literal(path)) if kind}
    if not types:
        raise ValueError("it has no layer with geometries")
    if layer is not None and layer not in types:
        raise InputError(f"has no layer {layer}; give one of {', '.join(types)}")
    others = OTHERS.get(kinds, ())
    fit = [name for name, kind in types.items() if not any(word in kind for word in others)]
    given = [layer] if layer else fit or types
    said = UTF8 if unsaid_encoding(path) == UTF8 else None
    infos = {x: pyogrio.read_info(literal(path), layer=x, encoding=said) for x in given}
    fields = {name: tuple(map(str, about["fields"])) for name, about in infos.items()}
    chosen = next((x for x in fields if chosen_column(fields[x], like)), next(iter(fields)))
    wanted = _choose(fields[chosen], columns, like)
    own = infos[chosen]["encoding"]
    encoding = said or (None if own == UTF8 else own)  # given, it counts more than a .cpg
    about, table = pyogrio.read_arrow(
        literal(path), layer=chosen, columns=wanted, encoding=encoding
    )
    table.validate(full=True)  # of a damaged file GDAL makes values of negative length
    shapes, broken = _of_wkb(table[about["geometry_name"] or "wkb_geometry"])
    crs = _crs(about["crs"]) if about["crs"] else None
    values = {name: table[name].to_pylist() for name in wanted}
    return Features(path, shapes, values, fields[chosen], crs, broken)


def _of_parquet(path: Path, columns: Sequence[str], like: Sequence[str]) -> Features:
    with pq.ParquetFile(path.absolute()) as file:
        schema = file.schema_arrow
        about = json.loads((schema.metadata or {}).get(b"geo", b"null"))
        if about is None:
            raise ValueError("it is Parquet without geometries")
        geometry = about["primary_column"]
        described = about["columns"][geometry]
        if described["encoding"] != "WKB":
            raise ValueError(f"its geometries are encoded as {described['encoding']}, not as WKB")
        names = tuple(name for name in schema.names if name != geometry)
        wanted = _choose(names, columns, like)
        table = file.read([geometry, *wanted])
        table.validate(full=True)
    shapes, broken = _of_wkb(table[geometry])
    system = described.get("crs", "OGC:CRS84")  # by the standard, where none is named
    crs = _crs(system) if system else None
    values = {name: table[name].to_pylist() for name in wanted}
    return Features(path, shapes, values, names, crs, broken)


def _of_geojson(path: Path, columns: Sequence[str], like: Sequence[str]) -> Features:
    """Read GeoJSON without GDAL, which takes any JSON for one of many formats."""
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    rows = data.get("features", [{}]) if data.get("type") == "FeatureCollection" else [data]
    if any(row.get("type") != "Feature" for row in rows):
        raise ValueError("it is JSON, but not GeoJSON of features")
    properties = [row.get("properties") or {} for row in rows]
    names = tuple(dict.fromkeys(name for row in properties for name in row))
    texts = [json.dumps(row["geometry"]) if row.get("geometry") else None for row in rows]
    shapes = shapely.force_2d(shapely.from_geojson(np.array(texts, object), on_invalid="ignore"))
    broken = sum(1 for text, x in zip(texts, shapes, strict=True) if text and x is None)
    system = data["crs"]["properties"]["name"] if data.get("crs") else "OGC:CRS84"
    values = {name: [row.get(name) for row in properties] for name in _choose(names, columns, like)}
    return Features(path, shapes, values, names, _crs(system), broken)


def _crs(system: Any) -> CRS:
    """Read a coordinate system by PROJ, which, unlike GDAL, asks no server for one."""
    return CRS.from_wkt(pyproj.CRS.from_user_input(system).to_wkt())


def _of_wkb(column: pa.ChunkedArray) -> tuple[Shapes, int]:
    """Return shapes in two dimensions, and how many cannot be one."""
    found = [np.empty(0, object)]
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers are refused later
        for chunk in column.chunks:
            for low in range(0, len(chunk), ROWS_AT_ONCE):
                encoded = np.asarray(chunk[low : low + ROWS_AT_ONCE].to_pylist(), object)
                found.append(shapely.from_wkb(encoded, on_invalid="ignore"))
        shapes = np.concatenate(found)
        if shapely.has_z(shapes).any() or shapely.has_m(shapes).any():
            shapes = shapely.force_2d(shapes)
    return shapes, len(column) - column.null_count - int(np.sum(~shapely.is_missing(shapes)))


def read_vectors(
    path: Path,
    key: str,
    kinds: Kinds,
    layer: str | None = None,
    columns: Sequence[str] = (),
) -> Features:
    """Read the lines or areas of a vector file, in its own system; other rows are left out.

    Args:
        path: the file.
        key: the setting that names it, for messages.
        kinds: `LINES` or `AREAS`.
        layer: its name; None: the first that may hold some.
        columns: to read, those of them that there are.

    Raises:
        InputError: missing, unreadable, without a CRS or anything of these kinds, or with shapes
            that are none or lie beyond the Earth.
    """
    if not path.exists():
        if address := address_in(path):
            raise InputError(f"{key}={address} is an address; download it, and give the file")
        raise InputError(f"{key}={path} does not exist; give a vector file")
    try:
        features = read_features(path, layer, columns=columns, kinds=kinds)
        if features.crs is None:
            raise InputError("has no coordinate system; write it again with one")
        features = replace(features, shapes=_out_of_collections(features.shapes, kinds))
        of_kind = np.isin(shapely.get_type_id(features.shapes), kinds)
        wanted = features.take(np.flatnonzero(of_kind & ~shapely.is_empty(features.shapes)))
        _refuse_impossible(wanted, "line" if kinds is LINES else "polygon")
    except NotImplementedError as error:  # for those in a collection
        raise InputError(f"{key}={path} {CURVES.format(path.name)}") from error
    except InputError as error:
        raise InputError(f"{key}={path} {error}") from error
    return wanted


def _out_of_collections(shapes: Shapes, kinds: Kinds) -> Shapes:
    """Return shapes in which a collection is the lines, or areas, that it holds, if any."""
    join = shapely.multilinestrings if kinds is LINES else shapely.multipolygons
    shapes = shapes.copy()
    for row in np.flatnonzero(shapely.get_type_id(shapes) == COLLECTION):
        parts = shapely.get_parts(shapes[row])
        while np.isin(shapely.get_type_id(parts), MULTIPLE).any():
            parts = shapely.get_parts(parts)
        if len(found := parts[shapely.get_type_id(parts) == kinds[0]]):
            shapes[row] = join(found)
    return shapes


def _refuse_impossible(features: Features, kind: str) -> None:
    if features.broken:
        raise InputError(
            f"has {features.broken} broken geometries, like a line of one point; repair or delete "
            "them"
        )
    if not len(features):
        remedy = "give the centerlines of the roads" if kind == "line" else "draw the area as one"
        raise InputError(f"holds no {kind}; {remedy}")
    refuse_far(features, kind)


def refuse_far(features: Features, kind: str) -> None:
    """Refuse coordinates that are no numbers or lie beyond the Earth.

    Args:
        features: in a system.
        kind: what a row is, for the message.

    Raises:
        InputError: there are some; the message does not name the file.
    """
    crs = features.crs
    assert crs is not None, "files without a system are refused before"
    limits = FARTHEST_M / float(crs.linear_units_factor[1]) if crs.is_projected else FARTHEST_DEG
    places, count = [], 0
    for low in range(0, len(features), ROWS_AT_ONCE):
        shapes = features.shapes[low : low + ROWS_AT_ONCE]
        found, owner = shapely.get_coordinates(shapes, return_index=True)
        far = ~(np.abs(found) <= limits).all(axis=1)  # no number compares as true
        places += found[far][:1].tolist()
        count += len(np.unique(owner[far]))
    if places:
        x, y = places[0]
        raise InputError(
            f"has {count} of {len(features)} {kind}s that lie beyond the "
            f"Earth in its coordinate system (at {x:g}, {y:g}); correct that, or delete them"
        )


def bring_to(features: Features, grid: Grid, reach_m: float, key: str) -> Features:
    """Return the rows that may come within reach of the imagery, in the CRS of its grid.

    What lies elsewhere is never projected: there the projection of the map may have no value.
    Areas are cut to the surroundings of the imagery.

    Args:
        features: see `read_vectors`.
        grid: of the imagery.
        reach_m: around it, in meters.
        key: the setting that names the file, for messages.

    Raises:
        InputError: nothing lies there, or a shape leads to where the map's CRS is not defined.
    """
    assert features.crs is not None, "files without a system are refused before"
    back = pyproj.Transformer.from_crs(grid.crs.to_wkt(), features.crs.to_wkt(), always_xy=True)
    frame = np.column_stack(back.transform(*_frame(grid, reach_m).T))
    elsewhere = InputError(
        f"nothing of {key}={features.path} lies on the tiles; check its coordinate system"
    )
    if not np.isfinite(frame).all():
        raise elsewhere
    (left, bottom), (right, top) = frame.min(axis=0), frame.max(axis=0)
    bounds = shapely.bounds(features.shapes)
    met = np.all((bounds[:, :2] <= (right, top)) & (bounds[:, 2:] >= (left, bottom)), axis=1)
    near = features.take(np.flatnonzero(met))
    shapes = near.shapes
    if len(near) and shapely.get_dimensions(shapes[0]) > 1:
        whole = shapely.make_valid(shapes)
        shapes = shapely.clip_by_rect(whole, left, bottom, right, top)
    there = pyproj.Transformer.from_crs(features.crs.to_wkt(), grid.crs.to_wkt(), always_xy=True)
    projected = shapely.transform(shapes, there.transform, interleaved=False)
    places, owner = shapely.get_coordinates(projected, return_index=True)
    lost = np.unique(owner[~np.isfinite(places).all(axis=1)])
    if len(lost):
        raise InputError(
            f"{key}={features.path} has {len(lost)} of {len(features)} shapes that reach from the "
            "tiles to where the map's coordinate system is not defined; cut them to the tiles"
        )
    if not len(near):
        raise elsewhere
    return Features(near.path, projected, near.columns, near.names, grid.crs)


def _frame(grid: Grid, reach_m: float) -> NDArray[np.float64]:
    """Return points (N, 2) along the edge of the imagery with its surroundings, in world units."""
    window = grid.window.pad(1 + round(reach_m / min(grid.pixel_m)))
    corners = shapely.get_coordinates(window.polygon())
    steps = np.linspace(0, 1, EDGE_POINTS, endpoint=False)[:, None, None]
    along = (corners[:-1] * (1 - steps) + corners[1:] * steps).reshape(-1, 2)
    return grid.to_world(along)
