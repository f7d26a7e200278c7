"""What `wpcrack evaluate` delivers: scores for people and scripts, a picture of the extremes.

Each row of the picture is one image: photograph, truth, probability, and hits and misses in color.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geo.errors import GeoError
from geo.page.letters import drawable
from wpcrack.errors import WpcrackError
from wpcrack.scoring import metrics
from wpcrack.scoring.scores import ImageScore, PixelScores, Scores

EACH = 4
"""Images shown of the best, and as many of the worst."""
PANEL_WIDTH = 320
GAP, HEADER, LABEL = 6, 44, 24
"""Pixels between panels, above the first row, above each row."""
FONT_SIZE = 15
HIT, FALSE_ALARM, MISS = (0, 158, 115), (230, 159, 0), (204, 121, 167)
"""Of the palette of Okabe and Ito, told apart by color-blind readers too."""
DIMMED = 0.45
"""Brightness of the photograph under hits and misses."""

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of images.

    Attributes:
        scores: of the set.
        resize: side N in pixels of the resized scores.
        seconds: wall time of reading, predicting and scoring.
        note: what the user should know about the images.
        figure_error: why the picture that was asked for is not there.
    """

    scores: Scores
    resize: int | None
    seconds: float
    note: str | None = None
    figure_error: WpcrackError | GeoError | None = None

    def values(self) -> dict[str, object]:
        """Return the figures of `--json`; `resize_N` only if it was asked for."""
        values: dict[str, object] = asdict(self.scores)
        resized = values.pop("resized")
        if resized is not None:
            values[f"resize_{self.resize}"] = resized
        return values | {"seconds": self.seconds}

    def summary(self) -> str:
        """Return a table for the terminal; percent signs mark shares, all else lies in [0, 1]."""
        scores = self.scores
        head = ("", "IoU", "precision", "recall", "F1", "F1 2 px", "F1 5 px")
        lines = ["".join(f"{cell:>11}" for cell in head), _row("native", scores.native)]
        if scores.resized is not None:
            lines.append(_row(f"{self.resize}x{self.resize}", scores.resized))
        if scores.fp_area_share is None:
            false_area = "no image is free of cracks"
        else:
            false_area = f"{scores.fp_area_share:.4%} predicted"
        iou, f1 = scores.ci95.iou, scores.ci95.f1
        facts = {
            "95 % interval": f"IoU {iou[0]:.3f} - {iou[1]:.3f}, F1 {f1[0]:.3f} - {f1[1]:.3f}",
            "mean over images": f"IoU {scores.per_image.iou:.3f}, F1 {scores.per_image.f1:.3f}",
            "best threshold": f"F1 {scores.ods:.3f} for all (ODS), {scores.ois:.3f} each (OIS)",
            "with background": f"mIoU {scores.miou_2class:.3f}, macro F1 {scores.f1_macro:.3f}",
            "crack-free images": false_area,
            "images": f"{scores.n_images}, threshold {scores.threshold:g}, {self.seconds:.1f} s",
        }
        lines += [f"{name:20}{fact}" for name, fact in facts.items()]
        lines += [f"note: {self.note}"] if self.note else []
        return "\n".join(lines)


def _row(name: str, scores: PixelScores) -> str:
    values = asdict(scores).values()
    return f"{name:>11}" + "".join(f"{value:11.3f}" for value in values)


@dataclass(frozen=True)
class Panels:
    """One row of the picture; all arrays of one (H, W)."""

    label: str
    image: RGB
    """(H, W, 3)."""
    truth: NDArray[np.bool_]
    probability: NDArray[np.uint8]
    """Probability * 255."""


def best_and_worst(
    images: Sequence[ImageScore], each: int = EACH
) -> tuple[list[ImageScore], list[ImageScore]]:
    """Return `each` images of highest IoU, best first, and of lowest, worst first; none twice."""
    ranked = sorted(images, key=lambda image: (-metrics.iou(image.counts), image.name))
    best = ranked[: min(each, (len(ranked) + 1) // 2)]
    worst = ranked[len(best) :][::-1][:each]
    return best, worst


def draw_sheet(rows: Sequence[Panels], threshold: float) -> RGB:
    """Lay the rows out below a legend.

    Args:
        rows: any sizes; each is scaled to one width.
        threshold: from which probability on a pixel counts as crack.

    Returns:
        (H, W, 3) uint8.
    """
    strips = [_strip(row, threshold) for row in rows]
    width = 4 * PANEL_WIDTH + 5 * GAP
    height = HEADER + sum(LABEL + strip.shape[0] for strip in strips) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for column, title in enumerate(("image", "truth", "probability", "")):
        pen.text((GAP + column * (PANEL_WIDTH + GAP), 12), title, "black", font)
    x = GAP + 3 * (PANEL_WIDTH + GAP)
    for name, color in (("hit", HIT), ("false alarm", FALSE_ALARM), ("missed", MISS)):
        pen.rectangle((x, 14, x + 12, 26), fill=color)
        pen.text((x + 18, 12), name, "black", font)
        x += 34 + int(font.getlength(name))
    y = HEADER
    for row, strip in zip(rows, strips, strict=True):
        label, letters = drawable(row.label, FONT_SIZE)
        pen.text((GAP, y), label, "black", letters)
        sheet.paste(Image.fromarray(strip), (GAP, y + LABEL - GAP))
        y += LABEL + strip.shape[0]
    return np.asarray(sheet)


def overlay(row: Panels, threshold: float) -> RGB:
    """Return hits, false alarms and misses over the dimmed photograph, (H, W, 3)."""
    prediction = metrics.mask_at(row.probability, threshold)
    picture = (row.image * DIMMED).astype(np.uint8)
    picture[prediction & row.truth] = HIT
    picture[prediction & ~row.truth] = FALSE_ALARM
    picture[~prediction & row.truth] = MISS
    return picture


def _strip(row: Panels, threshold: float) -> RGB:
    """Return the four panels side by side."""
    gray = (row.truth.astype(np.uint8) * np.uint8(255), row.probability)
    panels = [row.image, *(np.repeat(g[:, :, None], 3, 2) for g in gray), overlay(row, threshold)]
    height = max(1, round(PANEL_WIDTH * row.image.shape[0] / row.image.shape[1]))
    shrinks = row.image.shape[1] > PANEL_WIDTH
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    gap = np.full((height, GAP, 3), 255, np.uint8)
    parts: list[RGB] = []
    for panel in panels:
        scaled = cv2.resize(panel, (PANEL_WIDTH, height), interpolation=how)
        parts += [scaled.astype(np.uint8), gap]
    return np.concatenate(parts[:-1], axis=1)
