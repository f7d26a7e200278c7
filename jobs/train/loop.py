"""What each Ray Train worker runs: the method's trainer, with files on rank 0."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from jobs.runtime.counters import counter
from jobs.runtime.folder import SAME_COMMAND, explain_write_errors
from jobs.runtime.shared import SharedFolder
from jobs.runtime.terminal import last_line
from jobs.runtime.versions import versions
from jobs.train.checkpoints import LocalStates, RayStates, States
from jobs.train.folder import METRICS, TENSORBOARD, read_data, sole_writer, truncate_metrics
from jobs.train.job import TrainJob, masked_pairs
from jobs.train.pace import Pace
from jobs.train.report import HELD_OUT, SELECTIONS
from wpcrack.data.batches import Shard, validation_part
from wpcrack.errors import CheckpointError, StorageError
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.model import MODEL_FOLDER, Model, ModelInfo, describe_anew, load_model, save_model
from wpcrack.scoring.windows import WindowScores, score_windows
from wpcrack.training.fusion import with_fusion
from wpcrack.training.selection import COLUMNS, objective
from wpcrack.training.start import other_start, path_hash
from wpcrack.training.trainer import EpochReport, Trainer

PANELS = " | ".join(COLUMNS)
PANEL_ROWS = 4
"""Validation windows that TensorBoard shows after each epoch."""

HELD_OUT_PX = 8_000_000
"""Pixels of validation windows by which the model is compared with its start, at most."""


def train_loop(
    config: dict[str, Any],
    *,
    after_epoch: Callable[[dict[str, Any]], None] | None = None,
    shared: SharedFolder | None = None,
) -> None:
    """Train to the end, from wherever the last state stands.

    Args:
        config: A TrainJob, as JSON.
        after_epoch: Gets the new line of metrics.jsonl once the state is kept, on rank 0; what it
            raises ends the training.
        shared: what a worker must see before it works; None: it is the driver itself.

    Raises:
        NotShared: The node of this worker does not see it.
    """
    if shared is not None:
        shared.require()
    import ray.train
    import ray.train.torch

    job = TrainJob.model_validate(config)
    torch.set_num_threads(job.scaling.threads)
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    if job.scaling.num_workers == 0:
        device = torch.device("cuda" if job.scaling.use_gpu else "cpu")
        with quiet_board():
            train(job, shard, device, LocalStates(job), after_epoch)
        return
    writes = sole_writer(job.run_dir) if shard.rank == 0 else nullcontext()
    with writes, quiet_board():
        train(job, shard, ray.train.torch.get_device(), RayStates(job), after_epoch)


def train(
    job: TrainJob,
    shard: Shard,
    device: torch.device,
    states: States,
    after_epoch: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Train what is left of a run, on one rank."""
    data = read_data(job)
    trainer = Trainer(
        job,
        data,
        masked=masked_pairs(job.data),
        shard=shard,
        device=device,
        loaders=job.scaling.loaders,
    )
    state = states.latest()
    if state is not None:
        load(trainer, state, job)
    files = RunFiles(job, trainer) if shard.rank == 0 else None
    steps = counter("wpcrack_train_steps", "Steps of trainings.") if files is not None else None
    before = trainer.position.step
    pace = Pace(job.scaling.checkpoint_minutes, device, states.is_leaving)

    def within() -> None:
        if pace.is_due():
            trainer.meter.settle(device)
            states.keep_within(trainer.state_dict() if shard.rank == 0 else {}, trainer.position)
            pace.restart()

    for report in trainer.epochs(within):
        if steps is not None:
            steps(report.step - before)
        before = report.step
        line = files.write(report) if files is not None else None
        states.keep(trainer.state_dict() if shard.rank == 0 else {}, report)
        pace.restart()
        if line is not None and after_epoch is not None:
            after_epoch(line)
    if files is not None:
        files.complete_model()
        files.close()


def load(trainer: Trainer, state: dict[str, Any], job: TrainJob) -> None:
    """Let a training go on from a state.

    Raises:
        CheckpointError: It is of other networks or optimizers, as resume=force allows; or the model
            that the training started from is another one now, which only resume=force allows.
    """
    known = trainer.learner.start_hash
    if state.get("start", known) != known and job.resume != "force":  # older states do not say
        raise other_start(job.model)
    try:
        trainer.load_state_dict(state)
    except (RuntimeError, ValueError, LookupError) as error:
        raise CheckpointError(
            f"the last checkpoint of {job.run_dir} does not fit these settings "
            f"({last_line(error).strip()}); set those of model and optim as they were, or set "
            "resume=never to start again"
        ) from error


@contextmanager
def quiet_board() -> Iterator[None]:
    """Print no traceback of the thread that writes for TensorBoard: `flush` raises its error."""
    show = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not type(what.thread).__module__.startswith("tensorboard."):
            show(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = show


class RunFiles:
    """metrics.jsonl, TensorBoard and the best model; on rank 0."""

    def __init__(self, job: TrainJob, trainer: Trainer) -> None:
        self.job, self.trainer = job, trainer
        self.root = job.run_dir.absolute()
        truncate_metrics(self.root, trainer.position.epoch)
        self.ticked, self.warnings = time.monotonic(), list(trainer.warnings)
        board = str(self.root / TENSORBOARD)
        with explain_write_errors(board, SAME_COMMAND, StorageError):
            # TensorBoard drops what lies at this step, too: that of the last finished epoch.
            self.board = SummaryWriter(board, purge_step=trainer.position.step + 1)

    def write(self, report: EpochReport) -> dict[str, Any]:
        """Record an epoch; a model that is the best so far replaces model/ as a whole.

        Returns:
            The new line of metrics.jsonl; `seconds` is the time since the last one.

        Raises:
            StorageError: The run folder cannot be written; the last checkpoint is as it was.
        """
        try:
            return self._write(report)
        except OSError as error:
            raise StorageError(
                f"epoch {report.epoch} cannot be recorded in {self.root} "
                f"({error.strerror or error}); the last checkpoint is kept: {SAME_COMMAND}"
            ) from error

    def _write(self, report: EpochReport) -> dict[str, Any]:
        if report.is_best:
            info = ModelInfo(
                model=self.job.model,
                gsd_mm=self.job.data.gsd_mm,
                **self.trainer.learner.start.looks,
                trained={
                    "epoch": report.epoch,
                    "stage": report.stage,
                    "step": report.step,
                    "seed": self.job.seed,
                    "blend": self.trainer.learner.learned_share,
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
        """Show in TensorBoard losses and scores, learning rates, and what the networks see."""
        rates = self.trainer.learner.optimizers.rates()
        scalars = {**report.metrics, **{f"learning rate/{k}": v for k, v in rates.items()}}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, report.step)
        rows = self.trainer.panels(PANEL_ROWS)
        self.board.add_image(PANELS, torch.cat(tuple(rows), 1), report.step)
        self.board.flush()

    def complete_model(self) -> None:
        """Choose how the kept model fuses its scales, and see how it does on held-out windows.

        The model that the training started from is seen beside it, if it is still there.

        Raises:
            StorageError: The model cannot be written.
        """
        if self.trainer.position.best_epoch < 0:
            return
        model, start = load_model(self.root), self.trainer.learner.start.folder
        info = with_fusion(model.info, model.networks, self.trainer.device)
        scores = {"trained": self._on_held_out(replace(model, info=info))}
        if start is not None:
            with suppress(CheckpointError):
                first = load_model(start)
                if path_hash(first.networks.state_dict()) == self.trainer.learner.start_hash:
                    scores["start"] = self._on_held_out(first)
        windows = {name: asdict(each) for name, each in scores.items()}
        trained = info.trained | {HELD_OUT: windows}
        describe_anew(model.folder, info.model_copy(update={"trained": trained}))

    def _on_held_out(self, model: Model) -> WindowScores:
        items, info = self.trainer.val_images.items, model.info
        most = max(2, HELD_OUT_PX // max(item.height * item.width for item in items))
        predictor = TorchPredictor(
            model.networks,
            self.trainer.device,
            low_precision=False,
            scales=info.scales_at(self.job.data.gsd_mm),
            power=info.fusion_power,
        )
        part = items if len(items) <= most else validation_part(items, most, self.job.seed)
        return score_windows(part, predictor, self.job.train.label_min_share)

    def close(self) -> None:
        """End the TensorBoard file.

        Raises:
            StorageError: It cannot be written.
        """
        with explain_write_errors(str(self.root / TENSORBOARD), SAME_COMMAND, StorageError):
            self.board.close()
