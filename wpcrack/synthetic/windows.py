"""Training windows with an image-level label, cut from drawn streets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from wpcrack.errors import ConfigError
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.noise import Frame
from wpcrack.synthetic.street import Street, StreetConfig, draw_street, paint, true_mask

_ATTEMPTS = 200
_STREETS = 100
"""So many streets are drawn for a window. Up to 3.2 m of a street of 4.4 m need 1 to 6."""
_NEAR_OBJECT_SHARE = 0.6


@dataclass(frozen=True)
class WindowConfig:
    """Size and resolution of training windows and the streets that they are cut from."""

    size: int = 128
    """Side in pixels."""
    gsd_m: float = 0.005
    """Meters per pixel."""
    street_length_m: float = 16.0
    street_width_m: float = 4.4
    crack_pixels: float = 0.47
    """A crack window holds more than this times its size of mask pixels inside the border."""
    border: float = 1 / 16
    """Border (crack windows) and margin (road windows) as a share of the size."""
    street: StreetConfig = field(default_factory=StreetConfig)

    def __post_init__(self) -> None:
        """Refuse windows for which no street has a place.

        Raises:
            ConfigError: They have no size, or are larger than a street.
        """
        are_numbers = isinstance(self.size, Integral) and isinstance(self.gsd_m, Real)
        if not are_numbers or self.size < 1 or not 0 < self.gsd_m < math.inf:
            raise ConfigError(
                f"size is {self.size!r} and gsd_m {self.gsd_m!r}; give at least 1 pixel of more "
                "than 0 meters"
            )
        side_m = self.size * self.gsd_m
        place_m = min(self.street_length_m, self.street_width_m - 2 * _beside_m(self.street))
        if side_m >= place_m:
            raise ConfigError(
                f"size={self.size} of gsd_m={self.gsd_m:g} are {side_m:.3g} m, and these streets "
                f"have place for less than {place_m:.3g} m; give a smaller size, or a larger "
                "street_width_m"
            )


@dataclass(frozen=True)
class DrawnWindow:
    """A training window with its hidden truth.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        mask: (size, size) bool, true crack pixels; never shown to a weakly supervised method.
        source: Name of the street: windows of one street belong to one side of a split.
        row: Offset of the window in its street's plane.
        col: Likewise.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    source: str
    row: int
    col: int


def draw_training_street(
    rng: np.random.Generator, config: WindowConfig, *, name: str | None = None
) -> Street:
    """Make a random street to cut windows from, along the columns or along the rows.

    Without a name it is called `street` and eight random hexadecimal digits.
    """
    name = name or f"street{int(rng.integers(2**32)):08x}"
    across_px = 0.75 * config.street_width_m / config.gsd_m
    axis = StreetAxis(
        horizontal=bool(rng.random() < 0.5),
        along_px=0.0,
        across_px=float(np.ceil(across_px)),
        length_m=config.street_length_m,
        width_m=config.street_width_m,
        gsd_m=config.gsd_m,
        bend_m=float(rng.uniform(0.0, 0.14)),
        bend_period_m=float(rng.uniform(14.0, 30.0)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
    return draw_street(rng, axis, config.street, name=name)


def draw_window(
    rng: np.random.Generator,
    config: WindowConfig,
    has_crack: bool,
    street: Street | None = None,
) -> DrawnWindow:
    """Draw one training window.

    A crack window holds more than `crack_pixels` x size mask pixels inside its border; a road
    window holds none, nor does the margin around it, but more often than by chance an object that
    looks like something. Both lie wholly on the carriageway.

    Args:
        rng: Source of randomness.
        config: Size, resolution and what streets are like.
        has_crack: The image-level label.
        street: Where to cut the window; a new street is drawn if None, and further ones as long
            as the street has no place for such a window.

    Raises:
        ConfigError: No street had one, or the source or the config is of another kind.
    """
    if not isinstance(rng, np.random.Generator) or not isinstance(config, WindowConfig):
        raise ConfigError(
            f"rng is {rng!r} and config {config!r}; give numpy.random.default_rng(SEED) and a "
            "WindowConfig"
        )
    for _ in range(_STREETS):
        place = street or draw_training_street(rng, config)
        frame = _find_crack(rng, place, config) if has_crack else _find_road(rng, place, config)
        if frame is not None:
            break
        street = None
    else:
        kind = "with a crack" if has_crack else "without a crack"
        raise ConfigError(
            f"none of {_STREETS} streets has place for a window {kind} of size={config.size} and "
            f"gsd_m={config.gsd_m:g}; give a smaller size, or a larger street_width_m"
        )
    image, _ = paint([place], frame)
    mask = true_mask([place], frame)
    return DrawnWindow(image, mask, place.name, frame.row_off, frame.col_off)


def _find_crack(rng: np.random.Generator, street: Street, config: WindowConfig) -> Frame | None:
    """Make a frame around a random point of a random crack that shows enough of it."""
    if not street.cracks:
        return None
    border = round(config.size * config.border)
    ids = np.unique([crack.crack_id for crack in street.cracks])
    for _ in range(_ATTEMPTS):
        crack_id = rng.choice(ids)
        branches = [crack for crack in street.cracks if crack.crack_id == crack_id]
        points = branches[int(rng.integers(len(branches)))].points_px
        x, y = points[int(rng.integers(len(points)))]
        frame = _around(rng, float(x), float(y), config)
        if not _on_street(street, frame, 0):
            continue
        core = true_mask([street], frame.grow(-border))
        if core.sum() > config.crack_pixels * config.size:
            return frame
    return None


def _find_road(rng: np.random.Generator, street: Street, config: WindowConfig) -> Frame | None:
    """Make a frame without any crack, near an object more often than by chance."""
    margin = round(config.size * config.border)
    things = (*street.furniture.under, *street.furniture.over)
    for _ in range(_ATTEMPTS):
        if things and rng.random() < _NEAR_OBJECT_SHARE:
            x0, y0, x1, y1 = things[int(rng.integers(len(things)))].box
            x, y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        else:
            axis = street.axis
            half = axis.width_m / 2
            spot = np.array([[rng.uniform(0, axis.length_m), rng.uniform(-half, half)]])
            x, y = axis.place(spot)[0]
        frame = _around(rng, float(x), float(y), config)
        if _on_street(street, frame, margin) and not true_mask([street], frame.grow(margin)).any():
            return frame
    return None


def _around(rng: np.random.Generator, x: float, y: float, config: WindowConfig) -> Frame:
    """Make a frame that holds the point somewhere in its middle four fifths."""
    share = rng.uniform(0.1, 0.9, 2) * config.size
    return Frame(int(y - share[1]), int(x - share[0]), config.size, config.size)


def _on_street(street: Street, frame: Frame, margin: int) -> bool:
    """Return whether the frame and the margin lie on the carriageway, clear of its ragged sides."""
    axis = street.axis
    outer = frame.grow(margin)
    start, size = (outer.col_off, outer.width) if axis.horizontal else (outer.row_off, outer.height)
    if start < axis.along_px or (start + size - axis.along_px) * axis.gsd_m > axis.length_m:
        return False
    limit = axis.width_m / 2 - _beside_m(street.config)
    return bool(np.abs(axis.across_m(outer)).max() < limit)


def _beside_m(street: StreetConfig) -> float:
    """Return the width of a ragged side, on which no window lies."""
    return 4 * street.ragged_m
