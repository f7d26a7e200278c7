"""Run one cell of the ablation: train on image-level labels, score on held-out source images.

In one process, without Ray. What is expensive and common to cells - the cut windows of a
collection, the warm classifier of a seed - lies in the work folder and is made once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ablation.cells import Cell, Collection, Workplace, digest
from geo.files import whole_file
from jobs.evaluate.report import Evaluation
from jobs.evaluate.run import EvaluateOptions, score_selection, select
from wpcrack.config import MethodConfig
from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.read import ImageLevelSet, read_image_level
from wpcrack.errors import DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import WindowPredictor
from wpcrack.labels.cam import label_map
from wpcrack.labels.pseudo_label import refine
from wpcrack.model import ModelInfo, save_model
from wpcrack.networks import Classifier
from wpcrack.training.fusion import with_fusion
from wpcrack.training.trainer import Position, Trainer

HELD_OUT, SPLIT_SEED = 0.2, 0

AFTER_WARMUP = (
    "losses",
    "erase",
    "pseudo_label",
    "model.paam",
    "model.detector",
    "model.detector_channels",
    "model.decoder",
    "model.decoder_widths",
    "model.decoder_stride",
    "model.recon_channels",
    "train.steps.adversarial",
    "train.steps.detector",
    "train.detector_ema",
    "train.one_encoder",
)
"""What the warm classifier does not depend on; cells that differ elsewhere get their own."""


@dataclass(frozen=True)
class Sources:
    """Folders of one collection, and its cut windows."""

    images: Path
    masks: Path
    road: Path | None
    windows: Path


def run_cell(cell: Cell, place: Workplace) -> dict[str, Any]:
    """Train and score a cell.

    Returns:
        seconds and cpu_seconds (without the warm classifier, which cells share) and `scores`, the
        keys of `evaluate --json`.

    Raises:
        DataError: the collection is not there, or has a defect.
    """
    torch.set_num_threads(place.threads)
    sources = prepare(cell.collection, place)
    data = read_image_level(sources.windows)
    warm, trainer = warm_state(cell, data, place.work), Trainer(cell.config, data)
    started, cpu = time.perf_counter(), time.process_time()
    continue_from(trainer, warm)
    with TemporaryDirectory(dir=place.work) as folder:
        if cell.trained:
            for _ in trainer.epochs():
                pass
            delivered = trainer.learner.delivered
            info = ModelInfo(model=cell.config.model, **trainer.learner.start.looks)
            save_model(Path(folder), delivered, with_fusion(info, delivered))
            predictor: WindowPredictor = load_predictor(Path(folder), threads=place.threads)
        else:
            predictor = RefinedMap(trainer.learner.teacher, cell.config)
        scores = score(predictor, cell, sources)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "scores": scores,
    }


def prepare(collection: Collection, place: Workplace) -> Sources:
    """Cut the windows of a collection, once.

    Raises:
        DataError: the collection is not there, or cannot be cut.
    """
    root = place.data / collection.name
    names = ("images", "masks", "road") if collection.has_road else ("images", "masks")
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        raise DataError(
            f"{root} lacks {' and '.join(f'{name}/' for name in missing)}; "
            "give the folder of the collections with --data"
        )
    road = root / "road" if collection.has_road else None
    options = BuildOptions(window=collection.window, val=HELD_OUT, seed=SPLIT_SEED, road=road)
    windows = place.work / f"{collection.name}-{collection.window}"
    if not windows.is_dir():  # appears only when complete
        place.work.mkdir(parents=True, exist_ok=True)
        build_image_level(root / "images", root / "masks", windows, options=options)
    return Sources(root / "images", root / "masks", road, windows)


def warm_state(cell: Cell, data: ImageLevelSet, work: Path) -> dict[str, Any]:
    """Return the classifier after warmup, its teacher and optimizer; all cells alike share it."""
    kept = without(cell.config.model_dump(mode="json"), AFTER_WARMUP)
    name = f"warm-{cell.collection.name}-{cell.config.seed}"
    file = work / f"{name}-{digest(asdict(cell.collection), kept)}.pt"
    if not file.is_file():
        steps = cell.config.train.steps.model_copy(update={"adversarial": 0, "detector": 0})
        train = cell.config.train.model_copy(update={"steps": steps})
        trainer = Trainer(cell.config.model_copy(update={"train": train}), data)
        position = vars(trainer.position).copy()
        for _ in trainer.epochs():
            position = vars(trainer.position).copy()
        state = {
            "classifier": trainer.nets.classifier.state_dict(),
            "teacher": trainer.learner.teacher.state_dict(),
            "optimizer": trainer.learner.optimizers.classifier.state_dict(),
            "position": position,
        }
        with whole_file(file) as temporary:
            torch.save(state, temporary)
    loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return loaded


def continue_from(trainer: Trainer, warm: Mapping[str, Any]) -> None:
    """Put a run where it would be after its own warmup: nothing else has learned by then."""
    trainer.nets.classifier.load_state_dict(warm["classifier"])
    trainer.learner.teacher.load_state_dict(warm["teacher"])
    trainer.learner.optimizers.classifier.load_state_dict(warm["optimizer"])
    trainer.position = Position(**warm["position"])


class RefinedMap:
    """Scores the refined map of a classifier in the detector's place.

    The threshold `pseudo_label.cam_crack` is moved to 0.5, where all rows are cut.
    """

    def __init__(self, classifier: Classifier, config: MethodConfig) -> None:
        self.classifier, self.config = classifier.eval(), config

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Turn windows (N, H, W, 3) uint8 RGB into 1 where crack, else 0, (N, H, W) float32."""
        image = torch.tensor(windows).permute(0, 3, 1, 2).float() / 255
        size = (image.shape[-2], image.shape[-1])
        cam = self.classifier(image).cam
        rule = self.config.pseudo_label
        refined = refine(image, label_map(cam, size, self.config.model.cam_norm), rule)
        crack: NDArray[np.float32] = (refined[:, 0] >= rule.cam_crack).float().numpy()
        return crack


def score(predictor: WindowPredictor, cell: Cell, sources: Sources) -> dict[str, object]:
    """Score on the held-out source images, whole, as `wpcrack evaluate --manifest --split val`."""
    options = EvaluateOptions(
        model=sources.windows,  # not read: the predictor is given
        images=sources.images,
        masks=sources.masks,
        manifest=sources.windows / "manifest.csv",
        split="val",
        road=sources.road,
        resize=cell.collection.resize,
        lattice=Lattice(),
    )
    started = time.perf_counter()
    board = score_selection(select(options), predictor, options)
    seconds = round(time.perf_counter() - started, 1)
    return Evaluation(board.scores(), cell.collection.resize, seconds).values()


def without(values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return nested settings without some dotted keys."""
    nested = {k.partition(".")[0]: [] for k in keys if "." in k}
    for key in keys:
        head, _, rest = key.partition(".")
        if rest:
            nested[head].append(rest)
    return {
        k: without(v, tuple(nested[k])) if k in nested else v
        for k, v in values.items()
        if k not in keys
    }
