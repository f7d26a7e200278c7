"""Dense CRF (Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs, NIPS 2011).

Needs the optional extra `crf` (pydensecrf2), which computes on one CPU core without releasing the
interpreter lock; so the images of a batch go to a pool of processes. Nothing here imports torch:
those processes start in a moment.

Shape letters: H W pixels.
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
from numpy.typing import NDArray

from wpcrack.errors import ConfigError, TrainingError
from wpcrack.label_config import CrfConfig

PACKAGE = "pydensecrf"
MIN_PROBABILITY = 1e-5
"""Probabilities are clipped here before the logarithm."""


def require_crf() -> None:
    """Check that the optional extra is installed.

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
    """Run `dense_crf` on several images at once, in their order.

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
    """Start fresh interpreters, kept until the end (a fork of a process with threads may hang)."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def dense_crf(
    image: NDArray[np.uint8], crack_map: NDArray[np.float32], config: CrfConfig
) -> NDArray[np.bool_]:
    """Run mean field with a smoothing and a color kernel, then take the more probable class.

    Unary energies are -log (1 - v)^alpha for road and -log v for crack.

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
