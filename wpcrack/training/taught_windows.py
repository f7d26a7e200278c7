"""What an adaption is asked to learn, and the windows of each of its updates.

Images are (H, W, 3) RGB of uint8, labels (H, W) of ROAD, CRACK and IGNORED.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.utils.data import Dataset

from wpcrack.config import AugmentConfig
from wpcrack.config_block import Block, Count, NonNegative, Positive, Range, Seed, Share
from wpcrack.data.augment import recolor
from wpcrack.errors import CheckpointError
from wpcrack.files import whole_folder
from wpcrack.training.drawn_windows import Windows, WindowShape
from wpcrack.training.standing import CheckConfig
from wpcrack.training.streets import drawn_batches

ROAD, CRACK, IGNORED = 0, 1, 2
"""Values of a label."""

FLIPS = {True: (True, True, True), "horizontal": (False, True, False), False: (False,) * 3}
"""Whether windows are turned upside down, mirrored and transposed, by `augment.flip`."""

AIMED = 0.5
"""Share of a picture's windows that lie around a crack: in a city most show none."""

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

Label = NDArray[np.uint8]
"""(H, W) of ROAD, CRACK and IGNORED."""

Sample = tuple[Image, NDArray[np.bool_], NDArray[np.bool_]]
"""Image, mask, and pixels of which nothing is learned."""


class AdaptConfig(Block):
    """How a model is adapted."""

    seed: Seed = 0
    """Of pictures, windows and augmentation."""
    rounds: Count = 1
    """How often a new teacher labels the pictures. A second round adds nothing on the same roads,
    and costs on others."""
    steps: Count = 300
    """Updates of a round; five to ten minutes on one core."""
    batch: WindowShape = WindowShape(side=128, count=12)
    """Windows of an update."""
    drawn_share: Share = 0.5
    """Share of them that is drawn."""
    crack: Share = 0.65
    """The teacher's probability from which a pixel is crack."""
    road: Share = 0.35
    """Below it a pixel is road; between both it is ignored. Both lie as far from one half: a band
    that reaches lower lets cracks grow from round to round."""
    zoom: Range = (0.8, 1.5)
    """Range of the random zoom of a picture's windows."""
    augment: AugmentConfig = AugmentConfig(fade=0.7, blur_px=1.5, grain=0.08)
    """Random changes of a picture's windows; how they are zoomed says `zoom` alone."""
    encoder_lr: Positive = 4e-5
    """Peak learning rate of the encoder, an eighth of the one that the shipped model was trained
    with. Four times as much unlearns what it knew of other roads."""
    head_lr: Positive = 2e-4
    """Peak learning rate of the detector."""
    alarm_weight: NonNegative = 0.3
    """Of the surest false alarms of each window without a crack, as in the part of `wpcrack
    pretrain` that draws streets: with less, pavement is marked that was not before."""
    blend: Share = 0.5
    """Share of the student's weights in those of the new model; the rest is the model that the
    adaption starts from."""
    pictures: Annotated[int, Field(ge=2)] = 400
    """At most this many pictures, or windows of tiles, are looked at."""
    window: Annotated[int, Field(ge=64, multiple_of=32)] = 384
    """Side in pixels of the windows that are cut out of tiles."""
    threads: Count = 1
    """CPU threads."""
    check: CheckConfig = CheckConfig()
    """What is asked of the result."""

    @model_validator(mode="after")
    def _leaves_a_band(self) -> Self:
        if self.road > self.crack:
            raise ValueError(f"road ({self.road:g}) must not lie above crack ({self.crack:g})")
        return self

    @model_validator(mode="after")
    def _zooms_once(self) -> Self:
        if self.augment.zoom != AugmentConfig().zoom:
            raise ValueError("augment.zoom is for trainings; an adaption zooms as zoom says")
        return self


class TaughtBatches(Dataset[Windows]):
    """Batch k of a round follows from (seed, round, k): drawn windows, and windows of pictures."""

    def __init__(
        self, config: AdaptConfig, number: int, images: Sequence[Image], labels: Sequence[Label]
    ) -> None:
        self.config, self.number = config, number
        self.images, self.labels = images, labels
        self.cracked = [k for k, each in enumerate(labels) if (each == CRACK).any()]
        drawn = round(config.drawn_share * config.batch.count)
        shape = WindowShape(side=config.batch.side, count=max(drawn, 1))
        seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
        self.drawn = drawn_batches(seed, config.steps, shape) if drawn else None

    def __len__(self) -> int:
        """Return the number of updates."""
        return self.config.steps

    def __getitem__(self, step: int) -> Windows:
        """Return the windows of a step; what is ignored stands where drawn ones are faint."""
        drawn = [] if self.drawn is None else [self.drawn[step]]
        count = self.config.batch.count - sum(len(image) for image, _, _ in drawn)
        parts = zip(*(self._window(step, k) for k in range(count)), strict=True)
        cut = [tuple(torch.from_numpy(np.stack(part)) for part in parts)] if count else []
        image, mask, ignored = map(torch.cat, zip(*drawn, *cut, strict=True))
        return image, mask, ignored

    def _window(self, step: int, place: int) -> Sample:
        """Cut a window at random; every other one around a crack, if there are any."""
        rng = np.random.default_rng([self.config.seed, self.number, step, place])
        aimed = bool(self.cracked) and rng.random() < AIMED
        k = int(rng.choice(self.cracked) if aimed else rng.integers(len(self.images)))
        image, labels = self.images[k], self.labels[k]
        config = self.config
        low, high = np.log(config.zoom)
        side = round(config.batch.side / float(np.exp(rng.uniform(low, high))))
        side = min(max(side, 1), *labels.shape)
        corner = np.array([rng.integers(length - side + 1) for length in labels.shape])
        if aimed:
            rows, cols = np.nonzero(labels == CRACK)
            pick = int(rng.integers(len(rows)))
            corner = np.array([rows[pick], cols[pick]]) - rng.integers(side, size=2)
            corner = np.clip(corner, 0, np.array(labels.shape) - side)
        here = tuple(slice(int(first), int(first) + side) for first in corner)
        size = (config.batch.side,) * 2
        flips = (rng.random(3) < 0.5) & np.array(FLIPS[config.augment.flip])
        pixels = cv2.resize(np.ascontiguousarray(image[here]), size, interpolation=cv2.INTER_AREA)
        known = cv2.resize(labels[here], size, interpolation=cv2.INTER_NEAREST)
        turned = [_turn(np.asarray(part, np.uint8), flips) for part in (pixels, known)]
        light = recolor(turned[0], rng, config.augment).transpose(1, 2, 0)
        return np.rint(255 * light).astype(np.uint8), turned[1] == CRACK, turned[1] == IGNORED


def _turn(pixels: NDArray[np.uint8], flips: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flip and transpose a square at random."""
    pixels = pixels[::-1] if flips[0] else pixels
    pixels = pixels[:, ::-1] if flips[1] else pixels
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if flips[2] else pixels)


def keep_taught(folder: Path, images: Sequence[Image], labels: Sequence[Label]) -> None:
    """Write pictures with their labels, as PNGs of four channels, for other processes to read.

    Args:
        folder: to make or to replace.
        images: the pictures.
        labels: of each.

    Raises:
        OSError: The disk does not take them.
    """
    with whole_folder(folder) as part:
        for number, (image, known) in enumerate(zip(images, labels, strict=True)):
            pixels = np.dstack((image[..., ::-1], known))
            data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            (part / f"{number:05d}.png").write_bytes(data.tobytes())


def read_taught(folder: Path) -> tuple[list[Image], list[Label]]:
    """Read what `keep_taught` wrote.

    Raises:
        CheckpointError: Nothing is there, or a file is damaged.
    """
    images, labels = [], []
    for path in sorted(folder.glob("*.png")):
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
            raise CheckpointError(f"{path} is damaged; the same command writes it anew")
        images.append(np.ascontiguousarray(pixels[..., 2::-1]).astype(np.uint8, copy=False))
        labels.append(np.ascontiguousarray(pixels[..., 3]).astype(np.uint8, copy=False))
    if not images:
        raise CheckpointError(f"{folder} holds no picture; the same command writes it anew")
    return images, labels
