"""What a user can say about imagery, whatever is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geo.imagery.area import Area
from geo.imagery.find import Scan
from geo.imagery.mosaic import Mosaic
from geo.imagery.reading import Stretch
from geo.options import ReadOptions, RoadOptions, SegmentOptions, SeverityOptions, TypeOptions
from wpcrack.config import Block, Count, NonNegative, Positive


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


# ==== jobs.settings.map: What a user can say about how found pixels become a map: filters, classes, priorities. Shared by `wpcrack infer` and `wpcrack assemble`. None of it changes what lies in a work folder.


Percent = Annotated[float, Field(ge=0, le=100)]


class SeverityConfig(Block):
    """Severity classes by mean width, and the pixels that it takes to tell them."""

    d6433_mm: tuple[Positive, Positive] = (10.0, 75.0)
    """ASTM D6433, longitudinal and transverse cracks, unfilled: low below the first limit in mm,
    medium up to the second, high beyond."""
    ltpp_mm: tuple[Positive, Positive] = (6.0, 19.0)
    """LTPP distress manual: low up to the first limit in mm, moderate up to the second, high
    beyond."""
    max_gsd_mm: Positive = 5.0
    """Imagery of coarser pixels has no class (not_measurable): it cannot tell the 10 mm of ASTM
    D6433."""
    reliable_px: Positive = 3.0
    """A mean width is called reliable from so many pixels of its imagery on, unless those are
    coarser than max_gsd_mm."""

    @model_validator(mode="after")
    def _rises(self) -> SeverityConfig:
        for name, (low, high) in (("d6433_mm", self.d6433_mm), ("ltpp_mm", self.ltpp_mm)):
            if low >= high:
                raise ValueError(f"{name} is [{low:g}, {high:g}]; the second must be larger")
        return self

    @property
    def options(self) -> SeverityOptions:
        """For the layers."""
        return SeverityOptions(**self.model_dump())


class TypeConfig(Block):
    """Types of cracks, by their direction against the nearest road and by their loops."""

    angle_deg: Annotated[float, Field(gt=0, le=45)] = 20.0
    """Within this angle of the road a crack is longitudinal, within it of the perpendicular
    transverse, else diagonal (AASHTO R 85: 20 degrees)."""
    min_length_m: NonNegative = 0.3
    """Shorter cracks have no direction: their type is unknown (AASHTO R 85: 0.3 m)."""
    network_loops: Count = 2
    """A crack with so many closed loops can be a network (alligator)."""
    network_loops_per_m: NonNegative = 0.4
    """It is one if it has so many loops per meter of centerline besides: blocks of 0.3 m have
    about 1.7, of 1 m about 0.5. Of our own."""

    @property
    def options(self) -> TypeOptions:
        """For the layers."""
        return TypeOptions(**self.model_dump())


class SegmentConfig(Block):
    """How road segments are judged."""

    min_coverage_pct: Percent = 50.0
    """Segments of which less was seen get no rank and no priority."""
    medium_pct: Percent = 5.0
    """Share of cells with a crack from which the priority is medium (the limit between good and
    fair in 23 CFR 490, HPMS: 5 %)."""
    high_pct: Percent = 20.0
    """Share of cells with a crack above which the priority is high (fair and poor in 23 CFR 490:
    20 %)."""

    @model_validator(mode="after")
    def _rises(self) -> SegmentConfig:
        if self.medium_pct > self.high_pct:
            raise ValueError(
                f"medium_pct is {self.medium_pct:g} and high_pct {self.high_pct:g}; "
                "the second must not be smaller"
            )
        return self

    @property
    def options(self) -> SegmentOptions:
        """For the layers."""
        return SegmentOptions(**self.model_dump())


class MapRules(Block):
    """From finished blocks to the layers of a map."""

    min_area_m2: NonNegative = 0.0002
    """Smaller cracks are dropped, after joining across blocks. Default: 8 pixels of 5 mm."""
    min_length_m: NonNegative = 0.0
    """Shorter cracks are dropped, after joining across blocks."""
    simplify_px: NonNegative = 1.0
    """Tolerance of outline simplification in pixels; areas are measured before. 0: exact."""
    formats: tuple[Literal["gpkg", "parquet"], ...] = ("gpkg",)
    """parquet: also a GeoParquet file of each layer beside the GeoPackage."""
    severity: SeverityConfig = SeverityConfig()
    """Severity classes."""
    type: TypeConfig = TypeConfig()
    """Types, where roads are given."""
    segments: SegmentConfig = SegmentConfig()
    """Priorities of road segments, where roads are given."""

    @property
    def options(self) -> dict[str, Any]:
        """The fields of `geo.options.AssembleOptions` that are set here."""
        return {
            "min_area_m2": self.min_area_m2,
            "min_length_m": self.min_length_m,
            "simplify_px": self.simplify_px,
            "formats": self.formats,
            "severity": self.severity.options,
            "types": self.type.options,
            "segments": self.segments.options,
        }
