"""Image filters on batches: box mean, Gaussian blur, guided filter. Pure functions.

All are separable or made of running sums, so their cost does not depend on the radius of a box.
Shape letters: B images, C channels, G channels of the guide (1 or 3), H W pixels.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wpcrack.config import CrfConfig
from wpcrack.errors import ConfigError, TrainingError


def box_mean(x: Tensor, side: int) -> Tensor:
    """Mean over a square of `side` pixels (odd; at most the image), image reflected at edges."""
    for axis in (2, 3):
        radius = min(side // 2, x.shape[axis] - 1)
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        sums = F.pad(x, pad, mode="reflect").double().cumsum(axis)
        sums = F.pad(sums, (0, 0, 1, 0) if axis == 2 else (1, 0, 0, 0))
        width = 2 * radius + 1
        count = x.shape[axis]
        x = (sums.narrow(axis, width, count) - sums.narrow(axis, 0, count)).to(x.dtype) / width
    return x


def gaussian_blur(x: Tensor, side: int) -> Tensor:
    """Separable Gaussian of `side` pixels (odd), sigma = side / 5; (B, 1, H, W)."""
    radius = side // 2
    grid = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(grid**2) / (2 * (side / 5) ** 2))
    kernel = kernel / kernel.sum()
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))


def guided_filter(guide: Tensor, x: Tensor, side: int, eps: float) -> Tensor:
    """He, Sun, Tang: Guided Image Filtering (TPAMI 2013), eq. 5-8 (gray) and 14-16 (color).

    In each box q = a . guide + b fits x with the least squares and a penalty eps |a|^2; a pixel
    averages the a and b of all boxes that hold it. Where the guide is flat against eps, x is
    smoothed; where it has an edge, x gets that edge.

    Args:
        guide: (B, G, H, W) in [0, 1]; G = 1 or 3.
        x: (B, 1, H, W), what is filtered.
        side: of the box, in pixels, odd.
        eps: variance of the guide below which a box counts as flat, in squared gray levels of
            [0, 1].

    Returns:
        (B, 1, H, W); it may leave the range of x a little.
    """
    channels = guide.shape[1]
    mean = box_mean(guide, side)
    mean_x = box_mean(x, side)
    covariance = box_mean(guide * x, side) - mean * mean_x  # (B, G, H, W)
    rows, cols = torch.triu_indices(channels, channels, device=guide.device)
    upper = box_mean(guide[:, rows] * guide[:, cols], side) - mean[:, rows] * mean[:, cols]
    spread = upper.new_zeros(*upper.shape[:1], channels, channels, *upper.shape[2:])
    spread[:, rows, cols] = upper
    spread[:, cols, rows] = upper
    spread = spread.permute(0, 3, 4, 1, 2) + eps * torch.eye(channels, device=guide.device)
    a = torch.linalg.solve(spread, covariance.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    b = mean_x - (a * mean).sum(1, keepdim=True)
    return (box_mean(a, side) * guide).sum(1, keepdim=True) + box_mean(b, side)


# ==== wpcrack.labels.refiners: Dense CRF (Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs, NIPS 2011). Needs the optional extra `crf` (pydensecrf2), which computes on one CPU core without releasing the interpreter lock; so the images of a batch go to a pool of processes. No torch here: those processes start in a moment. Shape letters: H W pixels.


PACKAGE = "pydensecrf"
MIN_PROBABILITY = 1e-5
"""Probabilities are clipped here before the logarithm."""


def require_crf() -> None:
    """Checks that the optional extra is installed.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            "pseudo_label.refiners holds crf, whose package is not installed; "
            "pip install 'wpcrack[crf]' (pydensecrf2, compiled on installation), or remove crf"
        )


def dense_crf_batch(
    images: Sequence[NDArray[np.uint8]],
    crack_maps: Sequence[NDArray[np.float32]],
    config: CrfConfig,
    processes: int,
) -> list[NDArray[np.bool_]]:
    """`dense_crf` of several images at once, in their order.

    Args:
        images: (H, W, 3) RGB each.
        crack_maps: (H, W) in [0, 1] each.
        config: Kernels and iterations.
        processes: at most this many at once; 1 computes here.

    Raises:
        ConfigError: pydensecrf2 is not installed.
        TrainingError: a process was killed.
    """
    require_crf()
    work = functools.partial(dense_crf, config=config)
    if processes == 1 or len(images) == 1:
        return list(map(work, images, crack_maps))
    try:
        return list(pool(processes).map(work, images, crack_maps))
    except BrokenProcessPool as error:
        pool.cache_clear()
        raise TrainingError(
            "a process of the dense CRF was killed (out of memory?); "
            "set pseudo_label.crf.processes=1"
        ) from error


@functools.cache
def pool(processes: int) -> ProcessPoolExecutor:
    """Fresh interpreters (a fork of a process with threads may hang), kept until the end."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def dense_crf(
    image: NDArray[np.uint8], crack_map: NDArray[np.float32], config: CrfConfig
) -> NDArray[np.bool_]:
    """Mean field with a smoothing and a color kernel, then the more probable class.

    Unary energies are -log (1 - v)^alpha for road and -log v for crack (method section 4).

    Args:
        image: (H, W, 3) RGB.
        crack_map: v, (H, W) in [0, 1].
        config: Kernels and iterations.

    Returns:
        (H, W), True on crack.
    """
    crf = importlib.import_module(f"{PACKAGE}.densecrf")
    height, width = crack_map.shape
    probability = np.stack([(1 - crack_map) ** config.alpha, crack_map]).reshape(2, -1)
    unary = -np.log(np.clip(probability, MIN_PROBABILITY, 1)).astype(np.float32)
    field = crf.DenseCRF2D(width, height, 2)
    field.setUnaryEnergy(np.ascontiguousarray(unary))
    field.addPairwiseGaussian(sxy=config.near_px, compat=config.near_weight)
    field.addPairwiseBilateral(
        sxy=config.color_px,
        srgb=config.color_levels,
        rgbim=np.ascontiguousarray(image),
        compat=config.color_weight,
    )
    marginals = np.asarray(field.inference(config.iterations)).reshape(2, height, width)
    found: NDArray[np.bool_] = marginals[1] > marginals[0]
    return found
