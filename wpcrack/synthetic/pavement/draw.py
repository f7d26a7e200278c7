"""One window of drawn pavement with its exact truth, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.pavement import camera, ground, light
from wpcrack.synthetic.pavement.canvas import Canvas, Kind, View
from wpcrack.synthetic.pavement.carving import carve
from wpcrack.synthetic.pavement.fields import log_uniform
from wpcrack.synthetic.pavement.lines import draw_lines
from wpcrack.synthetic.pavement.things import lay_over, lay_under

FAINT_LEVELS = 3.0
"""Gray levels of 255 below which a crack does not stand out."""

FAINT_DEVIATIONS = 0.25
"""The same as a share of the deviation of its surroundings."""

_STRETCH_PX, _SURROUNDINGS_PX = 7, 21


@dataclass(frozen=True)
class PavementConfig:
    """What drawn windows are like."""

    size: int = 160
    """Side in pixels."""
    gsd_mm: tuple[float, float] = (0.3, 10.0)
    """Range of the pixel size, log-uniform."""
    crack_share: float = 0.72
    """Share of windows that are meant to show a crack."""
    second_crack: float = 0.15
    """Share of those that show another crack of another kind."""
    oblique: float = 0.4
    """Share of windows seen at a slant."""


@dataclass(frozen=True)
class DrawnPavement:
    """A window and its truth.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) bool, crack pixels: half covered, or passed by a crack below a pixel.
        faint: (S, S) bool, the part of the mask that nobody could tell from its surroundings.
        width_px: (S, S) float32, full width of the crack at its pixels, in pixels of the image; 0
            elsewhere.
        classes: (S, S) uint8, values of `Kind`.
        gsd_mm: Pixel size of the ground.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    faint: npt.NDArray[np.bool_]
    width_px: Float32
    classes: npt.NDArray[np.uint8]
    gsd_mm: float

    def parts(self, size: int) -> list[DrawnPavement]:
        """Return the window cut into squares of `size` pixels, row by row; a remainder is left out.

        Four parts of a large window are drawn in two thirds of the time of four windows.
        """
        starts = range(0, len(self.mask) - size + 1, size)
        return [
            DrawnPavement(
                self.image[row : row + size, col : col + size],
                self.mask[row : row + size, col : col + size],
                self.faint[row : row + size, col : col + size],
                self.width_px[row : row + size, col : col + size],
                self.classes[row : row + size, col : col + size],
                self.gsd_mm,
            )
            for row in starts
            for col in starts
        ]


def draw_alternating(seed: int, count: int, side: int) -> Iterator[DrawnPavement]:
    """Yield windows on which models are judged, every other one with a crack, the first without.

    Args:
        seed: Of all; window k follows from it and k.
        count: How many.
        side: In pixels.
    """
    for k in range(count):
        config = PavementConfig(size=side, crack_share=float(k % 2))
        yield draw_pavement(np.random.SeedSequence([seed, k]), config)


def draw_pavement(
    seed: np.random.SeedSequence | int, config: PavementConfig | None = None
) -> DrawnPavement:
    """Draw a window; the same seed gives the same window.

    Args:
        seed: Of everything in it.
        config: What windows are like.
    """
    config = config or PavementConfig()
    rng = np.random.Generator(np.random.SFC64(seed))
    gsd_mm = log_uniform(rng, *config.gsd_mm)
    view = draw_view(rng, config)
    bare = ground.draw_ground(rng, view.plane, gsd_mm)
    albedo = ground.weather(rng, bare.albedo, gsd_mm)
    canvas = Canvas(
        view=view,
        gsd_mm=gsd_mm,
        albedo=view.warp(albedo),
        relief=view.warp(bare.relief),
        gloom=np.zeros(view.image, np.float32),
        classes=np.zeros(view.image, np.uint8),
        mask=np.zeros(view.image, np.bool_),
        width_px=np.zeros(view.image, np.float32),
    )
    cracked = rng.random() < config.crack_share
    lay_under(rng, canvas, bare, cracked)
    if cracked:
        for _ in range(1 + int(rng.random() < config.second_crack)):
            lines, habit = draw_lines(rng, view.plane, gsd_mm, bare)
            if lines:
                carve(rng, canvas, lines, habit, bare)
    lay_over(rng, canvas, cracked)
    sun = light.draw_sun(rng)
    lit = light.shade(canvas.relief, canvas.gloom, sun)
    radiance = canvas.albedo.clip(0.004, 1) * lit[..., None]
    radiance *= light.outside_shadow(rng, view.image, gsd_mm, sun)
    picture = camera.photograph(rng, radiance)
    assert not (canvas.mask & (canvas.classes != Kind.CRACK)).any()
    faint = faint_pixels(picture, canvas.mask)
    return DrawnPavement(picture, canvas.mask, faint, canvas.width_px, canvas.classes, gsd_mm)


def faint_pixels(
    picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return crack pixels not to be seen: over a short stretch their mean is the surroundings'.

    Args:
        picture: (H, W, 3) RGB.
        mask: (H, W) crack.

    Returns:
        (H, W), part of the mask, where the means differ by less than FAINT_LEVELS gray levels or
        FAINT_DEVIATIONS of the surroundings' deviation.
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    crack = mask.astype(np.float32)
    ground = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0).astype(np.float32)
    inside = _mean_where(gray, crack, _STRETCH_PX)
    outside = _mean_where(gray, ground, _SURROUNDINGS_PX)
    power = _mean_where(gray * gray, ground, _SURROUNDINGS_PX)
    deviation = np.sqrt((power - outside**2).clip(0, None))
    least = np.maximum(FAINT_LEVELS, FAINT_DEVIATIONS * deviation)
    return np.asarray(mask & (np.abs(inside - outside) < least), np.bool_)


def _mean_where(field: Float32, weight: Float32, side_px: int) -> Float32:
    """Return the mean over the square around each pixel of what has weight, (H, W)."""
    box = side_px, side_px
    total = cv2.blur(field * weight, box) / np.maximum(cv2.blur(weight, box), 1e-4)
    return np.asarray(total, np.float32)


def draw_view(rng: np.random.Generator, config: PavementConfig) -> View:
    """Draw a view from straight above, or at a slant: the plane is longer than the image then."""
    side = config.size
    image = (side, side)
    if rng.random() >= config.oblique:
        return View(np.eye(3), image, image)
    squeeze = rng.uniform(1.05, 2.0)
    lean = rng.uniform(0.0, 0.3)
    plane = (int(np.ceil(side * squeeze)), int(np.ceil(side * (1 + lean))))
    height, width = plane
    far = np.array([[0, 0], [width, 0]], np.float32)
    inset = width * lean / (2 * (1 + lean))
    near = np.array([[width - inset, height], [inset, height]], np.float32)
    corners = np.concatenate([far, near])
    target = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target).astype(np.float64)
    return View(matrix, plane, image)
