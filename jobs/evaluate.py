"""`wpcrack evaluate` and `wpcrack predict`: a trained model on plain photographs."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from jobs.score_figure import Panels, best_and_worst, draw_sheet
from jobs.score_inputs import ScoreInputs, Selection, select
from jobs.score_table import as_json, render
from wpcrack.errors import CheckpointError, ConfigError, DataError
from wpcrack.image_folders import NAMED_AT_MOST, named
from wpcrack.images import read_mask, read_rgb, write_png
from wpcrack.lattice import Lattice
from wpcrack.metrics import iou, predicted_at
from wpcrack.predict import Engine, WindowPredictor, predict_image
from wpcrack.scores import ScoreBoard

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


def run_predict(
    model: Path,
    out: Path,
    images: Sequence[Path],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    engine: Engine = "auto",
    predictor: WindowPredictor | None = None,
) -> list[Path]:
    """Write `<stem>_prob.png` (8 bit) and `<stem>_mask.png` (0 / 255) of each photograph to `out`.

    Photographs that cannot be read are named in one error after all others were delivered.

    Args:
        model: run folder, or its model/ folder.
        out: folder, made if need be.
        images: files with distinct stems.
        threshold: of the 8-bit probability / 255.
        engine: what computes the network.
        predictor: takes the model's place, for tests.

    Returns:
        The files written.

    Raises:
        WpcrackError: a missing model, equal stems, missing or unreadable images, or `out` cannot be
            written.
    """
    _require_model(model, predictor)
    _require_distinct(images, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {out} ({error.strerror}); choose another folder") from error
    if not os.access(out, os.W_OK):
        raise DataError(
            f"{out} may not be written; choose another folder or change its permissions"
        )
    predictor = predictor or _load(model, engine)
    written: list[Path] = []
    failures: list[DataError] = []
    for path in images:
        try:
            image = read_rgb(path)
        except DataError as error:
            failures.append(error)
            continue
        probability = predict_image(image, predictor, Lattice())
        mask = predicted_at(probability, threshold).astype(np.uint8) * 255
        for array, ending in zip((probability, mask), ENDINGS, strict=True):
            written.append(out / f"{path.stem}_{ending}.png")
            write_png(written[-1], array)
        print(f"{path.name}: {np.count_nonzero(mask) / mask.size:.2%} crack -> {written[-1]}")
    if failures:
        others = f"; the other {len(images) - len(failures)} are in {out}" if written else ""
        raise DataError(f"{'; '.join(str(error) for error in failures[:NAMED_AT_MOST])}{others}")
    return written


def score_selection(
    selection: Selection, predictor: WindowPredictor, options: EvaluateOptions
) -> ScoreBoard:
    """Predict and score each image; of the options threshold, resize and lattice matter."""
    board = ScoreBoard(threshold=options.threshold, resize=options.resize)
    for pair in selection.pairs:
        image = read_rgb(pair.image)
        truth = read_mask(pair.mask, image.shape[:2])
        board.add(pair.stem, predict_image(image, predictor, options.lattice), truth)
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
    from wpcrack.engine import load_predictor  # brings torch: not before inputs are checked

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


def _require_distinct(images: Sequence[Path], out: Path) -> None:
    if not images:
        raise DataError("no image is given; name at least one")
    equal = [stem for stem, times in Counter(path.stem for path in images).items() if times > 1]
    if equal:
        first = " and ".join(str(path) for path in images if path.stem == equal[0])
        raise DataError(
            f"images of equal stem would overwrite each other's result ({first}); rename one or "
            "predict them into different folders"
        )
    results = {
        (out / f"{path.stem}_{ending}.png") for path in images for ending in ("prob", "mask")
    }
    hit = [str(path) for path in images if path.resolve() in results]
    if hit:
        raise DataError(f"the results would overwrite {named(hit)}; choose another output folder")
