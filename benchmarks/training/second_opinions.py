"""What do classifier and reconstructor know that the model a training starts from does not?

    python -m benchmarks.training.second_opinions --data S --images D/images --masks D/masks
        [--road D/road] [--warmup 40] [--game 20] [--seed 0] [KEY=VALUE ...]

Where the detector no longer starts from nothing, the game could still help its labels in two ways:
the reconstructor could judge what is marked (a false alarm is painted well from its surroundings, a
crack is not), and the CAM could fill what the detector misses. Both are measured on pictures that
the training did not see, with the networks as they are when the detector stage begins:

    judges     of the marked places (8-connected, >= 20 px), how well a figure tells the true from
               the false ones: area under the ROC curve; .5 is a coin. True: at least half of the
               place lies within 2 px of a true crack.
    fills      what a map of its own marks (>= 20 px) farther than 8 px from the model's marks: how
               many such places, how many of them are true, and which share of the lines that the
               model missed lies within 4 px of them.

S is a set of `wpcrack dataset`; of the pictures those are looked at whose frames S holds out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.training.completeness import (
    Truth,
    held_out,
    middle_line,
    sources_learned,
    train,
    whole_cells,
)
from jobs.settings.load import load
from wpcrack.config import MethodConfig
from wpcrack.data.batches import BatchSource, Shard
from wpcrack.data.images import list_images, read_rgb
from wpcrack.data.pictures import Images
from wpcrack.data.read import read_image_level
from wpcrack.errors import ConfigError
from wpcrack.inference.scales import ScaledProbability
from wpcrack.labels.cam import crack_map, label_map
from wpcrack.labels.pseudo_label import darkness, refine
from wpcrack.model import load_model
from wpcrack.training.stages import Learner

MARKED = 0.5
PLACE_PX = 20
TRUE_WITHIN_PX = 2
AWAY_PX, NEAR_PX = 8, 4
WIDER_PX = 8
"""What the reconstructor has to paint reaches that far beyond a place: a cell of the CAM."""
WEAK = (0.4, 0.3, 0.2)
"""Lower thresholds of the model itself: what fills must beat."""

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
Judge = Callable[[Mask], float]
"""Pixels of a marked place -> a figure that should be higher where it is a crack."""


@dataclass
class Judged:
    """Figures of the marked places, by judge; and which of them are true."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    true: list[bool] = field(default_factory=list)

    def add(self, place: Mask, near_crack: Mask, judges: Mapping[str, Judge]) -> None:
        """Count a marked place."""
        self.true.append(bool(near_crack[place].mean() >= 0.5))
        for name, judge in judges.items():
            self.figures.setdefault(name, []).append(judge(place))


@dataclass
class Filled:
    """What a map adds to the model's marks, summed over pictures."""

    places: int = 0
    true: int = 0
    reached: int = 0
    missed: int = 0

    def add(self, found: Mask, marks: Mask, truth: Mask) -> None:
        """Count a picture."""
        near_crack = distance_to(truth) <= TRUE_WITHIN_PX
        added = np.zeros_like(found)
        for place in places_of(found & (distance_to(marks) > AWAY_PX)):
            self.places += 1
            self.true += bool(near_crack[place].mean() >= 0.5)
            added |= place
        lines = middle_line(truth) & (distance_to(marks) > NEAR_PX)
        self.missed += int(lines.sum())
        self.reached += int((lines & (distance_to(added) <= NEAR_PX)).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per judge and per filling map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--road", type=Path, help="pictures without a crack")
    parser.add_argument("--warmup", type=int, default=40)
    parser.add_argument("--game", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    config = load(MethodConfig, overrides=[*given.settings, f"seed={given.seed}"])
    learner = Learner(config, torch.device("cpu"))
    if learner.start.folder is None:
        raise ConfigError("model.init=imagenet brings no detector; set model.init=shipped")
    source = BatchSource(Images(read_image_level(given.data).train), config, Shard())
    train(learner, source, "warmup", range(given.warmup), 0)
    learner.enter("adversarial")
    train(learner, source, "adversarial", range(given.game), given.warmup)
    judged, filled = look([*held_out(given), *roads(given)], learner)
    print(f"{machine()}; seed {given.seed}, {given.warmup} + {given.game} steps, one thread")
    print(f"{len(judged.true)} marked places, {sum(judged.true)} of them true")
    for name, figures in judged.figures.items() if len(set(judged.true)) == 2 else ():
        print(f"  {name:34} {area_under_roc(figures, judged.true):.3f}")
    print(f"{'fills':22} {'places':>7} {'true':>6} {'of the missed line':>19}")
    for name, each in filled.items():
        share = each.true / max(each.places, 1), each.reached / max(each.missed, 1)
        print(f"  {name:20} {each.places:7d} {share[0]:6.2f} {share[1]:19.3f}")


@torch.no_grad()
def look(truth: Sequence[Truth], learner: Learner) -> tuple[Judged, dict[str, Filled]]:
    """Judge the marked places of all pictures, and see what else would have been marked."""
    assert learner.start.folder is not None
    first = load_model(learner.start.folder)
    model = ScaledProbability(first.networks, first.info.scales, first.info.fusion_power).eval()
    reconstructor, teacher = learner.nets.reconstructor.eval(), learner.teacher.eval()
    rule, norm = learner.config.pseudo_label, learner.config.model.cam_norm
    judged, filled = Judged(), {}
    for image, mask in truth:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        probability, cam = model(x), teacher(x).cam
        refined = refine(x, label_map(cam, mask.shape, norm), rule)
        marks = plane(probability) >= MARKED
        hidden = torch.from_numpy(widen(marks, WIDER_PX))[None, None].float()
        target = reconstructor.encoder.normalize(x)
        painted = reconstructor.decode(reconstructor.encode(x).feature, 1 - hidden)
        maps = {
            "model: mean probability": probability,
            "model: size of the place": None,
            "darkness": darkness(x, rule.darkness),
            "classifier: CAM": crack_map(cam, mask.shape, norm),
            "classifier: refined CAM": refined,
            "reconstructor: error of painting": (painted - target).abs().mean(1, keepdim=True),
            "reconstructor: painted too bright": (painted - target).mean(1, keepdim=True),
        }
        near_crack = distance_to(mask) <= TRUE_WITHIN_PX
        judges = {name: judge_of(each) for name, each in maps.items()}
        for place in places_of(marks):
            judged.add(place, near_crack, judges)
        weak = {f"model from {t:g} on": plane(probability) >= t for t in WEAK}
        found = {"refined CAM": plane(refined) >= MARKED, **weak}
        for name, each in found.items():
            filled.setdefault(name, Filled()).add(each, marks, mask)
    return judged, filled


def judge_of(values: Tensor | None) -> Judge:
    """Return the mean of a map (1, 1, H, W) over a place; None: the place's size."""
    if values is None:
        return lambda place: float(place.sum())
    of_pixels = plane(values)
    return lambda place: float(of_pixels[place].mean())


def roads(given: argparse.Namespace) -> Iterator[Truth]:
    """Read the pictures without a crack that the set does not learn from."""
    learned = sources_learned(given.data)
    for stem, path in list_images(given.road).items() if given.road else ():
        if stem not in learned:
            image = read_rgb(path)
            yield whole_cells(image, np.zeros(image.shape[:2], np.bool_))


def places_of(marks: Mask) -> Iterator[Mask]:
    """Give each 8-connected place of at least PLACE_PX pixels as a mask."""
    count, label, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8))
    for k in range(1, count):
        if stats[k, cv2.CC_STAT_AREA] >= PLACE_PX:
            yield np.asarray(label == k)


def area_under_roc(figures: Sequence[float], true: Sequence[bool]) -> float:
    """Return how often a true place has a higher figure than a false one; ties count half.

    Both kinds must be there.

    >>> area_under_roc([0.9, 0.4, 0.4], [True, True, False])
    0.75
    """
    values, right = np.asarray(figures), np.asarray(true)
    above, below = values[right][:, None], values[~right][None]
    return float((above > below).mean() + (above == below).mean() / 2)


def distance_to(mask: Mask) -> Map:
    """Return how many pixels it is to the nearest of a mask; as far as it goes if it is empty."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def widen(mask: Mask, by: int) -> Mask:
    """Grow a mask by a number of pixels."""
    return np.asarray(distance_to(mask) <= by)


def plane(values: Tensor) -> Map:
    """Return (1, 1, H, W) as (H, W)."""
    return np.asarray(values[0, 0].numpy(), np.float32)


if __name__ == "__main__":
    main()
