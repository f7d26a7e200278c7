"""What the model that a training starts from sees in crack windows with what lies around them.

A window of 96 or 128 pixels is too little for it: of windows alone it finds half of what it finds
of the pictures that they were cut from (docs/experiments.md), and labels from that would teach a
detector to overlook the rest. So it looks at the larger picture around the window, once.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpcrack.config import MethodConfig
from wpcrack.data.images import read_rgb
from wpcrack.data.read import Item
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.machine import is_installed
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine, WindowPredictor, predict_image
from wpcrack.scoring.metrics import mask_at

KEPT_BYTES = 2**28
"""Of maps of windows that are kept in memory, per process: 16 000 of 128 px."""

MODEL_BYTES = 300_000_000
"""Of the model that looks: measured 118 MB for windows of 128 px with what lies around them, 311 MB
for pictures of MOST_PX."""

MOST_PX = 2**20
"""Of an image that windows are cut out of: larger ones take too long to map each time."""

NARROW_PX = 256
"""A window with a shorter side than this is too little to know a crack by."""


class Foresight:
    """Maps windows by the larger pictures around them; it may be sent to other processes."""

    def __init__(self, model: Path, size: tuple[int, int] | None = None) -> None:
        """Name the model; it is loaded when the first window is mapped.

        Args:
            model: Its folder.
            size: (H, W) that the networks see; larger images, out of which windows of this size
                are cut, are their own surroundings. None: there are none.
        """
        self.model, self.size = model, size
        self._predictor: WindowPredictor | None = None
        self._kept: dict[Path, NDArray[np.uint8]] = {}
        self._room = KEPT_BYTES

    def __getstate__(self) -> dict[str, object]:
        """Return what other processes need to load the model themselves."""
        return vars(Foresight(self.model, self.size))

    def prepare(self) -> None:
        """Load the model, and so make its graph if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        if self._predictor is None:
            engine: Engine = "openvino" if is_installed("openvino") else "torch"
            threads = 1 if engine == "openvino" else None  # torch has one number for the process
            self._predictor = load_predictor(self.model, engine, threads)

    def knows(self, item: Item) -> bool:
        """Tell whether anything is known of what lies around a crack window."""
        return knows(item, self.size)

    def __call__(self, item: Item) -> NDArray[np.uint8] | None:
        """Return the probability (h, w) of an image in 255 steps; None: nothing lies around it.

        Raises:
            DataError: It or its surroundings cannot be read.
        """
        if not self.knows(item):
            return None
        if item.path in self._kept:
            return self._kept[item.path]
        around, place = item.surroundings, (slice(None), slice(None))
        picture = read_rgb(item.path if around is None else around.path)
        if around is not None:
            found = around.find((picture.shape[0], picture.shape[1]), (item.height, item.width))
            if found is None:
                return None
            place = found
        levels = self.see(picture)[place].copy()
        if levels.nbytes <= self._room:
            self._kept[item.path] = levels
            self._room -= levels.nbytes
        return levels

    def see(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the probability (H, W) of a picture (H, W, 3) in 255 steps."""
        self.prepare()
        assert self._predictor is not None
        return predict_image(picture, self._predictor, Lattice())


def knows(item: Item, size: tuple[int, int] | None) -> bool:
    """Tell whether anything is known of what lies around a crack window of a size (H, W)."""
    if not item.has_crack:
        return False
    if item.surroundings is not None:
        return True
    is_cut = size is not None and (item.height > size[0] or item.width > size[1])
    return is_cut and item.height * item.width <= MOST_PX


def foreseen_bytes(items: Sequence[Item], size: tuple[int, int]) -> int:
    """Estimate the memory of a `Foresight` that looks at items, in a process; 0: at none."""
    maps = sum(item.height * item.width for item in items if knows(item, size))
    return MODEL_BYTES + min(maps, KEPT_BYTES) if maps else 0


def can_look_around(config: MethodConfig, *, from_model: bool) -> bool:
    """Tell whether a training asks the model that it starts from, if it does, about windows."""
    rule, train = config.pseudo_label, config.train
    labels = rule.look_around and rule.self_training and rule.trained_detector
    return from_model and bool(labels and train.detector_ema and train.steps.detector)


def find_marked(model: Path, items: Sequence[Item], min_share: float) -> tuple[int, ...]:
    """Return the numbers of the road windows in which a model marks a crack.

    Args:
        model: Folder of the model.
        items: Of a set.
        min_share: Share of a window from which on it counts as marked.

    Raises:
        CheckpointError: The model cannot be read.
        DataError: A window cannot be read.
    """
    foresight = Foresight(model)
    return tuple(
        number
        for number, item in enumerate(items)
        if not item.has_crack
        and mask_at(foresight.see(read_rgb(item.path)), DEFAULT_THRESHOLD).mean() >= min_share
    )


def warn_of_narrow_windows(items: Sequence[Item]) -> tuple[str, ...]:
    """Say that windows are too small to label, where nothing is known of what lies around them."""
    cracks = [item for item in items if item.has_crack]
    narrow = [i for i in cracks if i.surroundings is None and min(i.height, i.width) < NARROW_PX]
    if 2 * len(narrow) <= len(cracks):
        return ()
    return (
        f"{len(narrow)} of {len(cracks)} crack windows are below {NARROW_PX} px and come without "
        "their surroundings, of which the model that the training starts from finds half of the "
        "cracks; cut them with `wpcrack dataset` or `wpcrack windows`, which keep these",
    )
