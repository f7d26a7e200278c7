"""Panels show the same windows in every epoch and change nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import image_level_set, tiny_model, tiny_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jobs.train.folder import METRICS, read_metrics
from jobs.train.job import TrainJob
from jobs.train.loop import PANELS, RunFiles, load
from jobs.train.run import run_training
from wpcrack.data.read import read_image_level
from wpcrack.errors import CheckpointError
from wpcrack.training.selection import COLUMNS, GAP_PX, choose_windows
from wpcrack.training.trainer import EpochReport, Position, Trainer


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    root = image_level_set(tmp_path_factory.mktemp("set"), per_class=12)
    train = {"val_items": 100, "steps": {"warmup": 1, "adversarial": 1, "detector": 1}}
    return TrainJob.model_validate(tiny_training(root, root.parent / "run", train=train))


def trainer(job: TrainJob) -> Trainer:
    return Trainer(job, read_image_level(job.data.root, seed=job.seed))


def test_three_of_four_watched_windows_show_a_crack(job: TrainJob) -> None:
    images = trainer(job).val_images
    shown = [images.items[k] for k in choose_windows(images, 4)]
    assert [item.has_crack for item in shown] == [True, True, True, False]
    assert len(set(shown)) == 4
    assert sorted(choose_windows(images, 100)) == list(range(len(images)))


def test_a_panel_holds_image_maps_and_mask_and_leaves_the_training_alone(job: TrainJob) -> None:
    made = trainer(job)
    before = copy.deepcopy(made.state_dict()["nets"])
    draws = torch.get_rng_state()
    rows = made.panels(4)
    assert rows.shape == (4, 3, 64, len(COLUMNS) * 64 + (len(COLUMNS) - 1) * GAP_PX)
    image = made.val_images[choose_windows(made.val_images, 4)[0]].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(rows[0, :, :, :64], image, atol=1e-6)
    assert 0 <= rows.min() <= rows.max() <= 1
    assert set(rows[:, :, :, -64:].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(torch.equal(v, before[k]) for k, v in made.nets.state_dict().items())
    assert torch.equal(made.panels(4), rows)


def test_a_state_of_other_networks_is_one_sentence(job: TrainJob) -> None:
    state, model = trainer(job).state_dict(), job.model.model_copy(update={"detector_channels": 16})
    other = job.model_copy(update={"model": model})
    with pytest.raises(CheckpointError, match=r"not fit these settings \(size mismatch.*=never"):
        load(trainer(other), state, other)


def test_a_start_that_was_trained_anew_meanwhile_is_one_sentence(
    job: TrainJob, tmp_path: Path
) -> None:
    model = job.model.model_copy(update={"init": tiny_model(tmp_path / "base" / "model").parent})
    job = job.model_copy(update={"model": model})
    state = trainer(job).state_dict()
    load(trainer(job), state, job)
    tiny_model(tmp_path / "base" / "model", seed=1)
    with pytest.raises(CheckpointError, match=r"base is another model now than .* resume=force"):
        load(trainer(job), state, job)
    load(trainer(job), state, job.model_copy(update={"resume": "force"}))
    del state["start"]  # as of older versions
    load(trainer(job), state, job)


def test_tensorboard_holds_losses_learning_rates_and_panels_of_every_epoch(job: TrainJob) -> None:
    run_training(job)
    continued = trainer(job)
    continued.position = Position(epoch=3, step=3)
    RunFiles(job, continued).close()  # a later start drops no epoch that is finished
    found = EventAccumulator(str(job.run_dir / "tensorboard"))
    found.Reload()
    scalars = found.Tags()["scalars"]
    for name in ("train/cls_bce", "train/rec_bce", "train/det_bce", "val/score"):
        assert name in scalars
    rates = {name for name in scalars if name.startswith("learning rate/")}
    assert {name.split("/")[1].split(",")[0] for name in rates} == {
        *("classifier", "reconstructor", "detector", "joint")
    }
    assert found.Tags()["images"] == [PANELS]
    assert [event.step for event in found.Images(PANELS)] == [1, 2, 3]
    assert len(found.Scalars("val/score")) == 3


def test_a_warning_of_a_training_does_not_make_its_metrics_unreadable(
    job: TrainJob, tmp_path: Path
) -> None:
    made = trainer(job)
    made.warnings = ("train.compile=true has no effect",)
    files = RunFiles(job.model_copy(update={"run_dir": tmp_path}), made)
    files.write(EpochReport(0, "warmup", 1, {"val/score": 0.5}, False))
    files.close()
    (line,) = read_metrics(tmp_path / METRICS)
    assert line["warnings"] == ["train.compile=true has no effect"]
