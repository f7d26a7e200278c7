"""How much image-level labels add: accuracy on frames never seen against the number of labels.

Run from the repository root:
    python -m benchmarks.label_curve [--data ../shared/data] [--out FILE] [KEY=VALUE ...]
    python -m benchmarks.label_curve --table      print what is there, compute nothing

A fifth of the frames of a collection is held out. Out of the photographs of the others
`wpcrack windows` cuts a pool, in the order in which it says that labels teach most. The answers are
those of the masks' rule of `wpcrack dataset`; a window that is neither is answered with unsure, and
counts as a label, as it costs a person the same second. `wpcrack train` then starts from the
shipped model with the first 25, 50, 100, 200 of this order, or of a random one, and with all; 0
labels are the shipped model. Masks are used for nothing else.

Every finished training is one line of FILE and never runs again, so the command may be stopped and
repeated at will. KEY=VALUE are settings of `wpcrack train` for all trainings. A training with the
steps of configs/train.yaml takes some 15 minutes on two idle cores, and there are 18 of them;
`--steps 100 30 300` takes a third.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation.results import append_line, read_lines
from benchmarks.machine import machine
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from jobs.label.table import read_table
from jobs.runtime.folder import hold_lock
from jobs.settings.load import load, shipped_configs
from jobs.train.job import TrainJob
from jobs.train.run import run_training
from jobs.windows.cut import WindowsOptions
from jobs.windows.run import run_windows
from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.images import pair
from wpcrack.data.label_rule import BORDER_SHARE, label_windows
from wpcrack.data.manifest import NAME, Label, read_manifest
from wpcrack.data.masks import read_pair
from wpcrack.data.surroundings import AROUND
from wpcrack.errors import ConfigError, DataError, WpcrackError

Order = Literal["ordered", "random"]

COLLECTIONS = ("deepcrack", "crack500", "cracksc")
COUNTS = (25, 50, 100, 200)
"""Labels of a training, beside none and all."""

WINDOW = 128
"""Side of windows in pixels."""


@dataclass(frozen=True)
class Cell:
    """One training and its score; `order` is ordered where it makes no difference."""

    collection: str
    order: Order
    labels: int
    pool: int
    seed: int
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Same key, same figures."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Place:
    """Where the photographs of a collection lie, and what was made of them."""

    images: Path
    masks: Path
    work: Path

    @property
    def held_out(self) -> Path:
        """Return the set whose manifest says which photographs are held out."""
        return self.work / "split"

    @property
    def pool(self) -> Path:
        """Return the folder of the windows that can be labeled."""
        return self.work / "pool"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    options = parse(arguments)
    cells = list(plan(options))
    try:
        if not options.table:
            fill(cells, options)
        print(render(cells, read_lines(options.out)))
    except WpcrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="for every training")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/label_curve/results.jsonl"))
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=COLLECTIONS)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, metavar="N")
    parser.add_argument("--pool", type=int, default=400, help="windows in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=int, nargs=3, metavar=("WARMUP", "ADVERSARIAL", "DETECTOR"), default=None
    )
    parser.add_argument("--table", action="store_true", help="compute nothing")
    return parser.parse_intermixed_args(arguments)


def plan(options: argparse.Namespace) -> Iterator[Cell]:
    """List the cells: the ends of the curve first, then the few labels that matter most."""
    stages = zip(("warmup", "adversarial", "detector"), options.steps or (), strict=False)
    steps = [f"train.steps.{name}={count}" for name, count in stages]
    settings = (*steps, *options.settings)
    for name in options.collections:
        for count in (0, options.pool, *options.counts):
            orders: tuple[Order, ...] = ("ordered", "random")
            for order in orders if 0 < count < options.pool else orders[:1]:
                yield Cell(name, order, count, options.pool, options.seed, settings)


def fill(cells: Sequence[Cell], options: argparse.Namespace) -> None:
    """Compute the cells that have no line yet; a line is on disk before the next cell begins."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    busy = ConfigError(f"another process fills {options.out}; choose another --out")
    with hold_lock(options.out.with_name(f".{options.out.name}.lock"), busy):
        options.out.touch()
        done = read_lines(options.out)
        for cell in cells:
            if cell.key in done:
                continue
            print(f"{cell.collection}, {cell.labels} labels, {cell.order} ...", file=sys.stderr)
            line = {"key": cell.key, **asdict(cell), "machine": machine(), **measure(cell, options)}
            append_line(options.out, line)


def measure(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Train with the labels of a cell; score the photographs that are held out."""
    place = prepare(cell, options)
    counts: Mapping[str, int] = {}
    run: Path | None = None
    if cell.labels:
        root = place.work / cell.key
        counts = Counter(write_labels(place, root, cell))
        run = root / "run"
        base = next(path for path in shipped_configs() if path.stem == "train")
        fixed = [f"data.root={root}", f"run_dir={run}", f"seed={cell.seed}"]
        fixed += ["scaling.num_workers=0", *cell.settings]
        try:
            run_training(load(TrainJob, base, fixed))
        except DataError as error:  # few labels may leave a class out
            return {"answers": dict(counts), "refused": str(error)}
    scored = run_evaluate(
        EvaluateOptions(run, place.images, place.masks, place.held_out / NAME, "val")
    )
    native = asdict(scored.scores.native)
    kept = ("iou", "f1", "f1_tol2", "precision", "recall")
    return {"answers": dict(counts)} | {name: native[name] for name in kept}


def prepare(cell: Cell, options: argparse.Namespace) -> Place:
    """Hold out frames, and cut the pool out of the photographs of the others."""
    folder = options.data / cell.collection
    name = f"{cell.collection}-{cell.pool}-{cell.seed}"
    work = (options.out.with_suffix(".work") / name).absolute()
    place = Place((folder / "images").absolute(), (folder / "masks").absolute(), work)
    if not (place.held_out / NAME).is_file():
        build = BuildOptions(window=WINDOW, seed=cell.seed)
        build_image_level(place.images, place.masks, place.held_out, options=build)
    if not (place.pool / NAME).is_file():
        seen = {row.source for row in read_manifest(place.held_out / NAME) if row.split == "train"}
        shown = work / "photographs"
        shown.mkdir(exist_ok=True)
        for found in pair(place.images, place.masks):
            link = shown / found.image.name
            if found.stem in seen and not link.is_symlink():
                link.symlink_to(found.image)
        cut = WindowsOptions(cell.pool, WINDOW, cell.seed)
        print(run_windows(shown, place.pool, cut).summary(cell.pool), file=sys.stderr)
    return place


def write_labels(place: Place, root: Path, cell: Cell) -> list[str]:
    """Write a set of the first windows of an order, with the answers of the masks' rule.

    Returns:
        The answers: crack, road or unsure.
    """
    root.mkdir(parents=True, exist_ok=True)
    table = read_table(place.pool)
    order = np.arange(len(table.windows))
    if cell.order == "random":
        order = np.random.default_rng(cell.seed).permutation(len(order))
    masks = {found.stem: found for found in pair(place.images, place.masks)}
    labels: dict[str, Label | None] = {}
    for index in order[: cell.labels]:
        window = table.windows[index]
        mask = read_pair(masks[window.source])[1]
        labels[window.file] = answer(mask, window.row, window.col)
        link = root / window.file
        if not link.is_symlink():
            link.symlink_to(place.pool / window.file)
    if not (root / AROUND).is_symlink():
        (root / AROUND).symlink_to(place.pool / AROUND)
    (root / NAME).write_text(table.text(labels), encoding="utf-8")
    return [label or "unsure" for label in labels.values()]


def answer(mask: NDArray[np.bool_], row: int, col: int, side: int = WINDOW) -> Label | None:
    """Return what the rule of `wpcrack dataset` says of a window; None: neither.

    Args:
        mask: (H, W) of the photograph.
        row: first row of the window.
        col: its first column.
        side: of the window in pixels.
    """
    if len(label_windows(mask[row : row + side, col : col + side], side).crack):
        return "crack"
    border = int(side * BORDER_SHARE)
    rows = slice(max(row - border, 0), row + side + border)
    cols = slice(max(col - border, 0), col + side + border)
    return None if mask[rows, cols].any() else "road"


def render(cells: Sequence[Cell], lines: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay the curve out; a share is that of the accuracy that all labels reach."""
    rows = [
        f"{'collection':12}{'order':10}{'labels':>7}{'IoU':>8}{'F1':>8}{'F1 2 px':>9}{'share':>8}"
    ]
    whole = {c.collection: lines.get(c.key) for c in cells if c.labels == c.pool}
    for cell in sorted(cells, key=lambda c: (c.collection, c.order, c.labels)):
        line, full = lines.get(cell.key), whole.get(cell.collection)
        if line is None:
            continue
        if "refused" in line:
            where = f"{cell.collection:12}{cell.order:10}{cell.labels:7}"
            rows.append(f"{where}  not trained: {line['refused']}")
            continue
        share = f"{line['iou'] / full['iou']:8.1%}" if full and "iou" in full else f"{'':8}"
        figures = f"{line['iou']:8.3f}{line['f1']:8.3f}{line['f1_tol2']:9.3f}"
        rows.append(f"{cell.collection:12}{cell.order:10}{cell.labels:7}{figures}{share}")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
