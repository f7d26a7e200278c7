"""What a user can say about how found pixels become a map: filters, classes, priorities.

Shared by `wpcrack infer` and `wpcrack assemble`. None of it changes what lies in a work folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from geo.crack_type import TypeOptions
from geo.segment_rows import SegmentOptions
from geo.severity import SeverityOptions
from wpcrack.config import Block, Count, NonNegative, Positive

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
        """The fields of `geo.features.AssembleOptions` that are set here."""
        return {
            "min_area_m2": self.min_area_m2,
            "min_length_m": self.min_length_m,
            "simplify_px": self.simplify_px,
            "formats": self.formats,
            "severity": self.severity.options,
            "types": self.type.options,
            "segments": self.segments.options,
        }
