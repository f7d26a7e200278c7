"""A whole street as vectors (surface, objects, cracks) and the painting of any frame of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.cracks import Branch, CrackKind, draw_crack
from wpcrack.synthetic.furniture import Furniture, FurnitureConfig, furnish
from wpcrack.synthetic.noise import Frame, line_noise, white
from wpcrack.synthetic.objects import Manhole, StreetObject
from wpcrack.synthetic.strokes import Stroke, darkening, mask
from wpcrack.synthetic.surface import Material, SurfaceStyle, draw_style, lay_surface

_OPTICS_MARGIN_PX = 3
_SHORTEST_RUN_M = 0.05
_RAGGED = ((0.9, 0.8), (0.25, 0.5), (0.07, 0.22), (0.012, 0.1))
"""Spacing (meters) and share of the edge's raggedness."""


@dataclass(frozen=True)
class StreetConfig:
    """How streets are drawn; densities are means per 10 m of street."""

    longitudinal: float = 1.5
    transverse: float = 1.4
    branching: float = 0.9
    alligator: float = 0.5
    condition: tuple[float, float] = (0.5, 1.5)
    """Range of each street's own factor on the crack densities."""
    crack_free_edge_m: float = 0.25
    """No crack this near to the side of the carriageway (the imagery is ragged there)."""
    ragged_m: float = 0.05
    """Deviation of the imagery's edge from the side of the carriageway."""
    blur_px: float = 0.45
    """Sigma of the camera's blur."""
    sensor_noise: float = 1.6
    """Deviation of the camera's noise in gray levels."""
    furniture: FurnitureConfig = field(default_factory=FurnitureConfig)


@dataclass(frozen=True)
class TrueCrack(Stroke):
    """One branch of a crack: a polyline in plane pixels with its width and darkness.

    Attributes:
        points_px: (N, 2) x (column), y (row); pixel (r, c) covers [c, c+1] x [r, r+1].
        width_px: (N,) full width at each vertex.
        depth: (N,) share of the light lost where the crack covers a whole pixel.
        crack_id: Shared by the branches of one crack.
        kind: Of the whole crack.
    """

    crack_id: int
    kind: CrackKind


@dataclass(frozen=True)
class Street:
    """A street that can be painted at any frame of the plane."""

    name: str
    axis: StreetAxis
    style: SurfaceStyle
    furniture: Furniture
    cracks: tuple[TrueCrack, ...]
    config: StreetConfig

    def inside(self, frame: Frame) -> npt.NDArray[np.bool_]:
        """Return pixels of the street's imagery, ragged along its sides, (H, W)."""
        axis, seed = self.axis, self.style.seed
        x, y = frame.centers()
        along = (x if axis.horizontal else y) - np.float32(axis.along_px)
        ends = (along >= 0) & (along * np.float32(axis.gsd_m) <= np.float32(axis.length_m))
        start, count = (
            (frame.col_off, frame.width) if axis.horizontal else (frame.row_off, frame.height)
        )
        across = axis.across_m(frame)
        limits = []
        for side in (0, 1):
            edge = np.zeros(count, np.float32)
            for k, (cell_m, share) in enumerate(_RAGGED):
                cell_px = cell_m / axis.gsd_m
                edge += np.float32(share) * line_noise(
                    seed + 20 + 2 * k + side, start, count, cell_px
                )
            limit = axis.width_m / 2 + np.float32(self.config.ragged_m) * edge
            limits.append(limit[None, :] if axis.horizontal else limit[:, None])
        return np.asarray(ends & (across >= -limits[0]) & (across <= limits[1]))

    def ground(self, frame: Frame) -> Float32:
        """Paint the surface and all that lies under the cracks, (H, W, 3) float32."""
        canvas = lay_surface(self.style, frame, self.axis.across_m(frame), self.axis.gsd_m)
        paint_objects(self.furniture.under, canvas, frame)
        return canvas


def draw_street(
    rng: np.random.Generator,
    axis: StreetAxis,
    config: StreetConfig,
    *,
    name: str,
    first_crack_id: int = 1,
    material: Material | None = None,
) -> Street:
    """Draw a street: its surface, its objects and its cracks (ids from `first_crack_id` on)."""
    style = draw_style(rng, material)
    furniture = furnish(rng, axis, style, config.furniture)
    cracks: list[TrueCrack] = []
    half = axis.width_m / 2 - config.crack_free_edge_m
    condition = rng.uniform(*config.condition) * axis.length_m / 10.0
    crack_id = first_crack_id
    kinds: tuple[CrackKind, ...] = ("longitudinal", "transverse", "branching", "alligator")
    for kind in kinds:
        for _ in range(rng.poisson(getattr(config, kind) * condition)):
            at = np.array([rng.uniform(0.0, axis.length_m), rng.uniform(-half, half)])
            runs: list[Stroke] = []
            for branch in draw_crack(rng, kind, at, half):
                runs += _runs_on_street(branch, axis, half, furniture.covers)
            cracks += [TrueCrack(r.points_px, r.width_px, r.depth, crack_id, kind) for r in runs]
            crack_id += bool(runs)
    return Street(name, axis, style, furniture, tuple(cracks), config)


def paint(
    streets: Sequence[Street], frame: Frame
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Photograph a frame of the plane.

    Where streets meet, a pixel shows the first one whose imagery covers it.

    Returns:
        image (H, W, 3) uint8 in 1-255 and 0 outside the streets, valid (H, W) bool.
    """
    config = streets[0].config
    outer = frame.grow(_OPTICS_MARGIN_PX)
    insides = [street.inside(outer) for street in streets]
    valid = np.zeros((outer.height, outer.width), np.bool_)
    canvas = np.zeros((outer.height, outer.width, 3), np.float32)
    for street, inside in zip(streets, insides, strict=True):
        if (shown := inside & ~valid).any():
            np.copyto(canvas, street.ground(outer), where=shown[:, :, None])
            valid |= shown
    loss = darkening([crack for street in streets for crack in street.cracks], outer)
    if loss.any():
        loss *= 0.92 + 0.1 * white(streets[0].style.seed + 40, outer)
        canvas *= 1.0 - loss.clip(0, 1)[:, :, None]
    for street in streets:
        paint_objects(street.furniture.over, canvas, outer)
    inner = outer.slices(frame)
    canvas, valid = _blur(canvas, valid, config.blur_px)[inner], valid[inner]
    canvas += np.float32(config.sensor_noise) * white(streets[0].style.seed + 41, frame)[:, :, None]
    image = np.rint(canvas).clip(1, 255).astype(np.uint8)
    image[~valid] = 0
    return image, valid


def true_mask(streets: Sequence[Street], frame: Frame) -> npt.NDArray[np.bool_]:
    """Return a frame's crack pixels, (H, W); see strokes.mask for what belongs to a crack."""
    return mask([crack for street in streets for crack in street.cracks], frame)


def paint_objects(objects: Sequence[StreetObject], canvas: Float32, frame: Frame) -> None:
    """Paint objects in order onto the (H, W, 3) canvas of a frame, in place."""
    for thing in objects:
        part = frame.clip_to(*thing.box)
        if part is not None:
            thing.paint(canvas[frame.slices(part)], part)


def _blur(canvas: Float32, valid: npt.NDArray[np.bool_], sigma_px: float) -> Float32:
    """Blur as the camera does, over valid pixels alone: what lies beyond has no part."""
    seen = valid.astype(np.float32)
    light = cv2.GaussianBlur(canvas * seen[:, :, None], (5, 5), sigma_px)
    if valid.all():
        return np.asarray(light, np.float32)
    share = cv2.GaussianBlur(seen, (5, 5), sigma_px)
    return np.asarray(light / np.maximum(share, 1e-3)[:, :, None], np.float32)


def _runs_on_street(
    branch: Branch, axis: StreetAxis, half_m: float, covers: Sequence[Manhole]
) -> list[Stroke]:
    """Return the branch cut to the street's clean part and around manholes, in plane pixels."""
    along, across = branch.points_m.T
    kept = (np.abs(across) <= half_m) & (along >= 0.02) & (along <= axis.length_m - 0.02)
    points, width = axis.place(branch.points_m), branch.width_m / axis.gsd_m
    for cover in covers:
        away = np.hypot(*(points - cover.center_px).T)
        kept &= away > cover.radius_px + width.max() / 2 + 1.5
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    runs = []
    for start, stop in edges.reshape(-1, 2):
        part = slice(int(start), int(stop))
        length_px = np.hypot(*np.diff(points[part], axis=0).T).sum()
        if length_px * axis.gsd_m >= _SHORTEST_RUN_M:
            runs.append(Stroke(points[part], width[part], branch.depth[part]))
    return runs
