"""`wpcrack predict`: crack probability and mask of plain photographs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geo.outputs import require_replaceable
from jobs.runtime.pictures import write_picture
from wpcrack.data.images import read_rgb
from wpcrack.errors import NAMED_AT_MOST, DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine, WindowPredictor, predict_image
from wpcrack.model import find_model
from wpcrack.scoring.metrics import mask_at

ENDINGS = ("prob", "mask")
"""What the two results of a photograph are called: `<stem>_prob.png` and `<stem>_mask.png`."""


def run_predict(
    model: Path | None,
    out: Path,
    images: Sequence[Path],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    engine: Engine = "auto",
    predictor: WindowPredictor | None = None,
) -> list[Path]:
    """Write `<stem>_prob.png` (8 bit) and `<stem>_mask.png` (0 / 255) of each photograph to `out`.

    Photographs that cannot be read are named in one error after all others were delivered.

    Args:
        model: run folder, or its model/ folder; None: the shipped model.
        out: folder, made if need be.
        images: files with distinct stems.
        threshold: of the 8-bit probability / 255.
        engine: what computes the network.
        predictor: takes the model's place, for tests.

    Returns:
        The files written.

    Raises:
        WpcrackError: a missing model, equal stems, missing or unreadable images, or `out` cannot be
            written.
        OutputError: a result would replace an input, or a file that is not this program's own.
    """
    if predictor is None:
        find_model(model)
    _require_distinct(images, out)
    _make_folder(out)
    predictor = predictor or load_predictor(model, engine)
    written: list[Path] = []
    failures: list[DataError] = []
    for path in images:
        try:
            image = read_rgb(path)
        except DataError as error:
            failures.append(error)
            continue
        probability = predict_image(image, predictor, Lattice())
        mask = mask_at(probability, threshold).astype(np.uint8) * 255
        for array, ending in zip((probability, mask), ENDINGS, strict=True):
            written.append(out / f"{path.stem}_{ending}.png")
            write_picture(written[-1], array)
        print(f"{path.name}: {np.count_nonzero(mask) / mask.size:.2%} crack -> {written[-1]}")
    if failures:
        others = f"; the other {len(images) - len(failures)} are in {out}" if written else ""
        raise DataError(f"{'; '.join(str(error) for error in failures[:NAMED_AT_MOST])}{others}")
    return written


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {out} ({error.strerror}); choose another folder") from error
    if not os.access(out, os.W_OK):
        raise DataError(
            f"{out} may not be written; choose another folder or change its permissions"
        )


def _require_distinct(images: Sequence[Path], out: Path) -> None:
    if not images:
        raise DataError("no image is given; name at least one")
    equal = [stem for stem, times in Counter(path.stem for path in images).items() if times > 1]
    if equal:
        first = " and ".join(str(path) for path in images if path.stem == equal[0])
        raise DataError(
            f"images with the same stem would overwrite each other's result ({first}); rename one "
            "or predict them into different folders"
        )
    require_replaceable(
        (out / f"{path.stem}_{ending}.png" for path in images for ending in ENDINGS), images
    )
