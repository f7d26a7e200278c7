"""From light to a picture: lens, sensor, the camera's own taste, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.pavement.fields import Float32, blurred, log_uniform, smooth, white

_GAMMA = 2.2


def photograph(rng: np.random.Generator, radiance: Float32) -> npt.NDArray[np.uint8]:
    """A picture of linear light, (H, W, 3) RGB uint8.

    Exposure, white balance, vignetting, blur of focus or motion, noise, tone curve, sharpening and
    compression are random, from clean to poor.

    Args:
        rng: Source of randomness.
        radiance: (H, W, 3) linear light.
    """
    shape = radiance.shape[0], radiance.shape[1]
    x = lens(rng, radiance)
    level = float(np.mean(x))
    wanted = rng.uniform(0.28, 0.66) ** _GAMMA
    if rng.random() < 0.8:  # the camera meters; else it leaves the picture dark or bright
        x = x * np.float32(wanted / max(level, 1e-3))
    x = x * white_balance(rng)
    x = np.power(x.clip(0, 4), np.float32(1 / _GAMMA))
    x = tone(rng, x)
    strength = log_uniform(rng, 0.002, 0.03) if rng.random() < 0.7 else 0.0
    if strength:
        grain = white(rng, shape)[..., None]
        if rng.random() < 0.4:
            grain = grain + np.float32(0.5) * rng.standard_normal((*shape, 3), dtype=np.float32)
        if rng.random() < 0.5:
            grain = blurred(grain, 0.7).reshape(*shape, -1)
        x = x + np.float32(strength) * grain
    if rng.random() < 0.45:
        sigma = rng.uniform(0.7, 1.6)
        x = x + np.float32(rng.uniform(0.2, 1.0)) * (x - blurred(x, sigma))
    picture = np.asarray((x.clip(0, 1) * 255 + 0.5), np.uint8)
    return compress(rng, picture)


def lens(rng: np.random.Generator, x: Float32) -> Float32:
    """Blur, haze and vignetting."""
    x = blurred(x, rng.uniform(0.25, 0.75) if rng.random() < 0.7 else rng.uniform(0.75, 1.9))
    if rng.random() < 0.1:  # motion
        length = int(rng.integers(2, 6))
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        ends = [tuple(np.rint(length + s * reach).astype(int).tolist()) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        x = cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    if rng.random() < 0.2:
        x = x + np.float32(rng.uniform(0.01, 0.12)) * (np.float32(x.mean()) - x)
    if rng.random() < 0.5:  # a window is a part of a picture: a slope rather than a whole circle
        height, width = x.shape[:2]
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] + np.float32(rng.normal(0, 1))
        cols = np.linspace(-1, 1, width, dtype=np.float32)[None, :] + np.float32(rng.normal(0, 1))
        x = x / (1 + np.float32(rng.uniform(0, 0.16)) * (rows**2 + cols**2))[..., None]
    return np.asarray(x, np.float32)


def white_balance(rng: np.random.Generator) -> Float32:
    """Gains of red, green and blue; mostly near 1, now and then a clear cast."""
    spread = 0.05 if rng.random() < 0.75 else 0.18
    warm = rng.normal(0, spread)
    return np.array([np.exp(warm), np.exp(rng.normal(0, 0.3 * spread)), np.exp(-warm)], np.float32)


def tone(rng: np.random.Generator, x: Float32) -> Float32:
    """Contrast about the mean, saturation, and black that is not black."""
    mean = np.float32(x.mean())
    x = mean + (x - mean) * np.float32(rng.uniform(0.75, 1.35))
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * np.float32(rng.uniform(0.0, 1.5) if rng.random() < 0.9 else 0.0)
    if rng.random() < 0.25:
        x = np.float32(rng.uniform(0.02, 0.12)) + x * np.float32(0.9)
    if rng.random() < 0.2:  # uneven color of a cheap sensor
        x = x + smooth(rng, x.shape[:2], 60.0)[..., None] * rng.normal(0, 0.01, 3).astype(np.float32)
    return np.asarray(x, np.float32)


def compress(rng: np.random.Generator, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """JPEG in most pictures, of quality 35 to 97."""
    if rng.random() < 0.25:
        return picture
    quality = int(rng.integers(35, 98))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(
        cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8
    )
