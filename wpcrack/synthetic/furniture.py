"""Where things lie on a street: random patches, stains, joints, paint, covers and shadows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.lines import (
    draw_seed,
    joint,
    markings,
    seal,
    skid,
    slab_joints,
    smooth_stroke,
    spot,
    twig,
)
from wpcrack.synthetic.objects import (
    CanopyShadow,
    EdgedShadow,
    Line,
    Manhole,
    Patch,
    Stain,
    StreetObject,
)
from wpcrack.synthetic.shapes import quad_px
from wpcrack.synthetic.surface import SurfaceStyle, draw_style


@dataclass(frozen=True)
class FurnitureConfig:
    """Mean counts per 10 m of street, drawn from Poisson distributions."""

    patches: float = 1.1
    stains: float = 3.5
    oil_spots: float = 7.0
    skids: float = 0.5
    seals: float = 1.0
    joints: float = 0.7
    manholes: float = 0.6
    shadows: float = 1.1
    leaves: float = 6.0
    twigs: float = 1.2
    marked_share: float = 0.7
    """Share of asphalt streets with painted lines."""
    slab_m: float = 4.0
    """Spacing of the joints between concrete slabs."""


@dataclass(frozen=True)
class Furniture:
    """Objects in painting order: `under` the cracks (they cut through), and `over` them."""

    under: tuple[StreetObject, ...]
    over: tuple[StreetObject, ...]
    covers: tuple[Manhole, ...]
    """The manholes among `over`; no crack runs through iron."""


def furnish(
    rng: np.random.Generator, axis: StreetAxis, style: SurfaceStyle, config: FurnitureConfig
) -> Furniture:
    """Put random objects on a street, the same way on a training street and in a city."""
    tens = axis.length_m / 10.0
    under: list[StreetObject] = []
    for _ in range(rng.poisson(config.patches * tens)):
        under += _patch(rng, axis, style)
    if style.material == "concrete":
        under += slab_joints(rng, axis, config.slab_m)
    elif rng.random() < config.marked_share:
        under += markings(rng, axis, style.tone)
    for _ in range(rng.poisson(config.skids * tens)):
        under += skid(rng, axis)
    under += [joint(rng, axis) for _ in range(rng.poisson(config.joints * tens))]
    for _ in range(rng.poisson(config.seals * tens)):
        under += seal(rng, axis)
    under += [_stain(rng, axis) for _ in range(rng.poisson(config.stains * tens))]
    under += [_oil(rng, axis) for _ in range(rng.poisson(config.oil_spots * tens))]
    covers = _manholes(rng, axis, rng.poisson(config.manholes * tens))
    over: list[StreetObject] = list(covers)
    over += [_leaf(rng, axis) for _ in range(rng.poisson(config.leaves * tens))]
    over += [twig(rng, axis) for _ in range(rng.poisson(config.twigs * tens))]
    over += [_shadow(rng, axis) for _ in range(rng.poisson(config.shadows * tens))]
    return Furniture(tuple(under), tuple(over), covers)


def _spot_px(rng: np.random.Generator, axis: StreetAxis, keep_m: float) -> tuple[float, float]:
    x, y = axis.place(spot(rng, axis, keep_m)[None])[0]
    return float(x), float(y)


def _patch(rng: np.random.Generator, axis: StreetAxis, style: SurfaceStyle) -> list[StreetObject]:
    """Make a repair: mostly darker and finer than the street; half of them with a bitumen joint."""
    half = (rng.uniform(0.3, 1.8), rng.uniform(0.25, 0.9))
    corners = quad_px(axis, spot(rng, axis, 0.6), half, rng.normal(0.0, 0.03))
    own = draw_style(rng, "asphalt")
    lighter = rng.random() < 0.25
    factor = rng.uniform(1.05, 1.15) if lighter else rng.uniform(0.7, 0.9)
    own = replace(own, tone=style.tone * float(factor), wear=style.wear / 2, drift=own.drift / 2)
    found: list[StreetObject] = [Patch(corners, own, axis, float(rng.uniform(1.2, 3.5)))]
    if rng.random() < 0.55:
        ring = np.concatenate([corners, corners[:1]])
        width, depth = rng.uniform(1.0, 5.0), rng.uniform(0.25, 0.7)
        found.append(Line(smooth_stroke(rng, ring, width, depth, 0.4), None))
    return found


def _stain(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Draw water, dust or an old spill: large, weak, soft."""
    axes = rng.uniform(0.08, 0.5, 2) / axis.gsd_m
    strength = rng.uniform(0.06, 0.26) * float(rng.choice((1.0, -0.5), p=(0.8, 0.2)))
    return Stain(
        _spot_px(rng, axis, 0.0),
        (float(axes[0]), float(axes[1])),
        float(rng.uniform(0, np.pi)),
        strength,
        (1.0 + float(rng.normal(0, 0.05)), 1.0, 1.0 - float(rng.normal(0, 0.05))),
        float(rng.uniform(0.3, 1.0)),
        draw_seed(rng),
    )


def _oil(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Make an oil drop: small and dark, mostly in the middle of the lane."""
    place = np.array([[rng.uniform(0, axis.length_m), rng.normal(0.0, 0.12 * axis.width_m)]])
    x, y = axis.place(place)[0]
    radius = float(np.exp(rng.uniform(np.log(0.012), np.log(0.09)))) / axis.gsd_m
    axes = (radius, radius * float(rng.uniform(0.6, 1.0)))
    angle, strength = float(rng.uniform(0, np.pi)), float(rng.uniform(0.25, 0.6))
    softness = float(rng.uniform(0.25, 0.7))
    tint = (1.0, 1.0, 1.04)
    return Stain((float(x), float(y)), axes, angle, strength, tint, softness, draw_seed(rng))


def _leaf(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Make a leaf or a bit of litter of 2-6 cm, darker or lighter than the street."""
    radius = rng.uniform(0.008, 0.03) / axis.gsd_m
    axes = (float(radius), float(radius * rng.uniform(0.35, 0.9)))
    strength = float(rng.choice((rng.uniform(0.2, 0.5), -rng.uniform(0.2, 0.7))))
    tint = (1.25, 1.05, 0.7) if strength > 0 else (0.8, 1.0, 1.25)
    angle = float(rng.uniform(0, np.pi))
    return Stain(_spot_px(rng, axis, 0.0), axes, angle, strength, tint, 0.2, draw_seed(rng))


def _manholes(rng: np.random.Generator, axis: StreetAxis, count: int) -> tuple[Manhole, ...]:
    """Draw up to `count` covers of 22, 60 or 65 cm that do not overlap."""
    found: list[Manhole] = []
    for _ in range(count):
        radius = float(rng.choice((0.11, 0.30, 0.325), p=(0.2, 0.45, 0.35))) / axis.gsd_m
        new = Manhole(_spot_px(rng, axis, 0.7), radius, float(rng.uniform(58, 98)), draw_seed(rng))
        if all(
            np.hypot(*np.subtract(new.center_px, old.center_px)) > 1.4 * (radius + old.radius_px)
            for old in found
        ):
            found.append(new)
    return tuple(found)


def _shadow(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Make a tree's dapples, the edge of a wall or a car, or the thin shadow of a wire or pole."""
    kind, strength = rng.random(), float(rng.uniform(0.25, 0.55))
    if kind < 0.45:
        radius = float(rng.uniform(0.5, 1.6)) / axis.gsd_m
        leaf = float(rng.uniform(0.05, 0.16)) / axis.gsd_m
        return CanopyShadow(_spot_px(rng, axis, 0.0), radius, strength, leaf, draw_seed(rng))
    turn = float(rng.uniform(0, np.pi))
    if kind < 0.75:
        side = float(rng.choice((-0.5, 0.5))) * axis.width_m
        middle = np.array([rng.uniform(0, axis.length_m), side])
        half = (rng.uniform(1.2, 3.5), rng.uniform(0.5, 1.6))
        corners = quad_px(axis, middle, half, float(rng.normal(0.0, 0.5)))
        return EdgedShadow(corners, strength, float(rng.uniform(3, 16)))
    half = (rng.uniform(1.0, 4.0), rng.uniform(0.008, 0.05))
    corners = quad_px(axis, spot(rng, axis), half, turn)
    return EdgedShadow(corners, strength, float(rng.uniform(2.5, 7)))
