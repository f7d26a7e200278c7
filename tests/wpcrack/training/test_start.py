"""What a training starts from, and the exact masks in its detector stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import (
    TINY_MODEL,
    changed_tensors,
    noise_set,
    tiny_batch,
    tiny_config,
    tiny_learner,
    tiny_model,
    weights_of,
)

import wpcrack.model
from wpcrack.config import MethodConfig, ModelConfig, TrainedModelConfig
from wpcrack.data.batch import Batch, Exact
from wpcrack.errors import CheckpointError
from wpcrack.inference.scales import ScaledProbability
from wpcrack.labels.pseudo_label import label_batch
from wpcrack.model import ModelInfo, has_one_encoder, load_model, only_predicts, save_model
from wpcrack.networks import Networks
from wpcrack.training.footprint import footprint
from wpcrack.training.start import LEARNED_POWER, blend, find_start, start_networks
from wpcrack.training.trainer import Trainer

PATH = ("classifier.encoder.", "reconstructor.encoder.", "detector.")


def start_from(init: object, **model: Any) -> TrainedModelConfig:
    return TrainedModelConfig.model_validate({**TINY_MODEL, **model, "init": init})


def method_from(init: object, **pseudo_label: Any) -> MethodConfig:
    method = tiny_config()
    label = method.pseudo_label.model_copy(update=pseudo_label)
    return MethodConfig(
        model=start_from(init), train=method.train, pseudo_label=label, seed=method.seed
    )


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Networks:
    """A model that only predicts, in the place of the one that ships with the package."""
    torch.manual_seed(7)
    networks = Networks(ModelConfig(**TINY_MODEL))
    networks.reconstructor.encoder.load_state_dict(networks.classifier.encoder.state_dict())
    info = ModelInfo(model=networks.config, scales=(1.0, 0.5), coarsest_mm=8.0)
    save_model(tmp_path / "weights", networks, info, predicts_only=True)
    monkeypatch.setattr(wpcrack.model, "SHIPPED", tmp_path / "weights")
    return networks


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wpcrack.model, "SHIPPED", tmp_path / "none")


def test_encoders_and_detector_start_from_the_shipped_model_and_the_rest_from_the_seed(
    shipped: Networks,
) -> None:
    def start(init: str) -> Networks:
        torch.manual_seed(3)
        return start_networks(start_from(init))

    fresh, started = start("imagenet"), start("shipped")
    changed = changed_tensors(started, weights_of(fresh))
    assert changed
    assert all(name.startswith(PATH) for name in changed)
    for name, value in started.state_dict().items():
        if name.startswith(PATH):
            assert torch.allclose(value, shipped.state_dict()[name], atol=1e-3)


@pytest.mark.usefixtures("shipped")
def test_the_detector_stage_goes_on_from_the_model_whatever_the_stages_before_did() -> None:
    learner = tiny_learner(method_from("shipped"))
    batch = tiny_batch([1, 0, 1, 0])
    begin = weights_of(learner.nets)
    for stage in ("warmup", "adversarial"):
        learner.enter(stage)
        learner.step(stage, batch, 0.3, 0, 0)
    head = weights_of(learner.nets)["classifier.head.score.weight"].clone()
    assert [name for name in changed_tensors(learner.nets, begin) if name.startswith(PATH)]
    learner.enter("detector")
    assert not [name for name in changed_tensors(learner.nets, begin) if name.startswith(PATH)]
    assert torch.equal(head, weights_of(learner.nets)["classifier.head.score.weight"])
    learner.step("detector", batch, 0.1, 2, 0)
    config = learner.config.optim
    for group in learner.optimizers.joint.param_groups:
        assert group["lr"] == pytest.approx(config.trained_share * group["peak_lr"])


def test_a_start_that_was_trained_anew_meanwhile_is_not_blended_in(
    tmp_path: Path, shipped: Networks
) -> None:
    learner = tiny_learner(method_from("shipped"))
    tiny_model(tmp_path / "weights", seed=8)
    with pytest.raises(CheckpointError, match=r"model\.init=shipped is another model now"):
        learner.enter("detector")
    save_model(tmp_path / "weights", shipped, ModelInfo(model=shipped.config), predicts_only=True)
    learner.enter("detector")


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_what_is_delivered_lies_between_the_model_and_the_trained_average(share: float) -> None:
    learner = tiny_learner(method_from("shipped"))
    learner.config = learner.config.model_copy(
        update={"train": learner.config.train.model_copy(update={"blend": share})}
    )
    first = weights_of(learner.nets)
    learner.enter("detector")
    for step in range(2):
        learner.step("detector", tiny_batch([1, 0, 1, 0]), 0.1, step, step)
    assert learner.averaged is not None
    average, found = (weights_of(nets) for nets in (learner.averaged, learner.delivered))
    moved = [name for name in changed_tensors(learner.averaged, first) if name.startswith(PATH)]
    assert moved
    for name, value in found.items():
        by = share if name.startswith(PATH) and value.is_floating_point() else 1.0
        wanted = first[name] + by * (average[name] - first[name])
        torch.testing.assert_close(value, wanted.to(value.dtype))


@pytest.mark.usefixtures("shipped")
def test_a_model_of_one_encoder_learns_on_with_one_and_is_kept_with_one(tmp_path: Path) -> None:
    learner = tiny_learner(method_from("shipped"))
    batch = tiny_batch([1, 0, 1, 0])
    assert not learner.nets.shares_encoder  # the game needs two
    learner.enter("detector")
    begin = weights_of(learner.nets)
    for step in range(2):
        learner.step("detector", batch, 0.1, step, step)
    name = "encoder.body.conv_stem.weight"
    assert f"classifier.{name}" in changed_tensors(learner.nets, begin)
    assert learner.averaged is not None
    for nets in (learner.nets, learner.averaged, learner.delivered):
        assert nets.shares_encoder
        found = nets.state_dict()
        assert torch.equal(found[f"classifier.{name}"], found[f"reconstructor.{name}"])

    delivered = learner.delivered.eval()
    save_model(tmp_path / "model", delivered, ModelInfo(model=learner.config.model))
    assert (has_one_encoder(tmp_path / "model"), only_predicts(tmp_path / "model")) == (True, False)
    kept = load_model(tmp_path).networks
    assert kept.shares_encoder
    torch.testing.assert_close(kept(batch.image), delivered(batch.image))
    # whose heads and decoder go on as well
    assert not changed_tensors(start_networks(start_from(tmp_path)), weights_of(delivered))


@pytest.mark.usefixtures("shipped")
def test_what_the_detector_stage_holds_and_sends_with_one_encoder_is_foreseen() -> None:
    learner = tiny_learner(method_from("shipped"))
    held = [learner.nets, learner.teacher]
    numbers = sum(p.numel() for each in held for p in each.parameters())
    learner.enter("detector")
    assert learner.averaged is not None
    numbers += sum(p.numel() for p in learner.averaged.parameters())
    learner.step("detector", tiny_batch([1, 0, 1, 0]), 0.1, 0, 0)
    sent = sum(p.grad.numel() for p in learner.nets.parameters() if p.grad is not None)
    moments = learner.optimizers.joint.state.values()
    found, two = (footprint(learner.config, (64, 64), 4, one_encoder=one) for one in (True, False))
    assert (found.weights, found.averaged["detector"]) == (4 * numbers, 4 * sent)
    kept = sum(each["exp_avg"].numel() + each["exp_avg_sq"].numel() for each in moments)
    encoder = sum(p.numel() for p in learner.nets.classifier.encoder.parameters())
    assert two.optimizers - found.optimizers == 8 * encoder
    assert kept == 2 * sent
    assert found.activations["detector"] < 0.7 * two.activations["detector"]


@pytest.mark.usefixtures("shipped")
def test_two_encoders_that_start_alike_are_a_choice() -> None:
    method = method_from("shipped")
    train = method.train.model_copy(update={"one_encoder": False})
    learner = tiny_learner(method.model_copy(update={"train": train}))
    learner.enter("detector")
    learner.step("detector", tiny_batch([1, 0, 1, 0]), 0.1, 0, 0)
    name = "encoder.body.conv_stem.weight"
    found = learner.nets.state_dict()
    assert not torch.equal(found[f"classifier.{name}"], found[f"reconstructor.{name}"])


@pytest.mark.usefixtures("shipped")
def test_a_training_with_one_encoder_continues_as_if_nothing_had_been(tmp_path: Path) -> None:
    steps = {"warmup": 1, "adversarial": 0, "detector": 3}
    method = method_from("shipped")
    other = tiny_config(steps=steps, epoch_steps=1, val_items=4).train
    method = method.model_copy(update={"train": other})
    data = noise_set(tmp_path, train=8, val=4, side=64)
    whole, first, second = (Trainer(method, data) for _ in range(3))
    list(whole.epochs())
    epochs = first.epochs()
    for _ in range(3):  # the last one within the detector stage
        next(epochs)
    second.load_state_dict(first.state_dict())
    assert second.nets.shares_encoder
    list(second.epochs())
    assert not changed_tensors(second.nets, weights_of(whole.nets))
    assert not changed_tensors(second.learner.delivered, weights_of(whole.learner.delivered))


def test_networks_whose_inputs_share_an_encoder_are_blended_once() -> None:
    one, two = (Networks(ModelConfig(**TINY_MODEL)) for _ in range(2))
    for networks in (one, two):
        networks.share_encoder()
    name = "classifier.encoder.body.conv_stem.weight"
    wanted = 0.5 * (one.state_dict()[name] + two.state_dict()[name])
    found = blend(one.state_dict(), two, 0.5)
    assert found.reconstructor.encoder is found.classifier.encoder
    torch.testing.assert_close(found.state_dict()[name], wanted)


@pytest.mark.usefixtures("shipped")
def test_labels_hear_the_averaged_detector_at_all_scales_of_the_model() -> None:
    learner = tiny_learner(method_from("shipped", trained_detector=0.9))
    learner.enter("detector")
    batch = tiny_batch([1, 0, 1, 0])
    opinion = learner.opinion()
    assert opinion is not None
    assert opinion.weight == 0.9
    assert learner.averaged is not None
    both = ScaledProbability(learner.averaged, (1.0, 0.5))
    with torch.no_grad():
        torch.testing.assert_close(opinion.of(batch.image), both(batch.image))
    assert (learner.rule.cam_road, learner.rule.cam_crack) == (0.35, 0.65)
    assert learner.start.looks == {
        "scales": (1.0, 0.5),
        "fusion_power": LEARNED_POWER,
        "coarsest_mm": 8.0,
    }


@pytest.mark.usefixtures("shipped")
def test_without_self_training_the_cam_alone_makes_the_labels_whatever_the_start() -> None:
    learner = tiny_learner(method_from("shipped", self_training=0.0))
    learner.enter("detector")
    assert learner.averaged is not None
    assert learner.opinion() is None
    assert learner.rule == learner.config.pseudo_label


@pytest.mark.usefixtures("nothing_shipped")
def test_without_a_shipped_model_a_training_starts_from_imagenet_and_says_so() -> None:
    start = find_start(start_from("shipped"))
    assert start.folder is None
    assert "no model ships with this installation" in start.note
    torch.manual_seed(3)
    started = start_networks(start_from("shipped"))
    torch.manual_seed(3)
    assert not changed_tensors(started, weights_of(start_networks(start_from("imagenet"))))


@pytest.mark.usefixtures("shipped")
def test_a_shipped_model_of_other_networks_is_not_used() -> None:
    start = find_start(start_from("shipped", detector_channels=16))
    assert start.folder is None
    assert "another model.detector_channels" in start.note


def test_a_run_gives_all_its_weights_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = tiny_model(tmp_path / "run" / "model", seed=5).parent
    wanted = load_model(run).networks
    assert not changed_tensors(start_networks(start_from(run)), weights_of(wanted))
    paam = {"kernel_length": 5}
    both = r"\(model\.detector_channels: 8, here 16; model\.paam\.kernel_length: 7, here 5\)"
    with pytest.raises(CheckpointError, match=both):
        find_start(start_from(run, detector_channels=16, paam=paam))
    with pytest.raises(CheckpointError, match="does not exist"):
        find_start(start_from(tmp_path / "missing"))


def test_what_a_training_started_from_is_no_part_of_its_model(tmp_path: Path) -> None:
    config = start_from("imagenet")
    save_model(tmp_path / "model", Networks(config), ModelInfo(model=config))
    assert "init" not in (tmp_path / "model" / "config.yaml").read_text("utf-8")
    assert load_model(tmp_path).info.model == ModelConfig(**TINY_MODEL)


# -- exact masks -------------------------------------------------------------------------------


def with_drawn(batch: Batch) -> Batch:
    """The first two of four images are drawn."""
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand(4, 1, 64, 64, generator=generator) < 0.1).float()
    weight = (torch.rand(4, 1, 64, 64, generator=generator) < 0.9).float()
    drawn = torch.tensor([1.0, 1.0, 0.0, 0.0])
    known = drawn.view(-1, 1, 1, 1)
    target[1] = 0  # a road
    return replace(batch, exact=Exact(drawn, target * weight * known, weight * known))


def test_drawn_images_have_their_mask_and_others_the_label_they_had() -> None:
    learner = tiny_learner(tiny_config())
    plain = tiny_batch([1, 0, 1, 0])
    mixed = with_drawn(plain)
    rule = learner.config.pseudo_label
    old, new = (label_batch(learner.teacher, b, rule, "sigmoid") for b in (plain, mixed))
    assert mixed.exact is not None
    assert new.target[:2].equal(mixed.exact.target[:2])
    assert new.weight[:2].equal(mixed.exact.weight[:2])
    assert torch.allclose(new.target[2:], old.target[2:])
    assert torch.allclose(new.weight[2:], old.weight[2:])


def test_only_the_detector_stage_sees_drawn_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"warmup": 1, "adversarial": 1, "detector": 1}
    config: MethodConfig = tiny_config(steps=steps, epoch_steps=1, val_items=4, drawn_share=0.5)
    trainer = Trainer(config, noise_set(tmp_path, train=8, val=4, side=64))
    seen = {}
    step = trainer.learner.step

    def watch(stage: str, batch: Batch, *args: Any) -> Any:
        seen[stage] = batch.exact
        return step(stage, batch, *args)

    monkeypatch.setattr(trainer.learner, "step", watch)
    list(trainer.epochs())
    assert (seen["warmup"], seen["adversarial"]) == (None, None)
    assert seen["detector"].drawn.tolist() == [1, 0, 0, 1]
