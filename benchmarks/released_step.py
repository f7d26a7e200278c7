"""One training step in the order and extent of the released code: the benchmark's baseline.

It computes whole batches and whole networks where less would do, and keeps gradients until the
next step. The lean step must give the same weights (tests/test_train_step.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wpcrack import losses
from wpcrack.adversarial import detector_step, off_crack
from wpcrack.batch import Batch
from wpcrack.cam import crack_map, upsample
from wpcrack.networks import CRACK
from wpcrack.optim import Terms, descend, evaluating, frozen
from wpcrack.pseudo_label import pseudo_label, refine
from wpcrack.stages import Learner


class ReleasedStep:
    """One step in the order and extent of the released code, on our networks and losses."""

    def __init__(self, learner: Learner) -> None:
        self.nets, self.config = learner.nets, learner.config
        self.optimizers, self.clip = learner.optimizers, learner.config.optim.clip_norm

    def __call__(self, batch: Batch, number: int) -> Terms:
        """Phases A, B and C."""
        del number
        return {**self.reconstruct(batch), **self.classify(batch), **self.detect(batch)}

    def error(self, batch: Batch, feature: Tensor, keep: Tensor | None, weight: Tensor) -> Tensor:
        """Paints every image; the loss is that of the crack images."""
        painted = self.nets.reconstructor.decode(feature, keep)
        image = self.nets.reconstructor.encoder.normalize(batch.image)
        return losses.masked_l1(painted, image, weight, batch.has_crack, batch.cracks)

    def reconstruct(self, batch: Batch) -> Terms:
        """Phase A."""
        nets, weights = self.nets, self.config.losses
        with torch.no_grad(), evaluating(nets.classifier):
            cam = nets.classifier(batch.image).cam
        m, g = crack_map(cam, batch.size, nets.config.cam_norm), batch.erased
        encoding = nets.reconstructor.encode(batch.image)
        z, crack, rest = encoding.feature, m * g, (1 - m) * g
        logits = encoding.activation.logits
        terms = {
            "rec_bce": losses.classification(logits, batch.label, batch.images),
            "rec_full": weights.rec_full * self.error(batch, z.detach(), None, torch.ones_like(g)),
            "rec_crack": weights.rec_crack * self.error(batch, z, 1 - crack, crack),
            "rec_rest": weights.rec_rest * self.error(batch, z, 1 - rest, rest),
        }
        descend([terms], self.optimizers.reconstructor, self.clip)
        return terms

    def classify(self, batch: Batch) -> Terms:
        """Phase B."""
        nets, weights = self.nets, self.config.losses
        with frozen(nets.reconstructor), evaluating(nets.reconstructor):
            activation = nets.classifier(batch.image)
            encoding = nets.reconstructor.encode(batch.image)
            cam, z = activation.cam, encoding.feature
            m = crack_map(cam, batch.size, nets.config.cam_norm)
            is_crack = upsample(cam.detach(), batch.size).argmax(1, keepdim=True) == CRACK
            outside = off_crack(m.detach(), nets.config.cam_norm)
            crack = self.error(batch, z, m, outside)
            rest = self.error(batch, z, 1 - m, m.detach() * is_crack)
            cams = (
                c[batch.has_crack > 0, CRACK : CRACK + 1]
                for c in (cam, encoding.activation.cam.detach())
            )
            shown = torch.ones(int(batch.has_crack.sum()))
            same = losses.cam_consistency(*cams, shown, batch.cracks, weights.ceccm)
            terms = {
                "cls_bce": losses.classification(activation.logits, batch.label, batch.images),
                "cls_crack": -weights.cls_crack * crack,
                "cls_rest": -weights.cls_rest * rest,
                "ceccm": weights.ceccm_weight * same,
            }
            descend([terms], self.optimizers.classifier, self.clip)
        return terms

    def detect(self, batch: Batch) -> Terms:
        """Phase C: whole forward passes for the trunks, another one for the pseudo label."""
        nets, rule = self.nets, self.config.pseudo_label
        with torch.no_grad(), evaluating(nets.classifier):
            cam = nets.classifier(batch.image).cam
            found = crack_map(cam, batch.size, nets.config.cam_norm)
            found = refine(batch.image, found * batch.has_crack.view(-1, 1, 1, 1), rule)
            label = pseudo_label(found, batch.has_crack, rule)
        with torch.no_grad():
            features = (
                nets.classifier(batch.image).features,
                nets.reconstructor.encode(batch.image).activation.features,
            )
        optimizer = self.optimizers.detector
        return detector_step(nets, [(batch, features, label)], optimizer, self.config)
