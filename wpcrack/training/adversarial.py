"""One training iteration of WP-CrackNet: the three phases, as the paper's algorithm reads.

A. The reconstructor paints each region of a crack image from the other.
B. The classifier makes that painting fail: it moves whole cracks into its CAM.
C. The detector agrees with the refined CAM.

Shape letters: B images, C of them with a crack, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wpcrack.config import LossConfig, MethodConfig
from wpcrack.data.batch import Batch, CrackPart
from wpcrack.labels.cam import crack_map, upsample
from wpcrack.labels.pseudo_label import PseudoLabel
from wpcrack.networks import CRACK, Activation, Encoding, Features, Networks
from wpcrack.training import losses
from wpcrack.training.optim import Optimizers, Terms, descend, evaluating, frozen


@dataclass
class Piece:
    """A piece of the local batch, and what the phases of a step hand on of it."""

    batch: Batch
    activation: Activation | None = None
    """Of the classifier with its graph, where one forward pass serves both phases."""
    encoding: Encoding | None = None
    """Of the reconstructor from before its update, without graph; shared schedule only."""
    features: tuple[Features, Features] | None = None
    """What both encoders saw, for the detector; None: it has to look afresh."""


def adversarial_step(
    nets: Networks,
    batches: Sequence[Batch],
    optimizers: Optimizers,
    config: MethodConfig,
    *,
    progress: float = 1.0,
) -> tuple[Terms, list[Piece]]:
    """Run phases A and B; each updates its own network only, by the sum over the batch's pieces.

    With `train.schedule` = shared both phases use one forward pass of each encoder, so phase B
    sees the reconstructor's features from before its update; with several pieces the classifier
    looks twice, since the graphs of all pieces are not kept. With fresh, as released, each phase
    computes what it needs, and the network that it holds fixed is in eval mode; what it needs of
    that network are the crack images alone. `progress` in [0, 1] of the stage sets the weight of
    CAM consistency.

    Returns:
        The terms, and the pieces.
    """
    clip = config.optim.clip_norm
    pieces = [Piece(batch) for batch in batches]
    if config.train.schedule == "shared" and len(pieces) == 1:
        pieces[0].activation = nets.classifier(batches[0].image)
    with frozen(nets.classifier):
        painted = (reconstruct(nets, p, config) for p in pieces)
        rec = descend(painted, optimizers.reconstructor, clip)
        optimizers.reconstructor.zero_grad(set_to_none=True)  # the next phase needs the memory
    with frozen(nets.reconstructor), evaluating(nets.reconstructor):
        hidden = (hide(nets, p, config, progress) for p in pieces)
        cls = descend(hidden, optimizers.classifier, clip)
        optimizers.classifier.zero_grad(set_to_none=True)
    return {**rec, **cls}, pieces


def reconstruct(nets: Networks, piece: Piece, config: MethodConfig) -> Terms:
    """Compute phase A of a piece: the classifier's map says what has to be painted."""
    batch, part = piece.batch, CrackPart.of(piece.batch)
    if piece.activation is not None:
        cam = piece.activation.cam.detach()
    elif config.train.schedule == "fresh":
        cam = look(nets.classifier, batch, part).cam
    else:
        with torch.no_grad():
            cam = nets.classifier(batch.image[part.index]).cam
    encoding = nets.reconstructor.encode(batch.image, part.index)
    if config.train.schedule == "shared":
        piece.encoding = encoding.detach()
    seen = crack_map(cam, batch.size, nets.config.cam_norm)
    paint = painter(nets, recompute=config.train.recompute)
    return reconstructor_terms(nets, batch, seen, encoding, config.losses, paint=paint)


def hide(nets: Networks, piece: Piece, config: MethodConfig, progress: float) -> Terms:
    """Compute phase B of a piece: the classifier moves its map so that the painting fails."""
    batch, activation, encoding = piece.batch, piece.activation, piece.encoding
    piece.activation = None  # its graph goes with this piece's terms
    if activation is None:
        activation = nets.classifier(batch.image)
    if encoding is None:
        with torch.no_grad():
            encoding = nets.reconstructor.encode(batch.image[CrackPart.of(batch).index])
    else:
        piece.features = activation.features.detach(), encoding.activation.features
    paint = painter(nets, recompute=config.train.recompute)
    return classifier_terms(
        nets, batch, activation, encoding, config.losses, progress=progress, paint=paint
    )


def look(classifier: nn.Module, batch: Batch, part: CrackPart) -> Activation:
    """Run the classifier on the crack images in eval mode, without gradient."""
    with torch.no_grad(), evaluating(classifier):
        activation: Activation = classifier(batch.image[part.index])
        return activation


Paint = Callable[[Tensor, Tensor | None], Tensor]
"""(Z, what is kept of it) -> (C, 3, H, W) painted image."""


def painter(nets: Networks, *, recompute: bool = False) -> Paint:
    """Return the reconstructor's decoder; with `recompute` it keeps no inner maps for backward."""
    if not recompute:
        return nets.reconstructor.decode

    def paint(feature: Tensor, keep: Tensor | None) -> Tensor:
        decode = nets.reconstructor.decode
        painted: Tensor = checkpoint(decode, feature, keep, use_reentrant=False)
        return painted

    return paint


def detector_step(
    nets: Networks,
    inputs: Iterable[tuple[Batch, tuple[Features, Features], PseudoLabel]],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    config: MethodConfig,
) -> Terms:
    """Run phase C: the detector agrees with the refined CAM.

    What is updated is what `optimizer` holds: the detector, or with it the encoders below.

    Args:
        nets: only the detector is used.
        inputs: each piece of the batch, what both encoders saw of it, and its pseudo label.
        optimizer: what steps.
        config: weights and clipping.
    """
    terms = (detector_terms(nets, *given, config.losses) for given in inputs)
    return descend(terms, optimizer, config.optim.clip_norm)


def reconstructor_terms(
    nets: Networks,
    batch: Batch,
    seen: Tensor,
    encoding: Encoding,
    config: LossConfig,
    *,
    paint: Paint | None = None,
) -> Terms:
    """Compute phase A: L_rec = BCE + 0.2 full + 0.3 crack + 0.5 rest (erased cells, crack images).

    Args:
        nets: the classifier is not used; its map comes in as `seen`.
        batch: the local batch.
        seen: (B or C, 1, H, W) crack map of the classifier, without gradient.
        encoding: of the reconstructor, with gradient; Z of all or of the crack images.
        config: weights.
        paint: the decoder; None: without recomputing.
    """
    decode = paint or painter(nets)
    part = CrackPart.of(batch)
    image = nets.reconstructor.encoder.normalize(batch.image[part.index])
    z, m, g = part.rows(encoding.feature), part.rows(seen), batch.erased[part.index]
    erase_crack, erase_rest = m * g, (1 - m) * g
    full, crack, rest = (
        masked_error(decode(feature, keep), image, weight, part, batch, config)
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
    paint: Paint | None = None,
) -> Terms:
    """Compute phase B: L_cls = BCE - 0.8 crack - 0.3 rest + 0.5 CECCM, through the decoder.

    Args:
        nets: the reconstructor is frozen by the caller.
        batch: the local batch.
        activation: of the classifier, with gradient.
        encoding: of the reconstructor, without gradient; of all or of the crack images.
        config: weights.
        progress: of the stage, in [0, 1]; see `ceccm_weight`.
        paint: the decoder; None: without recomputing.
    """
    decode = paint or painter(nets)
    part = CrackPart.of(batch)
    image = nets.reconstructor.encoder.normalize(batch.image[part.index])
    size = batch.size
    cam = activation.cam[part.index]
    m = crack_map(cam, size, nets.config.cam_norm)
    z = part.rows(encoding.feature).detach()
    is_crack = (upsample(cam.detach().float(), size).argmax(1, keepdim=True) == CRACK).float()
    weight_crack = off_crack(m.detach(), nets.config.cam_norm)
    weight_rest = m.detach() * is_crack
    terms = {
        "cls_bce": losses.classification(activation.logits.float(), batch.label, batch.images),
        "cls_crack": -config.cls_crack
        * masked_error(decode(z, m), image, weight_crack, part, batch, config),
        "cls_rest": -config.cls_rest
        * masked_error(decode(z, 1 - m), image, weight_rest, part, batch, config),
    }
    if config.ceccm.enabled:
        other = part.rows(encoding.activation.cam).detach()
        maps = cam[:, CRACK : CRACK + 1].float(), other[:, CRACK : CRACK + 1].float()
        if nets.config.cam_norm == "max":  # the paper compares the maps that paint
            maps = m, crack_map(other, size, nets.config.cam_norm)
        terms["ceccm"] = ceccm_weight(config, progress) * losses.cam_consistency(
            *maps, part.shown, batch.cracks, config.ceccm
        )
    return terms


def ceccm_weight(config: LossConfig, progress: float) -> float:
    """Return the weight of CAM consistency after `progress` of the adversarial stage.

    >>> ceccm_weight(LossConfig(ceccm_weight=0.5, ceccm={"warmup": 0.4}), 0.1)
    0.125
    """
    rising = progress < config.ceccm.warmup
    return config.ceccm_weight * (progress / config.ceccm.warmup if rising else 1.0)


def off_crack(m: Tensor, how: str) -> Tensor:
    """Weigh what lies off the crack: 1[m == 0] for maxnorm, 1 - m for probabilities."""
    return (m == 0).float() if how == "max" else 1 - m


def masked_error(
    painted: Tensor,
    image: Tensor,
    weight: Tensor,
    part: CrackPart,
    batch: Batch,
    config: LossConfig,
) -> Tensor:
    """Compute L1 between painting and image where `weight` says, over the crack images."""
    region = config.error_mean == "region"
    return losses.masked_l1(painted.float(), image, weight, part.shown, batch.cracks, region=region)


def detector_terms(
    nets: Networks,
    batch: Batch,
    features: tuple[Features, Features],
    label: PseudoLabel,
    config: LossConfig,
) -> Terms:
    """Compute phase C: BCE + region loss + false alarms; a road image has an empty mask.

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
    terms = {
        "det_bce": losses.detection(logits, label, counted, config.det_pos_weight),
        "det_region": config.det_region
        * losses.region(logits, label, batch.has_crack, batch.cracks),
    }
    if config.det_on_road and config.det_false_alarm:
        terms["det_alarm"] = config.det_false_alarm * losses.false_alarm(
            logits, batch.has_crack, batch.roads, config.det_alarm_fraction
        )
    return terms
