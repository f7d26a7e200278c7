"""What a user can say about imagery, whatever is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from geo.area import Area
from geo.mosaic import Mosaic
from geo.opening import ReadOptions
from geo.roads import RoadOptions
from geo.stretch import Stretch
from geo.tiles import Scan
from wpcrack.config import Block


class RoadsConfig(Block):
    """Road lines: only imagery near them is looked at, cracks are counted along them."""

    path: Path | None = None
    """Vector file of road centerlines."""
    buffer_m: Annotated[float, Field(gt=0)] = 15.0
    """Imagery counts up to this distance from a line: half of a wide urban road."""
    id: str | None = None
    """Column of the road's id; null numbers the roads."""
    name: str | None = None
    """Column of the street's name."""
    width: str | None = None
    """Column of the width in meters."""
    lanes: str | None = None
    """Column of the number of lanes, used where there is no width."""
    lane_m: Annotated[float, Field(gt=0)] = 3.5
    """Width of a lane in meters (a usual urban lane)."""
    default_lanes: Annotated[int, Field(ge=1)] = 2
    """Where neither width nor lanes are known."""
    section_m: Annotated[float, Field(gt=0)] | None = 100.0
    """Length of a segment in meters; null keeps the lines whole."""

    @property
    def options(self) -> RoadOptions | None:
        """For the road survey; None without roads."""
        if self.path is None:
            return None
        return RoadOptions(**self.model_dump(exclude={"buffer_m"}))


class Imagery(Block):
    """Georeferenced tiles, the grid on which they are read, and where they count."""

    tiles: str | tuple[str, ...]
    """Imagery: a folder (searched recursively), glob, one raster, an https:// or s3:// URL, a text
    list, a tile index (GeoPackage, GeoParquet with a column of paths), or several."""
    crs: str | None = None
    """Projected coordinate system of the map, like EPSG:25832; null: that of most of the imagery,
    or UTM."""
    gsd_mm: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of the map; null: that of most of the imagery."""
    stretch: tuple[float, float] | None = None
    """16-bit values that become 0 and 255; null: percentiles 1 and 99 of a sample."""
    aoi: Path | None = None
    """Vector file of polygons; outside of them nothing is inspected."""
    roads: RoadsConfig = RoadsConfig()
    """Roads."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Further tries to read a tile that failed."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """A server that does not answer for so long has failed."""

    @property
    def patience(self) -> ReadOptions:
        """How patiently files are read."""
        return ReadOptions(self.retries, self.timeout_s)

    def mosaic(self, found: Scan) -> Mosaic:
        """Places tiles on one grid; the area is not applied yet.

        Raises:
            InputError: See `Mosaic.build`.
        """
        return Mosaic.build(
            found,
            self.crs,
            gsd_m=self.gsd_mm / 1000 if self.gsd_mm else None,
            stretch=Stretch(*self.stretch) if self.stretch else None,
            reading=self.patience,
        )

    def limited(self, mosaic: Mosaic) -> Mosaic:
        """The mosaic of which only the area of interest and the surroundings of roads count.

        Raises:
            InputError: See `Area.read`.
        """
        roads = self.roads
        area = Area.read(mosaic.grid, self.aoi, roads.path, buffer_m=roads.buffer_m)
        return mosaic if area is None else mosaic.within(area)
