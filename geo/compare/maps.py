"""A map of ours -> what a comparison takes of it, and which map it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.crs import CRS as RasterCRS

from geo.arrays import FloatArray, Shapes
from geo.compare.survey import Lines, Survey
from geo.errors import InputError
from geo.imagery.headers import crs_name
from geo.layers.run_rows import survey_days
from geo.layers.schema import CRACK, INSPECTED, NETWORK, ROAD_SEGMENT, RUN, Layer
from geo.layers.sound_map import NEEDED, has_shape, require_map
from geo.paths import layer_names, literal

COLUMNS = [
    *("crack_id", "width_mean_mm", "network_id", "status", "gsd_mm", "survey_date"),
    *("segment_id", "name", "width_m"),
]
"""Of all layers, as far as they are taken."""

SEEN = ("inspected", "partial")
"""Status of ground that was looked at."""
MM = 1000.0
SLIT_M = 1e-4
"""Two sides of blocks that lie closer together are one: turned or brought into another system, a
corner of one block lies beside the side of another by what rounding leaves."""


@dataclass(frozen=True, eq=False)
class Segments:
    """S road segments of a map, in meters.

    Attributes:
        ids, names: (S,) text.
        lines: (S,) LineStrings.
        width_m: (S,).
    """

    ids: NDArray[np.object_]
    names: NDArray[np.object_]
    lines: Shapes
    width_m: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class SurveyMap:
    """A map that was read.

    Attributes:
        path: its file.
        survey: lines and areas, in meters.
        crs: of the survey, which `unit_m` scales to meters.
        unit_m: meters in a unit of the CRS.
        run_id: of the run that made it.
        survey_date: ISO date, "" if it was not configured.
        segments: None without roads.
        moved_from: name of the CRS of the file, where it is another one; "" if not.
    """

    path: Path
    survey: Survey
    crs: CRS
    unit_m: float
    run_id: str
    survey_date: str
    segments: Segments | None
    moved_from: str

    def without_lines(self) -> SurveyMap:
        """Return the same without the lines of cracks, see `Survey.without_lines`."""
        return replace(self, survey=self.survey.without_lines())


def read_map(path: Path, crs: CRS | None = None) -> SurveyMap:
    """Read a map.

    Args:
        path: a GeoPackage that `wpcrack infer` or `wpcrack assemble` wrote.
        crs: bring it into this system; None: keep its own.

    Raises:
        InputError: it is not a map of ours, or holds nothing that was inspected; or another map
            took its place meanwhile.
    """
    with _require_unchanged(path):
        return _read_map(path, crs)


@contextmanager
def _require_unchanged(path: Path) -> Iterator[None]:
    """Refuse layers of two maps, as where a job replaces the file while it is read.

    Raises:
        InputError: it was replaced.
    """
    before = path.stat() if path.exists() else None
    try:
        yield
    finally:
        if before is not None and not (path.exists() and os.path.samestat(before, path.stat())):
            raise InputError(f"{path} was replaced while it was read; give the same command again")


def _read_map(path: Path, crs: CRS | None) -> SurveyMap:
    require_map(path, {**NEEDED, ROAD_SEGMENT.name: ("segment_id", "width_m")})
    cracks = _read(path, CRACK)
    target = crs or cracks.crs
    unit_m = float(target.axis_info[0].unit_conversion_factor)
    inspected = _shapes(_read(path, INSPECTED), target, unit_m)
    inspected = inspected[inspected["status"].isin(SEEN) & has_shape(inspected)]
    if inspected.empty:
        raise InputError(f"{path} holds no ground that was inspected; map its imagery first")
    own_crs = cracks.crs
    cracks = _shapes(cracks[has_shape(cracks)], target, unit_m)
    networks = _shapes(_read(path, NETWORK), target, unit_m)
    networks = networks[has_shape(networks)]
    run = pyogrio.read_dataframe(literal(path), layer=RUN.name)
    survey = Survey(
        crack_ids=cracks["crack_id"].to_numpy(object),
        cracks=Lines.of(cracks.geometry.to_numpy()),
        width_mm=cracks["width_mean_mm"].to_numpy(float),
        network_ids=networks["network_id"].to_numpy(object),
        networks=shapely.make_valid(networks.geometry.to_numpy()),
        inspected=unite(inspected.geometry.to_numpy()),
        gsd_m=float(inspected["gsd_mm"].max()) / MM,
    )
    days = survey_days(*(t for t in (inspected, cracks) if "survey_date" in t))
    return SurveyMap(
        path=path,
        survey=survey,
        crs=target,
        unit_m=unit_m,
        run_id=str(run["run_id"].iloc[0]) if len(run) else "",
        survey_date=max(days, default=""),
        segments=_segments(path, target, unit_m),
        moved_from="" if own_crs == target else crs_name(RasterCRS.from_wkt(own_crs.to_wkt())),
    )


def unite(ground: Shapes) -> shapely.Geometry:
    """Return the ground of all blocks as one, without slits between them.

    A union on a grid gives the same and takes three times as long.
    """
    return shapely.set_precision(shapely.union_all(ground), SLIT_M)


def names_of(old: Path, new: Path) -> tuple[str, str]:
    """Return the names of two files, with the folders above them that tell them apart.

    >>> names_of(Path("maps/2024/cracks.gpkg"), Path("maps/2026/cracks.gpkg"))
    ('2024/cracks.gpkg', '2026/cracks.gpkg')
    """
    ways = [path.absolute().parts for path in (old, new)]
    deep = next((k for k in range(1, max(map(len, ways))) if ways[0][-k:] != ways[1][-k:]), 1)
    first, second = (Path(*way[-deep:]).as_posix() for way in ways)
    return first, second


def _read(path: Path, layer: Layer) -> geopandas.GeoDataFrame:
    """Read the columns of a layer that a comparison takes, those of them that there are."""
    return geopandas.read_file(literal(path), layer=layer.name, columns=COLUMNS)


def _shapes(table: geopandas.GeoDataFrame, crs: CRS, unit_m: float) -> geopandas.GeoDataFrame:
    """Return a table in a coordinate system, scaled to meters."""
    if table.crs is not None and table.crs != crs:
        table = table.to_crs(crs)
    if unit_m == 1.0:
        return table
    scaled = shapely.transform(table.geometry.to_numpy(), lambda xy: xy * unit_m)
    return table.set_geometry(geopandas.GeoSeries(scaled, index=table.index))


def _segments(path: Path, crs: CRS, unit_m: float) -> Segments | None:
    if ROAD_SEGMENT.name not in layer_names(path):
        return None
    table = _shapes(_read(path, ROAD_SEGMENT), crs, unit_m)
    if table.empty:
        return None
    names = table["name"].to_numpy(object) if "name" in table else np.full(len(table), None)
    return Segments(
        ids=table["segment_id"].to_numpy(object),
        names=np.array([None if name is None or name != name else str(name) for name in names]),
        lines=table.geometry.to_numpy(),
        width_m=table["width_m"].to_numpy(float),
    )
