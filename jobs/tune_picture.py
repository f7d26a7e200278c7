"""The picture of a sweep: score over trials, and how settings go with the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jobs.tune_folder import Trial
from jobs.tune_importance import CHANCE, FEWEST, Importance

WIDTH, MARGIN, PLOT_HEIGHT, ROW = 1000, 70, 340, 26
BAR_LEFT, BAR_WIDTH = 330, 520
FONT_SIZE = 15
GREEN, ORANGE, PINK, GRAY = (0, 158, 115), (230, 159, 0), (204, 121, 167), (150, 150, 150)
"""Of the palette of Okabe and Ito, told apart by color-blind readers too."""


@dataclass(frozen=True)
class Axes:
    """Where trials and scores lie in the picture."""

    last: int
    low: float
    high: float

    @classmethod
    def around(cls, trials: Sequence[Trial]) -> Axes:
        """All trials, and scores with a little room above and below."""
        scores = [t.score for t in trials if t.score is not None] or [0.0, 1.0]
        room = max(0.05 * (max(scores) - min(scores)), 0.01)
        last = max((t.number for t in trials), default=1)
        return cls(max(last, 1), min(scores) - room, max(scores) + room)

    def x(self, number: int) -> float:
        """Pixels from the left."""
        return MARGIN + 15 + (WIDTH - 2 * MARGIN) * number / self.last

    def y(self, score: float) -> float:
        """Pixels from the top."""
        return 50 + (PLOT_HEIGHT - 70) * (self.high - score) / (self.high - self.low)


def draw_sweep(
    path: Path, trials: Sequence[Trial], found: Sequence[Importance], objective: str
) -> None:
    """Writes the picture.

    Args:
        path: a .png.
        trials: by number.
        found: strongest first; empty if there are too few trials to say.
        objective: what the score is.
    """
    height = PLOT_HEIGHT + 90 + ROW * max(len(found), 1)
    sheet = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    pen.fontmode = "L"
    draw_scores(pen, font, trials, objective)
    draw_bars(pen, font, found, PLOT_HEIGHT + 30)
    sheet.save(path)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_scores(
    pen: ImageDraw.ImageDraw, font: Font, trials: Sequence[Trial], objective: str
) -> None:
    """Full dots ran to their end, rings were stopped early, crosses failed; a line is the best."""
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
            cross(pen, x, bottom - 12)
        elif trial.score is not None:
            y = axes.y(trial.score)
            fill = GREEN if trial.status == "finished" else "white"
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=fill, outline=GREEN, width=2)
        if trial.number % max(1, (axes.last + 9) // 10) == 0:
            pen.text((x - 5, bottom), str(trial.number), "black", font)


def draw_best(pen: ImageDraw.ImageDraw, axes: Axes, trials: Sequence[Trial]) -> None:
    """Stairs of the best score so far."""
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
    """Title and signs, on one line."""
    pen.text((14, 10), title, "black", font)
    x = WIDTH - 500
    for name, fill in (("finished", GREEN), ("stopped early", (255, 255, 255))):
        pen.ellipse((x, 14, x + 10, 24), fill=fill, outline=GREEN, width=2)
        pen.text((x + 16, 10), name, "black", font)
        x += 40 + int(font.getlength(name))
    cross(pen, x + 5, 19)
    pen.text((x + 16, 10), "failed", "black", font)
    pen.line((x + 80, 19, x + 105, 19), ORANGE, 2)
    pen.text((x + 112, 10), "best so far", "black", font)


def draw_bars(pen: ImageDraw.ImageDraw, font: Font, found: Sequence[Importance], top: int) -> None:
    """A bar per setting; hollow where a permutation test cannot tell it from chance."""
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


def cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """The sign of a failed trial."""
    for slope in (1, -1):
        pen.line((x - 5, y - 5 * slope, x + 5, y + 5 * slope), PINK, 3)
