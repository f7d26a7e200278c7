"""Draw docs/contact_sheet.jpg: what the synthetic pavement looks like, with its truth.

Run from the repository root:  python -m benchmarks.contact_sheet [--seed 0] [--out FILE]

Rows: windows labeled crack, each above its true mask; windows labeled road (no crack, but what
looks like one); the city reduced 16 times; a part of it at full resolution with the truth drawn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic import (
    City,
    CityConfig,
    Frame,
    WindowConfig,
    draw_city,
    draw_training_street,
    draw_window,
)

Image = npt.NDArray[np.uint8]

COLUMNS = 10
GAP = 4
CITY_REDUCTION = 16
TRUTH_COLOR = (255, 140, 0)
JPEG_QUALITY = 72


def main() -> None:
    """Draw the sheet and say how long each part took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/contact_sheet.jpg"))
    options = parser.parse_args()
    started = time.perf_counter()
    rows = window_rows(options.seed)
    windows_s = time.perf_counter() - started
    started = time.perf_counter()
    city = draw_city(CityConfig(), options.seed)
    plan = reduced(city)
    city_s = time.perf_counter() - started
    width = rows[0].shape[1]
    detail = with_truth(city, plan.shape[0], width - plan.shape[1] - GAP)
    sheet = stack([*rows, put_beside([plan, detail])])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.out), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    print(f"windows {windows_s:.1f} s, city {city_s:.1f} s, {options.out}: ", end="")
    print(f"{sheet.shape[1]}x{sheet.shape[0]}, {options.out.stat().st_size / 1000:.0f} kB")


def window_rows(seed: int) -> list[Image]:
    """Two rows of crack windows with their masks below, two rows of road windows."""
    config, rng = WindowConfig(), np.random.default_rng(seed)
    rows: list[Image] = []
    for has_crack in (True, True, False, False):
        drawn = [
            draw_window(rng, config, has_crack, draw_training_street(rng, config))
            for _ in range(COLUMNS)
        ]
        rows.append(put_beside([window.image for window in drawn]))
        if has_crack:
            masks = [window.mask.astype(np.uint8) * np.uint8(255) for window in drawn]
            rows.append(put_beside([np.repeat(mask[:, :, None], 3, axis=2) for mask in masks]))
    return rows


def reduced(city: City) -> Image:
    """Draw the whole city, reduced tile by tile."""
    side = city.config.tile_px // CITY_REDUCTION
    rows, cols = (size // CITY_REDUCTION for size in city.shape)
    plan = np.zeros((rows, cols, 3), np.uint8)
    for tile in city.tiles():
        part = cv2.resize(tile.image, (side, side), interpolation=cv2.INTER_AREA)
        plan[tile.row * side : (tile.row + 1) * side, tile.col * side : (tile.col + 1) * side] = (
            part
        )
    return plan


def with_truth(city: City, height: int, width: int) -> Image:
    """Find the frame with most crack pixels across a tile border; its right half shows truth."""
    tile = city.config.tile_px
    half = (height // 2, width // 2)
    corners = [(row * tile - half[0], col * tile + tile // 2 - half[1]) for row, col in city.places]
    frames = [Frame(row, col, height, width) for row, col in corners if row > 0]
    frame = max(frames, key=lambda f: int(city.mask(f).sum()))
    image = city.paint(frame)
    mask = city.mask(frame)
    mask[:, : width // 2] = False
    image[mask] = TRUTH_COLOR
    image[:, width // 2 - 1 : width // 2 + 1] = 255
    return image


def put_beside(images: list[Image]) -> Image:
    """Put images of equal height in a row with white gaps."""
    gap = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)


def stack(images: list[Image]) -> Image:
    """Put images of equal width below each other with white gaps."""
    gap = np.full((GAP, images[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, gap)][:-1], axis=0)


if __name__ == "__main__":
    main()
