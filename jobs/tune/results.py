"""What a sweep leaves: results.csv, best.yaml for `wpcrack train`, and a picture of it all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geo.addresses import all_without_secrets
from geo.files import write_text
from jobs.runtime.folder import explain_damage
from jobs.runtime.pictures import write_picture
from jobs.train.folder import ANEW
from jobs.tune.folder import BEST, JOURNAL, RESULTS, Trial
from jobs.tune.job import Dimension, Space, TuneJob
from wpcrack.training.selection import MASKED_IOU

DIGITS = 6
"""Of numbers in the table."""

SHUFFLES = 999
FEWEST = 5
"""Below this many scored trials nothing is said."""
CHANCE = 0.05
"""A setting whose strength is reached by more than this share of shuffles may be chance."""

WIDTH, MARGIN, PLOT_HEIGHT, ROW = 1000, 70, 340, 26
BAR_LEFT, BAR_WIDTH = 330, 520
FONT_SIZE = 15
GREEN, ORANGE, PINK, GRAY = (0, 158, 115), (230, 159, 0), (204, 121, 167), (150, 150, 150)
"""Of the palette of Okabe and Ito, told apart by color-blind readers too."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_results(root: Path, job: TuneJob, space: Space, trials: Sequence[Trial]) -> None:
    """Write both files, each as a whole."""
    write_text(root / RESULTS, results_csv(space.keys, job.seed, trials))
    best = best_trial(trials)
    if best is not None:
        with explain_damage(root / JOURNAL, ANEW):  # it says which settings a trial had
            text = best_yaml(job, space, best)
        write_text(root / BEST, text)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the highest score; of equals the first. Failed trials do not count."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def results_csv(keys: Sequence[str], seed: int, trials: Sequence[Trial]) -> str:
    """Return a row per trial: status, scores of its best epoch, settings, all scores, error.

    `score` is the objective: val_iou where there is a masked validation set, else label_free.
    Lists are JSON; `score_per_epoch` has the epochs after the warm-up stage.
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    scores = ("score", "label_free", "val_iou")
    lengths, ends = ("best_epoch", "epochs", "seconds", "seed"), ("score_per_epoch", "error")
    table.writerow(["trial", "status", *scores, *lengths, *keys, *ends])
    for trial in trials:
        params = [as_text(trial.params[key]) if key in trial.params else "" for key in keys]
        table.writerow(
            [trial.number, trial.status]
            + [as_text(getattr(trial, name)) for name in scores]
            + [trial.best["epoch"] if trial.best else "", len(trial.lines)]
            + [f"{trial.seconds:.1f}", trial.params.get("seed", seed), *params]
            + [json.dumps([round(v, DIGITS) for v in trial.values]), trial.error]
        )
    return file.getvalue()


def as_text(value: Any) -> str:
    """Return a cell: numbers short, nothing for None, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return value if isinstance(value, str) else json.dumps(value)


def best_yaml(job: TuneJob, space: Space, best: Trial) -> str:
    """Return a config of `wpcrack train`: what differs from its defaults, with the best settings.

    Its run folder lies beside the sweep's, so the file can be trained from as it is.
    """
    run_dir = job.run_dir.absolute()
    beside = str(run_dir.with_name(f"{run_dir.name}-best"))
    training = space.job(best.params, run_dir=beside, resume="auto")
    values = training.absolute().model_dump(mode="json", exclude_defaults=True)
    steps = training.train.steps.model_dump()  # `wpcrack train` has others where none are given
    values["train"] = values.get("train", {}) | {"steps": steps}
    by = "IoU on the masked validation set" if best.val_iou is not None else "label-free score"
    head = (
        f"# Trial {best.number} of the sweep in {job.run_dir}: {by} {best.score:.4f} after "
        f"{len(best.lines)} epochs,\n# with the sweep's own train.steps; selected on that score. "
        "Run: wpcrack train FILE\n"
    )
    return head + yaml.safe_dump(all_without_secrets(values), sort_keys=False)


def objective_name(trials: Sequence[Trial]) -> str:
    """Name what `score` is, for pictures and reports."""
    masked = any(MASKED_IOU in line for trial in trials for line in trial.lines)
    return "IoU on the masked validation set" if masked else "label-free score"


# -- which settings go with a high score: rank correlation, honest for few trials -----------------


@dataclass(frozen=True)
class Importance:
    """How a setting goes with the score over the trials of a sweep.

    Attributes:
        key: dotted name.
        strength: of a number |Spearman's rank correlation|; of a choice without an order the
            correlation ratio eta of the score's ranks; both in [0, 1].
        sign: +1 if larger values go with higher scores, -1 if lower, 0 without an order.
        p: share of random shuffles of the scores that reach this strength.
    """

    key: str
    strength: float
    sign: int
    p: float

    @property
    def is_clear(self) -> bool:
        """Unlikely to be chance."""
        return self.p <= CHANCE


def importances(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> list[Importance]:
    """Rank the settings, strongest first; empty for fewer than FEWEST scored trials.

    Trials that were stopped early count with what they had reached.
    """
    keys = {d.key for d in dimensions}  # which trials of another space, before resume=force, lack
    scored = [t for t in trials if t.score is not None and keys <= t.params.keys()]
    if len(scored) < FEWEST:
        return []
    ranks = pd.Series([t.score for t in scored]).rank().to_numpy()
    found = [importance(d.key, [t.params[d.key] for t in scored], ranks) for d in dimensions]
    return sorted(found, key=lambda one: -one.strength)


def importance(key: str, values: Sequence[Any], ranks: NDArray[np.float64]) -> Importance:
    """Measure one setting, with a permutation test.

    Args:
        key: of the setting.
        values: (N,) numbers, or anything for a choice without an order.
        ranks: (N,) of the scores.
    """
    rng = np.random.default_rng(0)
    ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    names = [repr(v) for v in values]
    if len(set(names)) < 2:
        return Importance(key, 0.0, 0, 1.0)
    x = pd.Series(values).rank().to_numpy() if ordered else np.unique(names, return_inverse=True)[1]
    strength = abs(correlation(x, ranks)) if ordered else eta(x, ranks)
    shuffled = (rng.permutation(ranks) for _ in range(SHUFFLES))
    chance = [abs(correlation(x, r)) if ordered else eta(x, r) for r in shuffled]
    reached = 1 + sum(value >= strength - 1e-12 for value in chance)
    sign = int(np.sign(correlation(x, ranks))) if ordered else 0
    return Importance(key, strength, sign, reached / (SHUFFLES + 1))


def correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return Pearson's correlation, of ranks Spearman's; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


def eta(groups: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the square root of the share of y's variance between groups."""
    total = float(((y - y.mean()) ** 2).sum())
    sizes = np.bincount(groups)
    means = np.bincount(groups, weights=y) / np.maximum(sizes, 1)
    between = float((sizes * (means - y.mean()) ** 2).sum())
    return float(np.sqrt(between / total)) if total else 0.0


# -- the picture -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axes:
    """Where trials and scores lie in the picture."""

    last: int
    low: float
    high: float

    @classmethod
    def around(cls, trials: Sequence[Trial]) -> Axes:
        """Make axes for all trials, and for scores with a little room above and below."""
        scores = [t.score for t in trials if t.score is not None] or [0.0, 1.0]
        room = max(0.05 * (max(scores) - min(scores)), 0.01)
        last = max((t.number for t in trials), default=1)
        return cls(max(last, 1), min(scores) - room, max(scores) + room)

    def x(self, number: int) -> float:
        """Return pixels from the left."""
        return MARGIN + 15 + (WIDTH - 2 * MARGIN) * number / self.last

    def y(self, score: float) -> float:
        """Return pixels from the top."""
        return 50 + (PLOT_HEIGHT - 70) * (self.high - score) / (self.high - self.low)


def draw_sweep(
    path: Path, trials: Sequence[Trial], found: Sequence[Importance], objective: str
) -> None:
    """Write the picture.

    Args:
        path: a .png.
        trials: by number.
        found: strongest first; empty if there are too few trials to say.
        objective: what the score is.

    Raises:
        OutputError: It cannot be written.
    """
    height = PLOT_HEIGHT + 90 + ROW * max(len(found), 1)
    sheet = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    pen.fontmode = "L"
    draw_scores(pen, font, trials, objective)
    draw_bars(pen, font, found, PLOT_HEIGHT + 30)
    write_picture(path, np.asarray(sheet))


def draw_scores(
    pen: ImageDraw.ImageDraw, font: Font, trials: Sequence[Trial], objective: str
) -> None:
    """Draw the trials, and a line for the best score so far.

    Full dots ran to their end, rings were stopped early, crosses failed.
    """
    axes, bottom = Axes.around(trials), PLOT_HEIGHT - 10
    draw_legend(pen, font, f"{objective}, by trial")
    for k in range(5):
        score = axes.low + (axes.high - axes.low) * k / 4
        pen.line((MARGIN, axes.y(score), WIDTH - 30, axes.y(score)), (225, 225, 225))
        pen.text((14, axes.y(score) - 9), f"{score:.3f}", "black", font)
    draw_best(pen, axes, trials)
    for trial in trials:
        x = axes.x(trial.number)
        if trial.status == "failed":
            draw_cross(pen, x, bottom - 12)
        elif trial.score is not None:
            y = axes.y(trial.score)
            fill = GREEN if trial.status == "finished" else "white"
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=fill, outline=GREEN, width=2)
        if trial.number % max(1, (axes.last + 9) // 10) == 0:
            pen.text((x - 5, bottom), str(trial.number), "black", font)


def draw_best(pen: ImageDraw.ImageDraw, axes: Axes, trials: Sequence[Trial]) -> None:
    """Draw stairs of the best score so far."""
    stairs: list[tuple[float, float]] = []
    for trial in trials:
        x, y = axes.x(trial.number), axes.y(trial.score) if trial.score is not None else None
        highest = stairs[-1][1] if stairs else y
        if highest is None:
            continue
        stairs.append((x, highest))
        if y is not None and y < highest:
            stairs.append((x, y))
    pen.line(stairs, ORANGE, 2)


def draw_legend(pen: ImageDraw.ImageDraw, font: Font, title: str) -> None:
    """Draw title and signs, on one line."""
    pen.text((14, 10), title, "black", font)
    x = WIDTH - 500
    for name, fill in (("finished", GREEN), ("stopped early", (255, 255, 255))):
        pen.ellipse((x, 14, x + 10, 24), fill=fill, outline=GREEN, width=2)
        pen.text((x + 16, 10), name, "black", font)
        x += 40 + int(font.getlength(name))
    draw_cross(pen, x + 5, 19)
    pen.text((x + 16, 10), "failed", "black", font)
    pen.line((x + 80, 19, x + 105, 19), ORANGE, 2)
    pen.text((x + 112, 10), "best so far", "black", font)


def draw_bars(pen: ImageDraw.ImageDraw, font: Font, found: Sequence[Importance], top: int) -> None:
    """Draw a bar per setting; hollow where a permutation test cannot tell it from chance."""
    title = (
        "how settings go with the score: rank correlation over trials (+ more is better, "
        f"- less is better); hollow: may be chance, p > {CHANCE:g}"
    )
    if not found:
        title = f"importance of the settings: too few trials ({FEWEST} are needed)"
    pen.text((14, top), title, "black", font)
    for row, one in enumerate(found):
        y = top + 30 + ROW * row
        pen.text((14, y), one.key[-38:], "black", font)
        right = BAR_LEFT + max(2, round(BAR_WIDTH * one.strength))
        color = {1: GREEN, -1: PINK, 0: GRAY}[one.sign]
        fill = color if one.is_clear else None
        pen.rectangle((BAR_LEFT, y + 2, right, y + 17), fill=fill, outline=color, width=2)
        sign = {1: "+", -1: "-", 0: ""}[one.sign]
        pen.text((right + 8, y), f"{sign}{one.strength:.2f}  p {one.p:.3f}", "black", font)


def draw_cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """Draw the sign of a failed trial."""
    for slope in (1, -1):
        pen.line((x - 5, y - 5 * slope, x + 5, y + 5 * slope), PINK, 3)
