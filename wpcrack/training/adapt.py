"""Self-training: a model for these roads, from their unlabeled pictures.

In each round a teacher, the model of the round before, labels whole pictures at all its scales:
sure crack, sure road, and a band between that is ignored. A student learns these labels from
windows that are zoomed, recolored and turned; half of its windows are drawn with exact masks, which
anchor the edges: without them cracks grow from round to round. The average of the student's
weights, blended with the first teacher's, is the next teacher; how it fuses the scales is chosen
anew. At the end the last one has to prove that it did not get worse.

The updates of a round are made by `train_path`, in this process or by several that share each batch
(`jobs.adapt.workers`); pictures are labeled, and the result is checked, in this one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wpcrack.config import ModelConfig
from wpcrack.config_block import SEEDS
from wpcrack.data.images import read_rgb
from wpcrack.errors import CheckpointError, DataError
from wpcrack.files import whole_file, whole_folder
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.graph import deliver_graph
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import WindowPredictor, predict_image
from wpcrack.model import CONFIG, MODEL_FOLDER, WEIGHTS, load_model, read_info, save_model
from wpcrack.networks import Networks
from wpcrack.scoring.metrics import mask_at
from wpcrack.training.drawn import STATE, Lesson, Report, kept_step, torch_threads, train_path
from wpcrack.training.drawn_windows import DrawnTrainConfig
from wpcrack.training.fusion import with_fusion
from wpcrack.training.standing import Standing, compare
from wpcrack.training.start import blend
from wpcrack.training.taught_windows import (
    CRACK,
    IGNORED,
    ROAD,
    AdaptConfig,
    Image,
    Label,
    TaughtBatches,
)

REPORT = "report.json"
"""Name of the file with the outcome; written last."""

LONGEST_PX = 1024
"""Of a larger picture a part of this side is taken."""

HELD = 5
"""Every fifth picture is kept for the check."""


Learn = Callable[[DrawnTrainConfig, Networks, Path, Lesson, Report | None], Networks]
"""Trains networks as `train_path` does; the state lies in the folder, where others may read it."""


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
    learn: Learn = train_path,
) -> Adapted:
    """Adapt a model to unlabeled pictures; continue what lies in the folder.

    Args:
        base: Folder of the model to start from.
        pictures: Image files.
        config: How.
        folder: Run folder; the model that is delivered lies in its `model/`.
        report: Called before each round with a line about its labels; what it returns is called
            after every update.
        learn: Makes the updates of a round.

    Raises:
        CheckpointError: A model is unusable, or the folder holds the state of another adaption.
        DataError: A picture cannot be read, or there are fewer than two.
    """
    images = read_pictures(pictures, config)
    kept_updates(base, config, images, folder)  # what is of another adaption is said now
    taught = [image for k, image in enumerate(images) if k % HELD]
    teacher, share, first = base, 0.0, load_model(base).networks.state_dict()
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
        networks = blend(first, learn(rule, networks, place, lesson, tell), config.blend)
        trained = {"on": "unlabeled pictures", "round": number + 1, **_facts(config, images)}
        info = read_info(base).model_copy(update={"trained": trained})
        with torch_threads(config.threads):
            info = with_fusion(info, networks)
        one = networks.shares_encoder  # of two, as some of `wpcrack train`, both are kept
        save_model(place / MODEL_FOLDER, networks, info, predicts_only=one)
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


def kept_updates(base: Path, config: AdaptConfig, images: Sequence[Image], folder: Path) -> int:
    """Return how many updates of an interrupted adaption are done, of all its rounds.

    Raises:
        CheckpointError: A state in the folder is damaged, or belongs to another adaption.
    """
    done, teacher = 0, base
    for number in range(config.rounds):
        if not (teacher / WEIGHTS).is_file():
            break
        place, rule = (
            round_folder(folder, number),
            round_rule(config, read_info(base).model, number),
        )
        done += kept_step(rule, place, _identity(teacher, config, images))
        if number and (place / STATE).is_file():
            _require_blend(teacher, config, folder)
        teacher = place / MODEL_FOLDER
    return done


def _require_blend(teacher: Path, config: AdaptConfig, folder: Path) -> None:
    """Refuse to blend the teacher of a round anew that has begun with it.

    Raises:
        CheckpointError: It was blended otherwise.
    """
    share = read_info(teacher).trained.get("blend", config.blend)
    if share != config.blend:
        raise CheckpointError(
            f"{folder} is in a round whose teacher was made with blend={share:g}, not "
            f"{config.blend:g}; set blend={share:g}, or choose another folder"
        )


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


def round_rule(config: AdaptConfig, model: ModelConfig, number: int) -> DrawnTrainConfig:
    """Return how the student of a round learns."""
    return DrawnTrainConfig(
        seed=(config.seed + number) % SEEDS,
        model=model,
        steps=config.steps,
        batches=(config.batch,),
        encoder_lr=config.encoder_lr,
        head_lr=config.head_lr,
        alarm_weight=config.alarm_weight,
        threads=config.threads,
    )


def _facts(config: AdaptConfig, images: Sequence[Image]) -> dict[str, object]:
    return {
        "pictures": len(images),
        "steps": config.steps,
        "blend": config.blend,
        "seed": config.seed,
    }


def _identity(teacher: Path, config: AdaptConfig, images: Sequence[Image]) -> str:
    """Hash what a round follows from: its teacher, settings and pictures."""
    digest = hashlib.sha256((teacher / WEIGHTS).read_bytes())
    learned = {*AdaptConfig.model_fields} - {"threads", "check", "blend"}  # a job has more fields
    digest.update(config.model_dump_json(include=learned).encode())
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
        part.write_text(json.dumps(asdict(adapted), indent=2) + "\n", encoding="utf-8")
    for place in folder.glob("round-*"):
        shutil.rmtree(place)
