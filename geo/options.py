"""Every rule and limit of a map, once: classes, types, segments, roads, reading, assembly.

Each option stands here with its default, bounds, unit and meaning; the settings of a job take them
over as sections. A value out of bounds is pydantic's ValidationError.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geo.errors import InputError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]

SAME_SIZE = 1e-6
"""Relative difference up to which two pixel sizes are one."""

Format = Literal["gpkg", "parquet"]


class Options(BaseModel):
    """Base of all options: immutable, unknown names refused, field docstrings kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SeverityOptions(Options):
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
    def _rises(self) -> SeverityOptions:
        for name, (low, high) in (("d6433_mm", self.d6433_mm), ("ltpp_mm", self.ltpp_mm)):
            if low >= high:
                raise ValueError(f"{name} is [{low:g}, {high:g}]; the second must be larger")
        return self


class TypeOptions(Options):
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


class SegmentOptions(Options):
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
    def _rises(self) -> SegmentOptions:
        if self.medium_pct > self.high_pct:
            raise ValueError(
                f"medium_pct is {self.medium_pct:g} and high_pct {self.high_pct:g}; "
                "the second must not be smaller"
            )
        return self


class Rules(Options):
    """Limits of the severity classes, rules of the types, limits of the priorities."""

    severity: SeverityOptions = SeverityOptions()
    types: TypeOptions = TypeOptions()
    segments: SegmentOptions = SegmentOptions()

    def text(self) -> str:
        """Return the rules as JSON, for the layer run.

        >>> Rules.of_text(Rules().text()) == Rules()
        True
        """
        return json.dumps(self.model_dump())

    @classmethod
    def of_text(cls, text: str) -> Rules:
        """Return the inverse of `text`."""
        return cls.model_validate_json(text)


class RoadOptions(Options):
    """Road lines: only imagery near them is looked at, cracks are counted along them."""

    path: Path | None = None
    """Vector file of road centerlines: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON, Shapefile."""
    layer: str | None = None
    """Its layer; null: the first with geometries."""
    buffer_m: Positive = 15.0
    """Imagery counts up to this distance from a line: half of a wide urban road."""
    id: str | None = None
    """Column of the road's id; null numbers the roads."""
    name: str | None = None
    """Column of the street's name."""
    width: str | None = None
    """Column of the width in meters."""
    lanes: str | None = None
    """Column of the number of lanes, used where there is no width."""
    surface: str | None = None
    """Column of the surface, like asphalt or concrete."""
    lane_m: Positive = 3.5
    """Width of a lane in meters (a usual urban lane)."""
    default_lanes: Count = 2
    """Where neither width nor lanes are known."""
    section_m: Annotated[float, Field(ge=1)] | None = 100.0
    """Length of a segment in meters; null keeps the lines whole. A rest below half of it belongs to
    the segment before."""


class ReadOptions(Options):
    """How files are read: what in them is no imagery, and with how much patience."""

    nodata: float | None = None
    """Pixel value that means missing, such as 0 for black collars; null: as each file says. Small
    islands of it inside imagery are imagery."""
    band4: Literal["alpha", "ignore"] = "alpha"
    """What the band after the colors is; alpha: where it is 0 there is no imagery; ignore: near
    infrared or anything else, which is not looked at."""

    retries: Annotated[int, Field(ge=0)] = 2
    """Further tries to read a tile that failed."""
    timeout_s: Positive = 120.0
    """A server that does not answer for so long has failed."""


class MapRules(Options):
    """From finished blocks to the layers of a map; none of it changes what the blocks hold."""

    min_area_m2: NonNegative = 0.0002
    """Smaller cracks are dropped, after joining across blocks. Default: 8 pixels of 5 mm."""
    min_length_m: NonNegative = 0.0
    """Shorter cracks are dropped, after joining across blocks."""
    simplify_px: NonNegative = 1.0
    """Tolerance of outline simplification in pixels; areas are measured before. 0: exact."""
    formats: tuple[Format, ...] = ("gpkg",)
    """parquet: also a GeoParquet file of each layer beside the GeoPackage."""
    severity: SeverityOptions = SeverityOptions()
    """Severity classes."""
    type: TypeOptions = TypeOptions()
    """Types, where roads are given."""
    segments: SegmentOptions = SegmentOptions()
    """Priorities of road segments, where roads are given."""

    @field_validator("formats", mode="before")
    @classmethod
    def _has_geopackage(cls, formats: object) -> object:
        if isinstance(formats, list | tuple) and not (
            "gpkg" in formats and all(name in get_args(Format) for name in formats)
        ):
            named = ",".join(map(str, formats))
            raise InputError(f"formats=[{named}]; give [gpkg] or [gpkg,parquet]")
        return formats


class AssembleOptions(MapRules):
    """How parts become cracks: the rules of the map, the roads, and what the attributes say."""

    min_area_m2: NonNegative = 0.0
    """Smaller cracks are dropped, after joining; a caller that asks for nothing gets all."""
    roads: RoadOptions | None = None
    """Lines by which cracks are typed and gathered; without them no layer road_segment."""
    survey_date: str | None = None
    """ISO date, for the attribute."""
    model: str = ""
    """Name of the model, for the attribute."""
    run_id: str = ""
    """Fingerprint of the run, for the attribute."""

    @classmethod
    def of(cls, rules: MapRules, **others: Any) -> AssembleOptions:
        """Return the options that have the rules of a job, and other values besides."""
        return cls(**{name: getattr(rules, name) for name in MapRules.model_fields}, **others)

    @property
    def rules(self) -> Rules:
        """By which cracks and segments are judged."""
        return Rules(severity=self.severity, types=self.type, segments=self.segments)
