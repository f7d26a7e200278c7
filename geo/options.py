"""Every rule and limit of a map that a user can set, once: its default, its unit, its meaning.

Plain dataclasses: a constraint (`annotated_types`) or a doc below a field is what pydantic reads,
too, so that a config can take these blocks as they are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le

from geo.errors import InputError

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Percent = Annotated[float, Ge(0), Le(100)]
Count = Annotated[int, Ge(1)]
Format = Literal["gpkg", "parquet"]


@dataclass(frozen=True)
class SeverityOptions:
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

    def __post_init__(self) -> None:
        """Refuse limits that do not rise.

        Raises:
            ValueError: the second limit of a class is not larger than the first.
        """
        for name, (low, high) in (("d6433_mm", self.d6433_mm), ("ltpp_mm", self.ltpp_mm)):
            if low >= high:
                raise ValueError(f"{name} is [{low:g}, {high:g}]; the second must be larger")


@dataclass(frozen=True)
class TypeOptions:
    """Types of cracks, by their direction against the nearest road and by their loops."""

    angle_deg: Annotated[float, Gt(0), Le(45)] = 20.0
    """Within this angle of the road a crack is longitudinal, within it of the perpendicular
    transverse, else diagonal (AASHTO R 85: 20 degrees)."""
    min_length_m: NonNegative = 0.3
    """Shorter cracks have no direction: their type is unknown (AASHTO R 85: 0.3 m)."""
    network_loops: Count = 2
    """A crack with so many closed loops can be a network (alligator)."""
    network_loops_per_m: NonNegative = 0.4
    """It is one if it has so many loops per meter of centerline besides: blocks of 0.3 m have
    about 1.7, of 1 m about 0.5. Of our own."""


@dataclass(frozen=True)
class SegmentOptions:
    """How road segments are judged."""

    min_coverage_pct: Percent = 50.0
    """Segments of which less was seen get no rank and no priority."""
    medium_pct: Percent = 5.0
    """Share of cells with a crack from which the priority is medium (the limit between good and
    fair in 23 CFR 490, HPMS: 5 %)."""
    high_pct: Percent = 20.0
    """Share of cells with a crack above which the priority is high (fair and poor in 23 CFR 490:
    20 %)."""

    def __post_init__(self) -> None:
        """Refuse limits that fall.

        Raises:
            ValueError: high begins below medium.
        """
        if self.medium_pct > self.high_pct:
            raise ValueError(
                f"medium_pct is {self.medium_pct:g} and high_pct {self.high_pct:g}; "
                "the second must not be smaller"
            )


@dataclass(frozen=True)
class Rules:
    """Limits of the severity classes, rules of the types, limits of the priorities."""

    severity: SeverityOptions = field(default_factory=SeverityOptions)
    types: TypeOptions = field(default_factory=TypeOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)

    def text(self) -> str:
        """Return the rules as JSON, for the layer run.

        >>> Rules.of_text(Rules().text()) == Rules()
        True
        """
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Rules:
        """Read what `text` wrote."""
        values = json.loads(text)
        limits: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["severity"].items()
        }
        return cls(
            SeverityOptions(**limits),
            TypeOptions(**values["types"]),
            SegmentOptions(**values["segments"]),
        )


@dataclass(frozen=True)
class RoadOptions:
    """Where the roads are and how they are cut."""

    path: Path
    """Vector file of road centerlines."""
    id: str | None = None
    """Column of the road's id; null numbers the roads."""
    name: str | None = None
    """Column of the street's name."""
    width: str | None = None
    """Column of the width in meters."""
    lanes: str | None = None
    """Column of the number of lanes, used where there is no width."""
    lane_m: Positive = 3.5
    """Width of a lane in meters (a usual urban lane)."""
    default_lanes: Count = 2
    """Where neither width nor lanes are known."""
    section_m: Positive | None = 100.0
    """Length of a segment in meters; null keeps the lines whole."""


@dataclass(frozen=True)
class ReadOptions:
    """How patient reading is."""

    retries: Annotated[int, Ge(0)] = 2
    """Further tries to read a tile that failed."""
    timeout_s: Positive = 120.0
    """A server that does not answer for so long has failed."""


@dataclass(frozen=True)
class AssembleOptions:
    """How parts become the layers of a map."""

    min_area_m2: NonNegative = 0.0
    """Smaller cracks are dropped, after joining across blocks."""
    min_length_m: NonNegative = 0.0
    """Shorter cracks are dropped, after joining across blocks."""
    simplify_px: NonNegative = 1.0
    """Tolerance of outline simplification in pixels; areas are measured before. 0: exact."""
    severity: SeverityOptions = field(default_factory=SeverityOptions)
    """Severity classes."""
    roads: RoadOptions | None = None
    """Lines by which cracks are typed and gathered; null: no layer road_segment."""
    types: TypeOptions = field(default_factory=TypeOptions)
    """Types, where roads are given."""
    segments: SegmentOptions = field(default_factory=SegmentOptions)
    """Priorities of road segments, where roads are given."""
    survey_date: str | None = None
    """Day of the survey, ISO, for the attribute."""
    model: str = ""
    """Name of the model, for the attribute."""
    run_id: str = ""
    """Fingerprint of the run, for the attribute."""
    formats: tuple[Format, ...] = ("gpkg",)
    """parquet: also a GeoParquet file of each spatial layer beside the GeoPackage."""

    @property
    def rules(self) -> Rules:
        """Rules by which cracks and segments are judged."""
        return Rules(self.severity, self.types, self.segments)

    def __post_init__(self) -> None:
        """Refuse formats that do not exist, and a map without its GeoPackage.

        Raises:
            InputError: such formats are asked for.
        """
        if "gpkg" not in self.formats or not set(self.formats) <= set(get_args(Format)):
            named = ",".join(self.formats)
            raise InputError(f"formats=[{named}]; give [gpkg] or [gpkg,parquet]")
