"""What a training says of itself: a line per epoch, at its end report.json and MODEL_CARD.md."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geo.files import write_text
from jobs.runtime.folder import explain_damage
from jobs.runtime.follow import Followed
from jobs.runtime.terminal import clock, say
from jobs.runtime.versions import versions
from jobs.train.folder import ANEW, CARD, METRICS, REPORT, read_metrics
from jobs.train.job import TrainJob
from wpcrack.data.read import ImageLevelSet
from wpcrack.errors import CheckpointError, TrainingError
from wpcrack.model import MODEL_FOLDER, find_model, read_info
from wpcrack.scoring.windows import WindowScores
from wpcrack.training.selection import LABEL_FREE, MASKED_IOU, objective

SELECTIONS = {
    LABEL_FREE: "label-free score on held-out sources",
    MASKED_IOU: "IoU on the masked validation images that the user gave",
}
"""What a model says of the metric by which its epoch was chosen."""

SELECTED_ON = {
    LABEL_FREE: f"{SELECTIONS[LABEL_FREE]}; selected on this split",
    MASKED_IOU: f"{SELECTIONS[MASKED_IOU]}; selected on these images",
}
"""The same in report and card."""

SCORE_MEANS = {
    LABEL_FREE: (
        "the score tells epochs of this run apart (1 is best): how well the marked cracks agree "
        "with the model's own pseudo labels, and how often it rightly says which window shows a "
        "crack, less what it marks on road; it is not the overlap with drawn cracks, which only "
        "`wpcrack evaluate` with masks can measure"
    ),
    MASKED_IOU: (
        "the score is the overlap (IoU, 1 is best) with your masks of the validation images; the "
        "epoch was chosen on these images, so others will score lower"
    ),
}
"""The same in plain words."""

HELD_OUT = "held_out"
"""Key of how the model, and the one that it started from, do on windows that were held out."""

MOST_ROAD = 0.05
"""A model that marks a larger share of windows without a crack is of no use: real pavement is
cracked by some percent."""


@dataclass(frozen=True)
class TrainReport:
    """What a finished run gave."""

    run_dir: Path
    epochs: int
    best_epoch: int
    score: float
    """Of the kept model, by the metric that selected it."""
    seconds: float
    """Of all starts, but for what a crash lost."""
    val: dict[str, float]
    """Figures of the val split, by name."""
    held_out: Mapping[str, WindowScores] = field(default_factory=dict)
    """On how many windows of the val split a crack is found, at all scales and fused as in use: by
    the model ("trained") and by the one that it started from ("start"), if there was one."""
    already_finished: bool = False

    def summary(self) -> str:
        """Return one line for the terminal."""
        return f"best epoch {self.best_epoch} of {self.epochs}, score {self.score:.3f}"

    def values(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {**asdict(self), "run_dir": str(self.run_dir)}


def write_report(
    root: Path, job: TrainJob, data: ImageLevelSet, seconds: float, start: str
) -> TrainReport:
    """Write report.json and the model card; `start` says what the networks started from."""
    lines = read_metrics(root / METRICS)
    with explain_damage(root / METRICS, ANEW):
        best = max((line for line in lines if line["best"]), key=lambda x: x["epoch"], default=None)
        score = best and best[objective(best)]
    if best is None:
        raise TrainingError(
            f"{job.run_dir} holds no model: no epoch of it has a score that is a number; lower the "
            "learning rates (optim.encoder_lr, optim.head_lr) and set resume=never"
        )
    chosen_by, trained = objective(best), _training_of(root)
    values = {
        "start": start,
        "blend": trained.get("blend", 1.0),
        "epochs": len(lines),
        "best_epoch": best["epoch"],
        "score": score,
        "selection": SELECTED_ON[chosen_by],
        "val": {k.removeprefix("val/"): v for k, v in best.items() if k.startswith("val/")},
        HELD_OUT: dict(trained.get(HELD_OUT, {})),
        "items": counts(data),
        "seconds": round(seconds, 1),
        "seed": job.seed,
        "versions": versions(("wpcrack", "torch", "timm", "ray")),
    }
    write_text(root / CARD, model_card(job, values))
    write_text(root / REPORT, json.dumps(values, indent=2) + "\n")
    return _report_of(job.run_dir, values)


def _training_of(root: Path) -> dict[str, Any]:
    """Return what the kept model's description says of its training; nothing without one."""
    try:
        return read_info(find_model(root)).trained
    except CheckpointError:
        return {}


def read_report(root: Path) -> TrainReport | None:
    """Read the report of a finished run."""
    path = root / REPORT
    if not path.exists():
        return None
    with explain_damage(path, ANEW):
        return _report_of(root, json.loads(path.read_text(encoding="utf-8")), is_old=True)


def _report_of(root: Path, values: Mapping[str, Any], *, is_old: bool = False) -> TrainReport:
    return TrainReport(
        run_dir=root,
        epochs=int(values["epochs"]),
        best_epoch=int(values["best_epoch"]),
        score=float(values["score"]),
        seconds=float(values["seconds"]),
        val={str(name): float(value) for name, value in dict(values.get("val", {})).items()},
        held_out={k: WindowScores(**v) for k, v in dict(values.get(HELD_OUT, {})).items()},
        already_finished=is_old,
    )


def closing_lines(report: TrainReport, job: TrainJob, data: ImageLevelSet) -> list[str]:
    """Say what a run gave, what its score means, what is wrong with it, and what comes next."""
    is_masked = MASKED_IOU.removeprefix("val/") in report.val
    lines = [
        f"best epoch {report.best_epoch} of {report.epochs}, score {report.score:.3f}; "
        f"model in {job.run_dir / MODEL_FOLDER}",
        SCORE_MEANS[MASKED_IOU if is_masked else LABEL_FREE],
        *_held_out_lines(report.held_out, job),
        *(f"warning: {text}" for text in _doubts(report.val)),
    ]
    return [*lines, f"next: {next_command(job, data)}"]


def _held_out_lines(held_out: Mapping[str, WindowScores], job: TrainJob) -> Iterator[str]:
    """Say what the user's own labels of held-out windows say of the model, and of its start."""
    trained, start = held_out.get("trained"), held_out.get("start")
    if trained is None:
        return
    line = (
        f"held-out windows: a crack found in {trained.found} of {trained.cracks} that show one, "
        f"and in {trained.marked} of {trained.roads} that show none"
    )
    if start is None:
        yield line
        return
    yield f"{line}; by the model that it started from in {start.found} and {start.marked}"
    by_chance = math.sqrt(trained.wrong + start.wrong)  # standard deviation of the difference
    if trained.wrong - start.wrong > by_chance:
        yield (
            f"warning: the model that it started from (model.init={job.model.init}) is wrong about "
            f"fewer of them, {start.wrong} in place of {trained.wrong}; compare both on more of "
            "your pictures before you use this one"
        )


def _doubts(val: Mapping[str, float]) -> Iterator[str]:
    """Say what figures of the val split forbid to use a model."""
    if not val.get("image_f1", 1.0) or val.get("iou") == 0:
        yield (
            "the model finds nothing: it marks a crack on none of the held-out windows that show "
            "one, so do not use it; look whether crack/ and road/ are sorted rightly, and train "
            "longer (train.steps, train.max_minutes) or with more pictures"
        )
    if (marked := val.get("road_share", 0.0)) > MOST_ROAD:
        yield (
            f"the model marks {marked:.0%} of the held-out windows without a crack, so do not use "
            "it; look whether crack/ and road/ are sorted rightly, and train longer"
        )


def next_command(job: TrainJob, data: ImageLevelSet) -> str:
    """Return a command that shows what the model does, on the user's own pictures."""
    given = job.data
    if given.val_images is not None and given.val_masks is not None:
        words = ["evaluate", "--images", given.val_images, "--masks", given.val_masks]
        if given.mask_values:
            words += ["--mask-values", ",".join(map(str, given.mask_values))]
    else:
        shown = next(item.path.parent for item in data.val if item.has_crack)
        words = ["predict", "--out", f"{job.run_dir}-found", shown]
    return shlex.join(["wpcrack", *map(str, words), "--model", str(job.run_dir)])


def counts(data: ImageLevelSet) -> dict[str, dict[str, int]]:
    """Count items and sources per split."""
    return {
        name: {
            "crack": sum(i.has_crack for i in part),
            "road": sum(not i.has_crack for i in part),
            "sources": len({i.source for i in part}),
        }
        for name, part in (("train", data.train), ("val", data.val))
    }


def model_card(job: TrainJob, values: dict[str, Any]) -> str:
    """Describe in Markdown the model, its training data, its scores and what it cannot do."""
    gsd = f"{job.data.gsd_mm:g} mm" if job.data.gsd_mm else "photographs, pixel size unknown"
    rows = [
        f"| {name} | {c['crack']} | {c['road']} | {c['sources']} |"
        for name, c in values["items"].items()
    ]
    scores = [f"| {name} | {value:.4f} |" for name, value in values["val"].items()]
    held_out = [
        f"| {name} | {s['found']} of {s['cracks']} | {s['marked']} of {s['roads']} |"
        for name, s in values[HELD_OUT].items()
    ]
    rest = "" if values["blend"] == 1 else ", the rest of the model that it started from"
    software = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    return "\n".join(
        [
            "# Model card",
            "",
            "Road crack detector learned from image-level labels (WP-CrackNet, arXiv 2510.17566).",
            "",
            f"* Data: `{job.data.root}`; license as stated by the user: {job.data.license}",
            f"* Pixel size: {gsd}",
            f"* Encoder: {job.model.encoder}, seed {job.seed}, batch {job.train.batch_size}",
            f"* Start: {values['start']}; {job.train.drawn_share:.0%} drawn windows with exact "
            "masks in the detector stage",
            f"* Weights: {values['blend']:.0%} trained{rest}",
            f"* Versions: {software}",
            "",
            "| split | crack | road | sources |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Epoch {values['best_epoch']} of {values['epochs']} was selected by the",
            f"{values['selection']}. Figures of the val split:",
            "",
            "| figure | value |",
            "|---|---|",
            *scores,
            "",
            "Held-out windows in which a crack is found:",
            "",
            "| model | of those that show one | of those that show none |",
            "|---|---|---|",
            *held_out,
            "",
            "Not claimed: a pavement condition index. Sealed cracks, joints and shadows may be",
            "confused with cracks on surfaces unlike the training images.",
            "",
        ]
    )


class ProgressLines(Followed):
    """One line per epoch, read from metrics.jsonl as rank 0 writes it, in a thread of its own."""

    def __init__(
        self,
        metrics: Path,
        others: Sequence[Callable[[dict[str, Any]], None] | None] = (),
        after_all: str | None = None,
    ) -> None:
        """Look at the file; others get each new line, too; ``after_all`` follows the last."""
        self.metrics, self.after_all = metrics, after_all
        self.others = [tell for tell in others if tell is not None]
        self.shown = {line["epoch"]: line.get("seconds") for line in read_metrics(metrics)}
        self.passed_on = {*self.shown}
        self.started, self.progress_at_start = time.monotonic(), self._progress()
        super().__init__(self._show_new)

    def _progress(self) -> float:
        lines = read_metrics(self.metrics)
        return float(lines[-1]["train/progress"]) if lines else 0.0

    def _show_new(self) -> None:
        before = 0.0
        for line in read_metrics(self.metrics):
            epoch, seconds = line["epoch"], line.get("seconds")
            if epoch not in self.shown or self.shown[epoch] != seconds:  # new, or after a crash
                self.progress_at_start = min(self.progress_at_start, before)
                self.shown[epoch] = seconds
                self._show(line)
            before = float(line.get("train/progress", 0.0))

    def _show(self, line: dict[str, Any]) -> None:
        for warning in line.get("warnings", ()):
            say(f"warning: {warning}")
        elapsed = time.monotonic() - self.started
        say(describe(line, elapsed, self.progress_at_start))
        if line["epoch"] not in self.passed_on:
            self.passed_on.add(line["epoch"])
            for tell in self.others:
                tell(line)
        if self.after_all and line["train/progress"] == 1:
            say(self.after_all)


def describe(line: dict[str, Any], elapsed_s: float, progress_at_start: float) -> str:
    """Return `train epoch 3 adversarial, 190 steps, loss ..., score 0.773, ..., ETA 2:10`."""
    phases = {"cls": 0.0, "rec": 0.0, "det": 0.0}
    for name, value in line.items():
        if name.startswith("train/"):
            term = name.removeprefix("train/")
            phase = "cls" if term == "ceccm" else term.split("_")[0]
            if phase in phases:
                phases[phase] += float(value)
    losses = " ".join(f"{k} {v:.3f}" for k, v in phases.items() if v)
    progress = float(line["train/progress"])
    gained = max(progress - progress_at_start, 1e-6)
    eta = elapsed_s * (1 - progress) / gained
    return (
        f"train epoch {line['epoch']} {line['stage']}, {line['step']} steps, loss {losses}, "
        f"score {line[objective(line)]:.3f}{' (best)' if line['best'] else ''}, "
        f"{line['train/images_per_s']:.1f} images/s, data wait {line['train/data_wait']:.0%}, "
        f"{progress:.0%}, ETA {clock(eta)}"
    )
