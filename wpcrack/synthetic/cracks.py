"""Cracks as vector objects: jagged polylines with a width and a darkness at every vertex.

All geometry here is in street coordinates, meters along and across; street.py places it in the
pixel plane. Widths are 3-25 mm: 0.6-5 pixels at 5 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from wpcrack.synthetic.arrays import Float64

CrackKind = Literal["longitudinal", "transverse", "branching", "alligator"]

MIN_WIDTH_M, MAX_WIDTH_M = 0.003, 0.025
_STEP_M = 0.012
_FAINT_SHARE = 0.18
_JAGS = ((0.8, 0.045), (0.25, 0.024), (0.09, 0.012), (0.035, 0.0055))
"""Spacing of the kinks and their deviation sideways, meters."""


@dataclass(frozen=True)
class Branch:
    """One crack line: points_m (N, 2) along, across; width_m (N,); depth (N,) share of light."""

    points_m: Float64
    width_m: Float64
    depth: Float64


@dataclass(frozen=True)
class _Character:
    """What the branches of one crack share: mean width (meters) and darkness."""

    width_m: float
    depth: float
    roughness: float


def draw_crack(
    rng: np.random.Generator, kind: CrackKind, at_m: Float64, half_width_m: float
) -> list[Branch]:
    """Draw one crack of a kind, not yet cut to the street.

    Args:
        rng: Source of randomness.
        kind: Its kind.
        at_m: (2,) its middle: meters along and across the street.
        half_width_m: Half of what the crack may use across the street.

    Returns:
        Its branches in street coordinates; the first is the longest of a branching crack.
    """
    if kind == "alligator":
        return _alligator(rng, at_m)
    character = _character(rng, 0.0035, 0.014)
    if kind == "transverse":
        reach = half_width_m * rng.uniform(0.45, 1.0)
        skew = rng.normal(0.0, 0.18)
        across = rng.uniform(-half_width_m + reach, half_width_m - reach)
        chord = np.array([[-skew * reach, across - reach], [skew * reach, across + reach]])
        return [_branch(rng, chord + np.array([at_m[0], 0.0]), character)]
    length = rng.uniform(0.9, 4.5)
    angle = rng.normal(0.0, 0.07) if kind == "longitudinal" else rng.uniform(-0.8, 0.8)
    if rng.random() < 0.5:
        angle += np.pi
    half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    main = _branch(rng, np.stack([at_m - half, at_m + half]), character)
    if kind == "longitudinal":
        return [main]
    return [main, *_side_branches(rng, main, character, depth_left=2)]


def _character(rng: np.random.Generator, low_m: float, high_m: float) -> _Character:
    """Draw a mean width log-uniform between the limits; wide cracks are darker, some are faint."""
    width = float(np.exp(rng.uniform(np.log(low_m), np.log(high_m))))
    depth = rng.uniform(0.5, 0.75) + 8.0 * width
    if rng.random() < _FAINT_SHARE:
        depth *= rng.uniform(0.6, 0.8)
    return _Character(width, float(depth), float(rng.uniform(0.5, 1.3)))


def _branch(rng: np.random.Generator, chord_m: Float64, character: _Character) -> Branch:
    """Make a jagged line from one end of the chord to the other, thinning out towards both."""
    run = chord_m[1] - chord_m[0]
    length = float(np.hypot(*run))
    count = max(4, int(np.ceil(length / _STEP_M)) + 1)
    s = np.linspace(0.0, length, count)
    aside = np.zeros(count)
    for spacing, deviation in _JAGS:
        if spacing < length:
            aside += deviation * character.roughness * _kinks(rng, s, spacing)
    aside *= np.minimum(1.0, np.minimum(s, length - s) / (0.15 * length))
    normal = np.array([-run[1], run[0]]) / max(length, 1e-9)
    points = chord_m[0] + s[:, None] / max(length, 1e-9) * run + aside[:, None] * normal
    swing = (
        0.22 * _kinks(rng, s, 0.35) + 0.22 * _kinks(rng, s, 0.06) + 0.18 * rng.normal(size=count)
    )
    taper = np.minimum(1.0, 0.35 + np.minimum(s, length - s) / min(0.25, 0.3 * length))
    width = (character.width_m * np.exp(swing) * taper).clip(MIN_WIDTH_M, MAX_WIDTH_M)
    fade = 1.0 + 0.16 * _kinks(rng, s, 0.5) + 0.12 * _kinks(rng, s, 0.05)
    depth = (character.depth * fade).clip(0.3, 0.93)
    return Branch(points, width, depth)


def _kinks(rng: np.random.Generator, s: Float64, spacing: float) -> Float64:
    """Draw piecewise linear noise of deviation 1 with knots about every `spacing`."""
    knots = np.arange(-spacing, s[-1] + 2 * spacing, spacing)
    jittered = knots + rng.uniform(-0.35, 0.35, knots.size) * spacing
    return np.interp(s, jittered, rng.normal(size=knots.size))


def _side_branches(
    rng: np.random.Generator, parent: Branch, character: _Character, *, depth_left: int
) -> list[Branch]:
    """Draw thinner branches that leave the parent at 25-65 degrees, and theirs."""
    found: list[Branch] = []
    count = len(parent.points_m)
    for _ in range(int(rng.integers(1, 4))):
        k = int(rng.uniform(0.12, 0.88) * (count - 1))
        ahead = parent.points_m[min(k + 12, count - 1)] - parent.points_m[max(k - 12, 0)]
        heading = np.arctan2(ahead[1], ahead[0]) + rng.choice((-1, 1)) * rng.uniform(0.45, 1.15)
        length = rng.uniform(0.25, 1.0) * (1.0 if depth_left == 2 else 0.5)
        start = parent.points_m[k]
        chord = np.stack([start, start + length * np.array([np.cos(heading), np.sin(heading)])])
        thinner = _Character(
            max(MIN_WIDTH_M, character.width_m * rng.uniform(0.5, 0.9)),
            character.depth * rng.uniform(0.8, 1.0),
            character.roughness,
        )
        child = _branch(rng, chord, thinner)
        found.append(child)
        if depth_left > 1 and rng.random() < 0.4:
            found += _side_branches(rng, child, thinner, depth_left=depth_left - 1)
    return found


def _alligator(rng: np.random.Generator, at_m: Float64) -> list[Branch]:
    """Make a net of cells of 8-22 cm: the edges of a Voronoi diagram inside a ragged ellipse."""
    cell = rng.uniform(0.08, 0.22)
    radius = np.array([rng.uniform(0.45, 1.3), rng.uniform(0.3, 0.6)])
    character = _character(rng, 0.003, 0.007)
    lobes, phases = rng.uniform(0.05, 0.2, 3), rng.uniform(0, 2 * np.pi, 3)
    branches = []
    for edge in voronoi_edges(rng, radius + 2 * cell, cell):
        middle = edge.mean(axis=0) / radius
        angle = np.arctan2(middle[1], middle[0])
        limit = 1.0 + (lobes * np.sin(np.arange(2, 5) * angle + phases)).sum()
        gone = 0.06 + 0.5 * max(0.0, np.hypot(*middle) / limit - 0.7)
        if np.hypot(*middle) > limit or rng.random() < gone:
            continue
        own = _Character(
            character.width_m * rng.uniform(0.75, 1.4), character.depth, character.roughness * 0.8
        )
        branches.append(_branch(rng, edge + at_m, own))
    return branches


def voronoi_edges(rng: np.random.Generator, half_m: Float64, cell_m: float) -> list[Float64]:
    """Return edges (2, 2) of the Voronoi diagram of a jittered grid over [-half_m, half_m]."""
    counts = np.ceil(2 * half_m / cell_m).astype(int)
    grid = np.stack(np.meshgrid(np.arange(counts[0]), np.arange(counts[1])), -1).reshape(-1, 2)
    sites = (grid + rng.uniform(0.08, 0.92, grid.shape)) * cell_m
    extent = counts * cell_m
    diagram = cv2.Subdiv2D((0, 0, 10_000, 10_000))
    scale = 9_000.0 / extent.max()  # Subdiv2D wants points well apart
    diagram.insert([(float(x), float(y)) for x, y in sites * scale])
    facets, _ = diagram.getVoronoiFacetList([])
    seen: dict[tuple[tuple[int, int], tuple[int, int]], Float64] = {}
    for facet in facets:
        corners = np.asarray(facet, np.float64)
        if (corners < 0).any() or (corners > extent * scale).any():
            continue
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            ends = sorted((tuple(np.rint(a).astype(int)), tuple(np.rint(b).astype(int))))
            key = (ends[0], ends[1])
            if ends[0] != ends[1]:
                seen.setdefault(key, np.stack([a, b]) / scale - extent / 2)
    return [seen[key] for key in sorted(seen)]
