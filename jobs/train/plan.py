"""What a training would do and need, before any of it is done.

wpcrack train configs/train.yaml data.root=set run_dir=runs/city --dry-run
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from geo.errors import count_of
from jobs.runtime.folder import require_writable
from jobs.train.checkpoints import require_same_storage
from jobs.train.folder import METRICS, read_data, read_metrics, require_own, require_same
from jobs.train.job import TrainJob
from jobs.train.needs import PROGRAM_BYTES, Needs, find_needs
from jobs.train.report import counts, read_report
from wpcrack.data.read import ImageLevelSet
from wpcrack.training.footprint import on_meta, parameters
from wpcrack.training.stages import STAGES


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
    needs: Needs
    """Of each worker."""
    parameters: dict[str, int]
    """Trained weights of each network."""
    standing: str
    """What lies in the run folder."""

    @property
    def stages(self) -> list[StagePlan]:
        """The stages in their order."""
        train = self.job.train
        cap, whole = train.max_minutes, max(sum(map(train.cost_of, STAGES)), 1e-9)
        return [
            StagePlan(
                stage,
                steps := getattr(train.steps, stage),
                -(-steps // train.epoch_steps),
                None if cap is None else cap * train.cost_of(stage) / whole,
            )
            for stage in STAGES
        ]

    def text(self) -> str:
        """Return the resolved config as YAML, and below it the figures as comments."""
        config = yaml.safe_dump(self.job.model_dump(mode="json"), sort_keys=False)
        return config + "".join(f"# {line}\n" for line in self.lines()).rstrip("\n")

    def lines(self) -> list[str]:
        """Return the figures for people."""
        job, mb, needs = self.job, 1e-6, self.needs
        workers = max(job.scaling.num_workers, 1)
        pieces = f" in {job.train.accumulate} pieces" if job.train.accumulate > 1 else ""
        mark = needs.footprint
        found = [("run", self.standing), ("start", needs.start)]
        for name, part in counts(self.data).items():
            rest = f"; {needs.scored} are scored after each epoch" if name == "val" else ""
            sources = count_of(part["sources"], "source")
            labels = f"{part['crack']} crack and {part['road']} road windows"
            found.append((name, f"{labels} of {sources}{rest}"))
        if needs.masked:
            found.append(
                ("masked", f"{count_of(needs.masked, 'image')} with masks judge the epochs")
            )
        found.append(
            (
                "images",
                f"{needs.size[0]} x {needs.size[1]} px, {job.train.batch_size} a batch, "
                f"{job.train.batch_size // workers} for each of {count_of(workers, 'worker')}"
                f"{f' or more of at least {job.scaling.least}' if job.scaling.is_elastic else ''}"
                f"{pieces}",
            )
        )
        for stage in self.stages:
            cap = "" if stage.minutes is None else f", at most {stage.minutes:.1f} minutes"
            steps, epochs = count_of(stage.steps, "step"), count_of(stage.epochs, "epoch")
            averaged = f"{mb * mark.averaged[stage.name]:.1f} MB of gradients a step"
            found.append((f"stage {stage.name}", f"{steps} in {epochs}{cap}; {averaged}"))
        sizes = (f"{name} {count / 1e6:.2f} M" for name, count in self.parameters.items())
        found.append(("parameters", ", ".join(sizes)))
        found.append(
            (
                "memory",
                f"about {1e-9 * needs.memory_bytes:.1f} GB in each worker: program "
                f"{mb * PROGRAM_BYTES:.0f} MB, weights {mb * mark.weights:.0f}, gradients "
                f"{mb * mark.gradients:.0f}, optimizers {mb * mark.optimizers:.0f}, forward passes "
                f"{mb * max(mark.activations.values()):.0f}, images {mb * needs.cache_bytes:.0f}, "
                f"labels {mb * needs.foreseen_bytes:.0f}; an estimate",
            )
        )
        found += [("warning", text) for text in (*self.data.warnings, *needs.warnings)]
        return [f"{name:18}{text}" for name, text in found]

    def values(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "config": self.job.model_dump(mode="json"),
            "run": self.standing,
            "start": self.needs.start,
            "items": counts(self.data),
            "size_px": list(self.needs.size),
            "scored": self.needs.scored,
            "stages": {s.name: {"steps": s.steps, "epochs": s.epochs} for s in self.stages},
            "steps": sum(s.steps for s in self.stages),
            "epochs": sum(s.epochs for s in self.stages),
            "parameters": self.parameters,
            "memory_bytes": self.needs.memory_bytes,
            "averaged_bytes": self.needs.footprint.averaged,
        }


def plan_training(job: TrainJob) -> TrainPlan:
    """Look at config, data and run folder as a training does first; write nothing.

    Raises:
        WpcrackError: What the training would raise before its first step.
    """
    standing = standing_of(job)
    data = read_data(job, anew=job.resume == "never")
    return TrainPlan(
        job=job,
        data=data,
        needs=find_needs(job, data),
        parameters={name: parameters(net) for name, net in on_meta(job.model).named_children()},
        standing=standing,
    )


def standing_of(job: TrainJob) -> str:
    """Return what the training would find in its run folder.

    Raises:
        ConfigError: The folder is somebody else's, or a run with other settings.
    """
    root = job.run_dir.absolute()
    require_own(root)
    require_writable(root, f"run_dir {job.run_dir}")
    if job.resume == "never":
        metrics = root / METRICS  # which may be damaged
        epochs = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        lost = f"; {epochs} finished epochs there are dropped" if epochs else ""
        return f"starts in {job.run_dir}{lost}"
    epochs = len(read_metrics(root / METRICS))
    changed = require_same(root, job)
    if read_report(root) is not None and not changed:
        return f"is finished in {job.run_dir}"
    require_same_storage(job)
    if not epochs:
        return f"starts in {job.run_dir}"
    return f"goes on in {job.run_dir} after {epochs} epochs"
