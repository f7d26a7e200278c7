"""What a user can say about imagery, whatever is done with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from geo.addresses import meant_by
from geo.imagery.area import Area
from geo.imagery.find import Scan
from geo.imagery.mosaic import Mosaic
from geo.imagery.reading import Stretch
from geo.layers.roads import read_roads
from geo.options import ReadOptions, RoadOptions
from wpcrack.config_block import Block


class Tiles(Block):
    """Georeferenced tiles, the grid on which they are read, and where they count."""

    tiles: str | tuple[str, ...]
    """Imagery: a folder (searched recursively), glob, one raster, an https:// or s3:// URL, a text
    list, a tile index (GeoPackage, GeoParquet with a column of paths), or several."""
    crs: str | None = None
    """Projected coordinate system of the map, like EPSG:25832; null: that of most of the imagery,
    or UTM."""
    gsd_mm: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of the map; null: that of most of the imagery, from which it differs by 3 x at
    most."""
    stretch: tuple[float, float] | None = None
    """16-bit values that become 0 and 255; null: percentiles 1 and 99 of a sample."""
    aoi: Path | None = None
    """Vector file of polygons; outside of them nothing is inspected."""
    roads: RoadOptions = RoadOptions()
    """Roads."""

    @field_validator("tiles")
    @classmethod
    def _as_paths(cls, tiles: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return meant_by(tiles) if isinstance(tiles, str) else tuple(map(meant_by, tiles))

    @property
    def vectors(self) -> list[Path]:
        """Files that the job reads beside rasters: area, roads, lists and indices of tiles."""
        named = [self.tiles] if isinstance(self.tiles, str) else list(self.tiles)
        files = [Path(name) for name in named if os.path.isfile(name)]
        return [*files, *(path for path in (self.aoi, self.roads.path) if path)]


class Imagery(ReadOptions, Tiles):
    """Georeferenced tiles, and how they are read."""

    @property
    def patience(self) -> ReadOptions:
        """How files are read."""
        return ReadOptions(**{name: getattr(self, name) for name in ReadOptions.model_fields})

    def mosaic(self, found: Scan) -> Mosaic:
        """Place tiles on one grid; the area is not applied yet.

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

    def limit(self, mosaic: Mosaic) -> Mosaic:
        """Return the mosaic of which only the area of interest and the surroundings of roads count.

        Raises:
            InputError: See `Area.read` and `read_roads`.
        """
        lines = [segment.line for segment in read_roads(self.roads, mosaic.grid)]
        area = Area.read(mosaic.grid, self.aoi, lines, buffer_m=self.roads.buffer_m)
        return mosaic if area is None else mosaic.within(area)
