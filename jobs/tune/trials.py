"""How the trials of a sweep run: one after another in this process, or on Ray Tune.

With `scaling.num_workers=0` there is no Ray. On Ray Tune each trial is a Ray Train run of its own
workers; Tune starts, watches and stops the trials. What must not be lost lies in the sweep's folder
(jobs.tune.folder), so Ray's own experiment state is thrown away and never restored from.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from geo.errors import OutputError
from jobs.runtime.capacity import Request, room_for, say_while_waiting
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.folder import is_locked
from jobs.runtime.ray_session import (
    joins_cluster,
    prepare_environment,
    run_interruptibly,
    training_session,
)
from jobs.runtime.shared import NotShared, SharedFolder, share
from jobs.train.folder import LEAVING_S, LOCK
from jobs.train.job import TrainJob
from jobs.train.run import Watch, run_training
from jobs.tune.folder import Trial
from jobs.tune.job import TuneJob
from jobs.tune.sweep import ERROR, FATAL, JOB, NUMBER, USERS, Sweep
from wpcrack.errors import ConfigError, DataError, StorageError, first_line

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 it says nothing
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trainings write their own files
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's experiment state is not used
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # a stopped trial waits for its trainer, which goes with it
}
"""Environment of Ray Tune, where the user did not set it."""

DRIVER_BYTES = 2**20
"""Ray Tune refuses a trial that reserves nothing. No CPU: only its workers compute, and a driver's
share of one could take a worker's place."""

ENDS_SWEEP = (StorageError, OutputError)
"""What no other trial would escape, as a full disk: the sweep ends, its trials are continued."""

STATE = ".ray"
"""Folder of Ray's own experiment state while a sweep runs."""


def run_in_process(sweep: Sweep) -> None:
    """Run all trials that are left.

    Raises:
        WpcrackError: The defaults themselves cannot be trained; every other trial would fail too.
        StorageError, OutputError: Something cannot be written.
        KeyboardInterrupt: Everything finished is kept.
    """
    while (trial := sweep.next()) is not None:
        run_trial(sweep, trial)
        gc.collect()  # optimizers and networks of a trial refer to each other


def run_on_ray(sweep: Sweep, *, local: bool) -> None:
    """Run all trials that are left.

    Raises:
        WpcrackError: The cluster is too small, or the defaults themselves cannot be trained.
        KeyboardInterrupt: Everything finished is kept, and no process is left.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    prepare_environment(local=local)
    from ray import tune

    from jobs.tune.adapters import Decisions, Suggestions

    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # the job shows its own lines
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)  # unused
    job, left = sweep.job, sweep.left
    joins = joins_cluster(local=local)
    room = 1 if joins else local_room(job)  # of a cluster, see at_once; one trial must fit
    workers = Request("worker", room * job.scaling.num_workers, job.scaling.each)
    state = sweep.root / STATE
    shutil.rmtree(state, ignore_errors=True)
    with share(sweep.root) as shared, training_session(workers, local):
        decisions = Decisions(sweep)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, shared=shared), {"CPU": 0, "memory": DRIVER_BYTES}
            ),
            tune_config=tune.TuneConfig(
                num_samples=left,
                search_alg=Suggestions(sweep, decisions),
                scheduler=decisions,
                max_concurrent_trials=at_once(job, None if joins else room),
                reuse_actors=False,
                trial_dirname_creator=dirname,
            ),
            run_config=tune.RunConfig(
                name=STATE,
                storage_path=str(sweep.root),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        with say_while_waiting(workers, sweep.trains):
            run_interruptibly(tuner.fit)
    shutil.rmtree(state, ignore_errors=True)
    if decisions.fatal is not None:
        raise decisions.fatal


class StopTrial(Exception):
    """ASHA ends a trial."""


def run_trial(sweep: Sweep, trial: Trial) -> None:
    """Run one trial; what goes wrong in it is noted, but for what ends the sweep."""
    number = trial.number
    try:
        watch = Watch(after_epoch=partial(stop_if_weak, sweep, number))
        run_training(sweep.training(trial), watch=watch)
        sweep.end(number, "finished")
    except StopTrial:
        sweep.end(number, "stopped")
    except ENDS_SWEEP:
        raise
    except Exception as error:
        sweep.end(number, "failed", f"{type(error).__name__}: {first_line(error)}")
        if number == 0 and isinstance(error, ConfigError | DataError):
            raise


def stop_if_weak(sweep: Sweep, number: int, line: dict[str, Any]) -> None:
    """End the training from inside."""
    if sweep.epoch(number, line):
        raise StopTrial("others are better")


def trial(config: Mapping[str, Any], shared: SharedFolder) -> None:
    """Run one trial for Ray Tune: a training whose epochs it reports as they are recorded.

    Ray's own callback would send them through an actor, a further process for each trial.
    """
    from ray import tune

    job = TrainJob.model_validate_json(config[JOB])
    try:
        shared.require()
    except NotShared as error:
        tune.report({FATAL: str(error)})
        return
    wait_for_folder(job.run_dir)
    try:
        run_training(job, watch=Watch(tell=tune.report))
    except ENDS_SWEEP as error:
        tune.report({FATAL: str(error)})
    except Exception as error:  # noted in results.csv; the sweep goes on
        text = f"{type(error).__name__}: {first_line(error)}"
        tune.report({ERROR: text, USERS: isinstance(error, ConfigError | DataError)})


def wait_for_folder(run_dir: Path, seconds: float = LEAVING_S) -> None:
    """Wait while a process of a sweep that was just killed still holds the run folder."""
    end = time.monotonic() + seconds
    while is_locked(run_dir / LOCK) and time.monotonic() < end:
        time.sleep(0.5)


def dirname(trial: Any) -> str:
    """Name the folder of a trial; Ray's default name holds every setting."""
    return f"{trial.config[NUMBER]:05d}"


def local_room(job: TuneJob) -> int:
    """Return how many trials a Ray of our own is made for: the wish, or what the cores carry."""
    cores = usable_cpus()
    return job.tune.concurrent or max(1, cores // (job.scaling.num_workers * job.scaling.threads))


def trials_here(job: TuneJob) -> int:
    """Return how many trials run at a time on this machine."""
    return local_room(job) if job.scaling.num_workers else 1


def at_once(job: TuneJob, room: int | None) -> int:
    """Return how many trials run at a time, so that each gets all of its workers.

    Ray Tune itself sees only the trials' drivers: with more trials than room, each could hold some
    of the workers that another waits for. Nodes that an autoscaler may add count too.

    Args:
        job: Tells what a trial needs, and the user's wish.
        room: Trials that our own Ray was made for; None: Ray is a cluster that was joined.

    Raises:
        ConfigError: The cluster has room for fewer than asked, or for none.
    """
    slots = room_for(Request("worker", 1, job.scaling.each))
    fitting = slots // job.scaling.num_workers
    wanted = job.tune.concurrent or (fitting if room is None else min(room, fitting))
    if fitting < max(wanted, 1):
        raise ConfigError(
            f"the cluster has room for {slots} workers of {job.scaling.threads} CPU"
            f"{' and 1 GPU' if job.scaling.use_gpu else ''}, {max(wanted, 1)} trials at once need "
            f"{max(wanted, 1) * job.scaling.num_workers}; set a smaller tune.concurrent, "
            "scaling.num_workers or scaling.cpus_per_worker"
        )
    return wanted
