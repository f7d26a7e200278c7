"""Drawn pavement -> a model like the one that ships with the package, and its model card.

    wpcrack pretrain --out runs/shipped

No photograph and no label is read. The same command continues an interrupted training.
"""

from __future__ import annotations

from pathlib import Path

from geo.files import write_text
from jobs.runtime.allocator import keep_freed_memory
from jobs.runtime.folder import (
    SAME_COMMAND,
    explain_write_errors,
    hold_lock,
    refuse_foreign,
    require_no_model,
    require_writable,
)
from jobs.runtime.signals import Interrupted
from jobs.runtime.terminal import say
from jobs.runtime.versions import own_version
from wpcrack.errors import ConfigError
from wpcrack.model import MODEL_FOLDER, WEIGHTS
from wpcrack.training.drawn import STATE, Progress
from wpcrack.training.shipped import FUSED, SCORES, STREETS, Shipped, ShippedConfig, make_shipped

CARD, LOCK = "MODEL_CARD.md", ".lock"
OWN = {MODEL_FOLDER, CARD, SCORES, STREETS, STATE, LOCK}
"""Names of the entries of a run folder of this job."""

FIRST_WEIGHTS = {
    "package": "ImageNet weights as NOTICE names them",
    "timm": "ImageNet weights of timm",
    "file": "weights of a file of the user",
    "none": "weights at random",
}
"""What the encoder starts from, by `model.pretrained`."""


def run_pretrain(config: ShippedConfig, out: Path) -> Shipped:
    """Make the model and its model card in `out`; say how it goes.

    Args:
        config: How.
        out: Folder; continued if it holds an interrupted training of the same config.

    Raises:
        CheckpointError: `out` holds the state of another config.
        ConfigError: `out` holds something else, or another process works there.
        OutputError: `out` cannot be written.
        KeyboardInterrupt: Ctrl-C; the last state is kept and the user is told so.
    """
    refuse_foreign(out, OWN, "out", "a model of drawn pavement")
    if not (out / STATE).exists():
        require_no_model(out / MODEL_FOLDER, "a model of drawn pavement")
    require_writable(out, f"out {out}")

    def report(progress: Progress) -> None:
        if progress.is_due:
            print(progress.text(), flush=True)

    busy = ConfigError(f"another process trains in {out}; wait for its end or choose another out")
    with explain_write_errors(f"out {out}", SAME_COMMAND):
        out.mkdir(parents=True, exist_ok=True)
        with hold_lock(out / LOCK, busy):
            keep_freed_memory()
            try:
                shipped = make_shipped(config, out, report)
            except KeyboardInterrupt as error:
                say(f"interrupted: what is finished is kept in {out}; the same command continues")
                raise Interrupted from error
            write_text(out / CARD, model_card(config, shipped))
    score = shipped.scores[FUSED]
    megabytes = (shipped.model / WEIGHTS).stat().st_size / 1e6
    print(f"{shipped.model} ({megabytes:.1f} MB): IoU {score.iou:.3f} on drawn windows")
    return shipped


def model_card(config: ShippedConfig, shipped: Shipped) -> str:
    """Say in Markdown what it learned from, with which seed, what it scores on drawn windows."""
    train = config.train
    low, high = train.gsd_mm
    rows = [
        f"| {name} | {s.iou:.3f} | {s.f1:.3f} | {s.f1_tol2:.3f} | {s.false_share:.5f} |"
        for name, s in shipped.scores.items()
    ]
    return "\n".join(
        [
            "# Model card",
            "",
            "Road crack detector trained on drawn pavement alone: no photograph, no label.",
            "",
            f"* Encoder: `{train.model.encoder}`, {FIRST_WEIGHTS[train.model.pretrained]}",
            f"* Windows: drawn by wpcrack.synthetic.pavement, pixels of {low:g} to {high:g} mm",
            f"* Training: {train.steps} updates, seed {train.seed}, wpcrack {own_version()}; "
            f"then {config.streets.steps} with {config.streets.share:.0%} windows of drawn streets",
            f"* Scales: {', '.join(f'{scale:g}' for scale in config.scales)}, fused by the root of "
            "the mean square",
            "* License: Apache-2.0, like the program and what it draws"
            + (", and like these ImageNet weights" if train.model.pretrained == "package" else ""),
            "",
            f"On {config.score_windows} drawn windows that no training saw, at threshold .5:",
            "",
            "| scale | IoU | F1 | F1 within 2 px | marked share without cracks |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Not claimed: any score on your roads. Measure with `wpcrack evaluate` on pictures of "
            "your own.",
            "",
        ]
    )
