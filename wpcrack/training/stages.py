"""One step of each stage: warmup, adversarial, detector; and the averaged classifier (teacher).

The teacher is an exponential moving average of the classifier; pseudo labels come from it, in
eval mode. It follows the classifier in the first two stages and is fixed in the third. With
another `pseudo_label.source` the teacher is the classifier itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wpcrack import distributed
from wpcrack.config import MethodConfig, TrainConfig
from wpcrack.data.batch import Batch
from wpcrack.data.batches import Mined
from wpcrack.data.read import Item
from wpcrack.errors import NotFiniteError, TrainingError
from wpcrack.inference.scales import ScaledProbability
from wpcrack.label_config import PseudoLabelConfig
from wpcrack.labels.pseudo_label import Opinion, PseudoLabel, label_batch, require_refiners
from wpcrack.networks import Classifier, Features, Networks
from wpcrack.networks.paper.resnet38d import ResNet38d
from wpcrack.training import losses
from wpcrack.training.adversarial import adversarial_step, detector_step
from wpcrack.training.foresight import Foresight, can_look_around, find_marked
from wpcrack.training.optim import (
    Terms,
    average,
    descend,
    evaluating,
    frozen,
    learning_rate_share,
    make_optimizers,
)
from wpcrack.training.start import (
    REPLACED,
    blend,
    find_start,
    path_hash,
    read_first,
    restore_path,
    start_networks,
)

STAGES = ("warmup", "adversarial", "detector")
PHASES = {
    "rec": "reconstructor",
    "cls": "classifier",
    "ceccm": "classifier",
    "det": "detector",
}
"""Which network a loss term is descended for, by the first word of the term."""


class Learner:
    """The networks, their teacher and optimizers; knows nothing of data, time or files."""

    def __init__(self, config: MethodConfig, device: torch.device) -> None:
        require_refiners(config.pseudo_label)
        self.config, self.device = config, device
        self.start = find_start(config.model)
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU, whatever the device
            torch.default_generator.manual_seed(config.seed)
            self.nets = start_networks(config.model).to(device)
        if config.train.channels_last:
            self.nets.to(memory_format=torch.channels_last)
        distributed.broadcast_weights(self.nets)
        came_along = self.start.folder is not None
        self.start_hash = path_hash(self.nets.state_dict()) if came_along else None
        self.teacher: Classifier = self.nets.classifier
        if config.pseudo_label.source == "ema":
            self.teacher = copy.deepcopy(self.nets.classifier).requires_grad_(False).eval()
        self.optimizers = make_optimizers(self.nets, config.optim)
        self.averaged: Networks | None = None

    @property
    def delivered(self) -> Networks:
        """What is validated and saved: in the detector stage the average over its steps.

        Where the training starts from a model, the average is blended with it (`train.blend`).
        """
        if self.averaged is None:
            return self.nets
        share = self.learned_share
        return self.averaged if share == 1 else blend(self._first, self.averaged, share)

    @property
    def learned_share(self) -> float:
        """Share of the trained weights in the delivered ones."""
        comes_along = self.start.folder is not None and self.averaged is not None
        return self.config.train.blend if comes_along else 1.0

    @cached_property
    def _first(self) -> dict[str, Tensor]:
        """Tensors of the model that the training starts from."""
        return read_first(self.config.model, self.start_hash)

    def start_average(self) -> Networks:
        """Begin the average over the detector stage with the networks as they are."""
        self.averaged = copy.deepcopy(self.nets)
        self.averaged.requires_grad_(False).eval()
        return self.averaged

    def enter(self, stage: str) -> None:
        """Do what happens once at the beginning of a stage.

        The reconstructor's encoder starts from the warm classifier: same architecture, same task.
        Without a warmup, as in the paper, both start as they are.
        In the stages before the detector's, the encoders learn to tell and to play, and leave a
        detector behind that came along: where the training starts from a model, encoders and
        detector go on from it, and what was learned comes back through the CAM of the teacher.
        """
        if stage == "adversarial" and self.config.train.steps.warmup:
            self.nets.reconstructor.encoder.load_state_dict(
                self.nets.classifier.encoder.state_dict()
            )
            self.nets.reconstructor.head.load_state_dict(self.nets.classifier.head.state_dict())
        if stage == "detector" and not self.config.train.steps.detector:
            return  # the training is over, and a copy of the paper's networks takes 1.1 GB
        if stage == "detector" and self.start.folder is not None:
            restore_path(self.nets, self._first)
            distributed.broadcast_weights(self.nets)
            if self.start.one_encoder and self.config.train.one_encoder:
                self.nets.share_encoder()
        if stage == "detector" and self.config.train.detector_ema:
            self.start_average()

    def step(
        self, stage: str, batch: Batch, progress: float, steps_done: int, stage_step: int
    ) -> Terms:
        """Run one step of a stage; its `progress` in [0, 1] sets learning rates and CECCM's weight.

        Args:
            stage: one of `STAGES`.
            batch: the local batch.
            progress: of the stage, in [0, 1].
            steps_done: before this one, over all stages.
            stage_step: before this one, in this stage.

        Raises:
            TrainingError: a loss or gradient is not finite; names stage, phase, step and terms.
        """
        self._set_learning_rates(stage, progress)
        try:
            terms = self._step(stage, batch, progress, steps_done)
        except NotFiniteError as error:
            phase = PHASES[error.term.partition("_")[0]]
            where = f"{stage} stage, {phase} phase, step {steps_done}"
            raise TrainingError(f"{where}: {error}") from error
        if stage != "detector" and self.teacher is not self.nets.classifier:
            keep = kept_share(self.config.train.ema_decay, steps_done)
            average(self.teacher, self.nets.classifier, keep)
        if stage == "detector" and self.averaged is not None:
            average(
                self.averaged, self.nets, kept_share(self.config.train.detector_ema, stage_step)
            )
        return terms

    def _step(self, stage: str, batch: Batch, progress: float, steps_done: int) -> Terms:
        low = self.config.train.precision == "bf16"
        pieces = batch.pieces(self.config.train.accumulate)
        with (
            seeded(self.config.seed, steps_done, self.device),
            torch.autocast(self.device.type, torch.bfloat16, enabled=low),
        ):
            if stage == "warmup":
                terms = self._warmup(pieces)
            elif stage == "adversarial":
                epoch = steps_done // self.config.train.epoch_steps
                terms = self._adversarial(pieces, epoch, progress)
            else:
                terms = self._fit_detector(pieces, joint=self.config.train.joint)
        return terms

    def _warmup(self, batches: Sequence[Batch]) -> Terms:
        """Teach the classifier the image-level labels."""

        def terms(batch: Batch) -> Terms:
            logits = self.nets.classifier(batch.image).logits.float()
            return {"cls_bce": losses.classification(logits, batch.label, batch.images)}

        clip = self.config.optim.clip_norm
        return descend(map(terms, batches), self.optimizers.classifier, clip)

    def _adversarial(self, batches: Sequence[Batch], epoch: int, progress: float) -> Terms:
        """Run the three phases of the paper; joint epochs update the encoders, too."""
        nets, train = self.nets, self.config.train
        first_joint = first_joint_epoch(train)
        reached = first_joint is not None and epoch >= first_joint
        stopped = [nets.reconstructor.decoder] if train.decoder_stops and reached else []
        with frozen(*stopped):
            terms, pieces = adversarial_step(
                nets, batches, self.optimizers, self.config, progress=progress
            )
        if is_joint_epoch(epoch, train):
            return {**terms, **self._fit_detector(batches, joint=True)}
        with frozen(nets.classifier, nets.reconstructor):
            inputs = (self._see(piece.batch, piece.features) for piece in pieces)
            det = detector_step(nets, inputs, self.optimizers.detector, self.config)
        return {**terms, **det}

    def _fit_detector(self, batches: Sequence[Batch], *, joint: bool) -> Terms:
        """Teach the pseudo label to the detector, and with `joint` to the encoders below it."""
        optimizers = self.optimizers.for_joint() if joint else (self.optimizers.detector,)
        inputs = (self._see(batch, None, joint=joint) for batch in batches)
        return detector_step(self.nets, inputs, optimizers, self.config)

    def _see(
        self, batch: Batch, features: tuple[Features, Features] | None, *, joint: bool = False
    ) -> tuple[Batch, tuple[Features, Features], PseudoLabel]:
        """Complete a piece of the batch by what the detector gets: features and pseudo label."""
        nets = self.nets
        if features is None:
            with torch.set_grad_enabled(joint):
                features = nets.see(batch.image)
        return batch, features, self._label(batch, features[0])

    def _label(self, batch: Batch, seen: Features) -> PseudoLabel:
        """Make the pseudo label from the classifier that `pseudo_label.source` names.

        Of the classifier itself `seen` is what its encoder gave, so where that is the same in eval
        mode and of the images that labels are made of, only the head runs again.
        """
        rule, how = self.rule, self.config.model.cam_norm
        opinion = self.opinion()
        if rule.source == "ema":
            return label_batch(self.teacher, batch, rule, how, opinion=opinion)
        classifier = self.nets.classifier
        same = rule.source == "train" or isinstance(classifier.encoder, ResNet38d)
        with evaluating(classifier) if rule.source == "eval" else nullcontext():
            features = seen if same and batch.plain is None else None
            return label_batch(classifier, batch, rule, how, features, opinion)

    @property
    def rule(self) -> PseudoLabelConfig:
        """How labels are made now; a detector that came along has numbers of its own."""
        rule = self.config.pseudo_label
        if self.start.folder is None or self.averaged is None or not rule.self_training:
            return rule
        own = {key: getattr(rule, other) for key, other in REPLACED.items()}
        return rule.model_copy(update=own)

    def opinion(self) -> Opinion | None:
        """Return what the averaged detector says, at the scales of the model it started from."""
        weight = self.rule.self_training
        if self.averaged is None or not weight:
            return None
        return Opinion(ScaledProbability(self.averaged, self.start.scales), weight)

    def mine(self, items: Sequence[Item]) -> Mined | None:
        """Return the road windows that the model a training starts from marks, if it is asked."""
        train, folder = self.config.train, self.start.folder
        if not (train.mined_share and train.steps.detector and folder is not None):
            return None
        return Mined(find_marked(folder, items, train.label_min_share), train.mined_share)

    def foresight(self, items: Sequence[Item], size: tuple[int, int]) -> Foresight | None:
        """Return the model that looks at windows with their surroundings; None: it need not.

        Args:
            items: Images to learn from.
            size: (H, W) of the windows that are cut out of them.
        """
        folder = self.start.folder
        if folder is None or not can_look_around(self.config, from_model=True):
            return None
        foresight = Foresight(folder, size)
        if not any(map(foresight.knows, items)):
            return None
        foresight.prepare()
        return foresight

    def _set_learning_rates(self, stage: str, progress: float) -> None:
        config = self.config.optim
        trained = stage == "detector" and self.start.folder is not None
        peak = config.trained_share if trained else 1.0
        share = learning_rate_share(progress, config)
        held = () if config.detector_decay else {id(p) for p in self.nets.detector.parameters()}
        for optimizer in self.optimizers.by_name().values():
            for group in optimizer.param_groups:
                is_held = id(group["params"][0]) in held
                group["lr"] = group["peak_lr"] * ((1.0 if is_held else share) * peak)


def kept_share(decay: float, steps_done: int) -> float:
    """Return what an exponential average keeps in a step: less than `decay` at the beginning."""
    return min(decay, (1 + steps_done) / (10 + steps_done))


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Let dropout follow from seed, step and rank, so that a continued run is the same run."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = np.random.SeedSequence([seed, step, distributed.rank()]).generate_state(1)
        torch.manual_seed(int(state[0]))
        yield


def is_joint_epoch(epoch: int, config: TrainConfig) -> bool:
    """Tell whether this epoch of the adversarial stage also fine-tunes the encoders (paper)."""
    after = config.joint_after
    return after is not None and epoch > after and epoch % config.joint_every == 0


def first_joint_epoch(config: TrainConfig) -> int | None:
    """Find the first epoch of which `is_joint_epoch` holds."""
    if config.joint_after is None:
        return None
    return (config.joint_after // config.joint_every + 1) * config.joint_every
