"""Kill a map, a training or a sweep of one process at random moments, and compare the result.

Run from the repository root:
    python -m benchmarks.kills.alone map [--kills 100] [--seed 0]
    python -m benchmarks.kills.alone train [--kills 20] [--seed 0]
    python -m benchmarks.kills.alone tune [--kills 20] [--seed 0]

What `benchmarks.kills` does on Ray is done here without it, hundreds of times cheaper: the job runs
in a fork of this process, gets SIGKILL after a random share of the time that it takes undisturbed,
and is started again. A map has blocks, regions that are joined (as Ray would join them), a
GeoPackage that is written, checked and put in place, and pictures; a kill is counted for the step
that it met. After each kill a map that is there must be whole. After every few kills the job is
left to its end, must be equal to an undisturbed run, and begins anew.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kills.__main__ import job_of, stand_in
from benchmarks.kills.watch import differences, draw_tiles, in_process

IN_A_ROW = 5
"""Kills of a job before it may end."""

STEPS = {"warmup": 4, "adversarial": 4, "detector": 4}
"""Of the training: three epochs, each with three states within."""

WINDOW_PX = 48

CLOCKS = ("seconds", "train/images_per_s", "train/data_wait")
"""Metrics of an epoch that are measured times."""

STEP = "step"
"""File in which a job says where it is."""


@dataclass(frozen=True)
class Trial:
    """A job that is killed.

    Attributes:
        run: does the job, or goes on with it.
        reset: removes what it has made.
        flaws: says what is wrong with what it has made; the job may be unfinished.
        step: file with the step that it is at.
    """

    run: Callable[[], None]
    reset: Callable[[], None]
    flaws: Callable[[bool], list[str]]
    step: Path


def campaign(trial: Trial, kills: int, seed: int) -> Counter[str]:
    """Kill a job so often; return how many kills met each step.

    Raises:
        AssertionError: A kill left a trace.
    """
    chance, met = random.Random(seed), Counter[str]()
    start = time.monotonic()
    assert run_for(trial.run) is None
    whole_s = time.monotonic() - start
    while met.total() < kills:
        trial.reset()
        for _ in range(IN_A_ROW):
            trial.step.write_text("start")
            if run_for(trial.run, chance.uniform(0, whole_s)) is None:
                break
            met[trial.step.read_text() or "start"] += 1
            require(trial.flaws(False))
        assert run_for(trial.run) is None
        require(trial.flaws(True))
        print(dict(met), flush=True)
    return met


def require(flaws: list[str]) -> None:
    """Stop at the first trace."""
    assert not flaws, flaws


def run_for(run: Callable[[], None], seconds: float | None = None) -> int | None:
    """Run a function in a fork, killed after some seconds; return the signal that ended it.

    Raises:
        AssertionError: It failed by itself.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            run()
            code = 0
        finally:
            os._exit(code)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status), "the job failed"
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.001)


def say_step(step: Path, owner: Any, name: str, what: str) -> None:
    """Have a function of a module or class say where the job is before it begins."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def saying(*args: Any, **kwargs: Any) -> Any:
        step.write_text(what)
        return original(*args, **kwargs)

    setattr(owner, name, saying)


def map_trial(folder: Path) -> Trial:
    """Make a map of 49 blocks in regions of 4 x 4; the reference is made in this process."""
    from geo.layers import assemble as assembling
    from geo.layers import geopackage
    from jobs.infer import outputs, spread
    from jobs.infer import run as infer

    draw_tiles(folder / "tiles", 1)
    out, reference, step = folder / "killed.gpkg", folder / "reference.gpkg", folder / STEP

    def regions(results: Path, work: Callable[[Any], Any], *, local: bool) -> Any:
        def run_all(do: Callable[[Any], None], chosen: Sequence[Any], _: object) -> None:
            for region in chosen:
                do(region)

        made = work(run_all)
        shutil.rmtree(results)
        return made

    def run(to: Path) -> None:
        infer.run_inference(job_of(folder / "tiles", to), stand_in(0.0))

    def reset() -> None:
        shutil.rmtree(out.with_suffix(".work"), ignore_errors=True)
        for path in folder.glob("*killed.*"):
            path.unlink()

    def flaws(is_finished: bool) -> list[str]:
        if not is_finished:
            return list(differences(reference, out)) if out.exists() else []
        made = {path.name for path in folder.iterdir() if "killed" in path.name}
        wanted = {path.name.replace("reference", "killed") for path in folder.glob("reference.*")}
        blocks = (out.with_suffix(".work") / "job.jsonl").read_text().splitlines()[1:]
        doubled = [line for line in blocks if blocks.count(line) > 1]
        return [*differences(reference, out), *sorted(made ^ wanted), *doubled]

    infer.compute = in_process
    run(reference)
    spread.SPREAD_FROM, spread.REGION_BLOCKS, spread.spread_on_ray = 2, 4, regions
    for module, name, what in (
        (infer, "compute", "blocks"),
        (infer, "assemble_map", "joining"),
        (assembling, "publish", "writing"),
        (geopackage.packages, "seal", "publication"),
        (outputs, "reduce", "pictures"),
    ):
        say_step(step, module, name, what)
    return Trial(functools.partial(run, out), reset, flaws, step)


def train_trial(folder: Path) -> Trial:
    """Train a tiny network for a few epochs in the job's own process."""
    step = watch_training(folder)

    def run(name: str) -> None:
        from jobs.train.job import TrainJob
        from jobs.train.run import run_training

        run_training(TrainJob.model_validate(tiny_settings(folder, name)), local=True)

    def flaws(is_finished: bool) -> list[str]:
        return unequal(folder / "killed", folder / "reference") if is_finished else []

    return killed_trial(folder, run, flaws, step)


def tune_trial(folder: Path) -> Trial:
    """Sweep over two tiny trainings, one after the other in the job's own process."""
    from jobs.tune import run as tuning
    from jobs.tune.folder import JOURNAL, RESULTS, trial_folder

    step = watch_training(folder)
    say_step(step, tuning, "conclude", "results")

    def run(name: str) -> None:
        from jobs.tune.job import TuneJob

        sweep = {"space": {"losses.rec_full": {"choice": [1.0, 0.5]}}, "trials": 2}
        settings = tiny_settings(folder, name) | {"tune": {**sweep, "sampler": "grid"}}
        tuning.run_tune(TuneJob.model_validate(settings), local=True)

    def table(root: Path) -> list[dict[str, str]]:
        with (root / RESULTS).open(encoding="utf-8", newline="") as file:
            return [
                {k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)
            ]

    def ends(root: Path) -> list[str]:
        lines = (root / JOURNAL).read_text().splitlines()
        return [line for line in lines if '"epoch"' not in line]  # some of which run again

    def flaws(is_finished: bool) -> list[str]:
        if not is_finished:
            return []
        killed, reference = folder / "killed", folder / "reference"
        found = [] if table(killed) == table(reference) else [f"other results: {table(killed)}"]
        if ends(killed) != ends(reference):
            found.append("other trials, or their ends noted twice")
        for number in range(2):
            found += unequal(trial_folder(killed, number), trial_folder(reference, number))
        return found

    return killed_trial(folder, run, flaws, step)


def killed_trial(
    folder: Path,
    run: Callable[[str], None],
    flaws: Callable[[bool], list[str]],
    step: Path,
) -> Trial:
    """Run the job undisturbed; return the trial of the other that is killed."""
    assert run_for(functools.partial(run, "reference")) is None
    reset = functools.partial(shutil.rmtree, folder / "killed", ignore_errors=True)
    return Trial(functools.partial(run, "killed"), reset, flaws, step)


def tiny_settings(folder: Path, name: str) -> dict[str, Any]:
    """Make the settings of a training of a few steps in `folder / name`."""
    networks = {"encoder": "test_efficientnet", "pretrained": "none", "decoder_widths": (8, 8)}
    channels = dict.fromkeys(("cam_channels", "recon_channels", "detector_channels"), 8)
    return {
        "data": {"root": folder / "set"},
        "run_dir": folder / name,
        "model": networks | channels,
        "train": {"batch_size": 2, "epoch_steps": 4, "val_items": 2, "steps": STEPS},
        "scaling": {"num_workers": 0, "checkpoint_minutes": 1e-6},
    }


def watch_training(folder: Path) -> Path:
    """Draw a training set and have trainings say where they are; return the file that says so."""
    import ray.train.torch  # noqa: F401  # loaded once, before all forks
    import torch

    from jobs.demo.draw import TrainingSetSize, write_training_set
    from jobs.train import loop
    from jobs.train import run as training
    from jobs.train.checkpoints import LocalStates
    from wpcrack.synthetic import WindowConfig
    from wpcrack.training.stages import Learner
    from wpcrack.training.trainer import Trainer

    torch.set_num_threads(1)
    drawn = WindowConfig(size=WINDOW_PX), TrainingSetSize(8, 2)
    write_training_set(folder / "set", *drawn, np.random.SeedSequence([0]))
    step = folder / STEP
    for owner, name, what in (
        (Learner, "step", "steps"),
        (LocalStates, "keep_within", "checkpoint within an epoch"),
        (Trainer, "validate", "validation"),
        (loop.RunFiles, "write", "metrics and model"),
        (LocalStates, "keep", "checkpoint"),
        (training, "write_report", "report"),
    ):
        say_step(step, owner, name, what)
    return step


def unequal(run_dir: Path, other: Path) -> list[str]:
    """Return what differs between two finished trainings, but for measured times."""
    from jobs.train.folder import METRICS

    def epochs(root: Path) -> list[dict[str, float]]:
        lines = map(json.loads, (root / METRICS).read_text().splitlines())
        return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]

    def weights(root: Path) -> list[bytes]:
        return [path.read_bytes() for path in (root / "model").glob("*.safetensors")]

    found = [] if weights(run_dir) == weights(other) else ["other weights"]
    same = epochs(run_dir) == epochs(other)
    return found if same else [*found, f"other metrics: {epochs(run_dir)}"]


def main() -> None:
    """Run a campaign and say what its kills met."""
    trials = {"map": map_trial, "train": train_trial, "tune": tune_trial}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=trials)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        met = campaign(trials[options.what](Path(folder)), options.kills, options.seed)
    counts = ", ".join(f"{what} {count}" for what, count in sorted(met.items()))
    print(f"{met.total()} kills in {time.monotonic() - start:.0f} s, all equal: {counts}")
    sys.exit(0)


if __name__ == "__main__":
    main()
