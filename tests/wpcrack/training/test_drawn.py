"""Training on drawn pavement: reproducible, resumable, with losses that are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wpcrack.config import ModelConfig
from wpcrack.errors import CheckpointError, TrainingError
from wpcrack.networks import Networks
from wpcrack.training import drawn
from wpcrack.training.drawn import Progress, drawn_rate_share, loss_terms, pretrain
from wpcrack.training.drawn_windows import DrawnBatches, DrawnTrainConfig, WindowShape
from wpcrack.training.optim import average

TINY = DrawnTrainConfig(
    model=ModelConfig(pretrained="none", detector_channels=8),
    steps=4,
    batches=(WindowShape(side=64, count=2), WindowShape(side=96, count=1)),
    warmup_steps=2,
    save_every=1,
)


class StopHere(Exception):
    """Ends a training from its report."""


def stop_after(step: int):  # type: ignore[no-untyped-def]
    def report(progress: Progress) -> None:
        if progress.step == step + 1:
            raise StopHere

    return report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Networks, list[Progress]]:
    seen: list[Progress] = []
    nets = pretrain(TINY, tmp_path_factory.mktemp("whole"), seen.append)
    return nets, seen


def test_an_interrupted_training_ends_with_the_same_weights(
    whole: tuple[Networks, list[Progress]], tmp_path: Path
) -> None:
    with pytest.raises(StopHere):
        pretrain(TINY, tmp_path, stop_after(2))
    seen: list[Progress] = []
    differently = TINY.model_copy(update={"save_every": 3, "threads": 1})
    again = pretrain(differently, tmp_path, seen.append)
    assert [p.step for p in seen] == [3, 4]
    for name, tensor in whole[0].detector.state_dict().items():
        torch.testing.assert_close(again.detector.state_dict()[name], tensor, msg=name)
    finished = pretrain(TINY, tmp_path, seen.append)
    assert len(seen) == 2, "nothing is left to do"
    for name, tensor in again.detector.state_dict().items():
        torch.testing.assert_close(finished.detector.state_dict()[name], tensor, msg=name)


def test_a_loss_that_is_not_finite_ends_a_training_and_leaves_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> dict[str, torch.Tensor]:
        terms = loss_terms(*given)
        return {**terms, "region": terms["region"] * (float("nan") if len(seen) == 2 else 1)}

    seen: list[Progress] = []
    monkeypatch.setattr(drawn, "loss_terms", broken)
    with pytest.raises(TrainingError, match=r"update 3: .*not finite \(pixel=.*region=nan, alarm="):
        pretrain(TINY, tmp_path, seen.append)
    monkeypatch.undo()
    pretrain(TINY, tmp_path, seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4]
    assert all(np.isfinite(list(p.terms.values())).all() for p in seen)


def test_a_training_changes_encoder_and_detector_and_reports_each_update(
    whole: tuple[Networks, list[Progress]],
) -> None:
    nets, seen = whole
    torch.manual_seed(TINY.seed)
    fresh = Networks(TINY.model)
    for part in ("classifier.encoder", "detector"):
        before, after = (n.get_submodule(part).state_dict() for n in (fresh, nets))
        assert any(not torch.equal(before[k], after[k]) for k in before), part
    assert [p.step for p in seen] == [1, 2, 3, 4]
    assert all(set(p.terms) == {"pixel", "region", "alarm"} for p in seen)


def test_both_encoders_hold_the_same_weights_ready_for_inference(
    whole: tuple[Networks, list[Progress]],
) -> None:
    nets = whole[0]
    ours, theirs = (e.state_dict() for e in (nets.classifier.encoder, nets.reconstructor.encoder))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert not nets.training
    assert not any(p.requires_grad for p in nets.parameters())


def test_the_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StopHere):
        pretrain(TINY, tmp_path, stop_after(1))
    with pytest.raises(CheckpointError, match="another config"):
        pretrain(TINY.model_copy(update={"seed": 1}), tmp_path)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    batches = DrawnBatches(TINY)
    image, mask, faint = batches[3]
    again, other = DrawnBatches(TINY)[3][0], batches[1][0]
    assert image.shape == (1, 96, 96, 3)
    assert mask.shape == faint.shape == (1, 96, 96)
    assert torch.equal(image, again)
    assert not torch.equal(image, other)
    assert len(batches) == TINY.steps


def test_loss_terms_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 1, 8, 8)).astype(np.float32)
    truth = (rng.random((3, 1, 8, 8)) < 0.3).astype(np.float32)
    truth[2] = 0
    config = TINY.model_copy(update={"alarm_share": 0.1})
    terms = loss_terms(*map(torch.from_numpy, (logits, truth, np.ones_like(truth))), config)
    p = 1 / (1 + np.exp(-logits))
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    dice = [
        1 - (2 * (p[k] * truth[k]).sum() + 1) / (p[k].sum() + truth[k].sum() + 1) for k in (0, 1)
    ]
    alarm = np.sort(entropy[2].ravel())[-6:].mean()
    assert float(terms["pixel"]) == pytest.approx(config.pixel_weight * entropy.mean(), rel=1e-5)
    assert float(terms["region"]) == pytest.approx(config.region_weight * np.mean(dice), rel=1e-5)
    assert float(terms["alarm"]) == pytest.approx(config.alarm_weight * alarm, rel=1e-5)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_losses_are_finite_without_any_crack_and_without_any_road(fill: float) -> None:
    truth = torch.full((2, 1, 16, 16), fill)
    logits = torch.zeros_like(truth).requires_grad_()
    total = torch.stack(
        list(loss_terms(logits, truth, torch.ones_like(truth), TINY).values())
    ).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = DrawnTrainConfig(steps=100, warmup_steps=10, decay_share=0.4)
    shares = [drawn_rate_share(k, config) for k in range(101)]
    assert np.all(np.diff(shares[:10]) > 0)
    assert shares[9:61] == pytest.approx([1.0] * 52)
    assert np.all(np.diff(shares[61:]) < 0)
    assert shares[100] == pytest.approx(config.final_share)


def test_the_average_moves_by_its_share() -> None:
    mean, source = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = mean.weight.detach().clone()
    average(mean, source, 0.75)
    torch.testing.assert_close(mean.weight, 0.75 * before + 0.25 * source.weight)


def test_nothing_is_learned_where_the_truth_cannot_be_seen() -> None:
    logits = torch.randn(2, 1, 16, 16).requires_grad_()
    truth = (torch.rand(2, 1, 16, 16) < 0.3).float()
    clear = torch.ones_like(truth)
    clear[:, :, 4:9] = 0
    other = truth.clone()
    other[:, :, 4:9] = 1 - other[:, :, 4:9]
    one, two = (loss_terms(logits, t, clear, TINY) for t in (truth, other))
    assert {k: float(v.detach()) for k, v in one.items()} == {
        k: float(v.detach()) for k, v in two.items()
    }
    torch.stack(list(one.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[:, :, 4:9].any()
