"""`wpcrack evaluate` and `wpcrack predict`: a trained model on plain photographs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.evaluate.report import Panels, as_json, best_and_worst, draw_sheet, render
from wpcrack.data.images import (
    Pair,
    list_images,
    pair,
    read_mask,
    read_rgb,
    write_png,
)
from wpcrack.data.manifest import Row, read_manifest
from wpcrack.errors import CheckpointError, ConfigError, DataError, first_few
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import Engine, WindowPredictor, predict_image
from wpcrack.scoring.metrics import iou
from wpcrack.scoring.scores import ScoreBoard

STDOUT = "-"
"""As a file name: print the JSON and nothing else."""

ENDINGS = ("prob", "mask")
"""What the two results of a photograph are called: `<stem>_prob.png` and `<stem>_mask.png`."""

DEFAULT_THRESHOLD = 0.5
"""Of the 8-bit probability / 255."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What to score and where to report.

    Attributes:
        model: run folder, or its model/ folder.
        images: folder of photographs, scored at their own size.
        masks: folder of masks of the same stems, with or without `_mask`.
        manifest: score only source images of one split of this manifest.csv.
        split: that split, val if not given.
        resize: also score prediction and truth resized to N x N after prediction.
        road: folder of photographs without any crack, scored by fp_area_share.
        json: file to write the scores to, "-" for standard output.
        threshold: of the 8-bit probability / 255.
        figure: PNG file for a picture of the best and the worst images.
        lattice: windows for images too large for one.
        engine: what computes the network.
    """

    model: Path
    images: Path
    masks: Path
    manifest: Path | None = None
    split: Literal["train", "val"] | None = None
    resize: int | None = None
    road: Path | None = None
    json: Path | str | None = None
    threshold: float = DEFAULT_THRESHOLD
    figure: Path | None = None
    lattice: Lattice = field(default_factory=Lattice)
    engine: Engine = "auto"

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < 1:
            raise ConfigError(f"resize={self.resize} is no size; give a number of pixels")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold} lies outside (0, 1]")
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise ConfigError(f"figure {self.figure} is no PNG file; let its name end in .png")


def run_evaluate(
    options: EvaluateOptions, predictor: WindowPredictor | None = None
) -> dict[str, object]:
    """Predict, score, print a table, and write JSON if asked to.

    Args:
        options: what to score.
        predictor: takes the model's place, for tests.

    Returns:
        The keys of `evaluate --json`.

    Raises:
        WpcrackError: a missing model, or a defect of the images, masks or manifest.
    """
    inputs = ScoreInputs(
        options.images, options.masks, options.road, options.manifest, options.split
    )
    _require_model(options.model, predictor)
    selection = select(inputs)
    _require_place_for(options.json)
    _require_place_for(options.figure)
    predictor = predictor or _load(options.model, options.engine)
    started = time.perf_counter()
    board = score_selection(selection, predictor, options)
    scores = board.scores()
    seconds = time.perf_counter() - started
    if options.figure is not None:
        _draw(options.figure, board, selection, predictor, options)
    named_scores = as_json(scores, resize=options.resize, seconds=seconds)
    if options.json is not None and str(options.json) == STDOUT:
        print(json.dumps(named_scores, indent=1))
        return named_scores
    print(render(scores, resize=options.resize, seconds=seconds))
    if selection.note:
        print(f"note: {selection.note}")
    if options.json is not None:
        Path(options.json).write_text(json.dumps(named_scores, indent=1) + "\n", encoding="utf-8")
    return named_scores


def score_selection(
    selection: Selection, predictor: WindowPredictor, options: EvaluateOptions
) -> ScoreBoard:
    """Predict and score each image; of the options threshold, resize and lattice matter."""
    board = ScoreBoard(threshold=options.threshold, resize=options.resize)
    for each in selection.pairs:
        image = read_rgb(each.image)
        truth = read_mask(each.mask, image.shape[:2])
        board.add(each.stem, predict_image(image, predictor, options.lattice), truth)
    for path in selection.roads:
        board.add_road(predict_image(read_rgb(path), predictor, options.lattice))
    return board


def _draw(
    file: Path,
    board: ScoreBoard,
    selection: Selection,
    predictor: WindowPredictor,
    options: EvaluateOptions,
) -> None:
    """The few images of the figure are predicted again: keeping all would take too much memory."""
    pairs = {pair.stem: pair for pair in selection.pairs}
    rows = []
    for kind, images in zip(("best", "worst"), best_and_worst(board.images), strict=True):
        for rank, scored in enumerate(images, 1):
            image = read_rgb(pairs[scored.name].image)
            truth = read_mask(pairs[scored.name].mask, image.shape[:2])
            label = f"{kind} {rank}: {scored.name}, IoU {iou(scored.counts):.3f}"
            probability = predict_image(image, predictor, options.lattice)
            rows.append(Panels(label, image, truth, probability))
    write_png(file, draw_sheet(rows, options.threshold))


def _load(model: Path, engine: Engine) -> WindowPredictor:
    from wpcrack.inference.engine import load_predictor

    return load_predictor(model, engine)


def _require_model(model: Path, predictor: WindowPredictor | None) -> None:
    if predictor is None and not model.is_dir():
        raise CheckpointError(f"{model} is no model folder; give the run folder of `wpcrack train`")


def _require_place_for(file: Path | str | None) -> None:
    if file is None or str(file) == STDOUT:
        return
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {path.parent} ({error.strerror}); choose another") from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DataError(f"cannot write {path}; choose a file in a folder that may be written")


# ==== jobs.evaluate.run: Which images `wpcrack evaluate` scores: all pairs, or the held-out sources of a manifest.


@dataclass(frozen=True)
class ScoreInputs:
    """Where truth lies.

    Attributes:
        images: folder of photographs.
        masks: folder of their masks.
        road: folder of photographs that show no crack and have no mask.
        manifest: manifest.csv of a built set; only source images of `split` are scored.
        split: side of the manifest, val if not given.
    """

    images: Path
    masks: Path
    road: Path | None = None
    manifest: Path | None = None
    split: Literal["train", "val"] | None = None


@dataclass(frozen=True)
class Selection:
    """Images with masks, photographs free of cracks, and what the user should know."""

    pairs: tuple[Pair, ...]
    roads: tuple[Path, ...]
    note: str | None = None


def select(inputs: ScoreInputs) -> Selection:
    """Choose the images to score.

    With a manifest, sources that gave road windows only and have no mask are crack-free images:
    those of the split that lie in `images` or `road` are scored as such, the others are noted.

    Raises:
        ConfigError: a split without a manifest.
        DataError: files that do not pair up, or a manifest that does not belong to these images.
    """
    roads = {} if inputs.road is None else list_images(inputs.road)
    if inputs.manifest is None:
        if inputs.split is not None:
            raise ConfigError(f"split {inputs.split} needs a manifest; give --manifest too")
        return Selection(tuple(pair(inputs.images, inputs.masks)), tuple(roads.values()))
    rows = [row for row in read_manifest(inputs.manifest) if row.label]
    cracked = {row.source for row in rows if row.label == "crack"}
    free = {row.source for row in rows} - cracked
    wanted = _sources(rows, inputs)
    pairs = [p for p in pair(inputs.images, inputs.masks, unmasked=free) if p.stem in wanted]
    paired = {p.stem for p in pairs}
    absent = (wanted & cracked) - paired
    if absent or not pairs:
        raise DataError(
            f"{inputs.images} lacks source images of {inputs.manifest} "
            f"({first_few(absent or wanted)}); give the folders that the set was built from"
        )
    unmasked = (list_images(inputs.images) | roads).items()
    chosen = {stem: path for stem, path in unmasked if stem in wanted - paired}
    unseen = wanted - paired - chosen.keys()
    note = (
        f"crack-free images of the split not found: {first_few(unseen)}; add --road to score them"
    )
    return Selection(tuple(pairs), tuple(chosen.values()), note if unseen else None)


def _sources(rows: list[Row], inputs: ScoreInputs) -> set[str]:
    split = inputs.split or "val"
    sources = {row.source for row in rows if row.split == split}
    if not sources:
        raise DataError(
            f"{inputs.manifest} has no item of the {split} split; give a manifest.csv made by "
            "`wpcrack dataset`"
        )
    return sources
