"""A folder of windows as `wpcrack windows` writes it: two tiles, with and without cracks."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from wpcrack.data.images import write_png
from wpcrack.data.manifest import KNOWN_COLUMNS, window_name

SIDE = 64


def draw_ground(seed, cracks):
    rng = np.random.default_rng(seed)
    gray = cv2.GaussianBlur(rng.normal(135, 38, (600, 600)), (0, 0), 0.9)
    gray += cv2.resize(rng.normal(0, 14, (9, 9)), (600, 600), interpolation=cv2.INTER_CUBIC)
    ground = np.repeat(np.clip(gray, 30, 230)[:, :, None], 3, 2).astype(np.uint8)
    for k in range(cracks):
        start, steps = (20, 140 * k), rng.normal((4, 1.2), 2.2, (140, 2))
        points = np.add(start, np.cumsum(steps, axis=0))
        cv2.polylines(ground, [points.astype(np.int32)], False, (38, 36, 34), 2, cv2.LINE_AA)
    return ground


@pytest.fixture
def folder(tmp_path):
    """Twelve windows, six a tile; those of tile a have surroundings, all a probability."""
    root = tmp_path / "windows"
    (root / "around").mkdir(parents=True)
    lines = []
    for tile, cracks in (("a", 4), ("b", 0)):
        ground = draw_ground(len(lines), cracks)
        for k in range(6):
            row, col = 100 + 150 * (k // 3), 80 + 150 * (k % 3)
            file, around = window_name(tile, row, col), ""
            write_png(root / file, ground[row : row + SIDE, col : col + SIDE])
            if tile == "a":
                around = f"around/{window_name(tile, row - 64, col - 64)}"
                write_png(root / around, ground[row - 64 : row + 128, col - 64 : col + 128])
            entry = (file, "", tile, row, col, SIDE, SIDE, "", f"/secret/{tile}.tif", 5e5, 5.8e6)
            lines.append((*entry, 0.9 if tile == "a" else 0.2, around))
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(KNOWN_COLUMNS)
        writer.writerows(lines)
    return root


@pytest.fixture
def labels_of():
    """What the manifest says about each file that has a label."""

    def read(root):
        with (root / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
            return {row["file"]: row["label"] for row in csv.DictReader(file) if row["label"]}

    return read
