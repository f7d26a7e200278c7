"""One training iteration of WP-CrackNet: the three phases, as the paper's algorithm reads.

A. The reconstructor infers each region of a crack image from the other.
B. The classifier makes that inference fail: it moves whole cracks into its CAM.
C. The detector agrees with the refined CAM.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack import distributed, losses
from wpcrack.cam import max_normalize, upsample
from wpcrack.config import LossConfig, PseudoLabelConfig
from wpcrack.errors import TrainingError
from wpcrack.networks import CRACK, Activation, Encoding, Features, Networks
from wpcrack.pseudo_label import PseudoLabel, pseudo_label, refine

Terms = Mapping[str, Tensor]
"""Weighted loss terms by name; their sum is what a phase descends."""


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


def crack_map(cam: Tensor, size: tuple[int, int], how: str) -> Tensor:
    """The crack channel of (B, 2, h, w) CAM logits as (B, 1, H, W) in [0, 1]."""
    crack = cam[:, CRACK : CRACK + 1].float()
    return (
        torch.sigmoid(upsample(crack, size))
        if how == "sigmoid"
        else upsample(max_normalize(crack), size)
    )


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
    nets: Networks, batch: Batch, activation: Activation, encoding: Encoding, config: LossConfig
) -> Terms:
    """Phase B: L_cls = BCE - 0.8 crack - 0.3 rest + 0.5 CECCM; gradient flows through decode.

    Args:
        nets: the reconstructor is frozen by the caller.
        batch: the local batch.
        activation: of the classifier, with gradient.
        encoding: of the reconstructor, without gradient.
        config: weights.
    """
    part = CrackPart.of(batch)
    image = nets.reconstructor.encoder.normalize(batch.image[part.index])
    size = (image.shape[-2], image.shape[-1])
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
        terms["ceccm"] = config.ceccm_weight * losses.cam_consistency(
            cam[:, CRACK : CRACK + 1].float(),
            other[:, CRACK : CRACK + 1].float(),
            part.shown,
            batch.cracks,
            config.ceccm,
        )
    return terms


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

    Args:
        nets: only the detector is used.
        batch: the local batch.
        features: of the classifier and of the reconstructor.
        label: pseudo label of the batch.
        config: weights.
    """
    logits = nets.detector(*features, batch.image.shape[-2:]).float()
    return {
        "det_bce": losses.detection(logits, label, batch.images, config.det_pos_weight),
        "det_region": config.det_region
        * losses.region(logits, label, batch.has_crack, batch.cracks),
    }


def label_batch(
    teacher: nn.Module, batch: Batch, config: PseudoLabelConfig, cam_norm: str
) -> PseudoLabel:
    """Pseudo label from the averaged classifier, in eval mode and without gradient."""
    with torch.no_grad():
        cam = teacher(batch.image).cam
        size = (batch.image.shape[-2], batch.image.shape[-1])
        refined = refine(batch.image, crack_map(cam, size, cam_norm), config)
        return pseudo_label(refined, batch.has_crack, config)


def descend(terms: Terms, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
    """One update: backward, mean gradient over ranks, clipping, step.

    Raises:
        TrainingError: if a term is not finite; names it. Nothing has been updated then.
    """
    broken = [name for name, value in terms.items() if not torch.isfinite(value)]
    if broken:
        values = ", ".join(f"{name}={value.item():.4g}" for name, value in terms.items())
        raise TrainingError(
            f"loss term {broken[0]} is not finite ({values}); the last checkpoint is kept: "
            "lower optim.encoder_lr / optim.head_lr and start again"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """No parameter of these networks collects a gradient; gradients still flow through them.

    Every flag is restored afterwards, also after an exception.
    """
    flags = [(p, p.requires_grad) for network in networks for p in network.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
