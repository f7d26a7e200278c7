"""Measure how much of a crack a model sees in windows, by how much of what lies around it sees.

Run from the repository root:
    python -m benchmarks.training.surroundings --data ../shared/data/deepcrack [--window 128]
        [--model RUN] [--pictures 30] [--threads 1]

Each picture is cut into windows side by side; the model sees each with a margin, which is mirrored
beyond the picture's edge, and only the window counts. Printed per margin, for the pixels that it
marks at one half against the masks: IoU, precision, recall, and how much it marks of what it marks
when it sees whole pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from wpcrack.data.images import pair
from wpcrack.data.masks import read_pair
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, WindowPredictor, predict_image
from wpcrack.scoring.metrics import Counts, count, iou, mask_at

MARGINS = (0, 1 / 4, 1 / 2, 1)
"""In sides of a window."""

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Image (H, W, 3) and mask (H, W)."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images/ and masks/")
    parser.add_argument("--window", type=int, default=128, help="side in pixels")
    parser.add_argument("--model", type=Path, help="run folder; default: the shipped model")
    parser.add_argument("--pictures", type=int, default=30, help="so many, spread over the names")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pictures = read(options.data, options.pictures)
    predictor = load_predictor(options.model, "openvino", options.threads)
    print(f"{machine(options.threads)}, {len(pictures)} pictures of {options.data.name}")
    print(f"{'the model sees':28}{'IoU':>8}{'precision':>11}{'recall':>8}{'marked':>8}")
    wholes = [predict_image(image, predictor, Lattice()) for image, _ in pictures]
    known = tally(wholes, pictures)
    marked = known.tp + known.fp
    rows = [("the whole picture", known)]
    for share in MARGINS:
        margin = round(share * options.window)
        seen = [see_windows(image, predictor, options.window, margin) for image, _ in pictures]
        rows.append((f"windows and {margin} px around", tally(seen, pictures)))
    for name, found in rows:
        share = (found.tp + found.fp) / marked
        precision = found.tp / max(found.tp + found.fp, 1)
        recall = found.tp / max(found.tp + found.fn, 1)
        print(f"{name:28}{iou(found):8.3f}{precision:11.3f}{recall:8.3f}{share:8.2f}")


def read(folder: Path, most: int) -> list[Picture]:
    """Read at most so many pictures with their masks, spread over the names."""
    pairs = pair(folder / "images", folder / "masks")
    return [read_pair(found) for found in pairs[:: max(len(pairs) // most, 1)][:most]]


def see_windows(
    image: NDArray[np.uint8], predictor: WindowPredictor, side: int, margin: int
) -> NDArray[np.uint8]:
    """Return the probability (H, W) in 255 steps, of windows side by side."""
    height, width = image.shape[:2]
    beyond = ((margin, margin + side), (margin, margin + side), (0, 0))
    wide, found = np.pad(image, beyond, mode="reflect"), np.zeros((height, width), np.uint8)
    core = slice(margin, margin + side)
    for row in range(0, height, side):
        for col in range(0, width, side):
            part = wide[row : row + side + 2 * margin, col : col + side + 2 * margin]
            seen = predict_image(np.ascontiguousarray(part), predictor, Lattice())[core, core]
            place = found[row : row + side, col : col + side]
            place[...] = seen[: place.shape[0], : place.shape[1]]
    return found


def tally(levels: Sequence[NDArray[np.uint8]], pictures: Sequence[Picture]) -> Counts:
    """Count right and wrong pixels over all pictures."""
    total = Counts()
    for found, (_, mask) in zip(levels, pictures, strict=True):
        total += count(mask_at(found, DEFAULT_THRESHOLD), mask)
    return total


if __name__ == "__main__":
    main()
