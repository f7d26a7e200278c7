"""Self-training: a model for these roads, from their unlabeled pictures.

In each round a teacher, the model of the round before, labels whole pictures at all its scales:
sure crack, sure road, and a band between that is ignored. A student learns these labels from
windows that are zoomed, recolored and turned; half of its windows are drawn with exact masks, which
anchor the edges: without them cracks grow from round to round. The average of the student's weights
is the next teacher; how it fuses the scales is chosen anew. At the end the last one has to prove
that it did not get worse.

It runs in one process without Ray: a quarter of an hour on one core has nothing to spread.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.utils.data import Dataset

from wpcrack.config import AugmentConfig, ModelConfig
from wpcrack.config_block import Block, Count, NonNegative, Positive, Share
from wpcrack.data.augment import recolor
from wpcrack.data.images import read_rgb
from wpcrack.errors import DataError
from wpcrack.files import whole_file, whole_folder
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.graph import deliver_graph
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import WindowPredictor, predict_image
from wpcrack.model import CONFIG, MODEL_FOLDER, WEIGHTS, load_model, read_info, save_model
from wpcrack.scoring.metrics import mask_at
from wpcrack.training.drawn import Lesson, Report, torch_threads, train_path
from wpcrack.training.drawn_windows import DrawnTrainConfig, Windows, WindowShape
from wpcrack.training.fusion import with_fusion
from wpcrack.training.standing import CheckConfig, Standing, compare
from wpcrack.training.streets import drawn_batches

REPORT = "report.json"
"""Name of the file with the outcome; written last."""

ROAD, CRACK, IGNORED = 0, 1, 2
"""Values of a label."""

LONGEST_PX = 1024
"""Of a larger picture a part of this side is taken."""

HELD = 5
"""Every fifth picture is kept for the check."""

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

    seed: Annotated[int, Field(ge=0)] = 0
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
    zoom: tuple[Positive, Positive] = (0.8, 1.5)
    """Range of the random zoom of a picture's windows."""
    augment: AugmentConfig = AugmentConfig(fade=0.7, blur_px=1.5, grain=0.08)
    """Random changes of a picture's windows."""
    encoder_lr: Positive = 4e-5
    """Peak learning rate of the encoder, an eighth of the one that the shipped model was trained
    with. Four times as much unlearns what it knew of other roads."""
    head_lr: Positive = 2e-4
    """Peak learning rate of the detector."""
    alarm_weight: NonNegative = 0.3
    """Of the surest false alarms of each window without a crack, as in the part of `wpcrack
    pretrain` that draws streets: with less, pavement is marked that was not before."""
    pictures: Annotated[int, Field(ge=2)] = 400
    """At most so many pictures, or windows of tiles, are looked at."""
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


@dataclass(frozen=True)
class Adapted:
    """What came out.

    Attributes:
        is_better: Whether the adapted model is delivered; else the one that it started from.
        reasons: Why it is not.
        before: The model that it started from.
        after: The adapted model.
        agreement: IoU of their masks on pictures held out.
        pictures: How many were looked at.
        crack_share: Of the pixels of the last labels that count as crack.
    """

    is_better: bool
    reasons: tuple[str, ...]
    before: Standing
    after: Standing
    agreement: float
    pictures: int
    crack_share: float

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Adapted:
        """Undo `asdict`.

        Raises:
            LookupError, TypeError, ValueError: These are no such values.
        """
        before, after = (
            Standing(float(values[name]["iou"]), float(values[name]["false_share"]))
            for name in ("before", "after")
        )
        return cls(
            is_better=bool(values["is_better"]),
            reasons=tuple(map(str, values["reasons"])),
            before=before,
            after=after,
            agreement=float(values["agreement"]),
            pictures=int(values["pictures"]),
            crack_share=float(values["crack_share"]),
        )


def adapt(
    base: Path,
    pictures: Sequence[Path],
    config: AdaptConfig,
    folder: Path,
    report: Callable[[str], Report] | None = None,
) -> Adapted:
    """Adapt a model to unlabeled pictures; continue what lies in the folder.

    Args:
        base: Folder of the model to start from.
        pictures: Image files.
        config: How.
        folder: Run folder; the model that is delivered lies in its `model/`.
        report: Called before each round with a line about its labels; what it returns is called
            after every update.

    Raises:
        CheckpointError: A model is unusable, or the folder holds the state of another adaption.
        DataError: A picture cannot be read, or there are fewer than two.
    """
    images = read_pictures(pictures, config)
    taught = [image for k, image in enumerate(images) if k % HELD]
    teacher, share = base, 0.0
    for number in range(config.rounds):
        place = round_folder(folder, number)
        predictor = load_predictor(teacher, threads=config.threads)
        labels = [label(image, predictor, config) for image in taught]
        share = float(np.mean([(each == CRACK).mean() for each in labels]))
        tell = None
        if report is not None:
            tell = report(f"round {number + 1} of {config.rounds}: {share:.2%} sure crack")
        networks = load_model(teacher).networks
        lesson = Lesson(
            TaughtBatches(config, number, taught, labels), _identity(teacher, config, images)
        )
        rule = round_rule(config, networks.config, number)
        networks = train_path(rule, networks, place, lesson, tell)
        trained = {"on": "unlabeled pictures", "round": number + 1, **_facts(config, images)}
        info = read_info(base).model_copy(update={"trained": trained})
        with torch_threads(config.threads):
            info = with_fusion(info, networks)
        save_model(place / MODEL_FOLDER, networks, info, predicts_only=True)
        teacher = place / MODEL_FOLDER
    found = compare(base, teacher, images[::HELD], config.check, config.threads)
    adapted = Adapted(
        is_better=not found.objections,
        reasons=found.objections,
        before=found.before,
        after=found.after,
        agreement=found.agreement,
        pictures=len(images),
        crack_share=share,
    )
    _deliver(teacher if adapted.is_better else base, folder, adapted)
    return adapted


def round_folder(folder: Path, number: int) -> Path:
    """Return where a round keeps its state and its model until the end."""
    return folder / f"round-{number}"


# -- pictures and their labels -----------------------------------------------------------------


def read_pictures(paths: Sequence[Path], config: AdaptConfig) -> list[Image]:
    """Read pictures, or a seeded choice of many; of a large one a part.

    Raises:
        DataError: One cannot be read, or there are fewer than two.
    """
    rng = np.random.default_rng([config.seed, 0])
    images = []
    for path in choose_pictures(paths, config, rng):
        image = read_rgb(path)
        row, col = (int(rng.integers(max(side - LONGEST_PX, 0) + 1)) for side in image.shape[:2])
        part = image[row : row + LONGEST_PX, col : col + LONGEST_PX]
        images.append(part.copy())  # a view would keep the whole of each
    return images


def choose_pictures(
    paths: Sequence[Path], config: AdaptConfig, rng: np.random.Generator | None = None
) -> list[Path]:
    """Return the pictures that are looked at, in their order.

    Args:
        paths: of all.
        config: how many, and the seed of the choice.
        rng: of that seed; what else is drawn follows from it.

    Raises:
        DataError: There are fewer than two.
    """
    if len(paths) < 2:
        raise DataError(f"pictures to learn from: {len(paths)}; give at least 2")
    rng = rng or np.random.default_rng([config.seed, 0])
    return [paths[k] for k in sorted(rng.permutation(len(paths))[: config.pictures].tolist())]


def label(image: Image, teacher: WindowPredictor, config: AdaptConfig) -> Label:
    """Return (H, W) of CRACK, ROAD and IGNORED."""
    probability = predict_image(image, teacher, Lattice())
    labels = np.full(probability.shape, IGNORED, np.uint8)
    labels[mask_at(probability, config.crack)] = CRACK
    labels[~mask_at(probability, config.road)] = ROAD
    return labels


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
        side = min(side, *labels.shape)
        corner = np.array([rng.integers(length - side + 1) for length in labels.shape])
        if aimed:
            rows, cols = np.nonzero(labels == CRACK)
            pick = int(rng.integers(len(rows)))
            corner = np.array([rows[pick], cols[pick]]) - rng.integers(side, size=2)
            corner = np.clip(corner, 0, np.array(labels.shape) - side)
        here = tuple(slice(int(first), int(first) + side) for first in corner)
        size, flips = (config.batch.side,) * 2, rng.random(3) < 0.5
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


def round_rule(config: AdaptConfig, model: ModelConfig, number: int) -> DrawnTrainConfig:
    """Return how the student of a round learns."""
    return DrawnTrainConfig(
        seed=config.seed + number,
        model=model,
        steps=config.steps,
        batches=(config.batch,),
        encoder_lr=config.encoder_lr,
        head_lr=config.head_lr,
        alarm_weight=config.alarm_weight,
        threads=config.threads,
    )


def _facts(config: AdaptConfig, images: Sequence[Image]) -> dict[str, object]:
    return {"pictures": len(images), "steps": config.steps, "seed": config.seed}


def _identity(teacher: Path, config: AdaptConfig, images: Sequence[Image]) -> str:
    """Hash what a round follows from: its teacher, settings and pictures."""
    digest = hashlib.sha256((teacher / WEIGHTS).read_bytes())
    digest.update(config.model_dump_json(exclude={"threads", "check"}).encode())
    for image in images:
        digest.update(image.tobytes())
    return digest.hexdigest()


def _deliver(source: Path, folder: Path, adapted: Adapted) -> None:
    """Put a model into the run folder, then the report; the rounds are needed no more."""
    with whole_folder(folder / MODEL_FOLDER) as part:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(source / name, part / name)
    deliver_graph(folder / MODEL_FOLDER)
    with whole_file(folder / REPORT) as part:
        part.write_text(json.dumps(asdict(adapted), indent=1) + "\n", encoding="utf-8")
    for place in folder.glob("round-*"):
        shutil.rmtree(place)
