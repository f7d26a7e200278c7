"""Every rule and limit of a map, once: classes, types, segments, roads, reading, assembly."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from geo.errors import InputError


@dataclass(frozen=True)
class SeverityOptions:
    """Limits of the classes.

    Attributes:
        d6433_mm: ASTM D6433, longitudinal and transverse cracks, unfilled: low below the first
            limit, medium up to the second, high beyond.
        ltpp_mm: LTPP distress manual: low up to the first, moderate up to the second, high beyond.
        max_gsd_mm: coarser pixels cannot tell a width of 10 mm, so there is no class.
        reliable_px: mean width from which it is called reliable.
    """

    d6433_mm: tuple[float, float] = (10.0, 75.0)
    ltpp_mm: tuple[float, float] = (6.0, 19.0)
    max_gsd_mm: float = 5.0
    reliable_px: float = 3.0


@dataclass(frozen=True)
class TypeOptions:
    """Rules of the types.

    Attributes:
        angle_deg: within this angle of the road a crack is longitudinal, within it of the
            perpendicular transverse (AASHTO R 85: 20).
        min_length_m: shorter cracks have no direction and are unknown (AASHTO R 85: 0.3).
        network_loops: loops from which a crack can be a network (alligator).
        network_loops_per_m: loops per meter of centerline that it takes besides: blocks of
            0.3 m have about 1.7, of 1 m about 0.5.
    """

    angle_deg: float = 20.0
    min_length_m: float = 0.3
    network_loops: int = 2
    network_loops_per_m: float = 0.4


@dataclass(frozen=True)
class SegmentOptions:
    """How segments are judged.

    Attributes:
        min_coverage_pct: segments seen less are not ranked.
        medium_pct: share of hit cells from which the priority is medium (HPMS, 23 CFR 490: 5).
        high_pct: share above which it is high (HPMS: 20).
    """

    min_coverage_pct: float = 50.0
    medium_pct: float = 5.0
    high_pct: float = 20.0


@dataclass(frozen=True)
class Rules:
    """Limits of the severity classes, rules of the types, limits of the priorities."""

    severity: SeverityOptions = field(default_factory=SeverityOptions)
    types: TypeOptions = field(default_factory=TypeOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)

    def text(self) -> str:
        """As JSON, for the layer run.

        >>> Rules.of_text(Rules().text()) == Rules()
        True
        """
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Rules:
        """The inverse of `text`."""
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
    """Where the roads are and how they are cut.

    Attributes:
        path: lines in any format that GDAL reads (GeoPackage, GeoJSON, Shapefile ...).
        id: column of the road's id; None numbers the roads.
        name: column of the street's name, if there is one.
        width: column of the width in meters.
        lanes: column of the number of lanes, used where there is no width.
        lane_m: width of a lane (a usual urban lane).
        default_lanes: where neither width nor lanes are known.
        section_m: length of a segment; None keeps the lines whole.
    """

    path: Path
    id: str | None = None
    name: str | None = None
    width: str | None = None
    lanes: str | None = None
    lane_m: float = 3.5
    default_lanes: int = 2
    section_m: float | None = 100.0


@dataclass(frozen=True)
class ReadOptions:
    """How patient reading is.

    Attributes:
        retries: further tries after a failed one.
        timeout_s: of one request to a server.
    """

    retries: int = 2
    timeout_s: float = 120.0


Format = Literal["gpkg", "parquet"]


@dataclass(frozen=True)
class AssembleOptions:
    """How parts become cracks.

    Attributes:
        min_area_m2: smaller cracks are dropped, after joining.
        min_length_m: shorter cracks are dropped, after joining.
        simplify_px: tolerance of the topology-preserving simplification in pixels; 0 keeps the
            pixel outline. The area is measured before.
        severity: limits of the severity classes.
        roads: lines by which cracks are typed and gathered; None: no road_segment layer.
        types: rules of the types.
        segments: how road segments are judged.
        survey_date: ISO date, for the attribute.
        model: name of the model, for the attribute.
        run_id: fingerprint of the run, for the attribute.
        formats: "gpkg", and "parquet" for GeoParquet files of the spatial layers beside it.
    """

    min_area_m2: float = 0.0
    min_length_m: float = 0.0
    simplify_px: float = 1.0
    severity: SeverityOptions = field(default_factory=SeverityOptions)
    roads: RoadOptions | None = None
    types: TypeOptions = field(default_factory=TypeOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)
    survey_date: str | None = None
    model: str = ""
    run_id: str = ""
    formats: tuple[Format, ...] = ("gpkg",)

    @property
    def rules(self) -> Rules:
        """By which cracks and segments are judged."""
        return Rules(self.severity, self.types, self.segments)

    def __post_init__(self) -> None:
        """Refuse formats that do not exist, and a map without its GeoPackage.

        Raises:
            InputError: such formats are asked for.
        """
        if "gpkg" not in self.formats or not set(self.formats) <= set(get_args(Format)):
            named = ",".join(self.formats)
            raise InputError(f"formats=[{named}]; give [gpkg] or [gpkg,parquet]")
