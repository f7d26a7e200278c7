"""What lies in or on the surface and is no crack: joints, seals, seams, paint, stains, grooves."""

from __future__ import annotations

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.pavement.canvas import Canvas, Kind, coverage
from wpcrack.synthetic.pavement.fields import (
    blur,
    cloud,
    log_uniform,
    rough_line,
    smooth,
    specks,
    step,
    white,
)

_PAINTS = (
    (0.72, 0.72, 0.70),
    (0.72, 0.72, 0.70),
    (0.66, 0.5, 0.1),
    (0.55, 0.08, 0.1),
    (0.1, 0.2, 0.5),
)


def spot(rng: np.random.Generator, canvas: Canvas) -> Float64:
    """Return a random place on the plane, (2,) x, y."""
    height, width = canvas.view.plane
    return np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height])


def route(
    rng: np.random.Generator, canvas: Canvas, *, bend: float, shake: float, span: float = 3.0
) -> Float64:
    """Return a line through the plane, (N, 2) about every 3 px: a gentle arc with a smooth tremble.

    Args:
        rng: Source of randomness.
        canvas: Where.
        bend: Sagitta as a share of the length.
        shake: Deviation of the tremble in pixels.
        span: Length in sides of the plane.
    """
    length = span * max(canvas.view.plane)
    count = max(8, int(length / 3))
    t = np.linspace(-0.5, 0.5, count)
    angle = rng.uniform(0, 2 * np.pi)
    tremble = rough_line(rng, count, longest=max(8.0, count / 6), shortest=4, hurst=0.3)
    aside = bend * length * (4 * t * t) + shake * tremble / max(float(np.std(tremble)), 1e-6)
    heading = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-heading[1], heading[0]])
    points = spot(rng, canvas) + length * t[:, None] * heading + aside[:, None] * normal
    return np.asarray(points, np.float64)


def ribbon(points: Float64, half: Float64 | float) -> Float64:
    """Return closed outline of a line of half width `half` ((N,) or one number), (2 N, 2)."""
    run = np.gradient(points, axis=0)
    run /= np.maximum(np.hypot(run[:, 0], run[:, 1]), 1e-9)[:, None]
    normal = np.stack([-run[:, 1], run[:, 0]], axis=1) * np.broadcast_to(half, len(points))[:, None]
    return np.concatenate([points + normal, (points - normal)[::-1]])


def cover_of(canvas: Canvas, *polygons: Float64) -> Float32:
    """Return the coverage of polygons of the plane, (H, W)."""
    return coverage([canvas.view.project(p) for p in polygons], canvas.shape)


def joints(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw sawn or formed joints, open or sealed: straight and even, now and then a grid."""
    half = max(0.4, canvas.px(log_uniform(rng, 1.5, 22)) / 2)
    side = max(canvas.view.plane)
    angle = rng.uniform(0, np.pi)
    u, v = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    center = spot(rng, canvas)
    lines = [(center, u)]
    pick = rng.random()
    pitch = max(canvas.px(log_uniform(rng, 60, 600)), 8 * half + 14)
    if pick < 0.25:
        lines.append((center, v))
    elif pick < 0.45:
        lines += [(center + k * pitch * v, u) for k in range(-4, 5) if k]
        lines += [(center + k * pitch * rng.uniform(1, 2.0) * u, v) for k in range(-3, 4)]
    reach = 2.0 * side
    polygons = []
    for at, heading in lines:
        count = 40
        t = np.linspace(-reach, reach, count)
        normal = np.array([-heading[1], heading[0]])
        wave = rng.normal(0, 0.12 + 0.02 * half, count)
        points = at + t[:, None] * heading + wave[:, None] * normal
        polygons.append(ribbon(points, half * (1 + rng.normal(0, 0.04, count))))
    cover = cover_of(canvas, *polygons)
    if not cover.any():
        return
    if rng.random() < 0.3:  # chipped rims
        chips = blur(cover, 1.0 + 0.4 * half) * specks(rng, canvas.shape, 4 + half, 0.15)
        cover = np.maximum(cover, step(chips * 3))
    sink(rng, canvas, cover, half)
    canvas.claim(cover, Kind.JOINT)


def sink(rng: np.random.Generator, canvas: Canvas, cover: Float32, half: float) -> None:
    """Fill a joint with shadow, mortar, sand or sealant."""
    pick = rng.random()
    grain = (1 + 0.15 * white(rng, canvas.shape))[..., None]
    if pick < 0.45:
        canvas.gloom = np.maximum(canvas.gloom, cover * np.float32(rng.uniform(0.5, 0.95)))
        canvas.relief -= blur(cover, 0.5) * np.float32(min(2 * half, 5.0))
    elif pick < 0.7:
        canvas.tint(cover, np.array([0.05, 0.05, 0.055]) * rng.uniform(0.6, 2.0) * grain)
        canvas.relief -= blur(cover, 0.6) * np.float32(rng.uniform(-0.5, 1.5))
    else:
        tone = np.array([0.4, 0.36, 0.3]) * rng.uniform(0.35, 1.5)
        canvas.tint(cover * np.float32(0.9), tone * grain)
        canvas.relief -= blur(cover, 0.6) * np.float32(rng.uniform(0.2, 2.0))


def grooves(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw parallel grooves of tined or diamond-ground concrete."""
    pitch = canvas.px(log_uniform(rng, 6, 40))
    if pitch < 3:
        return
    height, width = canvas.shape
    angle = rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.1)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    phase = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    phase = phase + np.float32(0.06 * pitch) * smooth(rng, canvas.shape, 30.0)
    phase = phase / np.float32(pitch) * rng.uniform(0.97, 1.03)
    off = np.abs(phase - np.rint(phase)) * np.float32(pitch)
    half = np.float32(rng.uniform(0.06, 0.2) * pitch)
    cover = (half - off + 0.5).clip(0, 1)
    worn = step(np.float32(rng.uniform(0.3, 1.2)) + cloud(rng, canvas.shape, 60.0))
    cover = np.asarray(cover * worn, np.float32)
    canvas.gloom = np.maximum(canvas.gloom, cover * np.float32(rng.uniform(0.05, 0.5)))
    canvas.relief -= cover * np.float32(rng.uniform(0.3, 1.5))
    canvas.claim(cover, Kind.GROOVE)


def sealant(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a crack that was sealed: smooth bands of bitumen that wander, with round ends."""
    half = max(0.8, canvas.px(log_uniform(rng, 8, 90)) / 2)
    polygons = []
    for _ in range(1 if rng.random() < 0.65 else int(rng.integers(2, 5))):
        points = route(
            rng,
            canvas,
            bend=rng.normal(0, 0.05),
            shake=rng.uniform(0.5, 3.5) * half,
            span=rng.choice((0.6, 3.0), p=(0.25, 0.75)),
        )
        swell = rough_line(rng, len(points), longest=30, shortest=5, hurst=0.1)
        polygons.append(ribbon(points, half * np.exp(0.13 * swell).clip(0.6, 1.7)))
    cover = cover_of(canvas, *polygons)
    worn = step(np.float32(rng.uniform(0.6, 2.0)) + 0.6 * cloud(rng, canvas.shape, 20.0))
    cover = np.asarray(blur(cover, rng.uniform(0.2, 0.9)) * worn, np.float32)
    tone = np.array([0.035, 0.035, 0.04]) * log_uniform(rng, 0.5, 4.0)
    grain = (1 + 0.12 * white(rng, canvas.shape) + 0.25 * smooth(rng, canvas.shape, 5.0))[..., None]
    canvas.tint(cover * np.float32(0.95), (tone * grain).clip(0.005, 0.6))
    flat = blur(canvas.relief, 3.0) + np.float32(min(0.4 * half, 1.5)) * blur(cover, 1.2)
    canvas.relief += cover * (flat - canvas.relief)
    canvas.gloom *= 1 - cover
    canvas.claim(cover, Kind.SEALANT)


def seam(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw where two lanes or a patch meet: a step of tone, and often a thin line of tar."""
    points = route(rng, canvas, bend=rng.normal(0, 0.01), shake=rng.uniform(0.1, 1.0))
    side = 3.0 * max(canvas.view.plane)
    run = points[-1] - points[0]
    normal = np.array([-run[1], run[0]]) / np.hypot(*run)
    other = np.concatenate([points, points[::-1] + side * normal])
    cover = cover_of(canvas, other)
    change = rng.normal(0, 0.22)
    canvas.albedo *= (1 + np.float32(np.clip(change, -0.5, 0.6)) * cover)[..., None]
    if rng.random() < 0.5:
        canvas.relief += blur(cover, 0.7) * np.float32(rng.uniform(-1.5, 1.5))
    canvas.claim(cover, Kind.PATCH)
    if rng.random() < 0.6:
        half = max(0.35, canvas.px(log_uniform(rng, 1, 14)) / 2)
        swell = rough_line(rng, len(points), longest=20, shortest=3, hurst=0.1)
        line = cover_of(canvas, ribbon(points, half * np.exp(0.3 * swell)))
        line = line * step(0.8 + cloud(rng, canvas.shape, 25.0))
        canvas.tint(line * np.float32(rng.uniform(0.4, 0.95)), np.array([0.05, 0.05, 0.05]))
        canvas.claim(np.asarray(line, np.float32), Kind.SEAM)


def patch(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a repaired rectangle: smoother or darker, its rim sawn, sometimes sealed with tar."""
    size = np.array([canvas.px(log_uniform(rng, 80, 2500)) for _ in range(2)]).clip(12, None)
    angle = rng.normal(0, 0.15) + rng.choice((0, np.pi / 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = spot(rng, canvas) + (square * size) @ turn.T
    cover = cover_of(canvas, corners)
    tone = np.float32(np.clip(rng.normal(0.75, 0.25), 0.3, 1.5))
    noise = 1 + np.float32(rng.uniform(0.02, 0.2)) * smooth(rng, canvas.shape, rng.uniform(1, 4))
    mean = canvas.albedo.mean(axis=(0, 1)) * tone
    canvas.tint(cover * np.float32(rng.uniform(0.3, 1.0)), mean * noise[..., None])
    canvas.claim(cover, Kind.PATCH)
    if rng.random() < 0.6:
        half = max(0.5, canvas.px(log_uniform(rng, 3, 50)) / 2)
        ring = np.concatenate([corners, corners[:1]])
        rim = cover_of(canvas, *(ribbon(ring[k : k + 2], half) for k in range(4)))
        canvas.tint(rim * np.float32(0.9), np.array([0.05, 0.05, 0.055]) * rng.uniform(0.6, 2.5))
        canvas.claim(rim, Kind.SEAM)


def marking(rng: np.random.Generator, canvas: Canvas) -> None:
    """Paint a lane line, an edge of a letter, a sprayed sign; worn where the stones stand out."""
    half = max(1.0, canvas.px(log_uniform(rng, 20, 300)) / 2)
    spray = rng.random() < 0.2
    bend, shake = (rng.normal(0, 0.2), 3.0) if spray else (0.0, 0.1)
    span = rng.uniform(0.2, 0.8) if rng.random() < 0.4 else 3.0
    points = route(rng, canvas, bend=bend, shake=shake, span=span)
    cover = cover_of(canvas, ribbon(points, half))
    if spray:
        cover = blur(cover, min(0.5 * half, 4.0))
    high = (canvas.relief - blur(canvas.relief, 4.0)) * np.float32(rng.uniform(0, 1.0))
    worn = np.float32(rng.normal(1.6, 1.0)) + cloud(rng, canvas.shape, 20.0) - high
    cover = np.asarray(cover * step(worn), np.float32)
    paint = np.array(_PAINTS[int(rng.integers(len(_PAINTS)))]) * rng.uniform(0.6, 1.15)
    dirt = (1 + 0.08 * cloud(rng, canvas.shape, 15.0))[..., None]
    canvas.tint(cover * np.float32(rng.uniform(0.6, 0.97)), paint * dirt)
    canvas.relief += cover * (0.4 * (blur(canvas.relief, 1.5) - canvas.relief))
    canvas.claim(cover, Kind.MARKING)


def stain(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw oil, water, rust, gum or lime: round, run, or wandering trails of drops."""
    shape = canvas.shape
    pick = rng.random()
    change = rng.uniform(-0.65, -0.1) if rng.random() < 0.75 else rng.uniform(0.1, 0.8)
    if pick < 0.5:
        x, y = canvas.view.project(spot(rng, canvas)[None])[0]
        radius = max(1.5, canvas.px(log_uniform(rng, 6, 400)))
        away = np.hypot(
            np.arange(shape[1], dtype=np.float32)[None] - np.float32(x),
            np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(y),
        )
        ragged = away / np.float32(radius) + np.float32(0.35) * cloud(rng, shape, radius)
        cover = step((1 - ragged) * np.float32(log_uniform(rng, 1.0, 12.0)))
    elif pick < 0.8:
        half = max(0.8, canvas.px(log_uniform(rng, 5, 120)) / 2)
        points = route(rng, canvas, bend=rng.normal(0, 0.1), shake=2.0 * half)
        drops = np.exp(0.7 * rough_line(rng, len(points), longest=12, shortest=2, hurst=0.0))
        line = blur(
            cover_of(canvas, ribbon(points, half * drops)), rng.uniform(0.6, 0.4 * half + 1)
        )
        cover = line * step(0.5 + cloud(rng, shape, 15.0))
    else:
        cover = specks(
            rng, shape, max(1.5, canvas.px(log_uniform(rng, 3, 40))), rng.uniform(0.002, 0.05)
        )
    tint = 1 + np.float32(change) * np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.05, 3)
    canvas.albedo *= 1 + np.asarray(cover[..., None] * (tint - 1), np.float32)
    canvas.claim(np.asarray(cover, np.float32), Kind.STAIN, hides=False)


def tyre(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw rubber on the road: a soft band, sometimes two, sometimes with the lines of a tread."""
    half = max(2.0, canvas.px(rng.uniform(60, 130)))
    points = route(rng, canvas, bend=rng.normal(0, 0.03), shake=0.3)
    cover = blur(cover_of(canvas, ribbon(points, half)), min(half / 3, 8.0))
    if rng.random() < 0.5:
        ribs = [ribbon(points + off, 0.08 * half) for off in rng.uniform(-0.7, 0.7, (4, 1)) * half]
        cover = cover * (1 - np.float32(0.6) * cover_of(canvas, *ribs))
    cover = cover * step(0.6 + cloud(rng, canvas.shape, 25.0))
    canvas.albedo *= (1 - np.float32(rng.uniform(0.1, 0.5)) * cover)[..., None]
    canvas.claim(np.asarray(cover, np.float32), Kind.TYRE, hides=False)


def scratch(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a scrape or chalk line: thin, straight and light, or a smear of dirt."""
    for _ in range(int(rng.integers(1, 4))):
        half = max(0.3, canvas.px(log_uniform(rng, 0.4, 6)) / 2)
        points = route(rng, canvas, bend=rng.normal(0, 0.04), shake=0.3, span=rng.uniform(0.1, 1.0))
        line = cover_of(canvas, ribbon(points, half)) * step(0.7 + cloud(rng, canvas.shape, 10.0))
        change = rng.uniform(0.15, 0.9) if rng.random() < 0.8 else rng.uniform(-0.4, -0.1)
        canvas.albedo *= (1 + np.float32(change) * line)[..., None]
        canvas.claim(np.asarray(line, np.float32), Kind.STAIN, hides=False)


def wet(rng: np.random.Generator, canvas: Canvas) -> None:
    """Return a wet surface: darker, with a sheen of the sky where it is smooth."""
    field = cloud(rng, canvas.shape, canvas.px(log_uniform(rng, 100, 1500)))
    cover = step(np.float32(rng.normal(0.5, 0.8)) + np.float32(rng.uniform(0.5, 3.0)) * field)
    canvas.albedo *= (1 - np.float32(rng.uniform(0.25, 0.6)) * cover)[..., None]
    if rng.random() < 0.5:
        sheen = cover * np.float32(rng.uniform(0.02, 0.12)) * (1 - canvas.gloom)
        canvas.albedo += sheen[..., None] * np.array([0.9, 0.97, 1.1], np.float32)
