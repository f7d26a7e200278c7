"""Measure the inference engines: megapixels per second of the whole path, two windows a call.

Run from the repository root:
    python -m benchmarks.inference.engine [--model RUN] [--threads 2] [--side 512] [--rounds 12]

Without --model the networks are random. The engines take turns, so that a busy machine slows all
of them alike; each figure is the median over the rounds, the ratio is against torch fp32 eager.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from wpcrack.config import ModelConfig
from wpcrack.inference.convert import convert
from wpcrack.inference.machine import native_bfloat16, openvino
from wpcrack.inference.openvino_engine import OpenVinoPredictor
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.model import load_model
from wpcrack.networks import Networks
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window

WINDOWS = 2

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="run folder; default: random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=512, help="pixels, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    networks = load_model(options.model).networks if options.model else Networks(ModelConfig())
    windows = pavement(options.side)
    engines = dict(engines_of(networks.eval().requires_grad_(False), options.threads))
    print(f"{machine(options.threads)}, openvino {openvino().__version__}")
    reference = engines["torch fp32 eager"](windows)
    seconds = measure(engines, windows, options.rounds)
    megapixels = windows[..., 0].size / 1e6
    print(f"{'engine':26}{'Mpx/s':>8}{'best':>8}{'ratio':>8}{'max diff':>10}{'mean diff':>11}")
    slowest = statistics.median(seconds["torch fp32 eager"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        difference = np.abs(engines[name](windows) - reference)
        print(
            f"{name:26}{megapixels / middle:8.2f}{megapixels / min(times):8.2f}"
            f"{slowest / middle:8.1f}{difference.max():10.1e}{difference.mean():11.1e}"
        )


def engines_of(networks: Networks, threads: int) -> Iterator[tuple[str, Predict]]:
    """Yield each engine with networks of its own."""
    cpu = torch.device("cpu")
    yield "torch fp32 eager", eager(copy.deepcopy(networks))
    yield (
        "torch bf16 channels_last",
        TorchPredictor(copy.deepcopy(networks), cpu, low_precision=True),
    )
    graph = convert(networks)
    yield "openvino f32", OpenVinoPredictor(graph.clone(), threads, "f32")
    if native_bfloat16():
        yield "openvino bf16", OpenVinoPredictor(graph.clone(), threads, "bf16")


def eager(networks: Networks) -> Predict:
    """Run the networks as they are: float32, NCHW."""

    @torch.inference_mode()
    def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = torch.from_numpy(windows).permute(0, 3, 1, 2).contiguous().float() / 255
        probability: NDArray[np.float32] = torch.sigmoid(networks(image)[:, 0]).numpy()
        return probability

    return predict


def measure(
    engines: dict[str, Predict], windows: NDArray[np.uint8], rounds: int
) -> dict[str, list[float]]:
    """Measure seconds of each call; the engines take turns, the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, predict in engines.items():
            started = time.perf_counter()
            predict(windows)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def pavement(side: int) -> NDArray[np.uint8]:
    """Draw windows (WINDOWS, side, side, 3) tiled from drawn pavement."""
    config, rng = WindowConfig(), np.random.default_rng(0)
    drawn = [
        draw_window(rng, config, True, draw_training_street(rng, config)).image
        for _ in range(WINDOWS)
    ]
    copies = -(-side // drawn[0].shape[0])
    return np.stack([np.tile(image, (copies, copies, 1))[:side, :side] for image in drawn])


if __name__ == "__main__":
    main()
