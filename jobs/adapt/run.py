"""`wpcrack adapt`: a model for these roads, from their unlabeled pixels.

    wpcrack adapt tiles=tiles/ --out runs/here
    wpcrack adapt --images photos --out runs/here

The same command continues an interrupted adaption.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geo.errors import count_of
from geo.files import write_text
from jobs.adapt.job import AdaptJob, AdaptOptions
from jobs.adapt.plan import (
    CARD,
    LOCK,
    WINDOWS,
    find_base,
    list_pictures,
    read_finished,
    require_own,
    require_room,
    require_workers,
    windows_of,
)
from jobs.runtime.allocator import keep_freed_memory
from jobs.runtime.folder import SAME_COMMAND, explain_write_errors, hold_lock
from jobs.runtime.signals import Interrupted, stop_on_sigterm
from jobs.runtime.terminal import say
from jobs.runtime.versions import own_version
from jobs.windows.run import run_windows
from wpcrack.data.images import list_images
from wpcrack.errors import ConfigError, DataError
from wpcrack.model import MODEL_FOLDER, run_name
from wpcrack.training.adapt import Adapted, Learn, adapt
from wpcrack.training.drawn import Progress, Report, train_path
from wpcrack.training.taught_windows import AdaptConfig


@dataclass(frozen=True)
class AdaptReport:
    """What is said at the end."""

    out: Path
    base: str
    adapted: Adapted

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        a = self.adapted
        lines = [
            f"{'':24}{'before':>9}{'after':>9}",
            f"{'IoU on drawn cracks':24}{a.before.iou:9.3f}{a.after.iou:9.3f}",
            f"{'marked without cracks':24}{a.before.false_share:9.3%}{a.after.false_share:9.3%}",
            f"agreement on pictures held out: {a.agreement:.3f}",
        ]
        if a.is_better:
            model = shlex.quote(str(self.out))
            lines += [
                f"adapted model in {self.out / MODEL_FOLDER}",
                "labeled windows show whether it finds more of your cracks: "
                f"wpcrack evaluate --windows DIR --model {model}; do the same with the old model",
            ]
        else:
            lines += [f"warning: {reason}" for reason in a.reasons]
            lines.append(
                f"the adapted model is not used: {self.out / MODEL_FOLDER} holds the one that it "
                f"started from ({self.base})"
            )
        return "\n".join(lines)

    def values(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {"base": self.base, **asdict(self.adapted)}


def run_adapt(
    config: AdaptOptions,
    out: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    local: bool = False,
) -> AdaptReport:
    """Adapt a model to a folder of photographs, or to the tiles of an `AdaptJob`.

    Args:
        config: How; an `AdaptJob` names tiles.
        out: Run folder; continued if it holds an interrupted adaption.
        model: Run folder to start from; None: the shipped model.
        images: Folder of photographs; None: the tiles.
        local: Use a Ray of our own even if RAY_ADDRESS names another.

    Raises:
        WpcrackError, GeoError: No model, unusable pictures, or a folder of something else.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the last state is kept and the user is told so.
    """
    require_workers(config, local=local)
    base = find_base(model)
    require_own(out)
    if read_finished(out) is None:
        require_room(config, base, list_pictures(config, out, images), local=local)
    with explain_write_errors(f"out {out}", "choose another folder", DataError):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
    busy = ConfigError(f"another process adapts in {out}; wait for its end or choose another out")
    with hold_lock(out / LOCK, busy):
        known = read_finished(out)
        if known is not None:
            say(f"{out} is finished already; choose another out to adapt again")
            return AdaptReport(out, run_name(base), known)
        with explain_write_errors(f"out {out}", SAME_COMMAND), stop_on_sigterm():
            try:
                return _adapt(config, out, base, images, local)
            except KeyboardInterrupt as error:
                say(f"interrupted: what is finished is kept in {out}; the same command continues")
                raise Interrupted from error


def _adapt(
    config: AdaptOptions, out: Path, base: Path, images: Path | None, local: bool
) -> AdaptReport:
    paths = list_pictures(config, out, images)
    if paths is None:
        assert isinstance(config, AdaptJob), "the command gives one of both"
        report = run_windows(config, out / WINDOWS, windows_of(config))
        if report.left_out:
            say(f"left out: {report.left_out}")
        paths = list(list_images(out / WINDOWS).values())
    seen = min(len(paths), config.pictures)
    say(f"adapting {run_name(base)} to {seen} of {len(paths)} pictures, no label is read")
    adapted = adapt(base, paths, config, out, _start_round, _learn(config, local))
    done = AdaptReport(out, run_name(base), adapted)
    write_text(out / CARD, model_card(config, done))
    return done


def _learn(config: AdaptOptions, local: bool) -> Learn:
    """Return what makes the updates of a round: this process, or Ray's workers."""
    if config.scaling.num_workers:
        from jobs.adapt.workers import learn_on_ray

        return learn_on_ray(config, local=local)
    keep_freed_memory()
    if config.scaling.use_gpu:
        return partial(train_path, device=torch.device("cuda"))
    return train_path


def _start_round(line: str) -> Report:
    """Say what a round begins with; return what says how it goes on."""
    say(line)
    return _report


def _report(progress: Progress) -> None:
    if progress.is_due:
        say(progress.text())


def model_card(config: AdaptConfig, report: AdaptReport) -> str:
    """Say in Markdown what the model started from, what it saw, how it was checked."""
    a = report.adapted
    outcome = "The check was passed." if a.is_better else "; ".join(a.reasons) + "."
    return "\n".join(
        [
            "# Model card",
            "",
            f"Road crack detector `{report.base}`, adapted to {a.pictures} unlabeled pictures by "
            "self-training.",
            "",
            f"* {count_of(config.rounds, 'round')} of {count_of(config.steps, 'update')}, "
            f"{config.drawn_share:.0%} drawn windows with exact masks, {config.blend:.0%} of the "
            f"weights learned, the rest those before, seed {config.seed}, "
            f"wpcrack {own_version()}",
            f"* Delivered: {'the adapted model' if a.is_better else 'the model it started from'}. "
            f"{outcome}",
            f"* Drawn windows: IoU {a.before.iou:.3f} before, {a.after.iou:.3f} after; marked "
            f"without cracks {a.before.false_share:.3%} and {a.after.false_share:.3%}",
            f"* Agreement with the old model on pictures held out: {a.agreement:.3f}",
            "",
            "Not claimed: any score on your roads. Measure with `wpcrack evaluate`.",
            "",
        ]
    )
