"""`wpcrack evaluate`: the scores of a trained model on photographs with masks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geo.outputs import require_replaceable
from jobs.evaluate.report import Evaluation, Panels, best_and_worst, draw_sheet
from jobs.runtime.memory import Memory, require_memory
from jobs.runtime.pictures import PROGRAM_BYTES, require_room, write_picture
from jobs.runtime.terminal import USER_ERRORS
from wpcrack.data.images import Pair, left_out, list_images, pair, read_rgb
from wpcrack.data.manifest import Row, read_manifest
from wpcrack.data.masks import check_masks, read_pair
from wpcrack.errors import ConfigError, DataError, first_few
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine, WindowPredictor, predict_image
from wpcrack.model import find_model
from wpcrack.scoring.metrics import iou
from wpcrack.scoring.scores import ScoreBoard

RESIZED_PX_BYTES = 6
"""Memory for a pixel of the resized square while it is scored; measured: 5.2."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What to score.

    Attributes:
        model: run folder, or its model/ folder.
        images: folder of photographs, scored at their own size.
        masks: folder of masks of the same stems, with or without `_mask`.
        manifest: score only source images of one split of this manifest.csv.
        split: that split, val if not given.
        resize: also score prediction and truth resized to N x N after prediction.
        road: folder of photographs without any crack, scored by fp_area_share.
        threshold: of the 8-bit probability / 255.
        figure: PNG file for a picture of the best and the worst images.
        lattice: windows for images too large for one.
        engine: what computes the network.
        mask_values: what in the masks is crack; nothing: what is white.
    """

    model: Path | None
    images: Path
    masks: Path
    manifest: Path | None = None
    split: Literal["train", "val"] | None = None
    resize: int | None = None
    road: Path | None = None
    threshold: float = DEFAULT_THRESHOLD
    figure: Path | None = None
    lattice: Lattice = field(default_factory=Lattice)
    engine: Engine = "auto"
    mask_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < 1:
            raise ConfigError(f"resize is {self.resize}; give a number of pixels, 1 or more")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; give a number above 0, at most 1")
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise ConfigError(f"figure is {self.figure}; give the name of a PNG file")


def run_evaluate(options: EvaluateOptions, predictor: WindowPredictor | None = None) -> Evaluation:
    """Predict, score, and draw the figure if one is asked for.

    Args:
        options: what to score.
        predictor: takes the model's place, for tests.

    Raises:
        WpcrackError: a missing model, a defect of the images, masks or manifest, or an image or
            resized square that does not fit into memory.
    """
    if predictor is None:
        find_model(options.model)
    _require_figure_apart(options)
    require_resize(options.resize)
    selection = select(options)
    for path in (*(each.image for each in selection.pairs), *selection.roads):
        require_room(path)
    check_masks(selection.pairs)
    for path in selection.roads:
        read_rgb(path)
    predictor = predictor or load_predictor(options.model, options.engine)
    started = time.perf_counter()
    board = score_selection(selection, predictor, options)
    scores, seconds = board.scores(), time.perf_counter() - started
    error = None
    if options.figure is not None:
        try:
            require_replaceable([options.figure])  # edited meanwhile?
            _draw(options.figure, board, selection, predictor, options)
        except USER_ERRORS as problem:  # which costs the picture, not the scores
            error = problem
    folders = [folder for folder in (options.images, options.road) if folder]
    notes = [selection.note, *(text for folder in folders for text in left_out(folder))]
    note = "; ".join(filter(None, notes)) or None
    return Evaluation(scores, options.resize, seconds, note, error)


def require_resize(side: int | None, has: Memory | None = None) -> None:
    """Refuse a square that this machine cannot score in its memory.

    Args:
        side: of the square in pixels; None: nothing is resized.
        has: None: what this machine has.

    Raises:
        ConfigError: it does not fit.
    """
    if side is not None:
        needed = side * side * RESIZED_PX_BYTES + PROGRAM_BYTES
        require_memory(needed, f"--resize {side}", "give a smaller number, such as 256", has)


def _require_figure_apart(options: EvaluateOptions) -> None:
    """Refuse a figure in a folder of photographs or masks, where it would be one the next time.

    Raises:
        ConfigError: it would lie there.
    """
    for folder in filter(None, (options.images, options.masks, options.road)):
        if options.figure is not None and options.figure.parent.resolve() == folder.resolve():
            raise ConfigError(
                f"figure {options.figure} would lie in {folder}, where it would be taken for a "
                "picture the next time; choose another folder"
            )


def score_selection(
    selection: Selection, predictor: WindowPredictor, options: EvaluateOptions
) -> ScoreBoard:
    """Predict and score each image; of the options threshold, resize and lattice matter."""
    board = ScoreBoard(threshold=options.threshold, resize=options.resize)
    for each in selection.pairs:
        image, truth = read_pair(each)
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
    """Draw the figure; its few images are predicted again, as keeping all takes too much memory."""
    pairs = {pair.stem: pair for pair in selection.pairs}
    rows = []
    for kind, images in zip(("best", "worst"), best_and_worst(board.images), strict=True):
        for rank, scored in enumerate(images, 1):
            image, truth = read_pair(pairs[scored.name])
            label = f"{kind} {rank}: {scored.name}, IoU {iou(scored.counts):.3f}"
            probability = predict_image(image, predictor, options.lattice)
            rows.append(Panels(label, image, truth, probability))
    write_picture(file, draw_sheet(rows, options.threshold))


@dataclass(frozen=True)
class Selection:
    """Images with masks, photographs free of cracks, and what the user should know."""

    pairs: tuple[Pair, ...]
    roads: tuple[Path, ...]
    note: str | None = None


def select(options: EvaluateOptions) -> Selection:
    """Choose the images to score.

    With a manifest, sources that gave road windows only and have no mask are crack-free images:
    those of the split that lie in `images` or `road` are scored as such, the others are noted, and
    so are photographs in `road` that the manifest does not know.

    Raises:
        ConfigError: a split without a manifest.
        DataError: files that do not pair up, or a manifest that does not belong to these images.
    """
    roads = {} if options.road is None else list_images(options.road)
    if options.manifest is None:
        if options.split is not None:
            raise ConfigError(f"split {options.split} needs a manifest; give --manifest too")
        pairs = pair(options.images, options.masks, mask_values=options.mask_values)
        return Selection(tuple(pairs), tuple(roads.values()))
    rows = [row for row in read_manifest(options.manifest) if row.label]
    cracked = {row.source for row in rows if row.label == "crack"}
    free = {row.source for row in rows} - cracked
    wanted = _sources(rows, options)
    found = pair(options.images, options.masks, unmasked=free, mask_values=options.mask_values)
    pairs = [p for p in found if p.stem in wanted]
    paired = {p.stem for p in pairs}
    absent = (wanted & cracked) - paired
    if absent or not pairs:
        raise DataError(
            f"{options.images} lacks source images of {options.manifest} "
            f"({first_few(absent or wanted)}); give the folders that the set was built from"
        )
    unmasked = (list_images(options.images) | roads).items()
    chosen = {stem: path for stem, path in unmasked if stem in wanted - paired}
    notes = []
    if unseen := wanted - paired - chosen.keys():
        names = first_few(unseen)
        notes.append(f"crack-free images of the split not found: {names}; add --road to score them")
    if unknown := roads.keys() - {row.source for row in rows}:
        notes.append(
            f"photographs of {options.road} that {options.manifest} does not list are left out: "
            f"{first_few(unknown)}; leave out --manifest to score them"
        )
    return Selection(tuple(pairs), tuple(chosen.values()), "; ".join(notes) or None)


def _sources(rows: list[Row], options: EvaluateOptions) -> set[str]:
    split = options.split or "val"
    sources = {row.source for row in rows if row.split == split}
    if not sources:
        raise DataError(
            f"{options.manifest} has no item of the {split} split; give a manifest.csv made by "
            "`wpcrack dataset`"
        )
    return sources
