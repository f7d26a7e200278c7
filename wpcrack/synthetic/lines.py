"""Things that are long and thin: joints, seals, painted lines, rubber, twigs."""

from __future__ import annotations

import numpy as np

from wpcrack.synthetic.arrays import Float64
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.objects import EdgedShadow, Line, Marking, StreetObject
from wpcrack.synthetic.shapes import quad_px
from wpcrack.synthetic.strokes import Stroke


def spot(rng: np.random.Generator, axis: StreetAxis, keep_m: float = 0.0) -> Float64:
    """Make a random place on the street, `keep_m` away from its sides."""
    half = axis.width_m / 2 - keep_m
    return np.array([rng.uniform(0, axis.length_m), rng.uniform(-half, half)])


def draw_seed(rng: np.random.Generator) -> int:
    """Make a seed for an object's own noise."""
    return int(rng.integers(2**31))


def smooth_stroke(
    rng: np.random.Generator, route_px: Float64, width_px: float, depth: float, shake_px: float
) -> Stroke:
    """Make a stroke along a route with little shake and an even width, as made by a machine."""
    legs = np.hypot(*np.diff(route_px, axis=0).T)
    s = np.concatenate([[0.0], np.cumsum(legs)])
    at = np.arange(0.0, s[-1] + 8.0, 8.0)
    at = np.unique(np.concatenate([at[at < s[-1]], s]))
    points = np.stack([np.interp(at, s, route_px[:, k]) for k in (0, 1)], axis=1)
    points += rng.normal(0.0, shake_px, points.shape)
    width = width_px * np.exp(rng.normal(0.0, 0.08, at.size))
    knots = np.arange(0.0, s[-1] + 240.0, 120.0)
    fade = np.interp(at, knots, rng.normal(1.0, 0.12, knots.size))
    return Stroke(points, width, (depth * fade).clip(0.05, 0.95))


def slab_joints(rng: np.random.Generator, axis: StreetAxis, slab_m: float) -> list[StreetObject]:
    """Lay sawn joints between concrete slabs, across the street and along its middle."""
    half = axis.width_m / 2
    width, depth = rng.uniform(1.2, 2.6), rng.uniform(0.35, 0.7)
    routes = [
        np.array([[s, -half], [s, half]])
        for s in np.arange(rng.uniform(0, slab_m), axis.length_m, slab_m)
    ]
    along = np.arange(0.0, axis.length_m + 1.0, 1.0)
    routes.append(np.stack([along, np.full(along.size, rng.normal(0.0, 0.1))], axis=1))
    return [Line(smooth_stroke(rng, axis.place(r), width, depth, 0.15), None) for r in routes]


def markings(rng: np.random.Generator, axis: StreetAxis, ground_tone: float) -> list[StreetObject]:
    """Paint edge lines or a dashed middle line of 12 cm, now and then a stop line or a zebra."""
    tone, wear, seed = float(rng.uniform(185, 228)), float(rng.uniform(0.15, 0.6)), draw_seed(rng)
    quads: list[Float64] = []
    dashed = rng.random() < 0.5
    side = axis.width_m / 2 - 0.3
    offsets = (rng.normal(0.0, 0.1),) if dashed else (-side, side)
    for across in offsets:
        for start in np.arange(0.0, axis.length_m, 6.0 if dashed else 3.0):
            middle = np.array([start + 1.5, across])
            quads.append(quad_px(axis, middle, (1.502, 0.06), 0.0))
    for _ in range(rng.poisson(axis.length_m / 25.0)):
        at = rng.uniform(1.0, axis.length_m)
        if rng.random() < 0.5:
            quads.append(quad_px(axis, np.array([at, 0.0]), (0.25, 0.42 * axis.width_m), 0.0))
        else:
            bars = np.arange(-0.4 * axis.width_m, 0.41 * axis.width_m, 1.0)
            quads += [quad_px(axis, np.array([at, t]), (1.5, 0.25), 0.0) for t in bars]
    return [Marking(q, tone, ground_tone, wear, seed) for q in quads]


def _route(rng: np.random.Generator, axis: StreetAxis, length_m: float, bend_m: float) -> Float64:
    """Make a smoothly bent way of a length somewhere on the street, in plane pixels."""
    angle = rng.choice((0.0, 0.5 * np.pi)) + rng.normal(0.0, 0.25)
    u = np.linspace(-0.5, 0.5, max(3, int(length_m / 0.15)))
    aside = bend_m * (np.sin(2 * np.pi * (u * rng.uniform(0.4, 1.6) + rng.random())))
    heading = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-heading[1], heading[0]])
    points = spot(rng, axis) + length_m * u[:, None] * heading + aside[:, None] * normal
    half = axis.width_m / 2
    return axis.place(points[np.abs(points[:, 1]) < half])


def joint(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Make a construction joint: thin, straight, parallel to the street or across it."""
    half = axis.width_m / 2
    if rng.random() < 0.6:
        start, length = rng.uniform(0, axis.length_m), rng.uniform(2.0, 9.0)
        across = rng.uniform(-half, half)
        along = np.arange(start, min(axis.length_m, start + length) + 0.5, 0.5)
        route = np.stack([along, np.full(along.size, across)], axis=1)
    else:
        at = rng.uniform(0, axis.length_m)
        route = np.array([[at, -half], [at + rng.normal(0, 0.02), half]])
    width, depth = rng.uniform(0.8, 2.4), rng.uniform(0.2, 0.6)
    return Line(smooth_stroke(rng, axis.place(route), width, depth, 0.12), None)


def seal(rng: np.random.Generator, axis: StreetAxis) -> list[StreetObject]:
    """Make a filled crack: a smooth band of bitumen, 30-70 mm wide; none beside the street."""
    route = _route(rng, axis, rng.uniform(1.0, 4.0), rng.uniform(0.02, 0.12))
    width = rng.uniform(0.03, 0.07) / axis.gsd_m
    if len(route) < 2:
        return []
    stroke = smooth_stroke(rng, route, width, rng.uniform(0.7, 0.92), 0.5)
    return [Line(stroke, float(rng.uniform(32, 62)))]


def skid(rng: np.random.Generator, axis: StreetAxis) -> list[StreetObject]:
    """Draw the rubber of a braking car: two parallel soft bands."""
    middle, turn = spot(rng, axis, 0.9), rng.normal(0.0, 0.04)
    half = (rng.uniform(0.8, 3.0), rng.uniform(0.07, 0.11))
    strength, soft = float(rng.uniform(0.08, 0.28)), float(rng.uniform(8, 16))
    corners = [quad_px(axis, middle + np.array([0.0, side]), half, turn) for side in (-0.75, 0.75)]
    return [EdgedShadow(c, strength, soft) for c in corners]


def twig(rng: np.random.Generator, axis: StreetAxis) -> StreetObject:
    """Make a twig or blade of grass: short, smooth, sometimes lighter than the street."""
    start, angle = spot(rng, axis, 0.1), rng.uniform(0, 2 * np.pi)
    bent = angle + rng.normal(0.0, 0.4)
    legs = rng.uniform(0.04, 0.15) * np.array([[np.cos(a), np.sin(a)] for a in (angle, bent)])
    route = axis.place(start + np.concatenate([np.zeros((1, 2)), np.cumsum(legs, axis=0)]))
    tone = float(rng.choice((rng.uniform(40, 70), rng.uniform(120, 190))))
    return Line(smooth_stroke(rng, route, rng.uniform(0.7, 1.6), 0.7, 0.1), tone)
