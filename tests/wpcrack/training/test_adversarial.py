"""One training iteration: which network each phase changes, and terms as the paper has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from factories import changed_tensors, tiny_batch, tiny_config, tiny_learner, weights_of
from torch import Tensor

from wpcrack.config import LossConfig
from wpcrack.errors import TrainingError
from wpcrack.labels.cam import crack_map
from wpcrack.labels.pseudo_label import PseudoLabel, label_batch
from wpcrack.networks import Networks
from wpcrack.training import adversarial, stages
from wpcrack.training.adversarial import (
    Batch,
    CrackPart,
    classifier_terms,
    detector_terms,
    off_crack,
    reconstructor_terms,
)
from wpcrack.training.losses import cam_consistency
from wpcrack.training.optim import frozen
from wpcrack.training.stages import Learner

Weights = dict[str, Tensor]


def changed_nets(nets: Networks, before: Weights) -> set[str]:
    return {name.partition(".")[0] for name in changed_tensors(nets, before)}


def graded(nets: Networks) -> set[str]:
    return {
        name
        for name, net in nets.named_children()
        if any(p.grad is not None for p in net.parameters())
    }


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[str]]]:
    """The networks that each update of a step changed, in order."""
    record: list[set[str]] = []
    descend = adversarial.descend

    def recorded(
        pieces: Iterable[adversarial.Terms], optimizer: object, clip: float | None
    ) -> adversarial.Terms:
        before = weights_of(NETS[0])
        NETS[0].zero_grad()
        terms = descend(pieces, optimizer, clip)  # type: ignore[arg-type]
        record.append(changed_nets(NETS[0], before))
        assert graded(NETS[0]) == record[-1]  # what is held fixed collects no gradient either
        return terms

    monkeypatch.setattr(adversarial, "descend", recorded)
    yield record
    NETS.clear()


NETS: list[Networks] = []
"""The networks that `changes` watches."""


def learner(**train: object) -> Learner:
    made = tiny_learner(tiny_config(**train))
    NETS[:] = [made.nets]
    return made


@pytest.mark.parametrize("schedule", ["shared", "fresh"])
def test_each_phase_changes_its_own_network_only(changes: list[set[str]], schedule: str) -> None:
    made = learner(schedule=schedule)
    flags = [p.requires_grad for p in made.nets.parameters()]
    for step in range(2):
        made.step("adversarial", tiny_batch([1, 0, 1, 0]), 0.3, step, step)
    assert changes == [{"reconstructor"}, {"classifier"}, {"detector"}] * 2
    assert [p.requires_grad for p in made.nets.parameters()] == flags


@pytest.mark.parametrize("labels", [[0.0, 0.0], [1.0, 1.0]])
@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_batch_of_one_class_only_is_finite_and_steps(stage: str, labels: list[float]) -> None:
    made = learner()
    before = weights_of(made.nets)
    terms = made.step(stage, tiny_batch(labels), 0.3, 0, 0)
    assert all(value.isfinite() for value in terms.values())
    assert changed_tensors(made.nets, before)
    assert all(p.isfinite().all() for p in made.nets.parameters())


def test_a_batch_without_cracks_teaches_only_its_labels() -> None:
    made = learner()
    terms = made.step("adversarial", tiny_batch([0, 0]), 0.3, 0, 0)
    assert {k for k, v in terms.items() if v == 0} == {
        *("rec_full", "rec_crack", "rec_rest"),
        *("cls_crack", "cls_rest", "ceccm"),
        "det_region",
    }
    assert all(terms[k] > 0 for k in ("rec_bce", "cls_bce", "det_bce", "det_alarm"))


def test_road_images_are_counted_also_where_there_is_none() -> None:
    assert tiny_batch([1, 0, 0]).roads == 2
    assert tiny_batch([1, 1]).roads > 0
    terms = learner().step("detector", tiny_batch([1, 1]), 0.3, 0, 0)
    assert terms["det_alarm"] == 0


def test_flags_are_restored_when_a_phase_fails() -> None:
    made = learner()
    flags = [p.requires_grad for p in made.nets.parameters()]
    batch = tiny_batch([1, 0])
    broken = Batch(
        batch.image * float("nan"), batch.has_crack, batch.erased, batch.images, batch.cracks
    )
    before = weights_of(made.nets)
    with pytest.raises(TrainingError, match="rec_bce"):
        made.step("adversarial", broken, 0.3, 0, 0)
    assert [p.requires_grad for p in made.nets.parameters()] == flags
    assert not changed_tensors(made.nets, before)


# -- phase A -----------------------------------------------------------------------------------


def rec_terms(
    made: Learner, batch: Batch, seen: Tensor, losses: LossConfig | None = None
) -> adversarial.Terms:
    encoding = made.nets.reconstructor.encode(batch.image)
    return reconstructor_terms(made.nets, batch, seen, encoding, losses or made.config.losses)


def error_of(painted: Tensor, image: Tensor, weight: Tensor, mean: str) -> Tensor:
    """Of the second and third image: L1 by its formula."""
    error = ((painted - image) * weight).abs()[1:]
    if mean == "picture":
        return error.mean()
    return (error.sum((1, 2, 3)) / (3 * weight[1:].sum((1, 2, 3)))).mean()


@pytest.mark.parametrize("mean", ["picture", "region"])
def test_the_terms_of_the_reconstructor_follow_the_paper(mean: str) -> None:
    made, batch = learner(), tiny_batch([0, 1, 1])
    seen = torch.rand(3, 1, 64, 64)
    rec, losses = made.nets.reconstructor, LossConfig.model_validate({"error_mean": mean})
    z = rec.encode(batch.image).feature
    image = rec.encoder.normalize(batch.image)
    e_crack, e_rest = seen * batch.erased, (1 - seen) * batch.erased
    want = {
        "rec_full": losses.rec_full * error_of(rec.decode(z), image, torch.ones_like(seen), mean),
        "rec_crack": losses.rec_crack * error_of(rec.decode(z, 1 - e_crack), image, e_crack, mean),
        "rec_rest": losses.rec_rest * error_of(rec.decode(z, 1 - e_rest), image, e_rest, mean),
    }
    got = rec_terms(made, batch, seen, losses)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value)


def test_nothing_erased_leaves_nothing_to_infer() -> None:
    made, batch = learner(), tiny_batch([1, 1])
    bare = Batch(
        batch.image, batch.has_crack, torch.zeros(2, 1, 64, 64), batch.images, batch.cracks
    )
    terms = rec_terms(made, bare, torch.rand(2, 1, 64, 64))
    assert terms["rec_crack"] == 0
    assert terms["rec_rest"] == 0
    assert terms["rec_full"] > 0


def test_painting_the_whole_image_trains_the_decoder_alone() -> None:
    made = learner()
    rec = made.nets.reconstructor
    rec_terms(made, tiny_batch([1, 1]), torch.rand(2, 1, 64, 64))["rec_full"].backward()
    assert any(p.grad is not None for p in rec.decoder.parameters())
    assert all(p.grad is None for p in rec.encoder.parameters())


# -- phase B -----------------------------------------------------------------------------------


def undecided(made: Learner, batch: Batch) -> Learner:
    """Shifts the CAM so that crack wins over road in half of the cells."""
    with torch.no_grad():
        cam = made.nets.classifier(batch.image).cam
        bias = made.nets.classifier.head.score.bias
        bias[1] -= (cam[:, 1] - cam[:, 0]).median()
    return made


def cls_terms(
    made: Learner, batch: Batch, losses: LossConfig | None = None, progress: float = 1.0
) -> adversarial.Terms:
    nets = made.nets
    with torch.no_grad():
        encoding = nets.reconstructor.encode(batch.image)
    activation = nets.classifier(batch.image)
    losses = losses or made.config.losses
    return classifier_terms(nets, batch, activation, encoding, losses, progress=progress)


@pytest.mark.parametrize("term", ["cls_crack", "cls_rest"])
def test_the_classifier_learns_through_the_frozen_decoder(term: str) -> None:
    batch = tiny_batch([1, 0])
    made = undecided(learner(), batch)
    with frozen(made.nets.reconstructor):
        value = cls_terms(made, batch)[term]
        value.backward()
    assert value < 0  # the classifier gains where the reconstructor fails
    assert any(p.grad is not None and p.grad.any() for p in made.nets.classifier.parameters())
    assert all(p.grad is None for p in made.nets.reconstructor.parameters())


@pytest.mark.parametrize("mean", ["picture", "region"])
def test_the_terms_of_the_classifier_follow_the_paper(mean: str) -> None:
    batch = tiny_batch([0, 1, 1])
    made = undecided(learner(), batch)
    rec, losses = made.nets.reconstructor, LossConfig.model_validate({"error_mean": mean})
    cam = made.nets.classifier(batch.image).cam
    z = rec.encode(batch.image).feature
    m = crack_map(cam, batch.size, "sigmoid")
    image = rec.encoder.normalize(batch.image)
    weight_rest = m * (up_difference(cam, batch.size) > 0)
    want = {
        "cls_crack": -losses.cls_crack * error_of(rec.decode(z, m), image, 1 - m, mean),
        "cls_rest": -losses.cls_rest * error_of(rec.decode(z, 1 - m), image, weight_rest, mean),
    }
    assert 0.2 < (weight_rest > 0).float().mean() < 0.8
    got = cls_terms(made, batch, losses)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value)


def up_difference(cam: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(cam[:, 1:] - cam[:, :1], size=size, mode="bilinear")


def test_consistency_is_left_out_on_request() -> None:
    made, batch = learner(), tiny_batch([1, 0])
    assert "ceccm" in cls_terms(made, batch)
    off = LossConfig.model_validate({"ceccm": {"enabled": False}})
    nets = made.nets
    terms = classifier_terms(
        nets, batch, nets.classifier(batch.image), nets.reconstructor.encode(batch.image), off
    )
    assert "ceccm" not in terms


@pytest.mark.parametrize("how", ["sigmoid", "max"])
def test_consistency_is_that_of_logits_and_with_maxnorm_that_of_the_papers_maps(how: str) -> None:
    made, batch = learner(), tiny_batch([1, 0, 1])
    made.nets.config = made.nets.config.model_copy(update={"cam_norm": how})
    seen = made.nets.classifier(batch.image), made.nets.reconstructor.encode(batch.image)
    for head in (seen[0].cam, seen[1].activation.cam):
        head[:, 1] -= head[:, 1].mean((1, 2), keepdim=True)  # cells above and below 0
    got = classifier_terms(made.nets, batch, *seen, made.config.losses)["ceccm"]
    maps = [
        crack_map(cam, batch.size, "max") if how == "max" else cam[:, 1:]
        for cam in (seen[0].cam, seen[1].activation.cam)
    ]
    rule, shown = made.config.losses, batch.has_crack
    want = cam_consistency(*maps, shown, shown.sum(), rule.ceccm)
    torch.testing.assert_close(got, rule.ceccm_weight * want)


def test_off_the_crack_is_where_the_map_is_zero_or_its_complement() -> None:
    m = torch.tensor([0.0, 0.2, 1.0])
    assert off_crack(m, "max").tolist() == [1, 0, 0]
    torch.testing.assert_close(off_crack(m, "sigmoid"), 1 - m)


# -- phase C and the rest ----------------------------------------------------------------------


def det_terms(made: Learner, batch: Batch, target: Tensor, losses: LossConfig) -> adversarial.Terms:
    nets = made.nets
    features = nets.classifier.encoder(batch.image), nets.reconstructor.encoder(batch.image)
    label = PseudoLabel(target, torch.ones_like(target))
    return detector_terms(nets, batch, features, label, losses)


def test_road_images_teach_the_detector_unless_told_otherwise() -> None:
    made, batch = learner(), tiny_batch([0, 0])
    target = torch.zeros(2, 1, 64, 64)
    assert det_terms(made, batch, target, LossConfig())["det_bce"] > 0
    assert det_terms(made, batch, target, LossConfig(det_on_road=False))["det_bce"] == 0


def test_the_pseudo_label_of_a_road_image_is_empty_and_has_no_gradient() -> None:
    made, batch = learner(), tiny_batch([0, 1])
    label = label_batch(made.nets.classifier, batch, made.config.pseudo_label, "sigmoid")
    assert not label.target[0].any()
    assert label.weight[0].all()
    assert not label.target.requires_grad
    assert not label.weight.requires_grad


def test_the_crack_part_holds_crack_images_or_one_that_does_not_count() -> None:
    part = CrackPart.of(tiny_batch([0, 1, 1]))
    assert part.index.tolist() == [1, 2]
    assert part.shown.tolist() == [1, 1]
    empty = CrackPart.of(tiny_batch([0, 0, 0]))
    assert empty.index.tolist() == [0]
    assert empty.shown.tolist() == [0]


def test_labels_are_one_hot_road_then_crack() -> None:
    assert tiny_batch([0, 1]).label.tolist() == [[1, 0], [0, 1]]


def test_ceccm_rises_linearly_over_its_share_of_the_adversarial_stage() -> None:
    made, batch = learner(), tiny_batch([1.0, 0.0, 1.0])
    rising = LossConfig.model_validate({"ceccm": {"warmup": 0.5}})
    full = cls_terms(made, batch, rising)["ceccm"]
    for progress, share in ((0.0, 0.0), (0.1, 0.2), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        term = cls_terms(made, batch, rising, progress=progress)["ceccm"]
        torch.testing.assert_close(term, share * full)
    at_once = cls_terms(made, batch, LossConfig(), progress=0.0)["ceccm"]
    torch.testing.assert_close(at_once, full)


def test_the_adversarial_stage_tells_ceccm_how_far_it_is() -> None:
    rising = tiny_config().model_copy(
        update={"losses": LossConfig.model_validate({"ceccm": {"warmup": 0.5}})}
    )
    made, batch = Learner(rising, torch.device("cpu")), tiny_batch([1.0, 0.0, 1.0, 0.0])
    assert made.step("adversarial", batch, 0.0, 0, 0)["ceccm"].item() == 0.0
    assert made.step("adversarial", batch, 0.25, 1, 1)["ceccm"].item() > 0.0
