"""A street's own coordinates: meters along and across its centerline, and the pixel plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.noise import Frame


@dataclass(frozen=True)
class StreetAxis:
    """A gently winding centerline that runs along the columns (to the right) or the rows (down).

    Attributes:
        horizontal: Whether the street runs along the columns.
        along_px: Plane coordinate of its start, along the street.
        across_px: Plane coordinate of the mean centerline, across the street.
        length_m: Length along the street.
        width_m: Carriageway.
        gsd_m: Meters per pixel.
        bend_m: Amplitude of the winding (a sine).
        bend_period_m: Its period.
        phase: Its phase in radians.
    """

    horizontal: bool
    along_px: float
    across_px: float
    length_m: float
    width_m: float
    gsd_m: float
    bend_m: float
    bend_period_m: float
    phase: float

    def place(self, along_across_m: Float64) -> Float64:
        """Turn meters along and across the street, (N, 2), to plane coordinates x, y in pixels."""
        along = along_across_m[:, 0] / self.gsd_m + self.along_px
        across = along_across_m[:, 1] / self.gsd_m + self._center(along)
        return np.stack([along, across] if self.horizontal else [across, along], axis=1)

    def across_m(self, frame: Frame) -> Float32:
        """Return the signed distance of each pixel center from the centerline, (H, W), meters."""
        x, y = frame.centers()
        along, across = (x, y) if self.horizontal else (y, x)
        return (across - self._center(along.astype(np.float64)).astype(np.float32)) * np.float32(
            self.gsd_m
        )

    def centerline(self, *, step_m: float = 0.5) -> Float64:
        """Return the centerline as plane coordinates (N, 2) x, y in pixels."""
        count = int(np.ceil(self.length_m / step_m)) + 1
        along = np.linspace(0.0, self.length_m, count)
        return self.place(np.stack([along, np.zeros(count)], axis=1))

    def _center(self, along_px: Float64) -> Float64:
        turn = 2 * np.pi * self.gsd_m / self.bend_period_m
        bend = self.bend_m / self.gsd_m * np.sin(turn * along_px + self.phase)
        return np.asarray(self.across_px + bend)
