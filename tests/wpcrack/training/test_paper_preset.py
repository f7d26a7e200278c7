"""The paper's preset: published networks, rates and schedule, and what each mend changes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import changed_tensors, image_level_set, tiny_batch, weights_of
from torch import Tensor, nn

from jobs.settings.load import find_config, load
from jobs.train.job import TrainJob
from wpcrack.config import AugmentConfig, LossConfig, MethodConfig, OptimConfig
from wpcrack.data.augment import reorient
from wpcrack.data.batch import Batch
from wpcrack.data.read import read_image_level
from wpcrack.errors import ConfigError
from wpcrack.labels.pseudo_label import PseudoLabel
from wpcrack.networks.norm import FrozenBatchNorm
from wpcrack.networks.paper.decoder import ReleasedDecoder
from wpcrack.released_weights import RELEASED
from wpcrack.training.adversarial import detector_terms
from wpcrack.training.optim import evaluating, learning_rate_share
from wpcrack.training.stages import Learner, first_joint_epoch, is_joint_epoch
from wpcrack.training.trainer import Trainer

REQUIRED = ["data.root=set", "run_dir=run"]
WITHOUT_CRF = "pseudo_label.refiners=[]"
TINY = [
    "model.width_divisor=16",
    "model.cam_channels=8",
    "model.recon_channels=14",
    "model.decoder_widths=[8,8,8,8,8]",
    WITHOUT_CRF,
]
RELEASED_VALUES = [
    "model.paam.kind=released",
    "model.paam.low_levels=[]",
    "model.paam.residual=false",
    "losses.ceccm.center=false",
    "losses.ceccm.sigma=0.2",
    "losses.det_on_road=false",
    "losses.det_second_sigmoid=true",
    "erase.limit=1.0",
    "pseudo_label.source=train",
    "pseudo_label.crf.alpha=0.5",
    "augment.zoom=[1.5,2.0]",
    "optim.momentum=5e-4",
    "optim.poly_end=0.75",
    "optim.detector_decay=false",
    "train.decoder_stops=true",
]


def preset(*overrides: str) -> TrainJob:
    return load(TrainJob, find_config("paper"), [*REQUIRED, *overrides])


def learner(*overrides: str) -> Learner:
    made = Learner(preset(*TINY, *overrides), torch.device("cpu"))
    made.nets.train()
    return made


def batch(side: int = 64) -> Batch:
    return tiny_batch([1, 0, 1, 0], side=side)


# -- the config --------------------------------------------------------------------------------


def test_the_preset_builds_the_published_networks() -> None:
    model = preset().model
    differs = {"paam", "init"}  # the mended attention; where a training starts
    assert model.model_dump(exclude=differs) == RELEASED.model_dump(exclude=differs)
    assert preset("model.paam.kind=released", "model.paam.low_levels=[]").model.paam.reduction == 16


def test_every_mend_has_a_released_value_that_the_file_names() -> None:
    text = find_config("paper").read_text()
    job = preset(*RELEASED_VALUES)
    for override in RELEASED_VALUES:
        key, _, _ = override.partition("=")
        name = key.split(".")[-1]
        line = next(row for row in text.splitlines() if row.strip().startswith(f"{name}:"))
        assert "released:" in line, name
    assert job.model.paam == RELEASED.paam  # so a training can start from imported weights


@pytest.mark.parametrize(
    ("override", "beside", "message"),
    [
        ("weights_file=a.pth", "pretrained=file", r"a\.pth is not read with pretrained=none"),
        ("width_divisor=2", "encoder=resnet38d", "is for encoder=resnet38d, got tf_eff"),
        ("paam.kind=released", "detector=released", "is for detector=released, got default"),
    ],
)
def test_a_key_of_the_networks_that_would_have_no_effect_is_refused(
    override: str, beside: str, message: str
) -> None:
    mine = ["model.pretrained=none", f"model.{override}"]
    with pytest.raises(ConfigError, match=message):
        load(TrainJob, None, [*REQUIRED, *mine])
    assert load(TrainJob, None, [*REQUIRED, *mine, f"model.{beside}"])


def test_the_released_attention_cannot_be_left_out_in_silence() -> None:
    """Its network has no switch: an ablation would compare it with itself."""
    off = "model.paam.spatial=false"
    with pytest.raises(ConfigError, match=r"paam\.spatial=false is for paam\.kind=directional"):
        preset("model.paam.kind=released", off)
    assert not preset(off).model.paam.spatial


def test_the_weights_of_the_paper_are_those_of_the_terms() -> None:
    losses = preset().losses
    published = LossConfig()
    for name in ("rec_full", "rec_crack", "rec_rest", "cls_crack", "cls_rest", "ceccm_weight"):
        assert getattr(losses, name) == getattr(published, name)
    assert (losses.det_pos_weight, losses.det_region, losses.det_false_alarm) == (5.0, 0.0, 0.0)


# -- optimizers --------------------------------------------------------------------------------


def test_sgd_has_the_published_rates_and_transposed_convolutions_their_own() -> None:
    made = learner()
    optimizers, decoder = made.optimizers, made.nets.reconstructor.decoder
    assert isinstance(decoder, ReleasedDecoder)
    transposed = {
        id(p)
        for m in decoder.modules()
        if isinstance(m, nn.ConvTranspose2d)
        for p in m.parameters()
    }
    assert len(transposed) == 4
    for optimizer in (optimizers.classifier, optimizers.reconstructor):
        assert isinstance(optimizer, torch.optim.SGD)
        for group in optimizer.param_groups:
            assert group["momentum"] == 0.9
            for p in group["params"]:
                assert group["peak_lr"] == (1e-2 if id(p) in transposed else 1e-3)
                assert group["weight_decay"] == (5e-4 if p.ndim > 1 else 0)
    assert isinstance(optimizers.detector, torch.optim.AdamW)


def test_every_parameter_of_a_network_is_in_its_optimizer_once() -> None:
    made = learner()
    for name in ("classifier", "reconstructor", "detector"):
        groups = getattr(made.optimizers, name).param_groups
        members = [id(p) for group in groups for p in group["params"]]
        assert sorted(members) == sorted(id(p) for p in getattr(made.nets, name).parameters())


def test_the_joint_update_moves_both_trunks_with_sgd_and_the_detector_with_its_adamw() -> None:
    made = learner()
    detector, trunks = made.optimizers.for_joint()
    assert detector is made.optimizers.detector
    wanted = [
        *made.nets.classifier.encoder.parameters(),
        *made.nets.reconstructor.encoder.parameters(),
    ]
    members = [id(p) for group in trunks.param_groups for p in group["params"]]
    assert sorted(members) == sorted(map(id, wanted))


@pytest.mark.parametrize("end", [1.0, 0.75])
def test_polynomial_decay_ends_where_it_is_told_to(end: float) -> None:
    config = OptimConfig(schedule="poly", poly_end=end)
    for progress in np.linspace(0, 1, 11):
        wanted = max(0, 1 - progress / end) ** 1.1
        assert learning_rate_share(float(progress), config) == pytest.approx(wanted)


@pytest.mark.parametrize("decays", [True, False])
def test_the_detectors_rate_decays_with_the_others_or_never(decays: bool) -> None:
    made = learner(f"optim.detector_decay={str(decays).lower()}")
    made.step("adversarial", batch(), 0.5, 0, 0)
    rates = {name: o.param_groups[0]["lr"] for name, o in made.optimizers.by_name().items()}
    assert rates["classifier"] == pytest.approx(1e-3 * 0.5**1.1)
    assert rates["detector"] == pytest.approx(1e-3 * (0.5**1.1 if decays else 1))


# -- steps -------------------------------------------------------------------------------------


def test_a_step_changes_all_three_networks_and_no_statistics_of_the_backbone() -> None:
    made = learner()
    before = {name: weights_of(module) for name, module in made.nets.named_children()}
    statistics = {
        k for k, m in made.nets.classifier.named_modules() if isinstance(m, FrozenBatchNorm)
    }
    terms = made.step("adversarial", batch(), 0.0, 0, 0)
    assert all(torch.isfinite(v) for v in terms.values())
    for name, module in made.nets.named_children():
        parameters = {k for k, _ in module.named_parameters()}
        moved = changed_tensors(module, before[name])
        assert len(moved & parameters) > 0.9 * len(parameters), name
        assert not {k for k in moved if k.rpartition(".")[0] in statistics}


def test_joint_epochs_are_the_even_ones_after_the_fiftieth() -> None:
    train = preset().train
    joint = [epoch for epoch in range(60) if is_joint_epoch(epoch, train)]
    assert joint == [52, 54, 56, 58]
    assert first_joint_epoch(train) == 52
    assert not any(is_joint_epoch(e, MethodConfig().train) for e in range(300))


def encoder_moves_in_phase_c(made: Learner, step: int) -> bool:
    """Whether the detector's loss reaches the trunks: everything else is held at rate 0."""
    made.optimizers.classifier.param_groups.clear()
    made.optimizers.reconstructor.param_groups.clear()
    made.optimizers.classifier.add_param_group({"params": [nn.Parameter(torch.zeros(1))]} | RATE)
    made.optimizers.reconstructor.add_param_group({"params": [nn.Parameter(torch.zeros(1))]} | RATE)
    before = weights_of(made.nets.classifier.encoder)
    made.step("adversarial", batch(), 0.0, step, step)
    return bool(changed_tensors(made.nets.classifier.encoder, before))


RATE: dict[str, Any] = {"lr": 0.0, "peak_lr": 0.0}


@pytest.mark.parametrize(("step", "joint"), [(0, False), (1, False), (2, True), (3, False)])
def test_the_detectors_loss_reaches_the_trunks_in_joint_epochs_only(step: int, joint: bool) -> None:
    made = learner("train.epoch_steps=1", "train.joint_after=1")
    assert encoder_moves_in_phase_c(made, step) == joint


@pytest.mark.parametrize("stops", [True, False])
def test_the_decoder_stops_at_the_first_joint_epoch_only_if_asked(stops: bool) -> None:
    made = learner(
        "train.epoch_steps=1", "train.joint_after=0", f"train.decoder_stops={str(stops).lower()}"
    )
    decoder = made.nets.reconstructor.decoder
    for step, learns in ((1, True), (2, not stops), (3, not stops)):
        before = weights_of(decoder)
        made.step("adversarial", batch(), 0.0, step, step)
        assert bool(changed_tensors(decoder, before)) == learns
    assert all(p.requires_grad for p in decoder.parameters())


def test_phases_hold_the_other_network_in_eval_mode_and_restore_it() -> None:
    made = learner()
    modes: list[tuple[bool, bool]] = []
    classifier, reconstructor = made.nets.classifier, made.nets.reconstructor
    hooks = [
        classifier.head.b6.register_forward_pre_hook(lambda m, _: modes.append((True, m.training))),
        reconstructor.head.b6.register_forward_pre_hook(
            lambda m, _: modes.append((False, m.training))
        ),
    ]
    made.step("adversarial", batch(), 0.0, 0, 0)
    for hook in hooks:
        hook.remove()
    # A: map of the fixed classifier, reconstructor learns; B: the other way round; C: pseudo label
    assert modes[:2] == [(True, False), (False, True)]
    assert sorted(modes[2:4]) == [(False, False), (True, True)]
    assert modes[4:] == [(True, False)] or modes[4:] == [(True, False)] * 2
    assert all(m.training for m in (classifier.head.b6, reconstructor.head.b6))


def test_modes_are_restored_module_by_module() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout()).train()
    module[1].eval()

    def interrupted() -> None:
        with evaluating(module):
            assert not any(m.training for m in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert [m.training for m in module.modules()] == [True, True, False]


def test_dropout_follows_from_the_seed_and_the_step_alone() -> None:
    a, b = learner(), learner()
    torch.rand(17)
    first = a.step("adversarial", batch(), 0.0, 5, 5)
    torch.rand(3)
    second = b.step("adversarial", batch(), 0.0, 5, 5)
    assert {k: float(v.detach()) for k, v in first.items()} == {
        k: float(v.detach()) for k, v in second.items()
    }


@pytest.mark.parametrize("source", ["ema", "eval", "train"])
def test_pseudo_labels_come_from_the_classifier_that_is_named(source: str) -> None:
    made = learner(f"pseudo_label.source={source}")
    own = made.nets.classifier
    assert (made.teacher is own) == (source != "ema")  # no second copy without need
    modes: list[bool] = []
    made.teacher.head.b6.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    some = batch()
    made._label(some, own.encoder(some.image))
    assert modes == [source == "train"]
    assert own.training


# -- detector's loss ---------------------------------------------------------------------------


class Fixed(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.detector = lambda *_: logits


def test_road_images_count_only_if_asked_and_the_mean_is_over_what_counts() -> None:
    logits, some = torch.randn(4, 1, 8, 8), batch(8)
    label = PseudoLabel((torch.rand(4, 1, 8, 8) < 0.5).float(), torch.ones(4, 1, 8, 8))
    nets: Any = Fixed(logits)
    bce = nn.functional.binary_cross_entropy_with_logits
    for on_road, index in ((True, [0, 1, 2, 3]), (False, [0, 2])):
        config = LossConfig(det_on_road=on_road, det_region=0)
        found = detector_terms(nets, some, (None, None), label, config)["det_bce"]
        torch.testing.assert_close(found, bce(logits[index], label.target[index]))


def test_the_second_sigmoid_squeezes_what_the_loss_sees() -> None:
    logits, some = torch.randn(4, 1, 8, 8), batch(8)
    label = PseudoLabel((torch.rand(4, 1, 8, 8) < 0.5).float(), torch.ones(4, 1, 8, 8))
    config = LossConfig(det_second_sigmoid=True, det_region=0)
    found = detector_terms(Fixed(logits), some, (None, None), label, config)["det_bce"]  # type: ignore[arg-type]
    twice = nn.functional.binary_cross_entropy_with_logits(torch.sigmoid(logits), label.target)
    torch.testing.assert_close(found, twice)


# -- augmentation ------------------------------------------------------------------------------


def test_horizontal_flips_keep_every_row() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    config = AugmentConfig(flip="horizontal")
    seen = {reorient(image, np.random.default_rng(k), config).tobytes() for k in range(20)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}


def test_zoom_enlarges_and_keeps_the_size() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 16:32] = 255  # a bar of 16 pixels
    config = AugmentConfig(flip=False, zoom=(2.0, 2.0))
    seen = [reorient(image, np.random.default_rng(seed), config) for seed in range(10)]
    assert {x.shape for x in seen} == {(32, 48, 3)}
    bars = [x[0, :, 0].sum() / 255 for x in seen]  # 32 pixels, or what is left of them
    assert min(bars) >= 15.5
    assert 24 < max(bars) <= 33


# -- the whole ---------------------------------------------------------------------------------


def trainer(folder: Path, *overrides: str) -> Trainer:
    job = preset(f"data.root={folder}", "train.val_items=2", "train.epoch_steps=1", *overrides)
    data = read_image_level(folder, val_fraction=0.25, seed=0)
    return Trainer(job, data)


def test_a_reduced_preset_trains_reports_and_continues(tmp_path: Path) -> None:
    folder = image_level_set(tmp_path / "set", per_class=4)
    steps = "train.steps={warmup: 1, adversarial: 3, detector: 1}"
    whole = trainer(folder, *TINY, steps, "train.joint_after=1")
    reports = list(whole.epochs())
    assert [r.stage for r in reports] == ["warmup", *["adversarial"] * 3, "detector"]
    assert all(np.isfinite(v) for r in reports for v in r.metrics.values())
    first = trainer(folder, *TINY, steps, "train.joint_after=1")
    epochs = first.epochs()
    for _ in range(3):
        next(epochs)
    second = trainer(folder, *TINY, steps, "train.joint_after=1")
    second.load_state_dict(first.state_dict())
    list(second.epochs())
    assert changed_tensors(second.nets, weights_of(whole.nets)) == set()


@pytest.mark.slow
def test_the_preset_takes_two_steps_at_batch_4_of_256_pixels(tmp_path: Path) -> None:
    folder = image_level_set(tmp_path / "set", per_class=4, side=256)
    crf = [] if importlib.util.find_spec("pydensecrf") else [WITHOUT_CRF]
    run = trainer(
        folder,
        *crf,
        "train.steps.adversarial=2",
        "train.joint_after=0",
        "train.joint_every=1",
    )
    before = {name: weights_of(module) for name, module in run.nets.named_children()}
    reports = list(run.epochs())  # the second step is one of joint fine-tuning
    assert [r.stage for r in reports] == ["adversarial"] * 2
    assert all(np.isfinite(v) for r in reports for v in r.metrics.values())
    assert reports[-1].metrics["train/det_bce"] > 0
    for name, module in run.nets.named_children():
        assert changed_tensors(module, before[name]), name
