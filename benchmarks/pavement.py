"""How fast pavement is drawn, and what it looks like.

Run from the repository root:

    python -m benchmarks.pavement [--size 160] [--count 200] [--seed 0]      time per window
    python -m benchmarks.pavement --size 320 --cut 160                       time per part
    python -m benchmarks.pavement --sheet FILE [--gsd 0.8 3]                 a sheet of windows
    python -m benchmarks.pavement --sheet FILE --beside DIR                  beside photographs

A sheet shows each window with its truth below it: crack in orange, things that are no crack in
blue. Photographs are cut at their own scale, and only looked at.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.pavement import DrawnPavement, Kind, PavementConfig, draw_pavement

Image = npt.NDArray[np.uint8]

COLUMNS, ROWS = 9, 3
WARM_UP = 5
CRACK_COLOR, THING_COLOR = (255, 140, 0), (40, 90, 255)


def main() -> None:
    """Measure, or draw a sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gsd", type=float, nargs=2, default=PavementConfig().gsd_mm)
    parser.add_argument("--cut", type=int)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--beside", type=Path)
    options = parser.parse_args()
    config = PavementConfig(size=options.size, gsd_mm=tuple(options.gsd))
    cv2.setNumThreads(1)
    if options.sheet is None:
        measure(config, options.count, options.seed, options.cut or options.size)
    else:
        rows = sheet(config, options.seed, options.beside)
        cv2.imwrite(str(options.sheet), np.vstack(rows)[:, :, ::-1])


def measure(config: PavementConfig, count: int, seed: int, part: int) -> None:
    """Print CPU milliseconds per window, and per part of `part` pixels, on one core."""
    for k in range(WARM_UP):
        draw_pavement(np.random.SeedSequence([seed, 1, k]), config)
    times, marked = [], 0.0
    for k in range(count):
        started = time.process_time()
        drawn = draw_pavement(np.random.SeedSequence([seed, k]), config)
        times.append(time.process_time() - started)
        marked += float(drawn.mask.mean())
    parts = len(drawn.parts(part))
    milliseconds = np.array(times) * 1000
    print(
        f"{count} windows of {config.size} px: {milliseconds.mean():.1f} ms CPU each "
        f"(median {np.median(milliseconds):.1f}, p95 {np.percentile(milliseconds, 95):.1f}), "
        f"{parts * 1000 / milliseconds.mean():.0f} of {part} px a second and core, "
        f"crack share {marked / count:.4f}"
    )


def sheet(config: PavementConfig, seed: int, photographs: Path | None) -> list[Image]:
    """Rows of windows, of their truth, and of parts of photographs."""
    rows: list[Image] = []
    rng = np.random.default_rng(seed)
    for row in range(ROWS):
        drawn = [
            draw_pavement(np.random.SeedSequence([seed, row, k]), config) for k in range(COLUMNS)
        ]
        rows.append(np.hstack([d.image for d in drawn]))
        if photographs is None:
            rows.append(np.hstack([with_truth(d) for d in drawn]))
        else:
            rows.append(np.hstack([part_of(photographs, rng, config.size) for _ in drawn]))
    return rows


def with_truth(drawn: DrawnPavement) -> Image:
    """Return the window with its truth painted over it."""
    image = drawn.image // 2
    image[drawn.classes > Kind.CRACK] = (
        image[drawn.classes > Kind.CRACK] // 2 + np.array(THING_COLOR) // 2
    )
    image[drawn.mask] = CRACK_COLOR
    return np.asarray(image, np.uint8)


def part_of(folder: Path, rng: np.random.Generator, size: int) -> Image:
    """Return a random square of a random photograph."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    image = cv2.imread(str(files[int(rng.integers(len(files)))]))
    assert image is not None
    row, col = (int(rng.integers(max(1, side - size))) for side in image.shape[:2])
    part = image[row : row + size, col : col + size, ::-1]
    return np.asarray(cv2.resize(part, (size, size)), np.uint8)


if __name__ == "__main__":
    main()
