"""Each stage changes what it should; the teacher and the delivered weights are averages."""

from __future__ import annotations

import pytest
import torch
from factories import changed_tensors, tiny_batch, tiny_config, tiny_learner, weights_of

from wpcrack.config import OptimConfig
from wpcrack.data.batch import Batch
from wpcrack.training.footprint import footprint
from wpcrack.training.optim import average
from wpcrack.training.stages import Learner, first_joint_epoch, is_joint_epoch, kept_share


def learner(**changes: object) -> Learner:
    return tiny_learner(tiny_config(**{"batch_size": 2, **changes}))


@pytest.fixture
def batch() -> Batch:
    return tiny_batch([1, 0])


def test_the_seed_decides_the_first_weights_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = weights_of(learner().nets)
    assert torch.equal(torch.rand(3), expected)
    assert not changed_tensors(learner().nets, first)
    assert changed_tensors(learner(seed=1).nets, first)


def test_warmup_changes_the_classifier_only(batch: Batch) -> None:
    made = learner()
    before = weights_of(made.nets)
    made.step("warmup", batch, 0.3, 0, 0)
    moved = changed_tensors(made.nets, before)
    assert moved
    assert all(name.startswith("classifier.") for name in moved)


def test_the_reconstructor_starts_from_the_warm_classifier(batch: Batch) -> None:
    made = learner()
    made.step("warmup", batch, 0.3, 0, 0)
    nets = made.nets
    assert changed_tensors(nets.reconstructor.encoder, weights_of(nets.classifier.encoder))
    made.enter("adversarial")
    for part in ("encoder", "head"):
        mine, other = getattr(nets.classifier, part), getattr(nets.reconstructor, part)
        assert not changed_tensors(other, weights_of(mine))
    before = weights_of(nets)
    made.enter("detector")
    assert not changed_tensors(nets, before)


def test_without_a_warmup_both_players_start_as_they_are() -> None:
    """As in the paper, whose heads are drawn one by one: equal maps would agree from the start."""
    made = learner(steps={"warmup": 0, "adversarial": 1})
    before = weights_of(made.nets)
    made.enter("adversarial")
    assert not changed_tensors(made.nets, before)
    heads = made.nets.classifier.head, made.nets.reconstructor.head
    assert changed_tensors(heads[0], weights_of(heads[1]))


def test_a_training_without_a_detector_stage_keeps_no_average_of_it() -> None:
    nets = [learner(steps={"detector": steps}) for steps in (0, 1)]
    for made in nets:
        made.enter("detector")
    assert [made.averaged is None for made in nets] == [True, False]
    held = [footprint(made.config, (64, 64), 2).weights for made in nets]
    assert held[1] - held[0] == 4 * sum(p.numel() for p in nets[0].nets.parameters())


def test_the_detector_stage_alone_changes_the_detector_only(batch: Batch) -> None:
    made = learner(joint=False)
    before = weights_of(made.nets)
    made.step("detector", batch, 0.3, 0, 0)
    moved = changed_tensors(made.nets, before)
    assert moved
    assert all(name.startswith("detector.") for name in moved)


def test_joint_fine_tuning_changes_the_encoders_but_neither_heads_nor_decoder(
    batch: Batch,
) -> None:
    made = learner(joint=True)
    before = weights_of(made.nets)
    made.step("detector", batch, 0.3, 0, 0)
    moved = changed_tensors(made.nets, before)
    parts = {".".join(name.split(".")[:2]) for name in moved if not name.startswith("detector")}
    assert parts == {"classifier.encoder", "reconstructor.encoder"}


def test_frozen_statistics_stay_in_every_stage(batch: Batch) -> None:
    made = learner()
    for stage in ("warmup", "adversarial", "detector"):
        before = weights_of(made.nets)
        made.step(stage, batch, 0.3, 0, 0)
        assert not [k for k in changed_tensors(made.nets, before) if "running" in k]


def test_the_teacher_is_the_moving_average_of_the_classifier(batch: Batch) -> None:
    made = learner(ema_decay=0.9)
    name = "head.score.weight"
    average = made.teacher.state_dict()[name].clone()
    for step in range(3):
        made.step("warmup", batch, 0.3, step, step)
        keep = min(0.9, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * made.nets.classifier.state_dict()[name]
    torch.testing.assert_close(made.teacher.state_dict()[name], average)


def test_the_teacher_is_fixed_in_the_detector_stage_and_never_trained(batch: Batch) -> None:
    made = learner()
    made.step("adversarial", batch, 0.3, 0, 0)
    before = weights_of(made.teacher)
    made.step("detector", batch, 0.3, 1, 1)
    assert not changed_tensors(made.teacher, before)
    assert not made.teacher.training
    assert not any(p.requires_grad for p in made.teacher.parameters())


def test_progress_sets_every_learning_rate(batch: Batch) -> None:
    made = learner()
    made.step("warmup", batch, 1.0, 0, 0)
    for optimizer in made.optimizers.by_name().values():
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.02 * group["peak_lr"])


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_detector_whose_rate_stays_keeps_it_beside_the_encoders_too(kind: str) -> None:
    config = tiny_config()
    optim = OptimConfig(kind=kind, detector_decay=False)
    made = tiny_learner(config.model_copy(update={"optim": optim}))
    made._set_learning_rates("detector", 1.0)
    detector = set(map(id, made.nets.detector.parameters()))
    for optimizer in made.optimizers.by_name().values():
        for group in optimizer.param_groups:
            share = 1.0 if id(group["params"][0]) in detector else 0.02
            assert group["lr"] == pytest.approx(share * group["peak_lr"])


def test_joint_epochs_are_every_nth_after_the_given_one() -> None:
    train = tiny_config(joint_after=5, joint_every=3).train
    assert [e for e in range(14) if is_joint_epoch(e, train)] == [6, 9, 12]
    assert first_joint_epoch(train) == 6
    never = tiny_config().train
    assert not any(is_joint_epoch(e, never) for e in range(100))
    assert first_joint_epoch(never) is None


def test_a_joint_epoch_of_the_adversarial_stage_updates_the_encoders_too(batch: Batch) -> None:
    encoders = {}
    for joint_after in (None, 0):
        made = learner(joint_after=joint_after, joint_every=1, epoch_steps=1)
        made.step("adversarial", batch, 0.3, 1, 1)
        encoders[joint_after] = made.nets.classifier.encoder
    assert changed_tensors(encoders[0], weights_of(encoders[None]))


def test_the_detector_stage_delivers_the_average_of_its_steps(batch: Batch) -> None:
    made = learner()
    assert made.delivered is made.nets
    made.enter("detector")
    for step in range(3):
        made.step("detector", batch, 0.3, step, step)
    slow, fast = made.delivered.detector.logit.weight, made.nets.detector.logit.weight
    assert made.delivered is not made.nets
    assert not torch.equal(slow, fast)
    assert not slow.requires_grad


def test_without_averaging_the_detector_stage_delivers_the_last_weights(batch: Batch) -> None:
    made = learner(detector_ema=0)
    made.enter("detector")
    assert made.delivered is made.nets


def test_an_average_of_constant_weights_is_those_weights() -> None:
    fast = torch.nn.Conv2d(2, 3, 1)
    slow = torch.nn.Conv2d(2, 3, 1)
    slow.load_state_dict(fast.state_dict())
    for step in range(5):
        average(slow, fast, kept_share(0.9, step))
    torch.testing.assert_close(slow.weight, fast.weight)
