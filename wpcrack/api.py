"""What a program needs that uses a trained model: load it once, predict any number of images.

`import wpcrack` offers these under the package's own name and imports them when they are first
used, so that a program which only asks for the version waits for nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpcrack.errors import ConfigError, DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import Engine, WindowPredictor, predict_image
from wpcrack.model import ModelInfo, find_model, read_info


@dataclass(frozen=True)
class ReadyModel:
    """A trained model that is ready to predict."""

    predictor: WindowPredictor
    """(N, H, W, 3) uint8 windows -> (N, H, W) probability."""
    info: ModelInfo
    """How it was built and trained; `info.gsd_mm` is the pixel size of its training images."""


def load_model(
    path: Path | str | None = None, *, engine: Engine = "auto", threads: int | None = None
) -> ReadyModel:
    """Load a trained model.

    Args:
        path: a run folder of `wpcrack train`, or the model folder inside it; None: the model that
            ships with the package.
        engine: auto: torch on a GPU; on a CPU openvino, or torch where that is not installed.
        threads: CPU cores to use; None: torch's number, which follows OMP_NUM_THREADS.

    Returns:
        The model.

    Raises:
        CheckpointError: it is missing, unreadable or of another architecture.
        ConfigError: the path is none, the engine is unknown or not installed, or the threads are no
            number of cores.

    >>> import wpcrack
    >>> model = wpcrack.load_model("runs/first")
    >>> model.info.gsd_mm
    2.5
    """
    if not isinstance(path, str | os.PathLike | None):
        raise ConfigError(f"path is {path!r}; give that of a run folder, as text or Path")
    folder = find_model(None if path is None else Path(path))
    return ReadyModel(load_predictor(folder, engine, threads), read_info(folder))


def predict(
    model: ReadyModel, image: NDArray[np.uint8], *, lattice: Lattice | None = None, batch: int = 8
) -> NDArray[np.float32]:
    """Predict where an image shows cracks.

    Args:
        model: of `load_model`.
        image: (H, W, 3) uint8, RGB, of any size; beyond its edges it is mirrored.
        lattice: windows that cover an image with a side above 1024 pixels, and how they are
            blended; None: the default.
        batch: windows per call of the network, at least 1.

    Returns:
        (H, W) float32, the probability in [0, 1] that a pixel is crack, in steps of 1 / 255.

    Raises:
        DataError: the image is no array, or has another shape or type.
        ConfigError: the model is none of `load_model`, the lattice is none, or the batch is empty.
        CheckpointError: the model gives values that are not numbers.

    >>> import wpcrack
    >>> model = wpcrack.load_model("runs/first")
    >>> probability = wpcrack.predict(model, image)
    >>> probability.shape == image.shape[:2], probability.dtype.name
    (True, 'float32')
    """
    if not isinstance(model, ReadyModel):
        raise ConfigError(f"model is {model!r}; give what load_model returns")
    if not isinstance(image, np.ndarray) or isinstance(image, np.ma.MaskedArray):
        raise DataError(
            f"the image is of type {type(image).__name__}; give a NumPy array (H, W, 3) uint8, RGB"
        )
    if not isinstance(batch, Integral) or isinstance(batch, bool) or batch < 1:
        raise ConfigError(f"batch is {batch!r}; give a number of windows, 1 or more")
    if not isinstance(lattice, Lattice | None):
        raise ConfigError(f"lattice is {lattice!r}; give a wpcrack.inference.lattice.Lattice")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(
            f"the image has shape {image.shape} and type {image.dtype}; give (H, W, 3) uint8, RGB"
        )
    levels = predict_image(image, model.predictor, lattice or Lattice(), batch=batch)
    return levels.astype(np.float32) / np.float32(255)
