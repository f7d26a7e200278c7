"""One step of each stage: warmup, adversarial, detector; and the averaged classifier (teacher).

The teacher is an exponential moving average of the classifier; pseudo labels come from it, in
eval mode. It follows the classifier in the first two stages and is fixed in the third.
"""

from __future__ import annotations

import copy

import torch

from wpcrack import distributed, losses
from wpcrack.adversarial import Batch, adversarial_step, detector_step, label_batch
from wpcrack.config import MethodConfig
from wpcrack.networks import Activation, Classifier, Features, Networks
from wpcrack.optim import Terms, descend, frozen, make_optimizers, one_cycle, set_learning_rate
from wpcrack.pseudo_label import PseudoLabel

STAGES = ("warmup", "adversarial", "detector")


class Learner:
    """The networks, their teacher and optimizers; knows nothing of data, time or files."""

    def __init__(self, config: MethodConfig, device: torch.device) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU, whatever the device
            torch.default_generator.manual_seed(config.seed)
            self.nets = Networks(config.model).to(device)
        self.nets.to(memory_format=torch.channels_last)
        distributed.broadcast_weights(self.nets)
        self.teacher: Classifier = copy.deepcopy(self.nets.classifier)
        self.teacher.requires_grad_(False).eval()
        self.optimizers = make_optimizers(self.nets, config.optim)

    def enter(self, stage: str) -> None:
        """What happens once at the beginning of a stage.

        The reconstructor's encoder starts from the warm classifier: same architecture, same task.
        """
        if stage == "adversarial":
            self.nets.reconstructor.encoder.load_state_dict(
                self.nets.classifier.encoder.state_dict()
            )
            self.nets.reconstructor.head.load_state_dict(self.nets.classifier.head.state_dict())

    def step(self, stage: str, batch: Batch, progress: float, steps_done: int) -> Terms:
        """One step of a stage; `progress` in [0, 1] of the stage sets the learning rates."""
        run = {"warmup": self._warmup, "adversarial": self._adversarial, "detector": self._detector}
        rate = one_cycle(progress, self.config.optim)
        for optimizer in self.optimizers.named().values():
            set_learning_rate(optimizer, rate)
        terms = run[stage](batch)
        if stage != "detector":
            self._average_teacher(steps_done)
        return terms

    def _warmup(self, batch: Batch) -> Terms:
        """The classifier learns the image-level labels."""
        logits = self.nets.classifier(batch.image).logits.float()
        terms = {"cls_bce": losses.classification(logits, batch.label, batch.images)}
        descend(terms, self.optimizers.classifier, self.config.optim.clip_norm)
        return terms

    def _adversarial(self, batch: Batch) -> Terms:
        """The three phases of the paper."""
        nets = self.nets
        terms, activation, encoding = adversarial_step(nets, batch, self.optimizers, self.config)
        with frozen(nets.classifier, nets.reconstructor):
            if self.config.train.schedule == "fresh":
                activation = nets.classifier(batch.image)
            features = detached(activation), detached(encoding.activation)
            optimizer = self.optimizers.detector
            det = detector_step(nets, batch, features, self._label(batch), optimizer, self.config)
        return {**terms, **det}

    def _detector(self, batch: Batch) -> Terms:
        """The detector, and with `train.joint` the encoders below it, learn the pseudo label."""
        nets, joint = self.nets, self.config.train.joint
        with torch.set_grad_enabled(joint):
            features = nets.classifier.encoder(batch.image), nets.reconstructor.encoder(batch.image)
        optimizer = self.optimizers.joint if joint else self.optimizers.detector
        return detector_step(nets, batch, features, self._label(batch), optimizer, self.config)

    def _label(self, batch: Batch) -> PseudoLabel:
        return label_batch(
            self.teacher, batch, self.config.pseudo_label, self.config.model.cam_norm
        )

    @torch.no_grad()
    def _average_teacher(self, steps_done: int) -> None:
        keep = min(self.config.train.ema_decay, (1 + steps_done) / (10 + steps_done))
        pairs = zip(
            self.teacher.state_dict().values(),
            self.nets.classifier.state_dict().values(),
            strict=True,
        )
        for slow, fast in pairs:
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)


def detached(activation: Activation) -> Features:
    """Features without their graph."""
    f = activation.features
    return Features(f.stride2.detach(), f.stride4.detach(), f.stride8.detach(), f.deep.detach())
