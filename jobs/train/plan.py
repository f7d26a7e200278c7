"""What a training would do and need, before any of it is done.

wpcrack train configs/train.yaml data.root=set run_dir=runs/city --dry-run
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from jobs.runtime.terminal import counted
from jobs.train.folder import METRICS, read_data, read_metrics, require_own, require_same
from jobs.train.job import TrainJob, masked_pairs
from jobs.train.report import counts, read_report
from wpcrack.data.batches import Images, Shard, validation_part
from wpcrack.data.images import Pair
from wpcrack.data.masks import check_masks
from wpcrack.data.read import ImageLevelSet
from wpcrack.labels.pseudo_label import require_refiners
from wpcrack.training.footprint import Footprint, footprint, on_meta, parameters
from wpcrack.training.stages import STAGES
from wpcrack.training.start import find_start, start_networks
from wpcrack.training.trainer import require_common_statistics, require_sides

PROGRAM_BYTES = 1.1e9
"""Program and working memory beside what is counted. With it the estimate was within 3 % of the
peak of the default networks on Linux, batches of 4 to 16 in fp32 and bf16, one thread."""


@dataclass(frozen=True)
class StagePlan:
    """Of one stage."""

    name: str
    steps: int
    epochs: int
    minutes: float | None
    """At most, under train.max_minutes."""


@dataclass(frozen=True)
class TrainPlan:
    """What `wpcrack train --dry-run` prints."""

    job: TrainJob
    data: ImageLevelSet
    size: tuple[int, int]
    """(H, W) of the windows in pixels."""
    scored: int
    """Validation windows of each epoch."""
    masked: int
    """Validation images with masks."""
    parameters: dict[str, int]
    """Trained weights of each network."""
    footprint: Footprint
    cache_bytes: int
    """Decoded images that a worker keeps."""
    standing: str
    """What lies in the run folder."""
    start: str
    """What the networks start from."""

    @property
    def stages(self) -> list[StagePlan]:
        """The stages in their order."""
        train = self.job.train
        costs = {s: getattr(train.steps, s) * getattr(train.cost, s) for s in STAGES}
        cap, whole = train.max_minutes, max(sum(costs.values()), 1e-9)
        return [
            StagePlan(
                stage,
                steps := getattr(train.steps, stage),
                -(-steps // train.epoch_steps),
                None if cap is None else cap * costs[stage] / whole,
            )
            for stage in STAGES
        ]

    @property
    def memory_bytes(self) -> int:
        """Of one worker, estimated."""
        return round(self.footprint.total + self.cache_bytes + PROGRAM_BYTES)

    def text(self) -> str:
        """Return the resolved config as YAML, and below it the figures as comments."""
        config = yaml.safe_dump(self.job.model_dump(mode="json"), sort_keys=False)
        return config + "".join(f"# {line}\n" for line in self.lines()).rstrip("\n")

    def lines(self) -> list[str]:
        """Return the figures for people."""
        job, mb, mark = self.job, 1e-6, self.footprint
        workers = max(job.scaling.num_workers, 1)
        pieces = f" in {job.train.accumulate} pieces" if job.train.accumulate > 1 else ""
        found = [("run", self.standing), ("start", self.start)]
        for name, part in counts(self.data).items():
            rest = f"; {self.scored} are scored after each epoch" if name == "val" else ""
            sources = counted(part["sources"], "source")
            labels = f"{part['crack']} crack and {part['road']} road windows"
            found.append((name, f"{labels} of {sources}{rest}"))
        if self.masked:
            found.append(("masked", f"{counted(self.masked, 'image')} with masks judge the epochs"))
        found.append(
            (
                "images",
                f"{self.size[0]} x {self.size[1]} px, {job.train.batch_size} a batch, "
                f"{job.train.batch_size // workers} for each of {counted(workers, 'worker')}"
                f"{pieces}",
            )
        )
        for stage in self.stages:
            cap = "" if stage.minutes is None else f", at most {stage.minutes:.1f} minutes"
            steps, epochs = counted(stage.steps, "step"), counted(stage.epochs, "epoch")
            averaged = f"{mb * mark.averaged[stage.name]:.1f} MB of gradients a step"
            found.append((f"stage {stage.name}", f"{steps} in {epochs}{cap}; {averaged}"))
        sizes = (f"{name} {count / 1e6:.2f} M" for name, count in self.parameters.items())
        found.append(("parameters", ", ".join(sizes)))
        found.append(
            (
                "memory",
                f"about {1e-9 * self.memory_bytes:.1f} GB in each worker: program "
                f"{mb * PROGRAM_BYTES:.0f} MB, weights {mb * mark.weights:.0f}, gradients "
                f"{mb * mark.gradients:.0f}, optimizers {mb * mark.optimizers:.0f}, forward passes "
                f"{mb * max(mark.activations.values()):.0f}, images {mb * self.cache_bytes:.0f}; "
                "an estimate",
            )
        )
        found += [("warning", text) for text in self.data.warnings]
        return [f"{name:18}{text}" for name, text in found]

    def values(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "config": self.job.model_dump(mode="json"),
            "run": self.standing,
            "start": self.start,
            "items": counts(self.data),
            "size_px": list(self.size),
            "scored": self.scored,
            "stages": {s.name: {"steps": s.steps, "epochs": s.epochs} for s in self.stages},
            "steps": sum(s.steps for s in self.stages),
            "epochs": sum(s.epochs for s in self.stages),
            "parameters": self.parameters,
            "memory_bytes": self.memory_bytes,
            "averaged_bytes": self.footprint.averaged,
        }


def plan_training(job: TrainJob) -> TrainPlan:
    """Look at config, data and run folder as a training does first; write nothing.

    Raises:
        WpcrackError: What the training would raise before its first step.
    """
    data = read_data(job, anew=job.resume == "never")
    standing = standing_of(job)
    train = Images(data.train)
    scored = Images(validation_part(data.val, job.train.val_items, job.seed))
    workers = max(job.scaling.num_workers, 1)
    require_sides(job.model, train.size, scored.size)
    require_common_statistics(job, Shard(0, workers))
    require_refiners(job.pseudo_label)
    nets = on_meta(job.model)
    start = find_start(job.model)
    if start.folder is not None or job.model.pretrained in ("package", "file"):
        start_networks(job.model)  # what is wrong with the weights is said now
    return TrainPlan(
        job=job,
        data=data,
        size=train.size,
        scored=len(scored),
        masked=len(_checked(masked_pairs(job.data))),
        parameters={name: parameters(network) for name, network in nets.named_children()},
        footprint=footprint(job, train.size, job.train.batch_size // workers),
        cache_bytes=train.kept_bytes + scored.kept_bytes,
        standing=standing,
        start=start.note,
    )


def _checked(pairs: list[Pair]) -> list[Pair]:
    check_masks(pairs)
    return pairs


def standing_of(job: TrainJob) -> str:
    """Return what the training would find in its run folder.

    Raises:
        ConfigError: The folder is somebody else's, or a run with other settings.
    """
    root = job.run_dir.absolute()
    require_own(root)
    epochs = len(read_metrics(root / METRICS))
    if job.resume == "never":
        lost = f"; {epochs} finished epochs there are dropped" if epochs else ""
        return f"starts in {job.run_dir}{lost}"
    changed = require_same(root, job)
    if read_report(root) is not None and not changed:
        return f"is finished in {job.run_dir}"
    if not epochs:
        return f"starts in {job.run_dir}"
    return f"goes on in {job.run_dir} after {epochs} epochs"
