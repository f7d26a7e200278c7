"""Every rule and limit of a map, once: classes, types, segments, roads, reading, assembly.

Each option stands here with its default, bounds, unit and meaning; the settings of a job take them
over as sections. A value out of bounds is pydantic's ValidationError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, WrapValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from geo.errors import InputError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]


def _day(given: object, parse: Callable[[object], date]) -> date:
    """Refuse a number, which pydantic takes for seconds since 1970, and years of another age."""
    if not isinstance(given, date) and not str(given)[:5].strip().endswith("-"):
        raise PydanticCustomError("date_type", "Input should be a date")
    day = parse(given)
    if not 1900 <= day.year < 2100:
        raise PydanticCustomError("year", "Input should be a day of the years 1900 to 2099")
    return day


Day = Annotated[date, WrapValidator(_day)]

SAME_SIZE = 1e-6
"""Relative difference up to which two pixel sizes are one."""

MOST_CELLS = 10_000
"""How far it may look around a place to find networks: cells of 2 cm for 200 m."""

Format = Literal["gpkg", "parquet", "pmtiles", "pdf"]

PARQUET_ROWS = 1_000_000
"""Features of a layer that one GeoParquet file holds: some hundred MB."""


class Options(BaseModel):
    """Base of all options: immutable, unknown names refused, field docstrings kept."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class LinkOptions(Options):
    """When two ends of centerlines are one crack; chosen on drawn streets."""

    gaps_m: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        0.03,
        0.06,
        0.12,
        0.20,
        0.30,
        0.45,
    )
    """Longest gap of each round. Of the gaps in predicted cracks half are below 3 cm, 95 % below
    18 cm. With a round of .65 m crumbs in a row became cracks of a meter that nobody drew."""
    base_m: Positive = 0.25
    """Length of line that gives the direction of an end. A crack winds: shorter bases follow its
    kinks, longer ones miss its turns."""
    max_turn_deg: Annotated[float, Field(gt=0, le=90)] = 40.0
    """Largest turn of the gap from the line before it, and of the lines from each other."""
    junction_turn_deg: Annotated[float, Field(gt=0, le=90)] = 60.0
    """The same at a common node, where no gap has to be guessed."""
    free_gap_m: NonNegative = 0.04
    """A longer gap must not be longer than the longer line beside it."""
    noise_m: Positive = 0.01
    """How far the place of an end is known: two pixels of 5 mm."""
    sure_m: Positive = 0.06
    """Lines from this length on have a sure direction; that of crumbs counts less."""
    crossing_m: Positive = 0.05
    """A branch up to this length between two junctions is where two cracks lie on each other; ends
    on either side of it may go on in each other."""
    tries: Annotated[int, Field(ge=1, le=100)] = 2
    """How often ends name their best candidate in a round."""

    @property
    def halo_m(self) -> float:
        """How far from an end the ends lie that have a part in its link.

        A try looks at candidates of candidates, two gaps away; a round begins with directions,
        which follow links of the round before over a base.
        """
        rounds = (2 * self.crossing_m, *self.gaps_m)
        return sum(self.base_m + 2 * self.tries * gap for gap in rounds) + self.crossing_m


class NetworkOptions(Options):
    """What counts as a network (alligator or block cracking); chosen on drawn streets."""

    cell_m: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Side of a cell of the raster on which networks are found: half of the narrowest spacing of
    cracks that matters."""
    closing_m: Positive = 0.11
    """Lines up to twice as far apart grow together; alligator blocks are smaller. At .12 single
    cracks beside a network begin to join it."""
    margin_m: NonNegative = 0.02
    """How far a network reaches beyond its outer lines."""
    opening_m: Positive = 0.10
    """A disk of this radius fits into every part of a network, so that two parallel cracks up to
    16 cm apart (twice as far, less the margins) are not one."""
    window_m: Positive = 0.5
    """Side of the square around a cell in which line is counted."""
    min_density_m_per_m2: Positive = 6.0
    """Least line per area in the square. Two crossing cracks have 4 at a side of .5 m."""
    max_anisotropy: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Length of the mean doubled direction there: 0 in all directions alike, 1 parallel."""
    reach_m: NonNegative = 0.24
    """A cell belongs to a network if the square around a cell this near is dense."""
    min_area_m2: Positive = 0.25
    """Smaller areas do not count as networks."""
    border_m: NonNegative = 0.04
    """Lines this near to a network count as inside."""
    inside_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A branch belongs to a network if more than this share of it is inside."""
    block_cell_m: Positive = 0.3
    """From this mean block size on it is block cracking (ASTM D6433: .3 m). Smaller pieces with
    cracks all around do not count as blocks."""
    max_block_m2: Positive = 10.0
    """Larger pieces do not count either (LTPP: .1 to 10 m2)."""
    min_blocks: Count = 4
    """Blocks beside each other that are block cracking; fewer are cracks that cross or close.
    Gaps up to twice `closing_m` in the lines around a block are overlooked."""
    medium_density_m_per_m2: Positive = 10.0
    """With this much line per area alligator cracking is of medium severity, with less of low: a
    pattern of lines with few connections, blocks above .2 m (ASTM D6433 describes the pattern in
    words; the number is our own)."""
    high_density_m_per_m2: Positive = 20.0
    """With this much it is of high severity: well-defined pieces of .1 m. Our own number."""

    @property
    def halo_m(self) -> float:
        """How far from a place decides whether it is in a network."""
        shapes = 2 * self.closing_m + self.margin_m + 2 * self.opening_m + self.border_m
        small = self.min_area_m2 / (2 * self.opening_m)  # how long an area below the limit can be
        dense = shapes + self.window_m / 2 + self.reach_m + small + 8 * self.cell_m
        block = math.sqrt(2 * self.max_block_m2) + 4 * self.closing_m + 8 * self.cell_m
        return dense + self.min_blocks * block


class SeverityOptions(Options):
    """Severity classes by width, and the pixels that it takes to tell them."""

    d6433_mm: tuple[Positive, Positive] = (10.0, 75.0)
    """ASTM D6433, longitudinal and transverse cracks, unfilled: low below the first limit in mm,
    medium up to the second, high beyond."""
    ltpp_mm: tuple[Positive, Positive] = (6.0, 19.0)
    """LTPP distress manual: low up to the first limit in mm, moderate up to the second, high
    beyond."""
    max_gsd_mm: Positive = 5.0
    """Imagery of coarser pixels has no class (not_measurable): it cannot resolve the 10 mm of ASTM
    D6433."""
    measurable_px: Positive = 2.0
    """A width below this many pixels of its imagery is not given, and neither is a class."""

    @model_validator(mode="after")
    def _rises(self) -> SeverityOptions:
        for name, (low, high) in (("d6433_mm", self.d6433_mm), ("ltpp_mm", self.ltpp_mm)):
            if low >= high:
                raise ValueError(f"{name} is [{low:g}, {high:g}]; the second must be larger")
        return self


class TypeOptions(Options):
    """Types of cracks, by their direction against the nearest road."""

    angle_deg: Annotated[float, Field(gt=0, le=45)] = 20.0
    """Within this angle of the road a crack is longitudinal, within it of the perpendicular
    transverse, else diagonal (AASHTO R 85: 20 degrees)."""
    min_length_m: NonNegative = 0.3
    """Shorter cracks have no direction: their type is unknown (AASHTO R 85: 0.3 m)."""


RankBy = Literal["cracking_pct", "zeb_cell_pct", "density_m_per_m2"]

PRIORITY_LIMITS: dict[RankBy, tuple[float, float]] = {
    "cracking_pct": (5.0, 20.0),
    "zeb_cell_pct": (20.0, 60.0),
    "density_m_per_m2": (0.15, 0.6),
}
"""From which value on the priority is medium, and above which it is high; of our own. Those of
cells and density lie where segments of drawn streets have 5 and 20 % of cracked area."""


class SegmentOptions(Options):
    """How road segments are judged."""

    min_coverage_pct: Percent = 50.0
    """Segments of which less was seen get no rank and no priority."""
    rank_by: RankBy = "cracking_pct"
    """Column by which segments are ranked and priorities given, then density, then id:
    cracking_pct after the percent cracking of 23 CFR 490, zeb_cell_pct after ZTV ZEB-StB."""
    crack_band_m: NonNegative = 0.3
    """Width of ground that a crack outside networks takes in cracking_pct: one foot, as a crack is
    sealed or milled. Our own choice; networks count with their area."""
    medium_pct: NonNegative | None = None
    """From this value of rank_by on the priority is medium; null: 5 of cracking_pct, 20 of
    zeb_cell_pct, 0.15 of density_m_per_m2. Our own choice."""
    high_pct: NonNegative | None = None
    """Above this value of rank_by the priority is high; null: 20, 60, 0.6. Our own choice."""

    @property
    def limits(self) -> tuple[float, float]:
        """From which value on the priority is medium, and above which it is high.

        >>> SegmentOptions(high_pct=30).limits, SegmentOptions(rank_by="zeb_cell_pct").limits
        ((5.0, 30.0), (20.0, 60.0))
        """
        usual = zip((self.medium_pct, self.high_pct), PRIORITY_LIMITS[self.rank_by], strict=True)
        medium, high = (own if given is None else given for given, own in usual)
        return medium, high

    @model_validator(mode="after")
    def _rises(self) -> SegmentOptions:
        medium, high = self.limits
        if medium > high:
            raise ValueError(
                f"medium_pct is {medium:g} and high_pct {high:g}; the second must not be smaller"
            )
        return self


class Rules(Options):
    """By which a map was made: links, networks, severity classes, types, priorities."""

    link: LinkOptions = LinkOptions()
    network: NetworkOptions = NetworkOptions()
    severity: SeverityOptions = SeverityOptions()
    types: TypeOptions = TypeOptions()
    segments: SegmentOptions = Field(SegmentOptions(), validate_default=True)

    @field_validator("segments")
    @classmethod
    def _has_limits(cls, segments: SegmentOptions) -> SegmentOptions:
        """Set the limits that hold where none are given."""
        limits = zip(("medium_pct", "high_pct"), segments.limits, strict=True)
        return segments.model_copy(update=dict(limits))

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
    """Its layer; null: the first that may hold lines."""
    buffer_m: Positive = 15.0
    """Imagery counts up to this distance from a line: half of a wide urban road."""
    id: str | None = None
    """Column of the road's id; null numbers the roads."""
    name: str | None = None
    """Column of the street's name."""
    district: str | None = None
    """Column of the district, or any other area of a plan; each has a page in the PDF."""
    width: str | None = None
    """Column of the width in meters."""
    lanes: str | None = None
    """Column of the number of lanes, used where there is no width."""
    surface: str | None = None
    """Column of the surface, like asphalt or concrete."""
    lane_m: Annotated[float, Field(gt=0, le=10)] = 3.5
    """Width of a lane in meters (a usual urban lane)."""
    default_lanes: Annotated[int, Field(ge=1, le=40)] = 2
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
    """A server that does not answer for this long has failed."""
    tiles_crs: str | None = None
    """Coordinate system of the tiles, like EPSG:25832, in place of what they say themselves."""
    allow_private: bool = False
    """Ask servers inside private networks for tiles, too."""


class MapRules(Options):
    """From finished blocks to the layers of a map; none of it changes what the blocks hold."""

    min_area_m2: NonNegative = 0.0002
    """Smaller cracks are dropped, after linking. Default: 8 pixels of 5 mm."""
    min_length_m: NonNegative = 0.15
    """Shorter cracks are dropped, after linking: crumbs that nothing links to are mostly not
    cracks."""
    simplify_px: NonNegative = 1.0
    """Tolerance of outline simplification in pixels; areas are measured before. 0: exact."""
    survey_date: Day | None = None
    """Day of the survey, for the attribute."""
    formats: tuple[Format, ...] = ("gpkg",)
    """parquet: also a GeoParquet file of each layer beside the GeoPackage; pmtiles: also vector
    tiles for web maps, of the layers crack, network and road_segment; pdf: also a file with
    one page per street (one page in all without roads)."""
    parquet_rows: Count = PARQUET_ROWS
    """A layer with more features becomes a folder of GeoParquet files of at most this many, by
    place."""
    link: LinkOptions = LinkOptions()
    """Which centerlines are one crack."""
    network: NetworkOptions = NetworkOptions()
    """Where cracks are a network."""
    severity: SeverityOptions = SeverityOptions()
    """Severity classes."""
    type: TypeOptions = TypeOptions()
    """Types, where roads are given."""
    segments: SegmentOptions = SegmentOptions()
    """Priorities of road segments, where roads are given."""

    @model_validator(mode="after")
    def _looks_near(self) -> Self:
        """Refuse lengths in another unit: what lies so far around a place fits in no memory."""
        cells = self.network.halo_m / self.network.cell_m
        if cells > MOST_CELLS:
            raise ValueError(
                f"network looks {self.network.halo_m:.3g} m, {cells:.3g} cells of cell_m, around a "
                f"place; give its lengths in meters, for at most {MOST_CELLS} cells"
            )
        return self

    @field_validator("formats", mode="before")
    @classmethod
    def _has_geopackage(cls, formats: object) -> object:
        names = formats.split(",") if isinstance(formats, str) else formats
        if isinstance(names, list | tuple) and not (
            "gpkg" in names and all(name in get_args(Format) for name in names)
        ):
            named = ",".join(map(str, names))
            raise InputError(
                f"formats=[{named}]; give [gpkg], or more as in [gpkg,parquet,pmtiles,pdf]"
            )
        return formats


class AssembleOptions(MapRules):
    """How parts become cracks: the rules of the map, the roads, and what the attributes say."""

    min_area_m2: NonNegative = 0.0
    """Smaller cracks are dropped, after linking; a caller that asks for nothing gets all."""
    min_length_m: NonNegative = 0.0
    """Likewise shorter ones."""
    roads: RoadOptions | None = None
    """Lines by which cracks are typed and gathered; without them no layer road_segment."""
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
        return Rules(
            link=self.link,
            network=self.network,
            severity=self.severity,
            types=self.type,
            segments=self.segments,
        )
