"""One training iteration of WP-CrackNet: the three phases, as the paper's algorithm reads.

A. The reconstructor infers each region of a crack image from the other.
B. The classifier makes that inference fail: it moves whole cracks into its CAM.
C. The detector agrees with the refined CAM.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wpcrack import losses
from wpcrack.cam import crack_map, upsample
from wpcrack.config import LossConfig, MethodConfig, PseudoLabelConfig
from wpcrack.networks import CRACK, Activation, Encoding, Features, Networks
from wpcrack.optim import Optimizers, Terms, descend, evaluating, frozen
from wpcrack.pseudo_label import PseudoLabel, pseudo_label, refine


@dataclass(frozen=True)
class Batch:
    """The local part of one global batch."""

    image: Tensor
    """(B, 3, H, W) in [0, 1]."""
    has_crack: Tensor
    """(B,) float, 1 = crack, 0 = road."""
    erased: Tensor
    """(B, 1, H, W) 1 in erased cells, 0 elsewhere."""
    images: Tensor
    """Images of the global batch per rank (scalar): divisor of sums over images."""
    cracks: Tensor
    """Crack images of the global batch per rank (scalar, >= 1 / ranks)."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def label(self) -> Tensor:
        """(B, 2) one-hot road / crack."""
        return torch.stack([1 - self.has_crack, self.has_crack], 1)


@dataclass(frozen=True)
class CrackPart:
    """The crack images of a batch; if there is none, one road image that counts nothing.

    So the work of a phase follows the labels, but its collectives and finite values do not.
    """

    index: Tensor
    """(C,) positions in the batch."""
    shown: Tensor
    """(C,) 1 for crack images, 0 for the stand-in."""

    @classmethod
    def of(cls, batch: Batch) -> CrackPart:
        """Of a batch with at least one image."""
        index = batch.has_crack.nonzero().flatten()
        if len(index) == 0:
            index = torch.zeros(1, dtype=torch.long, device=batch.image.device)
        return cls(index, batch.has_crack[index])


def adversarial_step(
    nets: Networks,
    batch: Batch,
    optimizers: Optimizers,
    config: MethodConfig,
    *,
    progress: float = 1.0,
) -> tuple[Terms, Activation, Encoding]:
    """Phases A and B; each updates its own network only.

    With `train.schedule` = shared both phases use one forward pass of each encoder, so phase B
    sees the reconstructor's features from before its update. With fresh, as released, each phase
    computes what it needs, and the network that it holds fixed is in eval mode. `progress` in
    [0, 1] of the stage sets the weight of CAM consistency.

    Returns:
        The terms, and the forward passes for the detector.
    """
    weights, clip = config.losses, config.optim.clip_norm
    fresh = config.train.schedule == "fresh"
    activation = look(nets.classifier, batch) if fresh else nets.classifier(batch.image)
    encoding = nets.reconstructor.encode(batch.image)
    with frozen(nets.classifier):
        seen = crack_map(activation.cam.detach(), batch.size, nets.config.cam_norm)
        rec = reconstructor_terms(nets, batch, seen, encoding, weights)
        descend(rec, optimizers.reconstructor, clip)
    with frozen(nets.reconstructor), evaluating(nets.reconstructor):
        if fresh:
            activation = nets.classifier(batch.image)
            encoding = nets.reconstructor.encode(batch.image)
        cls = classifier_terms(nets, batch, activation, encoding, weights, progress=progress)
        descend(cls, optimizers.classifier, clip)
    return {**rec, **cls}, activation, encoding


def look(classifier: nn.Module, batch: Batch) -> Activation:
    """What the classifier says in eval mode, without gradient."""
    with torch.no_grad(), evaluating(classifier):
        activation: Activation = classifier(batch.image)
        return activation


def detector_step(
    nets: Networks,
    batch: Batch,
    features: tuple[Features, Features],
    label: PseudoLabel,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    config: MethodConfig,
) -> Terms:
    """Phase C: the detector agrees with the refined CAM.

    What is updated is what `optimizer` holds: the detector, or with it the encoders below.
    """
    terms = detector_terms(nets, batch, features, label, config.losses)
    descend(terms, optimizer, config.optim.clip_norm)
    return terms


def reconstructor_terms(
    nets: Networks, batch: Batch, seen: Tensor, encoding: Encoding, config: LossConfig
) -> Terms:
    """Phase A: L_rec = BCE + 0.2 full + 0.3 crack + 0.5 rest (erased cells, crack images).

    Args:
        nets: the classifier is not used; its map comes in as `seen`.
        batch: the local batch.
        seen: (B, 1, H, W) crack map of the classifier, without gradient.
        encoding: of the reconstructor, with gradient.
        config: weights.
    """
    part = CrackPart.of(batch)
    image = nets.reconstructor.encoder.normalize(batch.image[part.index])
    z, m, g = encoding.feature[part.index], seen[part.index], batch.erased[part.index]
    erase_crack, erase_rest = m * g, (1 - m) * g
    decode = nets.reconstructor.decode
    full, crack, rest = (
        masked_error(decode(feature, keep), image, weight, part, batch)
        for feature, keep, weight in (
            (z.detach(), None, torch.ones_like(g)),
            (z, 1 - erase_crack, erase_crack),
            (z, 1 - erase_rest, erase_rest),
        )
    )
    return {
        "rec_bce": losses.classification(
            encoding.activation.logits.float(), batch.label, batch.images
        ),
        "rec_full": config.rec_full * full,
        "rec_crack": config.rec_crack * crack,
        "rec_rest": config.rec_rest * rest,
    }


def classifier_terms(
    nets: Networks,
    batch: Batch,
    activation: Activation,
    encoding: Encoding,
    config: LossConfig,
    *,
    progress: float = 1.0,
) -> Terms:
    """Phase B: L_cls = BCE - 0.8 crack - 0.3 rest + 0.5 CECCM; gradient flows through decode.

    Args:
        nets: the reconstructor is frozen by the caller.
        batch: the local batch.
        activation: of the classifier, with gradient.
        encoding: of the reconstructor, without gradient.
        config: weights.
        progress: of the stage, in [0, 1]; see `ceccm_weight`.
    """
    part = CrackPart.of(batch)
    image = nets.reconstructor.encoder.normalize(batch.image[part.index])
    size = batch.size
    cam = activation.cam[part.index]
    m = crack_map(cam, size, nets.config.cam_norm)
    z = encoding.feature[part.index].detach()
    is_crack = (upsample(cam.detach().float(), size).argmax(1, keepdim=True) == CRACK).float()
    weight_crack = off_crack(m.detach(), nets.config.cam_norm)
    weight_rest = m.detach() * is_crack
    decode = nets.reconstructor.decode
    terms = {
        "cls_bce": losses.classification(activation.logits.float(), batch.label, batch.images),
        "cls_crack": -config.cls_crack
        * masked_error(decode(z, m), image, weight_crack, part, batch),
        "cls_rest": -config.cls_rest
        * masked_error(decode(z, 1 - m), image, weight_rest, part, batch),
    }
    if config.ceccm.enabled:
        other = encoding.activation.cam[part.index].detach()
        terms["ceccm"] = ceccm_weight(config, progress) * losses.cam_consistency(
            cam[:, CRACK : CRACK + 1].float(),
            other[:, CRACK : CRACK + 1].float(),
            part.shown,
            batch.cracks,
            config.ceccm,
        )
    return terms


def ceccm_weight(config: LossConfig, progress: float) -> float:
    """Weight of CAM consistency after `progress` of the adversarial stage.

    >>> ceccm_weight(LossConfig(ceccm_weight=0.5, ceccm={"warmup": 0.4}), 0.1)
    0.125
    """
    rising = progress < config.ceccm.warmup
    return config.ceccm_weight * (progress / config.ceccm.warmup if rising else 1.0)


def off_crack(m: Tensor, how: str) -> Tensor:
    """w_t = 1[m == 0] for maxnorm, which is exactly 0 off the crack; 1 - m for probabilities."""
    return (m == 0).float() if how == "max" else 1 - m


def masked_error(
    painted: Tensor, image: Tensor, weight: Tensor, part: CrackPart, batch: Batch
) -> Tensor:
    """L1 between painting and image where `weight` says, over the crack images."""
    return losses.masked_l1(painted.float(), image, weight, part.shown, batch.cracks)


def detector_terms(
    nets: Networks,
    batch: Batch,
    features: tuple[Features, Features],
    label: PseudoLabel,
    config: LossConfig,
) -> Terms:
    """Phase C: BCE with logits + region loss; road images count with an empty mask.

    Without `det_on_road`, as released, they do not count at all.

    Args:
        nets: only the detector is used.
        batch: the local batch.
        features: of the classifier and of the reconstructor.
        label: pseudo label of the batch.
        config: weights.
    """
    logits = nets.detector(*features, batch.image.shape[-2:]).float()
    if config.det_second_sigmoid:
        logits = torch.sigmoid(logits)
    counted = batch.images
    if not config.det_on_road:
        shown = label.weight * batch.has_crack.view(-1, 1, 1, 1)
        label, counted = PseudoLabel(label.target, shown), batch.cracks
    return {
        "det_bce": losses.detection(logits, label, counted, config.det_pos_weight),
        "det_region": config.det_region
        * losses.region(logits, label, batch.has_crack, batch.cracks),
    }


def label_batch(
    teacher: nn.Module, batch: Batch, config: PseudoLabelConfig, cam_norm: Literal["sigmoid", "max"]
) -> PseudoLabel:
    """Pseudo label from the CAM of `teacher` (by default the averaged classifier), no gradient."""
    with torch.no_grad():
        cam = teacher(batch.image).cam
        shown = batch.has_crack.view(-1, 1, 1, 1)  # a road image has no crack to refine
        refined = refine(batch.image, shown * crack_map(cam, batch.size, cam_norm), config)
        return pseudo_label(refined, batch.has_crack, config)
