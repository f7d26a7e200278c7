"""A sweep ends with right results whatever happens to its trials, its driver or its workers."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from factories import (
    TINY_MODEL,
    ending_within,
    image_level_set,
    processes,
    running_python,
    tiny_model,
    tiny_training,
    wait_until,
)
from PIL import Image
from rays import shared_ray
from typer.testing import CliRunner

import jobs.cli
from geo.errors import OutputError
from jobs.cli.command import read_job
from jobs.runtime import ray_private
from jobs.runtime.shared import share
from jobs.settings.load import find_config, load
from jobs.train.checkpoints import storage_of
from jobs.train.folder import METRICS, REPORT, WRITER, open_run, read_metrics
from jobs.train.job import TrainJob
from jobs.train.run import Watch, run_training
from jobs.tune import run as tune_run
from jobs.tune import sweep as sweeps
from jobs.tune import trials
from jobs.tune.adapters import Decisions, Suggestions
from jobs.tune.folder import JOURNAL, SWEEP, Trial, note, read_trials, trial_folder
from jobs.tune.job import TuneJob, read_space
from jobs.tune.plan import plan_sweep
from jobs.tune.results import best_yaml, draw_sweep
from jobs.tune.run import run_tune
from jobs.tune.starts import require_one_start
from jobs.tune.status import read_status
from jobs.tune.sweep import FATAL, JOB, Sweep
from jobs.tune.trials import at_once
from wpcrack.config import StageSteps
from wpcrack.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    StorageError,
    TrainingError,
    WpcrackError,
)

STEPS = {"steps": {"warmup": 1, "adversarial": 1, "detector": 3}}
SPACE = {
    "losses.rec_full": {"uniform": [0.0, 1.0]},
    "erase.grid": {"choice": [8, 16, 32]},
    "pseudo_label.refiners": {"choice": [["darkness"], ["darkness", "par"]]},
}


PATIENCE_S = 1200.0
"""For hangs alone: no sweep takes a tenth of it on a quiet machine."""


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_level_set(tmp_path_factory.mktemp("set"))


def make_job(root: Path, run_dir: Path, workers: int = 0, **changes: Any) -> TuneJob:
    tune = {"space": SPACE, "trials": 6, "startup": 2, **changes.pop("tune", {})}
    train = STEPS | changes.pop("train", {})
    settings = tiny_training(root, run_dir, workers, train=train, tune=tune, **changes)
    return TuneJob.model_validate(settings)


class Drawn:
    """Takes the training's place: a score that follows from the settings, epoch by epoch.

    Attributes:
        epochs: that ran, with the numbers of their trials.
        at: what ends one of them before its line is written.
        after: what ends one of them before the sweep is told.
    """

    def __init__(self) -> None:
        self.epochs: list[tuple[int, int]] = []
        self.at: dict[tuple[int, int], BaseException] = {}
        self.after: dict[tuple[int, int], BaseException] = {}

    def __call__(self, job: TrainJob, *, watch: Watch) -> None:
        number = int(job.run_dir.name)
        job.run_dir.mkdir(parents=True, exist_ok=True)
        lines = read_metrics(job.run_dir / METRICS)
        for epoch in range(len(lines), 5):
            if (number, epoch) in self.at:
                raise self.at.pop((number, epoch))
            self.epochs.append((number, epoch))
            line = {
                "epoch": epoch,
                "stage": "warmup" if epoch == 0 else "detector",
                "seconds": 2.0,
                "val/score": 0.0 if epoch == 0 else job.losses.rec_full + 0.01 * epoch,
                "train/progress": (epoch + 1) / 5,
            }
            with (job.run_dir / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")
            if (number, epoch) in self.after:
                raise self.after.pop((number, epoch))
            assert watch.after_epoch is not None
            watch.after_epoch(line)
        (job.run_dir / REPORT).write_text("{}")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    made = Drawn()
    monkeypatch.setattr(trials, "run_training", made)
    return made


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_leaves_a_table_a_config_a_picture_and_a_report(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    drawn.at[3, 2] = TrainingError("the loss cls_bce is not finite\nin detail")
    drawn.at[4, 1] = MemoryError("32 GiB")
    status = run_tune(make_job(data_set, tmp_path / "sweep"))
    root, table = tmp_path / "sweep", rows(tmp_path / "sweep")
    assert [row["trial"] for row in table] == ["0", "1", "2", "3", "4", "5"]
    assert (table[0]["status"], table[0]["losses.rec_full"]) == ("finished", "0.2")
    assert json.loads(table[0]["score_per_epoch"]) == [0.21, 0.22, 0.23, 0.24]
    assert (table[0]["epochs"], table[0]["best_epoch"], table[0]["seconds"]) == ("5", "4", "10.0")
    assert table[3]["error"] == "TrainingError: the loss cls_bce is not finite"
    assert table[4]["error"] == "MemoryError: 32 GiB"
    assert (table[3]["status"], table[3]["score"]) == ("failed", "")
    assert {row["status"] for row in table} == {"finished", "stopped", "failed"}
    best = max((row for row in table if row["score"]), key=lambda row: float(row["score"]))
    chosen = load(TrainJob, root / "best.yaml")
    assert chosen.losses.rec_full == pytest.approx(float(best["losses.rec_full"]), abs=1e-5)
    assert chosen.data.root == data_set.absolute()
    assert chosen.run_dir == tmp_path / "sweep-best"
    assert load(TrainJob, root / "best.yaml", ["run_dir=elsewhere"]).run_dir == Path("elsewhere")
    with Image.open(root / "sweep.png") as picture:
        assert picture.size[0] == 1000
    report = json.loads((root / REPORT).read_text())
    assert (report["objective"], report["trials"]) == ("label-free score", 6)
    assert (status.failed, status.is_complete, status.is_running) == (2, True, False)


def test_an_interrupted_sweep_ends_as_an_undisturbed_one_and_repeats_no_epoch(
    data_set: Path, tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tune(make_job(data_set, tmp_path / "whole"))
    whole, drawn.epochs = list(drawn.epochs), []
    for place in ((1, 0), (2, 3), (4, 2)):
        drawn.at[place] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run_tune(make_job(data_set, tmp_path / "cut"))
        assert "the same command continues" in capsys.readouterr().err
        with (tmp_path / "cut" / JOURNAL).open("a") as file:
            file.write('{"trial": 9, "par')  # a crash while noting
    run_tune(make_job(data_set, tmp_path / "cut"))
    assert drawn.epochs == whole
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_trial_that_was_cut_off_as_it_was_stopped_is_not_gone_on_with(
    data_set: Path, tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tune(make_job(data_set, tmp_path / "whole"))
    whole, drawn.epochs = list(drawn.epochs), []
    stopped = [n for n, row in enumerate(rows(tmp_path / "whole")) if row["status"] == "stopped"]
    assert stopped
    for number in (0, *stopped):
        drawn.after[max(place for place in whole if place[0] == number)] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run_tune(make_job(data_set, tmp_path / "cut"))
    capsys.readouterr()
    run_tune(make_job(data_set, tmp_path / "cut"))
    assert f"trial {stopped[-1]} stopped: others are better" in capsys.readouterr().err
    assert drawn.epochs == whole
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_trackers_hear_that_a_trial_was_stopped(
    data_set: Path, tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(sweeps, "end_stopped", lambda root, job: told.append(int(root.name)))
    run_tune(make_job(data_set, tmp_path / "sweep", tune={"asha": {"grace": 1}}))
    stopped = [t.number for t in read_trials(tmp_path / "sweep") if t.status == "stopped"]
    assert told == stopped
    assert told


@pytest.mark.parametrize("full", [StorageError("model: no space"), OutputError("table: no space")])
def test_a_full_disk_ends_the_sweep_and_fails_no_trial(
    data_set: Path, tmp_path: Path, drawn: Drawn, full: Exception
) -> None:
    run_tune(make_job(data_set, tmp_path / "whole"))
    drawn.at[2, 3] = full
    with pytest.raises(type(full), match="no space"):
        run_tune(make_job(data_set, tmp_path / "cut"))
    assert [row["status"] for row in rows(tmp_path / "cut")][2:] == ["running"]
    run_tune(make_job(data_set, tmp_path / "cut"))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_trial_on_ray_that_meets_a_full_disk_ends_the_sweep(
    data_set: Path, tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", told.append)
    drawn.at[0, 0] = StorageError("model: no space")
    job = TrainJob.model_validate(tiny_training(data_set, tmp_path / "00000"))
    with share(tmp_path) as shared:
        trials.trial({JOB: job.model_dump_json()}, shared)
    assert told == [{FATAL: "model: no space"}]


def test_a_journal_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(OutputError, match=r"trials.jsonl cannot be written .*same command cont"):
        note(tmp_path, 0, status="finished")


def test_a_finished_sweep_says_so_and_goes_on_with_more_trials(
    data_set: Path, tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 2}))
    drawn.epochs.clear()
    assert run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 2})).is_complete
    assert "finished already" in capsys.readouterr().err
    assert drawn.epochs == []
    assert run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 3})).total == 3
    assert {number for number, _ in drawn.epochs} == {2}


def test_a_sweep_whose_trials_have_all_ended_is_concluded_without_ray(
    data_set: Path, tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 2}))

    def starts(*_: Any, **__: Any) -> None:
        pytest.fail("there is nothing to run")

    monkeypatch.setattr(tune_run, "run_on_ray", starts)
    (tmp_path / "sweep" / REPORT).unlink()  # killed before it was written
    run_tune(make_job(data_set, tmp_path / "sweep", 1, tune={"trials": 2}))
    again = make_job(data_set, tmp_path / "sweep", 1, tune={"trials": 2, "retry_failed": True})
    assert run_tune(again).is_complete


def test_failed_trials_are_run_again_only_on_request(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    drawn.at[1, 1] = MemoryError()
    first = {"trials": 2, "asha": {"enabled": False}}
    assert run_tune(make_job(data_set, tmp_path / "sweep", tune=first)).failed == 1
    assert run_tune(make_job(data_set, tmp_path / "sweep", tune=first)).failed == 1
    again = run_tune(make_job(data_set, tmp_path / "sweep", tune={**first, "retry_failed": True}))
    assert (again.failed, again.finished) == (0, 2)


def test_every_trial_has_the_seed_of_the_sweep_unless_seeds_are_searched(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    class Noting(Drawn):
        def __call__(self, job: TrainJob, *, watch: Watch) -> None:
            seeds.append(job.seed)
            super().__call__(job, watch=watch)

    monkeypatch.setattr(trials, "run_training", Noting())
    run_tune(make_job(data_set, tmp_path / "one", seed=7, tune={"trials": 3}))
    space = {**SPACE, "seed": {"choice": [7, 8, 9]}}
    run_tune(make_job(data_set, tmp_path / "all", seed=7, tune={"trials": 6, "space": space}))
    assert seeds[:4] == [7, 7, 7, 7]  # the defaults of the second sweep are its first trial
    assert len(set(seeds[4:])) > 1
    assert [row["seed"] for row in rows(tmp_path / "one")] == ["7", "7", "7"]
    assert [row["seed"] for row in rows(tmp_path / "all")] == [str(seed) for seed in seeds[3:]]


def test_a_trial_that_really_diverges_is_noted_and_the_others_are_not_touched(
    data_set: Path, tmp_path: Path
) -> None:
    space = {"optim.head_lr": {"choice": [2e-3, 1e30, 1e-3]}}
    tune = {"space": space, "sampler": "grid", "trials": None, "asha": {"enabled": False}}
    status = run_tune(make_job(data_set, tmp_path / "sweep", tune=tune))
    table = rows(tmp_path / "sweep")
    assert [row["status"] for row in table] == ["finished", "failed", "finished"]
    assert table[1]["error"].startswith("TrainingError: ")
    assert "not finite" in table[1]["error"]
    assert (status.failed, status.is_complete) == (1, True)


def test_another_config_in_the_same_folder_is_refused(
    data_set: Path, tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 1}))
    with pytest.raises(ConfigError, match=r"holds a sweep with other settings.*seed: 0 -> 1"):
        run_tune(make_job(data_set, tmp_path / "sweep", seed=1, tune={"trials": 1}))
    other = {"trials": 1, "space": {"erase.grid": {"choice": [8]}}}
    with pytest.raises(ConfigError, match=r"tune\.space"):
        run_tune(make_job(data_set, tmp_path / "sweep", tune=other))
    drawn.at[0, 3] = KeyboardInterrupt()
    anew = make_job(data_set, tmp_path / "sweep", seed=1, resume="never", tune={"trials": 1})
    with pytest.raises(KeyboardInterrupt):
        run_tune(anew)
    assert "the same command without resume=never continues" in capsys.readouterr().err
    run_tune(anew)
    (tmp_path / "sweep" / "thesis.docx").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.docx, which does not belong to a sweep"):
        run_tune(make_job(data_set, tmp_path / "sweep", resume="never"))


def test_a_best_config_continues_what_it_began_however_the_sweep_did(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    for resume in ("never", "force"):
        run_tune(make_job(data_set, tmp_path / resume, resume=resume, tune={"trials": 1}))
        assert load(TrainJob, tmp_path / resume / "best.yaml").resume == "auto"


def test_a_best_config_trains_with_the_steps_of_the_sweep_whatever_they_are(tmp_path: Path) -> None:
    line = {"epoch": 1, "stage": "detector", "val/score": 0.5}
    for steps in (StageSteps(), StageSteps(warmup=200, adversarial=60, detector=7)):
        job = make_job(tmp_path, tmp_path / "sweep", train={"steps": steps.model_dump()})
        (tmp_path / "best.yaml").write_text(
            best_yaml(job, read_space(job), Trial(1, {}, "finished", (line,)))
        )
        assert read_job("train", [str(tmp_path / "best.yaml")]).train.steps == steps


def test_force_goes_on_with_a_space_of_more_and_of_other_keys(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    run_tune(make_job(data_set, tmp_path / "sweep"))
    space = {"losses.rec_full": SPACE["losses.rec_full"], "optim.head_lr": {"uniform": [0.1, 0.2]}}
    tune = {"space": space, "trials": 14, "asha": {"enabled": False}}
    status = run_tune(make_job(data_set, tmp_path / "sweep", resume="force", tune=tune))
    assert (status.total, status.is_complete) == (14, True)
    table = rows(tmp_path / "sweep")
    assert [bool(row["optim.head_lr"]) for row in table] == 6 * [False] + 8 * [True]
    found = json.loads((tmp_path / "sweep" / REPORT).read_text())["importance"]
    assert {one["key"] for one in found} == set(space)


def test_a_search_over_networks_does_not_start_from_a_model(data_set: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "init" / "model")
    space = {"model.paam.residual": {"choice": [True, False]}, **SPACE}
    for start in (run_tune, plan_sweep):
        model = {**TINY_MODEL, "init": tmp_path / "init"}
        job = make_job(data_set, tmp_path / "sweep", model=model, tune={"space": space})
        with pytest.raises(ConfigError, match=r"model\.paam\.residual changes networks that model"):
            start(job)
    model = {**TINY_MODEL, "init": "imagenet"}
    plan_sweep(make_job(data_set, tmp_path / "sweep", model=model, tune={"space": space}))
    assert not (tmp_path / "sweep").exists()
    shipped = load(TuneJob, find_config("tune"), [f"data.root={data_set}", "run_dir=sweep"])
    assert any(key.startswith("model.") for key in read_space(shipped).keys)
    require_one_start(shipped, read_space(shipped))


def test_a_sweep_says_what_it_searches_or_is_given_in_vain(data_set: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "init" / "model")
    label = {"cam_crack": [0.5, 0.6], "trained_crack": [0.6, 0.7], "self_training": [0.1, 0.5]}
    space = {f"pseudo_label.{key}": {"uniform": ends} for key, ends in label.items()}

    def warned(init: object, workers: int = 0, **more: Any) -> list[str]:
        model = {**TINY_MODEL, "init": init}
        tune = {"space": {**space, **more}, "concurrent": 2}
        job = make_job(data_set, tmp_path / "sweep", workers, model=model, tune=tune)
        found = plan_sweep(job).warnings
        return [text.split()[0] for text in found if "changes nothing" in text]

    own = ["tune.space.pseudo_label.self_training", "tune.space.pseudo_label.cam_crack"]
    assert warned(tmp_path / "init", 1) == own
    assert warned("imagenet") == ["tune.space.pseudo_label.trained_crack", "tune.concurrent=2"]
    assert warned("imagenet", 1, **{"model.init": {"choice": ["imagenet"]}}) == []
    zero = {"pseudo_label.self_training": {"choice": [0.0, 0.3]}}
    assert warned(tmp_path / "init", 1, **zero) == []


def test_trials_of_a_sweep_do_not_start_from_a_model_that_was_trained_anew(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    def job(**changes: Any) -> TuneJob:
        model = {**TINY_MODEL, "init": tmp_path / "init"}
        return make_job(data_set, tmp_path / "sweep", model=model, **changes)

    tiny_model(tmp_path / "init" / "model")
    drawn.at[2, 1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_tune(job())
    tiny_model(tmp_path / "init" / "model", seed=1)
    for start in (run_tune, plan_sweep):
        with pytest.raises(CheckpointError, match="another model now than when this sweep"):
            start(job())
    assert [epoch for trial, epoch in drawn.epochs if trial == 2] == [0]
    plan_sweep(job(resume="force"))
    assert run_tune(job(resume="force")).is_complete
    assert run_tune(job(tune={"trials": 7})).is_complete, "what force allowed is known"
    tiny_model(tmp_path / "init" / "model", seed=2)
    plan_sweep(job(tune={"trials": 7}))  # it is finished
    with pytest.raises(CheckpointError, match="another model now"):
        run_tune(job(tune={"trials": 8}))


def test_the_score_of_a_trial_is_that_of_the_model_that_it_kept(
    data_set: Path, tmp_path: Path
) -> None:
    """What starts from a model keeps none of its adversarial stage."""
    lines = [
        (1, "adversarial", 0.9, False),
        (2, "detector", 0.4, True),
        (3, "detector", 0.3, False),
    ]
    names = ("epoch", "stage", "val/score", "best")
    epochs = tuple({**dict(zip(names, line, strict=True)), "seconds": 1.0} for line in lines)
    trial = Trial(0, {}, "finished", epochs)
    assert (trial.score, trial.best, trial.values) == (0.4, epochs[1], [0.9, 0.4, 0.3])
    assert Trial(1, {}, "stopped", epochs[:1]).score is None


def test_a_sweep_that_was_moved_with_its_data_goes_on(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Drawn
) -> None:
    shutil.copytree(data_set, tmp_path / "old" / "set")
    monkeypatch.chdir(tmp_path / "old")
    job = make_job(Path("set"), Path("sweep"), tune={"trials": 2})

    def opening(job: TrainJob, *, watch: Watch) -> None:
        with open_run(job):
            drawn(job, watch=watch)

    monkeypatch.setattr(trials, "run_training", opening)
    drawn.at[1, 2] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_tune(job)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    run_tune(job)
    assert [row["error"] for row in rows(Path("sweep"))] == ["", ""]
    assert drawn.epochs[-3:] == [(1, 2), (1, 3), (1, 4)]


def test_a_sweep_whose_states_lie_elsewhere_is_refused_and_fails_no_trial(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    drawn.at[0, 2] = KeyboardInterrupt()
    job = make_job(data_set, tmp_path / "sweep")
    with pytest.raises(KeyboardInterrupt):
        run_tune(job)
    place = {"storage_path": str(tmp_path / "states"), "num_workers": 1}
    before = make_job(data_set, trial_folder(tmp_path / "sweep", 0), scaling=place)
    states = tmp_path / "states" / storage_of(before)[1]
    states.mkdir()
    for start in (run_tune, plan_sweep):
        with pytest.raises(ConfigError, match=r"set scaling\.storage_path=.*states again"):
            start(job)
    assert [trial.status for trial in read_trials(tmp_path / "sweep")] == ["running"]
    assert states.exists()
    drawn.at[0, 0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_tune(job.model_copy(update={"resume": "never"}))
    assert not states.exists()


def test_a_picture_that_cannot_be_written_is_one_sentence_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.png"
    draw_sweep(path, [], [], "score")
    old = path.read_bytes()

    def full(path: Path, _: bytes) -> None:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"sweep\.png could not be written .*No space left"):
        draw_sweep(path, [], [], "score")
    assert path.read_bytes() == old


@pytest.mark.parametrize("error", [DataError("an image is odd"), ConfigError("sides differ")])
def test_defaults_that_cannot_be_trained_end_the_sweep_with_their_reason(
    data_set: Path, tmp_path: Path, drawn: Drawn, error: WpcrackError
) -> None:
    drawn.at[0, 0] = error
    with pytest.raises(type(error), match=str(error)):
        run_tune(make_job(data_set, tmp_path / "sweep"))
    assert drawn.epochs == []


def test_a_sweep_without_any_score_is_an_error(
    data_set: Path, tmp_path: Path, drawn: Drawn
) -> None:
    drawn.at = {(k, 1): TrainingError("not finite") for k in range(2)}
    with pytest.raises(TrainingError, match=r"no trial .* not finite.*retry_failed"):
        run_tune(make_job(data_set, tmp_path / "sweep", tune={"trials": 2}))
    assert not (tmp_path / "sweep" / REPORT).exists()


def test_status_counts_without_disturbing(data_set: Path, tmp_path: Path, drawn: Drawn) -> None:
    root, seen = tmp_path / "sweep", []
    drawn.at[2, 2] = KeyboardInterrupt()
    call = drawn.__call__

    def looking(job: TrainJob, *, watch: Watch) -> None:
        seen.append(read_status(root))
        call(job, watch=watch)

    trials.run_training = looking  # type: ignore[assignment]  # restored with the fixture
    with pytest.raises(KeyboardInterrupt):
        run_tune(make_job(data_set, root))
    assert [s.finished + s.stopped for s in seen] == [0, 1, 2]
    assert all(s.is_running and s.unfinished == 1 for s in seen)
    result = CliRunner().invoke(jobs.cli.app, ["tune", "--status", str(root), "--json", "-"])
    values = json.loads(result.stdout)
    assert (values["total"], values["unfinished"], values["is_running"]) == (6, 1, False)
    assert values["best"][0]["score"] >= values["best"][1]["score"]
    text = CliRunner().invoke(jobs.cli.app, ["tune", "--status", str(root)]).stdout
    assert "2/6 trials ended" in text
    assert "not running" in text


def test_status_of_no_sweep_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(jobs.cli.app, ["tune", "--status", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path} holds no sweep")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Nodes that a test may change; without an autoscaler."""
    nodes: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(ray_private, "node_groups", list)
    return nodes


def test_workers_are_counted_by_node_so_that_trials_cannot_starve_each_other(
    cluster: list[dict[str, Any]],
) -> None:
    has: tuple[dict[str, float], ...] = (
        {"CPU": 6.0, "GPU": 1.0},
        {"CPU": 7.0},
        {"CPU": 3.0, "GPU": 4.0},
        {},
    )
    cluster += [{"Alive": True, "Resources": resources} for resources in has]
    assert at_once(make_job(Path("set"), Path("run"), 1), None) == 16
    assert at_once(make_job(Path("set"), Path("run"), 1, scaling={"cpus_per_worker": 4}), None) == 2
    assert at_once(make_job(Path("set"), Path("run"), 1, scaling={"use_gpu": True}), None) == 4


def test_nodes_that_an_autoscaler_may_add_have_room_for_trials(
    cluster: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.append({"Alive": True, "Resources": {"memory": 2.0**34}})  # a head at rest
    monkeypatch.setattr(ray_private, "node_groups", lambda: [({"CPU": 8.0}, 3)])
    scaling = {"cpus_per_worker": 4}
    assert at_once(make_job(Path("set"), Path("run"), 2, scaling=scaling), None) == 3
    with pytest.raises(ConfigError, match=r"room for 6 workers of 4 CPU, 4 trials at once need 8"):
        at_once(
            make_job(Path("set"), Path("run"), 2, scaling=scaling, tune={"concurrent": 4}), None
        )


@pytest.mark.parametrize(
    ("wish", "room", "want"), [(None, 3, 3), (2, 3, 2), (None, 9, 4), (None, None, 4), (4, None, 4)]
)
def test_as_many_trials_run_at_once_as_all_their_workers_fit(
    cluster: list[dict[str, Any]], wish: int | None, room: int | None, want: int
) -> None:
    cluster += [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in (5.0, 4.0)]
    cluster.append({"Alive": False, "Resources": {"CPU": 64.0}})
    assert at_once(make_job(Path("set"), Path("run"), 2, tune={"concurrent": wish}), room) == want


def test_more_trials_at_once_than_fit_are_refused(cluster: list[dict[str, Any]]) -> None:
    cluster.append({"Alive": True, "Resources": {"CPU": 5.0}})
    with pytest.raises(ConfigError, match=r"room for 5 workers of 1 CPU, 3 trials .* need 6"):
        at_once(make_job(Path("set"), Path("run"), 2, tune={"concurrent": 3}), None)
    with pytest.raises(ConfigError, match=r"1 trials at once need 8"):
        at_once(make_job(Path("set"), Path("run"), 8, train={"batch_size": 8}), None)


class RayTrial:
    """What Ray Tune hands to a scheduler."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def get_error(self) -> Exception:
        return RuntimeError("actor died\nout of memory")


def test_ray_tune_asks_the_sweep_and_every_end_is_noted(data_set: Path, tmp_path: Path) -> None:
    job = make_job(data_set, tmp_path / "sweep", 1)
    with open_run(job, SWEEP) as root:
        sweep = Sweep(job, root)
        decisions = Decisions(sweep)
        suggestions = Suggestions(sweep, decisions)
        tried = [RayTrial(suggestions.suggest(str(k))) for k in range(4)]
        assert [TrainJob.model_validate_json(t.config["job"]).run_dir for t in tried] == [
            trial_folder(root, k) for k in range(4)
        ]
        lines = [
            {"epoch": k, "stage": "detector", "val/score": 0.5, "seconds": 1.0} for k in range(3)
        ]
        for line in lines:
            assert decisions.on_trial_result(None, tried[1], line) == "CONTINUE"
        weak = [decisions.on_trial_result(None, tried[2], {**x, "val/score": 0}) for x in lines]
        assert weak == ["CONTINUE", "CONTINUE", "STOP"]
        decisions.on_trial_complete(None, tried[2], {})  # Ray says so of stopped trials too
        decisions.on_trial_complete(None, tried[1], {})
        decisions.on_trial_error(None, tried[3])
        failure = {"error": "DataError: an image is odd", "is_users": True}
        decisions.on_trial_result(None, tried[0], failure)
        decisions.on_trial_complete(None, tried[0], failure)
        ends = [(t.status, t.error) for t in read_trials(root)]
        assert ends[:3] == [("failed", failure["error"]), ("finished", ""), ("stopped", "")]
        assert ends[3] == ("failed", "the process of the trial died (out of memory)")
        assert "defaults cannot be trained: DataError: an image is odd" in str(decisions.fatal)
        assert suggestions.suggest("4") == "FINISHED"


def test_a_continued_sweep_judges_the_epochs_of_trials_at_once_in_the_order_in_which_they_ended(
    data_set: Path, tmp_path: Path
) -> None:
    job = make_job(data_set, tmp_path / "sweep", 1)
    with open_run(job, SWEEP) as root:
        sweep = Sweep(job, root)
        numbers = [trial.number for trial in (sweep.next() for _ in range(3)) if trial]
        for number, score in ((2, 0.1), (1, 0.5)):
            lines = [
                {"epoch": k, "stage": "detector", "val/score": score, "seconds": 1.0}
                for k in range(3)
            ]
            trial_folder(root, number).mkdir(parents=True, exist_ok=True)
            (trial_folder(root, number) / METRICS).write_text(
                "".join(f"{json.dumps(line)}\n" for line in lines)
            )
            assert not any(sweep.epoch(number, line) for line in lines)
        again = Sweep(job, root)
        assert [trial.number for trial in (again.next() for _ in range(3)) if trial] == numbers
        assert [trial.status for trial in read_trials(root)] == ["running"] * 3


def test_a_trial_on_a_node_without_the_shared_folder_ends_the_sweep_and_is_kept(
    data_set: Path, tmp_path: Path
) -> None:
    with open_run(make_job(data_set, tmp_path / "sweep", 1), SWEEP) as root:
        sweep = Sweep(make_job(data_set, tmp_path / "sweep", 1), root)
        decisions = Decisions(sweep)
        suggestions = Suggestions(sweep, decisions)
        tried = RayTrial(suggestions.suggest("0"))
        decisions.on_trial_result(None, tried, {"fatal": "node b does not see it"})
        decisions.on_trial_complete(None, tried, {"fatal": "node b does not see it"})
        assert "node b does not see it" in str(decisions.fatal)
        assert suggestions.suggest("1") == "FINISHED"
        assert [trial.status for trial in read_trials(root)] == ["running"]


def test_what_cannot_be_noted_ends_a_sweep_on_ray_and_its_trials_are_kept(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(make_job(data_set, tmp_path / "sweep", 1), SWEEP) as root:
        decisions = Decisions(Sweep(make_job(data_set, tmp_path / "sweep", 1), root))
        suggestions = Suggestions(decisions.sweep, decisions)
        first, second = RayTrial(suggestions.suggest("0")), RayTrial(suggestions.suggest("1"))

        def fails(*_: Any) -> None:
            raise OutputError("results.csv: no space")

        monkeypatch.setattr(Sweep, "write", fails)
        line = {"epoch": 0, "stage": "warmup", "seconds": 1.0, "val/score": 0.0}
        assert decisions.on_trial_result(None, first, line) == "STOP"
        assert decisions.on_trial_result(None, second, line) == "STOP"
        decisions.on_trial_complete(None, first, line)
        assert "no space" in str(decisions.fatal)
        assert [trial.status for trial in read_trials(root)] == ["running"] * 2


@pytest.mark.ray
def test_a_sweep_killed_in_the_middle_is_continued_and_its_best_config_trains(
    data_set: Path, tmp_path: Path
) -> None:
    """One trial ended before, one is cut off in the middle.

    The worker of the last dies, as the kernel does when memory is short, which is noted.
    """
    root = tmp_path / "sweep"
    tune = {"trials": 3, "concurrent": 2, "asha": {"grace": 2}}
    assert run_tune(make_job(data_set, root, tune=tune | {"trials": 1})).is_complete
    scaling = {"num_workers": 1, "cpus_per_worker": 1, "max_failures": 0}
    job = make_job(data_set, root, tune=tune, scaling=scaling)
    alone = make_job(data_set, root, tune=tune | {"concurrent": 1}, scaling=scaling)
    (tmp_path / "job.json").write_text(alone.model_dump_json(), encoding="utf-8")

    def kill_the_last() -> None:
        wait_until((trial_folder(root, 2) / METRICS).is_file)
        (worker,) = lockers(trial_folder(root, 2) / WRITER)
        os.kill(worker, signal.SIGKILL)

    with shared_ray(), started(tmp_path) as process, ThreadPoolExecutor(1) as other:
        wait_until(
            lambda: (
                len(read_metrics(trial_folder(root, 1) / METRICS)) >= 2
                or process.poll() is not None
            )
        )
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = {t.number: t for t in read_trials(root)}
        assert sorted(before) == [0, 1]
        assert all(t.status != "failed" for t in before.values()), rows(root)
        with ending_within(PATIENCE_S):
            killed = other.submit(kill_the_last)
            run_tune(job, local=True)  # while the trainer of the first still leaves
            killed.result()
        wait_until(lambda: not processes(process.pid, b"Train", b"trial"))
    after = {t.number: t for t in read_trials(root)}
    assert sorted(after) == [0, 1, 2]
    assert after[2].status == "failed", rows(root)
    assert "the workers failed" in after[2].error
    assert all(after[k].status in ("finished", "stopped") for k in (0, 1)), rows(root)
    for number, trial in before.items():
        assert after[number].params == trial.params
        kept = trial.lines if number == 0 else trial.lines[:-1]  # its state may not be kept yet
        assert after[number].lines[: len(kept)] == kept  # the time in them too: not run again
    assert [line["epoch"] for line in after[0].lines] == [0, 1, 2, 3, 4]
    assert not trial_folder(root, 0).joinpath("checkpoints").exists()
    chosen = load(TrainJob, root / "best.yaml", ["scaling.num_workers=0"])
    assert run_training(chosen).epochs == 5


def lockers(path: Path) -> set[int]:
    """The workers that hold a lock on a file."""
    ends = f":{path.stat().st_ino}"
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    holders = {int(words[4]) for words in locks if words[1] != "->" and words[5].endswith(ends)}
    return holders & {*processes(None, b"RayTrainWorker")}


def started(folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A process that runs the sweep of folder/job.json."""
    code = (
        "from pathlib import Path; from jobs.tune.job import TuneJob\n"
        "from jobs.tune.run import run_tune; from rays import shared_ray\n"
        f"job = TuneJob.model_validate_json(Path({str(folder / 'job.json')!r}).read_text())\n"
        "with shared_ray(): run_tune(job, local=True)\n"
    )
    return running_python(code, folder / "log")


def ended(root: Path) -> list[int]:
    return [t.number for t in read_trials(root) if t.status != "running"]
