"""Random changes of a training sample: flips and transposes; light, contrast, blur and grain.

Each draw comes from the generator that is passed in, so a sample looks the same whatever rank
or thread prepares it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wpcrack.config import AugmentConfig, EraseConfig

GRAIN_PX = (0.4, 1.5)
"""Sigma of the Gaussian that makes grains of noise, in pixels."""


def reorient(
    image: NDArray[np.uint8], rng: np.random.Generator, config: AugmentConfig
) -> NDArray[np.uint8]:
    """Zoom, flip and transpose (H, W, 3) at random; only square images are transposed."""
    flips = rng.random(3) < 0.5
    if config.zoom != (1.0, 1.0):
        image = enlarge(image, rng, config.zoom)
    if config.flip == "horizontal":
        image = image[:, ::-1] if flips[1] else image
    elif config.flip:
        image = image[::-1] if flips[0] else image
        image = image[:, ::-1] if flips[1] else image
        image = image.transpose(1, 0, 2) if flips[2] and image.shape[0] == image.shape[1] else image
    return image


def recolor(
    image: NDArray[np.uint8], rng: np.random.Generator, config: AugmentConfig
) -> NDArray[np.float32]:
    """Change the light of (H, W, 3) uint8, fade, blur and roughen it; (3, H, W) float32 in [0, 1].

    Fading, blur and grain each strike half of the samples. They turn a clear crack into one on
    another surface; its label comes from the clear one.
    """
    x: NDArray[np.float32] = (image / np.float32(255)).astype(np.float32)
    gain = 1 + config.contrast * rng.uniform(-1, 1)
    shift = 1 + config.brightness * rng.uniform(-1, 1)
    tint = 1 + config.color * rng.uniform(-1, 1, 3).astype(np.float32)
    fade, blur, grain = np.where(rng.random(3) < 0.5, rng.random(3), 0.0)
    mean = float(x.mean())
    gain *= 1 - config.fade * fade
    x = ((x - mean) * np.float32(gain) + np.float32(mean * shift)) * tint
    if config.blur_px * blur > 0:
        x = smooth(x, config.blur_px * blur)
    if config.grain * grain > 0:
        x += np.float32(config.grain * grain) * texture(rng, image.shape[:2])[..., None]
    return np.ascontiguousarray(np.clip(x, 0, 1).transpose(2, 0, 1), dtype=np.float32)


def changes_colors(config: AugmentConfig) -> bool:
    """Tell whether more than flips and zoom is changed."""
    light = config.brightness, config.contrast, config.color
    return any((*light, config.fade, config.blur_px, config.grain))


def texture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw (H, W) noise of mean 0 and deviation 1, with grains of one to some pixels."""
    noise = smooth(rng.standard_normal(shape, dtype=np.float32), rng.uniform(*GRAIN_PX))
    noise -= noise.mean()
    return noise / np.float32(max(float(noise.std()), 1e-6))


def smooth(x: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur (H, W) or (H, W, C) by a Gaussian; edges are mirrored."""
    return np.asarray(
        cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def enlarge(
    image: NDArray[np.uint8], rng: np.random.Generator, factors: tuple[float, float]
) -> NDArray[np.uint8]:
    """Enlarge (H, W, 3) by a random factor of the range, then cut it back to size at random."""
    height, width = image.shape[:2]
    factor = rng.uniform(*factors)
    sides = max(width, round(width * factor)), max(height, round(height * factor))
    large = cv2.resize(np.ascontiguousarray(image), sides, interpolation=cv2.INTER_LINEAR)
    row = int(rng.integers(large.shape[0] - height + 1))
    col = int(rng.integers(large.shape[1] - width + 1))
    return large[row : row + height, col : col + width].astype(np.uint8, copy=False)


def as_planes(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn (H, W, 3) uint8 into (3, H, W) float32 in [0, 1], unchanged."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def erase_grid(
    shape: tuple[int, int], epoch: int, rng: np.random.Generator, config: EraseConfig
) -> NDArray[np.float32]:
    """Draw (1, H, W) with 1 in erased cells: Bernoulli(start + growth x epoch) on a grid."""
    share = min(config.limit, config.start + config.growth * epoch)
    cells = rng.random((config.grid, config.grid)) < share
    rows = np.arange(shape[0]) * config.grid // shape[0]
    cols = np.arange(shape[1]) * config.grid // shape[1]
    return cells[rows[:, None], cols[None]][None].astype(np.float32)
