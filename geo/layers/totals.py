"""Figures of a whole map, which add up over its parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from geo.layers.classes import NOT_MEASURABLE
from geo.layers.whole_map import CrackMap


@dataclass(frozen=True)
class MapTotals:
    """What cracks and networks add up to.

    Attributes:
        n_cracks, n_networks: how many.
        length_m: of cracks with their gaps.
        area_m2: of the pixels of cracks and networks.
        network_m2: area of networks.
        network_line_m: centerlines in them.
        not_measurable_m: line of cracks whose width cannot be measured.
        n_dropped: cracks that were too small.
    """

    n_cracks: int = 0
    n_networks: int = 0
    length_m: float = 0.0
    area_m2: float = 0.0
    network_m2: float = 0.0
    network_line_m: float = 0.0
    not_measurable_m: float = 0.0
    n_dropped: int = 0

    @classmethod
    def of(cls, found: CrackMap) -> MapTotals:
        """Add up a map."""
        kept, count = found.kept, found.n_cracks
        return cls(
            n_cracks=int(kept.sum()),
            n_networks=len(found.networks),
            length_m=float(found.length_m[kept].sum()),
            area_m2=float(found.area_m2[:count][kept].sum() + found.area_m2[count:].sum()),
            network_m2=float(found.networks.area_m2.sum()),
            network_line_m=float(found.networks.crack_length_m.sum()),
            not_measurable_m=float(found.meters_by_class(NOT_MEASURABLE)[:count][kept].sum()),
            n_dropped=int((~kept).sum()),
        )

    def __add__(self, other: MapTotals) -> MapTotals:
        """Return the figures of both together."""
        names = [field.name for field in fields(self)]
        return MapTotals(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def values(self) -> dict[str, float]:
        """Return the figures by name, as `MapTotals(**values)` takes them."""
        return asdict(self)
