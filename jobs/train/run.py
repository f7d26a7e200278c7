"""Image-level data set -> model, on Ray Train.

    wpcrack train configs/train.yaml data.root=out/set run_dir=out/run
    python -m jobs.train configs/train.yaml data.root=out/set run_dir=out/run

The same command continues an unfinished run.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geo.errors import GeoError
from jobs.runtime.allocator import keep_freed_memory, worker_environment
from jobs.runtime.capacity import Request, say_while_waiting
from jobs.runtime.folder import SAME_COMMAND, how_to_continue, is_locked
from jobs.runtime.ray_private import end_train_controllers
from jobs.runtime.ray_session import (
    joins_cluster,
    prepare_environment,
    run_interruptibly,
    training_session,
)
from jobs.runtime.shared import share
from jobs.runtime.signals import Interrupted, stop_on_sigterm
from jobs.runtime.terminal import USER_ERRORS, last_line, say
from jobs.train.checkpoints import drop_states, judged_by, require_same_storage, storage_of
from jobs.train.folder import (
    METRICS,
    WRITER,
    open_run,
    read_data,
    read_metrics,
    require_own,
)
from jobs.train.job import TrainJob, Workers
from jobs.train.needs import find_needs
from jobs.train.report import ProgressLines, TrainReport, closing_lines, read_report, write_report
from jobs.train.split import keep_split
from jobs.train.tracking import Trackers
from wpcrack.errors import StorageError, TrainingError, WpcrackError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a system says when a disk, or a user's share of it, is full."""

RANKS_WAIT_S = 7 * 24 * 3600
"""Seconds that ranks wait for each other. Ray tells when one is lost; torch's half hour would only
end a training one of whose workers waits for a slow disk."""

FUSING = (
    "trained; windows are drawn to choose how the scales are fused, and those held out are looked "
    "at: about a minute"
)
"""What is said when the last epoch of a model that looks at several scales is over."""


@dataclass(frozen=True)
class Watch:
    """How a sweep looks into the trainings that it starts."""

    after_epoch: Callable[[dict[str, Any]], None] | None = None
    """In-process training: gets each new line of metrics.jsonl; what it raises ends the run."""
    tell: Callable[[dict[str, Any]], None] | None = None
    """Gets each new line of metrics.jsonl too, in a thread beside the training."""


def run_training(
    job: TrainJob, *, local: bool = False, watch: Watch | None = None, alone: bool = True
) -> TrainReport:
    """Train, or continue, the run in `job.run_dir`.

    Args:
        job: What to do.
        local: Use a Ray of our own even if RAY_ADDRESS names another.
        watch: Who is told of each epoch beside the terminal and the trackers.
        alone: False: it is a step of a job that says itself what comes after Ctrl-C.

    Raises:
        WpcrackError: Unusable data or settings, a loss that is not finite, lost workers.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the last checkpoint is kept and the user is told so.
    """
    if job.scaling.num_workers:
        joins_cluster(local=local)  # what it cannot join is refused before any work
    with stop_on_sigterm():
        require_own(job.run_dir)
        data = read_data(job, anew=job.resume == "never")
        is_done = job.resume == "auto" and read_report(job.run_dir) is not None
        if not is_done and job.resume != "never":
            require_same_storage(job)
        needs = None if is_done else find_needs(job, data, local=local)
        with open_run(job, drop_elsewhere=drop_states) as root:
            finished = read_report(root)
            if finished is not None:
                say(f"{job.run_dir} is finished already; resume=never trains again")
                for line in closing_lines(finished, job, data):
                    say(line)
                return finished
            needs = needs or find_needs(job, data, local=local)
            keep_split(root, data)
            say(needs.start)
            for warning in (*data.warnings, *needs.warnings):
                say(f"warning: {warning}")
            started, watch = time.monotonic(), watch or Watch()
            earlier_s = sum(line.get("seconds", 0.0) for line in read_metrics(root / METRICS))
            try:
                then = FUSING if needs.fuses else None
                with (
                    Trackers(root, job) as trackers,
                    ProgressLines(root / METRICS, (trackers.epoch, watch.tell), then),
                ):
                    fit(job, local, watch)
            except KeyboardInterrupt as error:
                if not alone:
                    raise
                epochs = len(read_metrics(root / METRICS))
                say(
                    f"interrupted: {epochs} epochs are finished and kept in {job.run_dir}; "
                    f"{how_to_continue(job.resume)}"
                )
                raise Interrupted from error
            seconds = earlier_s + time.monotonic() - started
            report = write_report(root, job, data, seconds, needs.start)
            for line in closing_lines(report, job, data):
                say(line)
            return report


def fit(job: TrainJob, local: bool, watch: Watch) -> None:
    """Run the loop on Ray Train, or with num_workers=0 in this process."""
    prepare_environment()
    from ray.train.v2.api.exceptions import TrainingFailedError

    from jobs.train.checkpoints import mend_list
    from jobs.train.loop import train_loop

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # the job shows its own lines
    scaling, config = job.scaling, job.absolute()

    def in_process(values: dict[str, Any]) -> None:
        keep_freed_memory()
        train_loop(values, after_epoch=watch.after_epoch)

    if scaling.num_workers == 0:
        make_trainer(in_process, config).fit()
        return
    mend_list(config.run_dir)
    request, data = Request("worker", scaling.least, scaling.each), config.data
    read = [path for path in (data.root, data.val_images, data.val_masks) if path is not None]
    with share(config.run_dir, read) as shared, training_session(request, local):
        loop = functools.partial(train_loop, shared=shared)
        has_begun = functools.partial(is_locked, config.run_dir / WRITER)
        try:
            with say_while_waiting(request, has_begun):
                run_interruptibly(make_trainer(loop, config).fit, end_train_controllers)
        except TrainingFailedError as error:
            raise explain_failure(error) from error


def make_trainer(loop: Callable[[dict[str, Any]], None], config: TrainJob) -> Any:
    """Make Ray's trainer of a job whose paths are absolute.

    Args:
        loop: what each worker runs.
        config: the job.
    """
    from ray.train import CheckpointConfig

    scaling = config.scaling
    return ray_trainer(
        loop,
        config.model_dump(mode="json"),
        scaling,
        scaling.each,
        storage_of(config),
        checkpoints=CheckpointConfig(
            num_to_keep=scaling.num_to_keep,
            checkpoint_score_attribute=judged_by(config),
        ),
    )


def ray_trainer(
    loop: Callable[[dict[str, Any]], None],
    values: dict[str, Any],
    scaling: Workers,
    each: dict[str, float],
    storage: tuple[str, str],
    *,
    checkpoints: Any = None,
) -> Any:
    """Make Ray's trainer of any training.

    Args:
        loop: what each worker runs.
        values: what it gets.
        scaling: how many workers.
        each: resources of one, as Ray names them.
        storage: path for Ray's files, and name of the run in it.
        checkpoints: Ray's `CheckpointConfig`; None: the loop keeps its states itself.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ends = scaling.least, scaling.num_workers
    workers = ends if scaling.least < scaling.num_workers else scaling.num_workers
    hidden = {} if scaling.use_gpu else {"CUDA_VISIBLE_DEVICES": ""}  # those belong to others
    return TorchTrainer(
        loop,
        train_loop_config=values,
        torch_config=TorchConfig(timeout_s=RANKS_WAIT_S),
        scaling_config=ScalingConfig(
            num_workers=workers,  # type: ignore[arg-type]  # mypy sees that of Train V1
            use_gpu=scaling.use_gpu,
            resources_per_worker=each if scaling.num_workers else None,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # as above
            name=storage[1],
            storage_path=storage[0],
            worker_runtime_env={"env_vars": worker_environment() | hidden},
            failure_config=FailureConfig(  # type: ignore[call-arg]  # as above
                max_failures=scaling.max_failures,
                max_preemption_failures=-1,  # a spot node that is taken back is no failure
            ),
            checkpoint_config=checkpoints,
        ),
    )


def explain_failure(error: Exception) -> WpcrackError | GeoError:
    """Return the user's error that ended the workers, or a sentence about the loss of one."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, USER_ERRORS):
            return cause
    text = last_line(next(iter(failures.values()), error))
    for number in NO_ROOM:
        if f"[Errno {number}]" in text:  # from Ray's own writer, wrapped more than once
            return StorageError(
                f"a checkpoint cannot be written ({os.strerror(number)}); the one before is kept: "
                f"{SAME_COMMAND}"
            )
    return TrainingError(
        f"the workers failed ({text}); the last checkpoint is kept and the same command continues "
        "from it"
    )
