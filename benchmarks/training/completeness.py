"""Does the game make crack CAMs cover whole cracks? The paper's claim, measured step by step.

    python -m benchmarks.training.completeness [--data S --images D/images --masks D/masks]
        [--warmup 150] [--steps 600] [--every 100] [--seed 0] [--only ARM] [--prices]
        [--classifier-rate 1] [--reconstructor-rate 1] [KEY=VALUE ...]

Two trainings start from the same warm classifier. One plays the game of the paper (adversarial
stage); the other goes on learning the image-level labels (warmup stage) with the same batches,
learning rates and number of steps. At each mark three figures of the averaged classifier's CAM:

    covered    share of the true cracks' middle lines under CAM >= .5
    leaked     share of the road farther than 8 px from any crack under CAM >= .5
    at 5 %     share covered at the threshold where 5 % of that road is marked: no threshold of ours

S is a set of `wpcrack dataset`; of the pictures with masks those that S does not learn from are
looked at. Without them windows of drawn streets are learned, and others looked at. The first row is
the common start. KEY=VALUE are keys of the method (losses.cls_rest=0.5). The rates are factors of
the learning rate of one player after the common start.

With --prices the game's terms are printed after each stretch for maps that nobody learned: the
whole crack, half of it, more than it, none, everything. The classifier moves toward the map whose
terms have the least sum; if that is not the whole crack, the game cannot make CAMs complete.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.training.prices import print_prices
from jobs.demo.draw import TrainingSetSize, write_training_set
from jobs.settings.load import load
from wpcrack.config import MethodConfig
from wpcrack.data.batches import BatchSource, Shard
from wpcrack.data.images import pair
from wpcrack.data.manifest import NAME, read_manifest
from wpcrack.data.masks import read_pair
from wpcrack.data.pictures import Images
from wpcrack.data.read import read_image_level
from wpcrack.labels.cam import crack_map
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window
from wpcrack.training.stages import Learner

THRESHOLD = 0.5
FAR_PX = 8
LEAK = 0.05
LEVELS = 1000
ARMS = {"game": "adversarial", "labels alone": "warmup"}
"""Name of an arm: the stage that it trains."""

Truth = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Image and mask."""


@dataclass(frozen=True)
class Figures:
    """What a CAM is worth; shares."""

    covered: float
    leaked: float
    at_leak: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per mark and arm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(ARMS), help="this arm alone")
    parser.add_argument("--classifier-rate", type=float, default=1.0)
    parser.add_argument("--reconstructor-rate", type=float, default=1.0)
    parser.add_argument("--prices", action="store_true", help="of maps that nobody learned")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_intermixed_args(arguments)
    if (given.data is None) != (given.images is None) or (given.images is None) != (
        given.masks is None
    ):
        parser.error("give --data, --images and --masks, or none of them")
    torch.set_num_threads(1)
    config = load(MethodConfig, overrides=[*given.settings, f"seed={given.seed}"])
    print(f"{machine()}; seed {given.seed}, one thread")
    print(f"{'step':>5} {'arm':13} {'covered':>8} {'leaked':>8} {'at 5 %':>8}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = given.data or draw_set(Path(scratch), given.seed)
        truth = held_out(given) if given.images else drawn(given.seed)
        for arm in [given.only] if given.only else ARMS:
            for step, figures in course(config, root, truth, arm, given):
                row = (figures.covered, figures.leaked, figures.at_leak)
                print(f"{step:5d} {arm:13} " + " ".join(f"{v:8.3f}" for v in row), flush=True)


def course(
    config: MethodConfig, root: Path, truth: Sequence[Truth], arm: str, given: argparse.Namespace
) -> Iterator[tuple[int, Figures]]:
    """Train an arm; give the figures at each mark."""
    learner = Learner(config, torch.device("cpu"))
    source = BatchSource(Images(read_image_level(root).train), config, Shard())
    train(learner, source, "warmup", range(given.warmup), 0)
    yield 0, look(learner, truth)
    learner.enter(ARMS[arm])
    for player in ("classifier", "reconstructor"):
        for group in learner.optimizers.by_name()[player].param_groups:
            group["peak_lr"] *= getattr(given, f"{player}_rate")
    for start in range(0, given.steps, given.every):
        stretch = range(start, min(start + given.every, given.steps))
        train(learner, source, ARMS[arm], stretch, given.warmup)
        yield stretch.stop, look(learner, truth)
        if given.prices and ARMS[arm] == "adversarial":
            print_prices(learner, truth)


def train(learner: Learner, source: BatchSource, stage: str, steps: range, before: int) -> None:
    """Run steps of a stage at half of the peak learning rate, where no course ends early."""
    learner.nets.train()
    for module in learner.nets.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    epoch = learner.config.train.epoch_steps
    for step in steps:
        at = before + step
        learner.step(stage, source.load(at, at // epoch), 0.5, at, step)


@torch.no_grad()
def look(learner: Learner, truth: Sequence[Truth]) -> Figures:
    """Measure the CAM of the averaged classifier."""
    lines, roads = np.zeros(LEVELS + 1, np.int64), np.zeros(LEVELS + 1, np.int64)
    teacher = learner.teacher.eval()
    for image, mask in truth:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        cam = crack_map(teacher(x).cam, mask.shape, learner.config.model.cam_norm)[0, 0].numpy()
        level = (cam * LEVELS).astype(np.int64)
        lines += np.bincount(level[middle_line(mask)], minlength=LEVELS + 1)
        away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) > FAR_PX
        roads += np.bincount(level[away], minlength=LEVELS + 1)
    covered, leaked = (np.cumsum(h[::-1])[::-1] / max(h.sum(), 1) for h in (lines, roads))
    half = round(THRESHOLD * LEVELS)
    allowed = int(np.argmax(leaked <= LEAK))
    return Figures(float(covered[half]), float(leaked[half]), float(covered[allowed]))


def middle_line(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the ridge of the distance to the road: pixels that no neighbor exceeds."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(mask & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8))), np.bool_)


def draw_set(folder: Path, seed: int) -> Path:
    """Write a set of windows of drawn streets."""
    size = TrainingSetSize(streets=60, per_street=5)
    write_training_set(folder, WindowConfig(), size, np.random.SeedSequence([seed, 1]))
    return folder


def drawn(seed: int, count: int = 80) -> list[Truth]:
    """Draw windows with a crack, of streets that no training saw."""
    rng, config = np.random.default_rng([seed, 2]), WindowConfig(size=256)
    windows = [
        draw_window(rng, config, True, draw_training_street(rng, config)) for _ in range(count)
    ]
    return [(window.image, window.mask) for window in windows]


def held_out(given: argparse.Namespace) -> list[Truth]:
    """Read the pictures with masks that the set does not learn from."""
    learned = sources_learned(given.data)
    pairs = (each for each in pair(given.images, given.masks) if each.stem not in learned)
    return [whole_cells(*read_pair(each)) for each in pairs]


def sources_learned(data: Path) -> set[str]:
    """Return the stems of the pictures that a set learns from."""
    return {row.source for row in read_manifest(data / NAME) if row.split == "train"}


def whole_cells(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Truth:
    """Cut a picture to sides that are multiples of 32."""
    height, width = (side // 32 * 32 for side in mask.shape)
    return np.ascontiguousarray(image[:height, :width]), mask[:height, :width]


if __name__ == "__main__":
    main()
