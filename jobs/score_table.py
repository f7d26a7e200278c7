"""Scores as a table for people and as JSON for scripts."""

from __future__ import annotations

from dataclasses import asdict

from wpcrack.scores import PixelScores, Scores


def as_json(scores: Scores, *, resize: int | None, seconds: float) -> dict[str, object]:
    """Name the scores as `wpcrack evaluate --json` promises; `resize_N` only if it was asked for.

    Args:
        scores: of one set of images.
        resize: side N in pixels of the resized scores.
        seconds: wall time of reading, predicting and scoring.
    """
    named: dict[str, object] = asdict(scores)
    resized = named.pop("resized")
    if resized is not None:
        named[f"resize_{resize}"] = resized
    return named | {"seconds": seconds}


def render(scores: Scores, *, resize: int | None, seconds: float) -> str:
    """Lay the scores out for a terminal; percent signs mark shares, all else lies in [0, 1]."""
    head = ("", "IoU", "precision", "recall", "F1", "F1 2 px", "F1 5 px")
    lines = ["".join(f"{cell:>11}" for cell in head), _row("native", scores.native)]
    if scores.resized is not None:
        lines.append(_row(f"{resize}x{resize}", scores.resized))
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
        "images": f"{scores.n_images}, threshold {scores.threshold:g}, {seconds:.1f} s",
    }
    lines += [f"{name:20}{fact}" for name, fact in facts.items()]
    return "\n".join(lines)


def _row(name: str, scores: PixelScores) -> str:
    values = asdict(scores).values()
    return f"{name:>11}" + "".join(f"{value:11.3f}" for value in values)
