"""What stands or lies on the pavement: pebbles, leaves, twigs, cables, grass, kerbs, metal."""

from __future__ import annotations

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.pavement.canvas import Canvas, Kind
from wpcrack.synthetic.pavement.fields import (
    blur,
    cloud,
    log_uniform,
    smooth,
    specks,
    step,
    white,
)
from wpcrack.synthetic.pavement.marks import cover_of, ribbon, route, spot

_MOST = 40  # bodies of one kind in a window


def blob(rng: np.random.Generator, center: Float64, radius: float, slim: float = 1.0) -> Float64:
    """Return a closed, lumpy outline of 14 corners about a center."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False) + rng.uniform(0, 1)
    reach = radius * (1 + 0.16 * rng.normal(size=14)).clip(0.55, 1.5)
    shape = np.stack([reach * np.cos(angle), slim * reach * np.sin(angle)], axis=1)
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(center + shape @ np.array([[c, s], [-s, c]]), np.float64)


def pebbles(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw loose stones with their shadows."""
    count = min(_MOST, int(rng.geometric(0.15)))
    size = max(0.9, canvas.px(log_uniform(rng, 2, 18)))
    outlines = [
        blob(rng, spot(rng, canvas), size * rng.uniform(0.4, 1.4), rng.uniform(0.5, 1.0))
        for _ in range(count)
    ]
    cover = cover_of(canvas, *outlines)
    tone = rng.uniform(0.12, 0.6) * (1 + rng.normal(0, 0.06, 3))
    mottle = (1 + 0.2 * smooth(rng, canvas.shape, max(1.5, size)))[..., None]
    canvas.tint(cover, (tone * mottle).clip(0.02, 0.9))
    raise_by(canvas, cover, min(1.2 * size, 8.0), size / 3)
    canvas.claim(cover, Kind.PEBBLE)


def raise_by(canvas: Canvas, cover: Float32, height_px: float, round_px: float) -> None:
    """Put a body of some height on the relief, rounded at its rim; what was deep is hidden."""
    base = blur(canvas.relief, 2.0)
    top = base + np.float32(height_px) * blur(cover, max(0.4, round_px))
    canvas.relief += cover * (top - canvas.relief)
    canvas.gloom *= 1 - cover


def leaves(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw leaves, petals, litter: flat, of strong color, with a thin shadow and a midrib."""
    for _ in range(min(8, int(rng.geometric(0.4)))):
        size = max(1.5, canvas.px(log_uniform(rng, 8, 60)))
        at = spot(rng, canvas)
        angle, half = rng.uniform(0, np.pi), 0.5 * size
        t = np.linspace(-1, 1, 12)
        bend = rng.normal(0, 0.25) * size * (t * t)
        c, s = np.cos(angle), np.sin(angle)
        rib = at + np.stack([c * t * size - s * bend, s * t * size + c * bend], axis=1)
        belly = half * rng.uniform(0.4, 1.3) * (1 - t * t) ** rng.uniform(0.5, 1.1) + 0.2
        cover = cover_of(canvas, ribbon(rib, belly))
        hue = np.array(_LEAF_HUES[int(rng.integers(len(_LEAF_HUES)))]) * rng.uniform(0.6, 1.3)
        mottle = (1 + 0.15 * smooth(rng, canvas.shape, max(1.5, size / 4)))[..., None]
        canvas.tint(cover, (hue * mottle).clip(0.01, 0.95))
        raise_by(canvas, cover, min(0.25 * size, 2.5), 0.5)
        if size > 8:
            vein = cover_of(canvas, ribbon(rib, 0.4)) * cover
            canvas.albedo *= (1 - np.float32(0.35) * vein)[..., None]
        canvas.claim(cover, Kind.LEAF)


_LEAF_HUES = (
    (0.45, 0.2, 0.05),
    (0.5, 0.34, 0.08),
    (0.25, 0.13, 0.06),
    (0.15, 0.25, 0.05),
    (0.6, 0.5, 0.3),
    (0.7, 0.7, 0.68),
)


def twigs(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw twigs, needles, blades of dry grass, hairs: short, thin, smooth, dark or light."""
    tone = np.array([0.16, 0.11, 0.07]) if rng.random() < 0.6 else np.array([0.5, 0.42, 0.26])
    lines = []
    for _ in range(min(_MOST, int(rng.geometric(0.25)))):
        half = max(0.3, canvas.px(log_uniform(rng, 0.6, 6)) / 2)
        span = np.clip(canvas.px(log_uniform(rng, 20, 250)) / max(canvas.view.plane), 0.04, 0.8)
        lines.append(
            ribbon(route(rng, canvas, bend=rng.normal(0, 0.08), shake=0.25, span=span), half)
        )
    cover = cover_of(canvas, *lines)
    canvas.tint(cover, tone * rng.uniform(0.6, 1.4))
    raise_by(canvas, cover, 1.5, 0.6)
    canvas.claim(cover, Kind.CABLE)


def cable(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a cable, hose or rope: even, smooth, round, with a highlight and a shadow along it."""
    half = max(0.7, canvas.px(log_uniform(rng, 4, 40)) / 2)
    points = route(rng, canvas, bend=rng.normal(0, 0.1), shake=rng.uniform(0, 2.0) * half)
    cover = cover_of(canvas, ribbon(points, half))
    hues = (
        (0.03, 0.03, 0.03),
        (0.5, 0.12, 0.04),
        (0.6, 0.55, 0.1),
        (0.3, 0.3, 0.3),
        (0.7, 0.7, 0.7),
    )
    hue = np.array(hues[int(rng.integers(len(hues)))]) * rng.uniform(0.7, 1.3)
    canvas.tint(cover, hue)
    raise_by(canvas, cover, min(2 * half, 8.0), half / 2)
    canvas.claim(cover, Kind.CABLE)


def land_outline(rng: np.random.Generator, canvas: Canvas) -> Float64:
    """Return the outline of the land beyond the pavement: one side of a line near the border."""
    side = max(canvas.view.plane)
    points = route(rng, canvas, bend=rng.normal(0, 0.01), shake=rng.uniform(0.2, 2.5))
    run = points[-1] - points[0]
    normal = np.array([-run[1], run[0]]) / np.hypot(*run)
    height, width = canvas.view.plane
    middle = np.array([width, height]) / 2
    if float((points[len(points) // 2] - middle) @ normal) < 0:
        normal = -normal
    points = points + normal * rng.uniform(0.05, 0.35) * side
    return np.concatenate([points, points[::-1] + 3 * side * normal])


def verge(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return the edge of the pavement: grass, soil or gravel with a ragged border."""
    cover = cover_of(canvas, land_outline(rng, canvas))
    if not cover.any():
        return
    shape = canvas.shape
    ragged = blur(cover, max(1.5, canvas.px(15))) + 0.3 * cloud(rng, shape, max(3.0, canvas.px(40)))
    cover = step(np.asarray((ragged - 0.4) * 4, np.float32))
    green = rng.random() < 0.6
    hue = np.array([0.13, 0.19, 0.05]) if green else np.array([0.2, 0.15, 0.1])
    blades = white(rng, shape) + smooth(rng, shape, max(1.5, canvas.px(6)))
    lumps = smooth(rng, shape, max(2.0, canvas.px(12)))
    canvas.tint(cover, (hue * (1 + 0.35 * blades[..., None])).clip(0.01, 0.7))
    canvas.relief += cover * (np.float32(2.0) * lumps + 1)
    canvas.gloom *= 1 - cover
    canvas.claim(cover, Kind.VEGETATION if green else Kind.EDGE)


def kerb(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a kerb: a raised band of lighter stone, its face shaded or lit, joints across it."""
    outline = land_outline(rng, canvas)
    count = len(outline) // 2
    edge = outline[:count]
    run = edge[-1] - edge[0]
    normal = np.array([-run[1], run[0]]) / np.hypot(*run)
    breadth = max(4.0, canvas.px(rng.uniform(60, 160)))
    normal *= np.sign((outline[-1] - edge[0]) @ normal)
    top = cover_of(canvas, np.concatenate([edge, edge[::-1] + breadth * normal]))
    land = cover_of(canvas, outline)
    if not land.any():
        return
    tone = np.array([0.45, 0.44, 0.42]) * rng.uniform(0.5, 1.4)
    grain = (1 + 0.1 * white(rng, canvas.shape) + 0.1 * cloud(rng, canvas.shape, 20.0))[..., None]
    canvas.tint(land, np.array([0.3, 0.28, 0.26]) * rng.uniform(0.5, 1.5) * grain)
    canvas.tint(top, tone * grain)
    gaps = [
        ribbon(np.stack([p, p + breadth * normal]), max(0.4, canvas.px(3)))
        for p in edge[:: max(2, int(canvas.px(rng.uniform(300, 1000)) / 3))]
    ]
    crossing = cover_of(canvas, *gaps)
    raise_by(canvas, land, min(canvas.px(rng.uniform(20, 120)), 10.0), 0.7)
    line = (blur(land, 1.2) * (1 - land)).clip(0, 1)
    canvas.gloom = np.maximum(canvas.gloom, line * np.float32(rng.uniform(0, 1.4))).clip(0, 0.97)
    canvas.gloom = np.maximum(canvas.gloom, crossing * np.float32(0.7))
    canvas.claim(land, Kind.EDGE)
    canvas.claim(crossing, Kind.JOINT)


def metal(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a manhole cover or a grating in its frame."""
    size = canvas.px(rng.uniform(180, 700))
    at = spot(rng, canvas)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    form = (circle if rng.random() < 0.6 else square) @ np.array([[c, s], [-s, c]]) * size / 2
    frame, lid = (cover_of(canvas, at + f * form) for f in (1.0, rng.uniform(0.82, 0.95)))
    tone = np.array([0.16, 0.14, 0.12]) * log_uniform(rng, 0.5, 2.2)
    grain = (1 + 0.12 * white(rng, canvas.shape))[..., None]
    canvas.tint(frame, tone * grain)
    canvas.relief += frame * (blur(canvas.relief, 3.0) - canvas.relief)
    gap = (blur(lid, 0.8) * (1 - blur(lid, 0.8)) * 4).clip(0, 1)
    pitch = max(3.0, canvas.px(rng.uniform(18, 50)))
    bars = [
        ribbon(
            at + np.array([[-1.0, k], [1.0, k]]) @ np.array([[c, s], [-s, c]]) * size, 0.25 * pitch
        )
        for k in np.arange(-0.5, 0.5, pitch / max(size, pitch))
    ]
    slots = cover_of(canvas, *bars[:60]) * lid
    depth = np.float32(0.9 if rng.random() < 0.5 else 0.25)
    canvas.gloom *= 1 - frame
    canvas.gloom = np.maximum(canvas.gloom, np.maximum(gap * np.float32(0.8), slots * depth))
    canvas.claim(frame, Kind.METAL)


def tufts(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw moss and small plants in spots."""
    shape = canvas.shape
    cover = specks(
        rng, shape, max(3.0, canvas.px(log_uniform(rng, 8, 60))), rng.uniform(0.003, 0.04)
    )
    hue = np.array([0.12, 0.18, 0.05]) * (1 + 0.4 * white(rng, shape)[..., None])
    canvas.tint(cover, hue.clip(0.01, 0.6))
    canvas.relief += cover * np.float32(1.5)
    canvas.gloom *= 1 - cover
    canvas.claim(cover, Kind.VEGETATION)
