"""Training: stages, epochs, validation and model selection. Yields metrics, does no I/O.

Stages (lengths in `train.steps`): warmup trains the classifier alone; adversarial runs the three
phases of the paper; detector trains the detector and the encoders below it with labels of the
averaged classifier, which then is fixed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wpcrack import distributed
from wpcrack.config import MethodConfig, ModelConfig
from wpcrack.data.batches import BatchSource, Shard, validation_batches, validation_part
from wpcrack.data.images import Pair
from wpcrack.data.pictures import Images
from wpcrack.data.read import ImageLevelSet
from wpcrack.errors import ConfigError
from wpcrack.labels.cam import label_map
from wpcrack.labels.pseudo_label import refine, say
from wpcrack.networks import CRACK
from wpcrack.networks.encoder import compile_encoders
from wpcrack.training.optim import continue_from, freeze_norms, learning_rate_share
from wpcrack.training.selection import (
    MASKED_IOU,
    THRESHOLD,
    Agreement,
    AgreementCounter,
    choose_windows,
    load_windows,
    masked_iou,
    objective,
    panels,
)
from wpcrack.training.stages import STAGES, Learner
from wpcrack.training.start import judged_stages


@dataclass
class Position:
    """Where a run stands; part of every checkpoint."""

    epoch: int = 0
    step: int = 0
    """Global steps done over all stages."""
    stage: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    best_by: str | None = None
    """Metric of `best_score`; another one, such as masks that came later, starts anew."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave."""

    epoch: int
    stage: str
    step: int
    metrics: Mapping[str, float]
    is_best: bool
    """Its `wpcrack.training.selection.objective` is the highest so far."""


@dataclass
class Meter:
    """Means of loss terms over an epoch; summed where they are, so that no step waits for them."""

    sums: dict[str, Tensor | float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds that steps waited for data."""

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of one step."""
        self.steps += 1
        for name, value in terms.items():
            before = self.sums.get(name, 0.0)
            self.sums[name] = before + value.detach().double()

    def means(self, device: torch.device) -> dict[str, float]:
        """Average per step over all ranks."""
        return {f"train/{n}": v / self.steps for n, v in self.average_sums(device).items()}

    def average_sums(self, device: torch.device) -> dict[str, float]:
        """Average the sums over all ranks."""
        names = sorted(self.sums)
        values = distributed.average([float(self.sums[n]) for n in names], device)
        return dict(zip(names, values, strict=True))

    def settle(self, device: torch.device) -> None:
        """Give each rank the same sums, so that a state of one rank continues all."""
        self.sums = {**self.average_sums(device)}


class Trainer:
    """Networks, optimizers and position of one run on this rank."""

    def __init__(
        self,
        config: MethodConfig,
        data: ImageLevelSet,
        *,
        masked: Sequence[Pair] = (),
        shard: Shard | None = None,
        device: torch.device | None = None,
        loaders: int = 0,
    ) -> None:
        """Prepare a run from its first step.

        Args:
            config: what is learned.
            data: image-level training and validation windows.
            masked: validation images with masks; if there are any, they judge the epochs.
            shard: the part of each batch that this rank reads.
            device: of the networks.
            loaders: processes that prepare batches; 0: a thread. They change no batch.
        """
        shard = shard or Shard()
        self.config, self.device = config, device or torch.device("cpu")
        self.shard, self.masked = shard, tuple(masked)
        train, window_px = config.train, config.train.window_px
        pin = self.device.type == "cuda"
        self.learner = Learner(config, self.device)
        images, mined = Images(data.train, window_px), self.learner.mine(data.train)
        self.foresee = self.learner.foresight(data.train, images.size)
        self.source = BatchSource(
            images, config, shard, loaders=loaders, pin=pin, foresee=self.foresee, mined=mined
        )
        scored = validation_part(data.val, train.val_items, config.seed)
        self.val_images = Images(scored, window_px)
        require_sides(config.model, self.source.images.size, self.val_images.size)
        require_common_statistics(config, shard)
        self.nets = self.learner.nets
        self.position = Position()
        self.meter = Meter()
        self.warnings = self._compile() if train.compile else ()

    # -- the run -----------------------------------------------------------------------------

    def epochs(self, within: Callable[[], None] | None = None) -> Iterator[EpochReport]:
        """Train from the current position to the end, an epoch at a time.

        Args:
            within: called on every rank after each step but the last of an epoch; `state_dict` may
                be taken there after `Meter.settle` on all ranks.
        """
        while self.position.stage < len(STAGES):
            if self._stage_done():
                self._next_stage()
                continue
            yield self._epoch(within)

    def _epoch(self, within: Callable[[], None] | None) -> EpochReport:
        at, stage, meter = self.position, STAGES[self.position.stage], self.meter
        left = self.config.train.epoch_steps - meter.steps
        count = max(0, min(left, self._stage_steps() - at.stage_step))
        self._train_mode()
        taught = stage == "detector"
        drawn = self.config.train.drawn_share if taught else 0.0
        with closing(self.source.stream(at.step, count, at.epoch, drawn, taught)) as batches:
            for after in reversed(range(count)):
                tick = time.perf_counter()
                batch = next(batches).each(self._place)
                meter.waited += time.perf_counter() - tick
                terms = self.learner.step(stage, batch, self._progress(), at.step, at.stage_step)
                meter.add(terms)
                at.step, at.stage_step = at.step + 1, at.stage_step + 1
                spent = time.perf_counter() - tick
                meter.seconds += spent
                at.stage_seconds += self._agree(spent)
                if self._stage_done():
                    break
                if after and within is not None:
                    within()
        distributed.assert_equal_weights(self.nets)
        tick = time.perf_counter()
        validation = self.validate().by_name()
        if self.masked:
            validation[MASKED_IOU] = masked_iou(
                self.learner.delivered, self.masked, self.shard, self.device
            )
        at.stage_seconds += self._agree(time.perf_counter() - tick)
        metrics = {
            **meter.means(self.device),
            **validation,
            "train/images_per_s": meter.steps * self.config.train.batch_size / meter.seconds,
            "train/data_wait": meter.waited / meter.seconds,
            "train/lr_share": learning_rate_share(self._progress(), self.config.optim),
            "train/progress": self.progress(),
        }
        return self._report(stage, metrics)

    def _report(self, stage: str, metrics: Mapping[str, float]) -> EpochReport:
        at, name = self.position, objective(metrics)
        if at.best_by not in (name, None):  # older states do not say
            at.best_score = -math.inf
        at.best_by, score = name, metrics[name]
        from_model = self.learner.start.folder is not None
        judged = judged_stages(self.config.train.steps, from_model=from_model)
        is_best = stage in judged and score > at.best_score
        if is_best:
            at.best_score, at.best_epoch = score, at.epoch
        report = EpochReport(at.epoch, stage, at.step, metrics, is_best)
        at.epoch += 1
        self.meter = Meter()
        return report

    # -- validation --------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> Agreement:
        """Judge the networks on held-out windows without masks (`wpcrack.training.selection`)."""
        counter = AgreementCounter(self.config.train)
        nets = self.learner.delivered.eval()
        rule, batch_size = self.learner.rule, self.config.train.batch_size
        opinion = self.learner.opinion() if self.learner.start.folder is not None else None
        foresee = self.foresee if opinion is not None else None
        held_out = validation_batches(self.val_images, batch_size, self.shard, foresee)
        for image, has_crack, foreseen in held_out:
            image = self._place(image)
            activation = self.learner.teacher.eval()(image)
            size = (image.shape[-2], image.shape[-1])
            refined = refine(
                image, label_map(activation.cam, size, self.config.model.cam_norm), rule
            )
            if opinion is not None:
                known = foreseen and foreseen.each(self._place)
                refined = torch.lerp(refined, say(opinion, image, known), opinion.weight)
            detected = torch.sigmoid(nets(image)) >= THRESHOLD
            counter.add(
                detected.cpu(),
                (refined >= rule.cam_crack).cpu(),
                (activation.logits[:, CRACK] > 0).cpu(),
                has_crack > 0,
            )
        return counter.result(self.device)

    def panels(self, count: int) -> Tensor:
        """Draw (N, 3, H, W') `panels` of some validation windows, by this rank alone."""
        positions = choose_windows(self.val_images, count)
        images = self._place(load_windows(self.val_images, positions))
        nets, teacher = self.learner.delivered.eval(), self.learner.teacher.eval()
        return panels(nets, teacher, images, self.config)

    # -- preparation -------------------------------------------------------------------------

    def _compile(self) -> tuple[str, ...]:
        """Compile the encoders for what they will see; return a warning if that does not work."""
        self._train_mode()
        local = len(self.shard.of(self.config.train.batch_size))
        shape = (-(-local // self.config.train.accumulate), 3, *self.source.images.size)
        encoders = self.nets.classifier.encoder, self.nets.reconstructor.encoder
        reason = compile_encoders(encoders, shape)
        return () if reason is None else (reason,)

    # -- position ----------------------------------------------------------------------------

    def _stage_steps(self) -> int:
        return int(getattr(self.config.train.steps, STAGES[self.position.stage]))

    def _stage_done(self) -> bool:
        return self._progress() >= 1

    def _progress(self) -> float:
        """Tell how far the current stage is, by steps or by its share of `max_minutes`."""
        steps = self._stage_steps()
        if steps == 0:
            return 1.0
        done = self.position.stage_step / steps
        seconds = self.stage_seconds(STAGES[self.position.stage])
        return min(1.0, max(done, self.position.stage_seconds / seconds if seconds else 0.0))

    def progress(self) -> float:
        """Tell how far the run is, in [0, 1], by the relative cost of the stages."""
        costs = [self.config.train.cost_of(stage) for stage in STAGES]
        at = self.position.stage
        if at >= len(STAGES):
            return 1.0
        return (sum(costs[:at]) + costs[at] * self._progress()) / max(sum(costs), 1e-9)

    def stage_seconds(self, stage: str) -> float | None:
        """Return the seconds of a stage under `max_minutes`; None without a cap."""
        train = self.config.train
        if train.max_minutes is None:
            return None
        return 60 * train.max_minutes * train.cost_of(stage) / sum(map(train.cost_of, STAGES))

    def _agree(self, seconds: float) -> float:
        """Average a time over ranks, so that all leave a stage together."""
        if self.config.train.max_minutes is None:
            return seconds
        return distributed.average([seconds], self.device)[0]

    def _next_stage(self) -> None:
        at = self.position
        at.stage, at.stage_step, at.stage_seconds = at.stage + 1, 0, 0.0
        self.meter = Meter()  # of an epoch that other settings than before leave unfinished
        if at.stage < len(STAGES):
            self.learner.enter(STAGES[at.stage])

    def _train_mode(self) -> None:
        self.nets.train()
        if self.config.train.freeze_batchnorm:
            freeze_norms(self.nets)

    def _place(self, tensor: Tensor) -> Tensor:
        """Move to the device, images in the memory order of the networks.

        Pinned tensors are on their way when this returns; what uses them waits for them.
        """
        images = tensor.dim() == 4 and tensor.shape[1] > 1
        if images and self.config.train.channels_last:
            return tensor.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(self.device, non_blocking=True)

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues the run exactly; sampling needs only the position."""
        averaged = self.learner.averaged
        return {
            "start": self.learner.start_hash,
            "nets": self.nets.state_dict(),
            "shares_encoder": self.nets.shares_encoder,
            "teacher": self.learner.teacher.state_dict(),
            "optimizers": {k: v.state_dict() for k, v in self.learner.optimizers.by_name().items()},
            "averaged": None if averaged is None else averaged.state_dict(),
            "position": vars(self.position).copy(),
            "meter": vars(self.meter) | {"sums": {k: float(v) for k, v in self.meter.sums.items()}},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.nets.load_state_dict(state["nets"])
        if self.learner.teacher is not self.nets.classifier:
            self.learner.teacher.load_state_dict(state["teacher"])
        for name, optimizer in self.learner.optimizers.by_name().items():
            continue_from(optimizer, state["optimizers"][name])
        if state.get("shares_encoder"):  # older states do not say
            self.nets.share_encoder()
        if state["averaged"] is not None:
            self.learner.start_average().load_state_dict(state["averaged"])
        self.position = Position(**state["position"])
        self.meter = Meter(**state.get("meter", {}))  # older states lie between two epochs


def require_sides(model: ModelConfig, *sizes: tuple[int, int]) -> None:
    """Refuse images that the decoder's downs would shrink to nothing.

    Args:
        model: decoder stride and number of downs.
        sizes: (H, W) in pixels of every kind of image that will be read.

    Raises:
        ConfigError: if an image side is shorter than the decoder needs.
    """
    needed = model.decoder_stride * 2 ** len(model.decoder_widths)
    smallest = min(min(size) for size in sizes)
    if smallest < needed:
        raise ConfigError(
            f"model.decoder_widths has {len(model.decoder_widths)} levels, which need images of "
            f"{needed} pixels, but some have {smallest}; set fewer levels or use larger windows"
        )


def require_common_statistics(config: MethodConfig, shard: Shard) -> None:
    """Refuse BatchNorm statistics of less than the batch: of a worker's part or of a piece.

    The released detector's are those of all workers, but of one piece.

    Raises:
        ConfigError: if statistics would differ from those of the batch.
    """
    train = config.train
    if config.model.detector == "released" and train.accumulate > 1:
        raise ConfigError(
            f"model.detector=released normalizes over the whole batch, which train.accumulate="
            f"{train.accumulate} cuts into pieces; set train.accumulate=1"
        )
    if train.freeze_batchnorm or (shard.ranks == 1 and train.accumulate == 1):
        return
    how = f"{shard.ranks} workers" if shard.ranks > 1 else f"train.accumulate={train.accumulate}"
    raise ConfigError(
        f"train.freeze_batchnorm=false with {how} gives each part of a batch its own BatchNorm "
        "statistics; set train.freeze_batchnorm=true, or use one worker and train.accumulate=1"
    )
