"""A run is repeatable, continues exactly, keeps to its stages and its time, and learns."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import TINY_MODEL, changed_tensors, tiny_config, weights_of
from PIL import Image
from torch import Tensor

from wpcrack.config import MethodConfig, OptimConfig, TrainedModelConfig
from wpcrack.data.read import ImageLevelSet, Item
from wpcrack.errors import ConfigError, TrainingError
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window
from wpcrack.training import losses, trainer
from wpcrack.training.stages import STAGES
from wpcrack.training.trainer import EpochReport, Trainer

SHORT = {"warmup": 2, "adversarial": 2, "detector": 2}
TIMED = ("train/images_per_s", "train/data_wait")

NAN_IN_DETECTOR = (
    r"^detector stage, detector phase, step 4: "
    r"loss term det_region is not finite .*det_bce=.*the last checkpoint is kept"
)

Weights = dict[str, Tensor]


def draw_set(folder: Path, streets: int, windows: int, size: int) -> ImageLevelSet:
    """As many crack as road windows of each street; the last quarter of the streets is held out."""
    rng, config, items = np.random.default_rng(0), WindowConfig(size=size), []
    for s in range(streets):
        street = draw_training_street(rng, config)
        split = "val" if s >= streets - streets // 4 else "train"
        for k in range(windows):
            window = draw_window(rng, config, k % 2 == 0, street)
            path = folder / f"{s:02d}_{k:02d}.png"
            Image.fromarray(window.image).save(path)
            items.append(Item(path, k % 2 == 0, f"{s}", window.row, window.col, size, size, split))
    return ImageLevelSet(folder, tuple(items))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageLevelSet:
    return draw_set(tmp_path_factory.mktemp("windows"), streets=4, windows=4, size=64)


def config(seed: int = 0, **train: object) -> MethodConfig:
    settings = {"steps": SHORT, "epoch_steps": 1, "val_items": 4, **train}
    return tiny_config(seed, **settings)


def figures(report: EpochReport) -> dict[str, Any]:
    kept = {k: v for k, v in report.metrics.items() if k not in TIMED}
    return {"epoch": report.epoch, "step": report.step, "best": report.is_best, **kept}


def all_tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from all_tensors(value)


def assert_equal_states(a: Trainer, b: Trainer) -> None:
    pairs = zip(all_tensors(a.state_dict()), all_tensors(b.state_dict()), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    untimed = [vars(t.position) | {"stage_seconds": 0} for t in (a, b)]
    assert untimed[0] == untimed[1]


def no_thread_is_left() -> bool:
    return all(t.name != "wpcrack-batches" for t in threading.enumerate())


# -- repeatable --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(data: ImageLevelSet) -> None:
    a, b, c = (Trainer(config(seed, epoch_steps=2), data) for seed in (0, 0, 1))
    reports = [[figures(r) for r in made.epochs()] for made in (a, b, c)]
    assert reports[0] == reports[1]
    assert_equal_states(a, b)
    assert reports[0] != reports[2]


@pytest.fixture(scope="module")
def undisturbed(data: ImageLevelSet) -> tuple[Trainer, list[dict[str, Any]]]:
    """A finished run, with the figures of its epochs; tests only read it."""
    made = Trainer(config(), data)
    return made, [figures(r) for r in made.epochs()]


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_continued_run_equals_an_undisturbed_one(
    data: ImageLevelSet, undisturbed: tuple[Trainer, list[dict[str, Any]]], stop: int
) -> None:
    whole, want = undisturbed
    first, second = (Trainer(config(), data) for _ in range(2))
    epochs = first.epochs()
    got = [figures(next(epochs)) for _ in range(stop)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    got += [figures(r) for r in second.epochs()]
    assert got == want
    assert_equal_states(whole, second)


THREES = config(steps={"warmup": 3, "adversarial": 3, "detector": 3}, epoch_steps=3)


@pytest.fixture(scope="module")
def undisturbed_threes(data: ImageLevelSet) -> tuple[Trainer, list[dict[str, Any]]]:
    """Likewise, of epochs of three steps."""
    made = Trainer(THREES, data)
    return made, [figures(r) for r in made.epochs()]


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_run_continued_within_an_epoch_equals_an_undisturbed_one(
    data: ImageLevelSet, undisturbed_threes: tuple[Trainer, list[dict[str, Any]]], stop: int
) -> None:
    whole, want = undisturbed_threes
    first, second = (Trainer(THREES, data) for _ in range(2))
    file = io.BytesIO()

    def within() -> None:
        if first.position.step == stop:
            first.meter.settle(first.device)
            torch.save(first.state_dict(), file)
            raise KeyboardInterrupt

    got = []
    with pytest.raises(KeyboardInterrupt):
        got.extend(figures(r) for r in first.epochs(within))
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.position.step == stop
    got += [figures(r) for r in second.epochs()]
    assert got == want
    assert_equal_states(whole, second)


def test_other_learning_rates_count_from_where_a_run_is_continued(data: ImageLevelSet) -> None:
    first = Trainer(config(), data)
    next(epochs := first.epochs())
    epochs.close()
    rates = {"encoder_lr": 1e-6, "head_lr": 1e-5, "weight_decay": 0.5}
    second = Trainer(config().model_copy(update={"optim": OptimConfig(**rates)}), data)
    second.load_state_dict(first.state_dict())
    for optimizer in second.learner.optimizers.by_name().values():
        groups = optimizer.param_groups
        assert {group["peak_lr"] for group in groups} <= {1e-6, 1e-5}
        assert {group["weight_decay"] for group in groups} <= {0.5, 0.0}
    held = second.learner.optimizers.classifier.state_dict()["state"]
    assert held[0]["exp_avg"].any(), "the moments went with the rates"
    next(second.epochs())


def test_an_optimizer_of_another_kind_is_refused_before_a_step(data: ImageLevelSet) -> None:
    kinds = [
        Trainer(config().model_copy(update={"optim": OptimConfig(kind=kind)}), data)
        for kind in ("sgd", "adamw")
    ]
    for one, other in (kinds, kinds[::-1]):
        with pytest.raises(ValueError, match=r"another optim\.kind"):
            one.load_state_dict(other.state_dict())


def test_a_classifier_that_becomes_its_own_teacher_keeps_its_weights(data: ImageLevelSet) -> None:
    first = Trainer(config(), data)
    next(epochs := first.epochs())
    epochs.close()
    rule = config().pseudo_label.model_copy(update={"source": "eval"})
    second = Trainer(config().model_copy(update={"pseudo_label": rule}), data)
    second.load_state_dict(first.state_dict())
    assert not changed_tensors(second.nets.classifier, weights_of(first.nets.classifier))


def test_the_state_of_a_finished_run_has_nothing_left_to_do(
    data: ImageLevelSet, undisturbed: tuple[Trainer, list[dict[str, Any]]]
) -> None:
    done, other = undisturbed[0], Trainer(config(), data)
    other.load_state_dict(copy.deepcopy(done.state_dict()))
    assert list(other.epochs()) == []
    assert other.progress() == 1


# -- stages and time ---------------------------------------------------------------------------


def test_stages_follow_each_other_and_progress_reaches_one(data: ImageLevelSet) -> None:
    reports = list(Trainer(config(), data).epochs())
    assert [r.stage for r in reports] == [s for s in STAGES for _ in range(2)]
    assert [r.step for r in reports] == list(range(1, 7))
    progress = [r.metrics["train/progress"] for r in reports]
    assert np.all(np.diff(progress) > 0)
    assert progress[-1] == 1
    assert no_thread_is_left()


def test_no_stage_repeats_the_batches_of_another(
    data: ImageLevelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Trainer(config(epoch_steps=2), data)
    load, read = made.source.load, []
    monkeypatch.setattr(made.source, "load", lambda *a: read.append(a[:2]) or load(*a))
    list(made.epochs())
    assert read == [(step, step // 2) for step in range(6)]  # (step, epoch)


def test_an_epoch_ends_with_its_stage(data: ImageLevelSet) -> None:
    steps = {"warmup": 3, "adversarial": 0, "detector": 1}
    reports = list(Trainer(config(steps=steps, epoch_steps=2), data).epochs())
    assert [(r.stage, r.step) for r in reports] == [("warmup", 2), ("warmup", 3), ("detector", 4)]


def test_the_time_limit_ends_every_stage_with_its_schedule_completed(
    data: ImageLevelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**9))
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: float(next(clock)))
    steps = {"warmup": 500, "adversarial": 100, "detector": 200}
    made = Trainer(config(steps=steps, epoch_steps=7, max_minutes=1), data)
    spent, reports = dict.fromkeys(STAGES, 0.0), []
    for report in made.epochs():
        reports.append(report)
        spent[report.stage] = made.position.stage_seconds
    last = {r.stage: r for r in reports}
    assert list(last) == list(STAGES)
    assert sum(spent.values()) == pytest.approx(60, abs=3 * 3)  # a step has begun when time ends
    shares = np.array([500, 300, 440]) / 1240 * 60  # steps times their relative cost
    np.testing.assert_allclose([spent[s] for s in STAGES], shares, atol=3)
    assert all(r.metrics["train/lr_share"] == pytest.approx(0.02) for r in last.values())
    assert reports[-1].metrics["train/progress"] == 1
    assert reports[-1].step < 50


def test_masks_that_come_later_judge_anew(data: ImageLevelSet) -> None:
    made = Trainer(config(), data)
    made.position.best_score = 0.8  # of a state that does not say by what
    figures = [{"val/score": 0.7}, {"val/score": 0.9}]
    figures += [{"val/score": 0.8, "val/iou": iou} for iou in (0.3, 0.2, 0.4)]
    found = [made._report("detector", metrics) for metrics in figures]
    assert [report.is_best for report in found] == [False, True, True, False, True]
    assert (made.position.best_epoch, made.position.best_score) == (4, 0.4)


def test_the_best_epoch_is_one_whose_detector_was_trained(data: ImageLevelSet) -> None:
    made = Trainer(config(), data)
    reports = list(made.epochs())
    assert not any(r.is_best for r in reports if r.stage == "warmup")
    best, highest = -1, float("-inf")
    for r in reports:
        if r.stage != "warmup" and r.metrics["val/score"] > highest:
            best, highest = r.epoch, r.metrics["val/score"]
            assert r.is_best
        else:
            assert not r.is_best
    assert (made.position.best_epoch, made.position.best_score) == (best, highest)


# -- what an epoch does not touch --------------------------------------------------------------


def statistics(made: Trainer) -> Weights:
    return {
        k: v.clone()
        for k, v in made.nets.state_dict().items()
        if k.endswith(("running_mean", "running_var"))
    }


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_batchnorm_keeps_its_statistics_through_training(
    data: ImageLevelSet, freeze: bool
) -> None:
    made = Trainer(config(freeze_batchnorm=freeze), data)
    next(made.epochs())
    before = statistics(made)
    for _ in made.epochs():
        pass
    same = all(torch.equal(v, before[k]) for k, v in statistics(made).items())
    assert before
    assert same == freeze


def test_validation_changes_nothing_and_repeats(data: ImageLevelSet) -> None:
    made = Trainer(config(), data)
    before = copy.deepcopy(made.state_dict())
    assert made.validate() == made.validate()
    pairs = zip(all_tensors(before), all_tensors(made.state_dict()), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


# -- what stops a run --------------------------------------------------------------------------


def test_a_broken_loss_names_its_term_and_leaves_the_weights(
    data: ImageLevelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Trainer(config(), data)
    epochs = made.epochs()
    for _ in range(4):
        next(epochs)
    before = weights_of(made.nets)
    region = losses.region
    monkeypatch.setattr(losses, "region", lambda *a: region(*a) * float("nan"))
    with pytest.raises(TrainingError, match=NAN_IN_DETECTOR):
        next(epochs)
    assert not changed_tensors(made.nets, before)
    assert no_thread_is_left()


def test_windows_too_small_for_the_decoder_are_refused(data: ImageLevelSet) -> None:
    def with_levels(count: int) -> MethodConfig:
        model = TrainedModelConfig.model_validate({**TINY_MODEL, "decoder_widths": [8] * count})
        return config(epoch_steps=100).model_copy(update={"model": model})

    with pytest.raises(ConfigError, match=r"6 levels, which need images of 128 pixels, but .* 64"):
        Trainer(with_levels(6), data)
    assert len(list(Trainer(with_levels(5), data).epochs())) == 3


# -- and it learns -----------------------------------------------------------------------------


def test_a_short_training_learns_to_tell_cracks_and_to_draw_them(tmp_path: Path) -> None:
    drawn = draw_set(tmp_path, streets=8, windows=12, size=64)
    method = MethodConfig.model_validate(
        {
            "model": {"init": "imagenet"},
            "train": {
                "drawn_share": 0,
                "batch_size": 8,
                "steps": {"warmup": 20, "adversarial": 4, "detector": 20},
                "epoch_steps": 10,
                "val_items": 24,
            },
        }
    )
    reports = list(Trainer(method, drawn).epochs())
    by_stage = {s: [r.metrics for r in reports if r.stage == s] for s in STAGES}
    for stage, term in (("warmup", "cls_bce"), ("detector", "det_bce"), ("detector", "det_region")):
        values = [m[f"train/{term}"] for m in by_stage[stage]]
        assert values[-1] < 0.9 * values[0]
    assert by_stage["warmup"][-1]["val/cam_f1"] > 0.8
    assert by_stage["detector"][-1]["val/image_f1"] > 0.8
    assert by_stage["detector"][-1]["val/road_share"] < 0.02
