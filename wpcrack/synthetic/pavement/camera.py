"""From light to a picture: lens, sensor, the camera's own taste, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.pavement.fields import blur, log_uniform, smooth, white

_FOCUS = ((0.2, 0.65), (0.65, 1.9), (1.9, 4.0))  # sigma in pixels: sharp, soft, out of focus
_FOCUS_SHARES = (0.72, 0.21, 0.07)
_GAMMA = 2.0  # of cameras 2.2; a square root takes a tenth of the time


def photograph(rng: np.random.Generator, radiance: Float32) -> npt.NDArray[np.uint8]:
    """Return a picture of linear light, (H, W, 3) RGB uint8.

    Exposure, white balance, vignetting, blur of focus or motion, noise, tone, sharpening and
    compression are random, from clean to poor.

    Args:
        rng: Source of randomness.
        radiance: (H, W, 3) linear light.
    """
    x = lens(rng, radiance)
    gain = white_balance(rng)
    if rng.random() < 0.8:  # the camera meters; else it leaves the picture dark or bright
        gain *= np.float32(rng.uniform(0.34, 0.72) ** _GAMMA / max(cv2.mean(x)[1], 1e-3))
    x = np.sqrt((x * gain).clip(0, 4))
    x = sense(rng, tone(rng, x))
    picture = np.asarray((x.clip(0, 1) * 255 + 0.5), np.uint8)
    return compress(rng, picture)


def sense(rng: np.random.Generator, x: Float32) -> Float32:
    """Add the noise of the sensor, and the sharpening that follows it."""
    shape = x.shape[0], x.shape[1]
    if rng.random() < 0.75:
        grain = white(rng, shape)
        if rng.random() < 0.5:
            grain = blur(grain, 0.7)
        strength = np.float32(log_uniform(rng, 0.003, 0.035))
        x = x + strength * grain[..., None]
        if rng.random() < 0.4:
            x = x + strength / 2 * rng.standard_normal(x.shape, dtype=np.float32)
    if rng.random() < 0.45:
        soft = blur(x, rng.uniform(0.7, 1.6))
        x = x + np.float32(rng.uniform(0.2, 1.0)) * (x - soft)
    return x


def lens(rng: np.random.Generator, x: Float32) -> Float32:
    """Blur, haze and vignetting."""
    low, high = _FOCUS[int(rng.choice(len(_FOCUS), p=_FOCUS_SHARES))]
    x = blur(x, rng.uniform(low, high))
    if rng.random() < 0.1:  # motion
        length = int(rng.integers(2, 6))
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        ends = [tuple(np.rint(length + s * reach).astype(int).tolist()) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        kernel /= kernel.sum()
        x = np.asarray(cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)
    if rng.random() < 0.2:
        x = x + np.float32(rng.uniform(0.01, 0.12)) * (np.float32(np.mean(cv2.mean(x)[:3])) - x)
    if rng.random() < 0.5:  # a window is a part of a picture: a slope rather than a whole circle
        height, width = x.shape[:2]
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] + np.float32(rng.normal(0, 1))
        cols = np.linspace(-1, 1, width, dtype=np.float32)[None, :] + np.float32(rng.normal(0, 1))
        x = x / (1 + np.float32(rng.uniform(0, 0.16)) * (rows**2 + cols**2))[..., None]
    return np.asarray(x, np.float32)


def white_balance(rng: np.random.Generator) -> Float32:
    """Draw gains of red, green and blue; mostly near 1, now and then a clear cast."""
    spread = 0.05 if rng.random() < 0.75 else 0.18
    warm = rng.normal(0, spread)
    return np.array([np.exp(warm), np.exp(rng.normal(0, 0.3 * spread)), np.exp(-warm)], np.float32)


def tone(rng: np.random.Generator, x: Float32) -> Float32:
    """Change contrast about the mean, saturation, and make black not quite black."""
    contrast = rng.uniform(0.75, 1.35)
    saturation = rng.uniform(0.0, 1.5) if rng.random() < 0.9 else 0.0
    lift = rng.uniform(0.02, 0.12) if rng.random() < 0.25 else 0.0
    mix = saturation * np.eye(3) + (1 - saturation) / 3
    mean = float(np.mean(cv2.mean(x)[:3]))
    offset = np.full((3, 1), mean * (1 - contrast) + lift)
    x = np.asarray(cv2.transform(x, np.hstack([contrast * (1 - lift) * mix, offset])), np.float32)
    if rng.random() < 0.2:  # uneven color of a cheap sensor
        shape = x.shape[0], x.shape[1]
        hue = rng.normal(0, 0.006, 3).astype(np.float32)
        x = x + smooth(rng, shape, 60.0)[..., None] * hue
    return x


def compress(rng: np.random.Generator, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compress most pictures as JPEG, of quality 35 to 97."""
    if rng.random() < 0.25:
        return picture
    quality = int(rng.integers(35, 98))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
