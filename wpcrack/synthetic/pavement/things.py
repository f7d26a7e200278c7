"""Which things a window shows besides its crack: one table of how often each occurs.

What belongs to the surface is laid before the crack, which cuts it; what lies on the surface comes
after, and hides the crack. Windows without a crack show more of everything.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wpcrack.synthetic.pavement import bodies, marks
from wpcrack.synthetic.pavement.canvas import Canvas
from wpcrack.synthetic.pavement.ground import Ground

Painter = Callable[[np.random.Generator, Canvas], None]

UNDER: tuple[tuple[Painter, float, float], ...] = (
    (marks.joints, 0.05, 0.20),
    (marks.seam, 0.08, 0.22),
    (marks.patch, 0.04, 0.10),
    (marks.marking, 0.10, 0.12),
    (marks.stain, 0.22, 0.30),
    (marks.tyre, 0.04, 0.08),
    (marks.scratch, 0.06, 0.10),
    (marks.wet, 0.06, 0.06),
)
"""What, how often in a window with a crack, how often in one without."""

OVER: tuple[tuple[Painter, float, float], ...] = (
    (marks.sealant, 0.05, 0.26),
    (bodies.verge, 0.03, 0.06),
    (bodies.kerb, 0.02, 0.05),
    (bodies.metal, 0.01, 0.05),
    (bodies.tufts, 0.05, 0.06),
    (bodies.pebbles, 0.14, 0.20),
    (bodies.leaves, 0.08, 0.12),
    (bodies.twigs, 0.06, 0.14),
    (bodies.cable, 0.01, 0.06),
)
"""Likewise, on top of the crack."""

_GROOVED_SHARE = 0.16  # of concrete


def lay_under(rng: np.random.Generator, canvas: Canvas, ground: Ground, cracked: bool) -> None:
    """Lay what a crack cuts."""
    if ground.material == "concrete" and rng.random() < _GROOVED_SHARE:
        marks.grooves(rng, canvas)
    _lay(rng, canvas, UNDER, cracked)


def lay_over(rng: np.random.Generator, canvas: Canvas, cracked: bool) -> None:
    """Lay what hides a crack."""
    _lay(rng, canvas, OVER, cracked)


def _lay(
    rng: np.random.Generator,
    canvas: Canvas,
    table: tuple[tuple[Painter, float, float], ...],
    cracked: bool,
) -> None:
    draws = rng.random(len(table))
    for (paint, with_crack, without), draw in zip(table, draws, strict=True):
        if draw < (with_crack if cracked else without):
            paint(rng, canvas)
