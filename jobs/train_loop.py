"""What each Ray Train worker runs: the method's trainer, with files on rank 0.

States to continue from go through Ray (`ray.train.report`), which keeps them and hands the last
one to restarted workers. With num_workers=0 Ray runs this in the driver and keeps nothing, so the
states are then kept by `LocalStates` in the same place.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.tensorboard import SummaryWriter

from jobs.train_folder import CHECKPOINTS, METRICS, TENSORBOARD, truncate_metrics
from jobs.train_job import TrainJob, masked_pairs
from jobs.versions import versions
from wpcrack import distributed
from wpcrack.batches import Shard
from wpcrack.checkpoint import MODEL_FOLDER, ModelInfo, save_model
from wpcrack.image_level import read_image_level
from wpcrack.panels import COLUMNS
from wpcrack.selection import LABEL_FREE, MASKED_IOU, objective
from wpcrack.train import EpochReport, Trainer

STATE = "state.pt"
PANELS = " | ".join(COLUMNS)
PANEL_ROWS = 4
"""Validation windows that TensorBoard shows after each epoch."""

SELECTIONS = {
    LABEL_FREE: "label-free score on held-out sources",
    MASKED_IOU: "IoU on the masked validation images that the user gave",
}
"""What a model says of the metric by which its epoch was chosen."""


class States(Protocol):
    """Where states to continue from are kept."""

    def latest(self) -> dict[str, Any] | None:
        """The last complete one."""

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Adds one; called on every rank, `state` matters on rank 0."""


def train_loop(
    config: dict[str, Any], *, after_epoch: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Trains to the end, from wherever the last state stands.

    Args:
        config: A TrainJob, as JSON.
        after_epoch: Gets the new line of metrics.jsonl once the state is kept, on rank 0; what it
            raises ends the training.
    """
    import ray.train
    import ray.train.torch

    job = TrainJob.model_validate(config)
    torch.set_num_threads(job.scaling.threads)
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    local = job.scaling.num_workers == 0
    device = torch.device("cpu") if local else ray.train.torch.get_device()
    states: States = LocalStates(job) if local else RayStates()
    data = read_image_level(job.data.root, val_fraction=job.data.val_fraction, seed=job.seed)
    trainer = Trainer(job, data, masked=masked_pairs(job.data), shard=shard, device=device)
    state = states.latest()
    if state is not None:
        trainer.load_state_dict(state)
    files = RunFiles(job, trainer) if shard.rank == 0 else None
    for report in trainer.epochs():
        line = files.write(report) if files is not None else None
        states.keep(trainer.state_dict() if shard.rank == 0 else {}, report)
        if line is not None and after_epoch is not None:
            after_epoch(line)
    if files is not None:
        files.close()


class RunFiles:
    """metrics.jsonl, TensorBoard and the best model; on rank 0."""

    def __init__(self, job: TrainJob, trainer: Trainer) -> None:
        self.job, self.trainer = job, trainer
        self.root = job.run_dir.absolute()
        truncate_metrics(self.root, trainer.position.epoch)
        self.ticked, self.warnings = time.monotonic(), list(trainer.warnings)
        self.board = SummaryWriter(str(self.root / TENSORBOARD), purge_step=trainer.position.step)

    def write(self, report: EpochReport) -> dict[str, Any]:
        """Records an epoch; a model that is the best so far replaces model/ as a whole.

        Returns:
            The new line of metrics.jsonl; `seconds` is the time since the last one.
        """
        if report.is_best:
            info = ModelInfo(
                model=self.job.model,
                gsd_mm=self.job.data.gsd_mm,
                trained={
                    "epoch": report.epoch,
                    "stage": report.stage,
                    "step": report.step,
                    "seed": self.job.seed,
                    "selection": SELECTIONS[objective(report.metrics)],
                    "score": round(report.metrics[objective(report.metrics)], 6),
                    "versions": versions(("wpcrack", "torch", "timm")),
                },
            )
            save_model(self.root / MODEL_FOLDER, self.trainer.learner.delivered, info)
        now = time.monotonic()
        line = {
            "epoch": report.epoch,
            "stage": report.stage,
            "step": report.step,
            "best": report.is_best,
            "seconds": round(now - self.ticked, 3),
            **{k: round(v, 6) for k, v in report.metrics.items()},
        }
        if self.warnings:
            line["warnings"] = self.warnings
            self.warnings = []
        with (self.root / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.show(report)
        self.ticked = now
        return line

    def show(self, report: EpochReport) -> None:
        """TensorBoard: losses and scores, learning rates, and what the networks see."""
        rates = self.trainer.learner.optimizers.rates()
        scalars = {**report.metrics, **{f"learning rate/{k}": v for k, v in rates.items()}}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, report.step)
        rows = self.trainer.panels(PANEL_ROWS)
        self.board.add_image(PANELS, torch.cat(tuple(rows), 1), report.step)
        self.board.flush()

    def close(self) -> None:
        """Ends the TensorBoard file."""
        self.board.close()


class RayStates:
    """States kept by Ray Train under run_dir/checkpoints."""

    def latest(self) -> dict[str, Any] | None:
        """The last one that Ray completed."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return load_state(Path(folder))

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Reports the epoch; a barrier over all workers."""
        import ray.train

        metrics = {**report.metrics, "epoch": report.epoch, "stage": report.stage}
        name = f"{CHECKPOINTS}/epoch_{report.epoch:05d}"
        if distributed.rank() != 0:
            ray.train.report(metrics, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(dict(state), Path(folder) / STATE)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)


class LocalStates:
    """States kept by ourselves, complete or absent."""

    def __init__(self, job: TrainJob) -> None:
        self.folder = job.run_dir.absolute() / CHECKPOINTS
        self.num_to_keep = job.scaling.num_to_keep

    def latest(self) -> dict[str, Any] | None:
        """The newest one."""
        complete = self._complete()
        return load_state(complete[-1]) if complete else None

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Writes to a temporary name, renames, drops the oldest."""
        import ray.train

        folder = self.folder / f"epoch_{report.epoch:05d}"
        fresh = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        torch.save(dict(state), fresh / STATE)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
        for old in self._complete()[: -self.num_to_keep]:
            shutil.rmtree(old)
        ray.train.report(dict(report.metrics))

    def _complete(self) -> list[Path]:
        return sorted(self.folder.glob("epoch_*/"))


def load_state(folder: Path) -> dict[str, Any]:
    """Reads a state; tensors, numbers and strings only, never code."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state
