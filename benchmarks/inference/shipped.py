"""Measure what a window costs with the shipped model: 8 bits, fewer scales, and as stored.

Run from the repository root; --nncf needs `pip install nncf`:
    python -m benchmarks.inference.shipped [--nncf] [--images DIR --masks DIR] [--rounds 12]
        [--side 512] [--precision f32]

CPU milliseconds of one window and one thread, the ways taking turns, and the IoU on
drawn windows, and on photographs if some are given. With --nncf also 8-bit networks as NNCF makes
them by itself: after the training, from 80 drawn windows. What older processors do is seen on newer
ones with ONEDNN_MAX_CPU_ISA=AVX2 before the command.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from wpcrack.inference import openvino_engine
from wpcrack.inference.graph import load_graph
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.openvino_engine import OpenVinoPredictor, Precision
from wpcrack.inference.predict import DEFAULT_THRESHOLD, predict_image
from wpcrack.model import SHIPPED, read_info
from wpcrack.scoring.metrics import Counts, count, iou, mask_at
from wpcrack.synthetic.pavement import DrawnPavement, PavementConfig, draw_pavement

WINDOWS = 80


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nncf", action="store_true", help="8-bit networks of NNCF, too")
    parser.add_argument("--images", type=Path, help="photographs to score")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=77, help="of the drawn windows")
    parser.add_argument("--side", type=int, default=512, help="of a window, pixels")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    options = parser.parse_args()
    taught, scored = (draw(options.seed + k) for k in (0, 1))
    ways = dict(scales(options.precision))
    if options.nncf:
        ways |= eight_bits([window.image for window in taught])
    costs = milliseconds(ways, options.rounds, options.side)
    print(f"{machine(1)}, seed {options.seed}")
    print(f"{'the shipped model':32}{'ms':>8}{'ratio':>8}{'drawn IoU':>11}{'photographs':>13}")
    full = costs["all scales"]
    for name, way in ways.items():
        photographs = ""
        if options.images is not None:
            given = EvaluateOptions(model=None, images=options.images, masks=options.masks)
            photographs = f"{run_evaluate(given, way).scores.native.iou:.4f}"
        drawn = on_drawn(way, scored)
        print(f"{name:32}{costs[name]:8.0f}{costs[name] / full:8.2f}{drawn:11.4f}{photographs:>13}")


def draw(seed: int) -> list[DrawnPavement]:
    """Draw windows, with cracks and without."""
    shape = PavementConfig(size=256)
    return [draw_pavement(np.random.SeedSequence([seed, k]), shape) for k in range(WINDOWS)]


class AsStored(OpenVinoPredictor):
    """The graph of the file, which is not rewritten."""

    def _request(self, height: int, width: int) -> Any:
        with patch.object(openvino_engine, "rewrite_graph", lambda graph: graph):
            return super()._request(height, width)


def scales(precision: Precision) -> Iterator[tuple[str, OpenVinoPredictor]]:
    """Yield all scales, also with 8 bits, then fewer; each as it runs, and as it is stored."""
    total = len(read_info(SHIPPED).scales)
    for number in range(total, 0, -1):
        name = "all scales" if number == total else f"the finest {number}"
        yield name, OpenVinoPredictor(load_graph(None), 1, precision, scales=number)
        if number == total:
            yield "all scales, 8 bits", OpenVinoPredictor(load_graph(None), 1, "int8")
        stored = AsStored(load_graph(None), 1, precision, scales=number)
        yield f"{name}, as stored", stored


def eight_bits(images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[str, OpenVinoPredictor]]:
    """Yield the networks at 8 bits as two presets have them, then the encoder alone."""
    import nncf

    spared = nncf.IgnoredScope(patterns=[".*detector.*"], validate=False)
    presets = nncf.QuantizationPreset
    kinds: dict[str, dict[str, Any]] = {
        "NNCF, mixed": {"preset": presets.MIXED},
        "NNCF, performance": {"preset": presets.PERFORMANCE},
        "NNCF, encoder alone": {"preset": presets.PERFORMANCE, "ignored_scope": spared},
    }
    for name, kind in kinds.items():
        seen = nncf.Dataset([image[None] for image in images])
        graph = nncf.quantize(load_graph(None), seen, subset_size=len(images), **kind)
        yield name, OpenVinoPredictor(graph, 1, "f32")


def milliseconds(ways: dict[str, OpenVinoPredictor], rounds: int, side: int) -> dict[str, float]:
    """Return the median CPU time of a window for each way."""
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(noise)
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way(noise)
            taken[name].append(time.process_time() - begin)
    return {name: 1000 * statistics.median(each) for name, each in taken.items()}


def on_drawn(way: OpenVinoPredictor, windows: Sequence[DrawnPavement]) -> float:
    """Return the IoU on drawn windows, pooled."""
    counts = Counts()
    for window in windows:
        found = predict_image(window.image, way, Lattice())
        counts += count(mask_at(found, DEFAULT_THRESHOLD), window.mask)
    return iou(counts)


if __name__ == "__main__":
    main()
