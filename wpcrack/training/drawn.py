"""The training that makes the shipped model: encoder and detector on drawn pavement alone.

No photograph and no label enters it. Every window is drawn when it is needed, from (seed, step,
position), so a training that is continued after an interruption sees what it would have seen.
`train_path` trains in the same way on other windows.

Shape letters: B windows, H W pixels.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from wpcrack import distributed
from wpcrack.errors import CheckpointError, TrainingError, first_line
from wpcrack.files import whole_file
from wpcrack.networks import Detector, Networks
from wpcrack.tensor_files import DAMAGE, read_state, write_state
from wpcrack.training.drawn_windows import (
    SPEED_FIELDS,
    DrawnBatches,
    DrawnTrainConfig,
    Windows,
    batches_from,
)
from wpcrack.training.optim import average, freeze_norms, groups_at, set_learning_rate

log = logging.getLogger(__name__)

STATE = "state.pt"
"""Name of the file that an interrupted training continues from."""

LINE_EVERY = 50
"""Updates between two lines about the progress."""

RESTART = "remove it, and the same command starts this training again"
"""What to do about a state that is damaged."""


@dataclass(frozen=True)
class Progress:
    """What is reported after an update."""

    step: int
    steps: int
    terms: dict[str, float]

    @property
    def is_due(self) -> bool:
        """Whether people are told of it: of the last one, and of one in LINE_EVERY."""
        return self.step % LINE_EVERY == 0 or self.step == self.steps

    def text(self) -> str:
        """Return one line.

        >>> Progress(50, 300, {"pixels": 0.25}).text()
        'step 50 of 300: pixels 0.250'
        """
        terms = ", ".join(f"{name} {value:.3f}" for name, value in self.terms.items())
        return f"step {self.step} of {self.steps}: {terms}"


Report = Callable[[Progress], None]

CPU = torch.device("cpu")


def pretrain(config: DrawnTrainConfig, folder: Path, report: Report | None = None) -> Networks:
    """Train encoder and detector on drawn pavement; continue what lies in the folder.

    Args:
        config: What is learned.
        folder: Where the state is kept; made if it is not there.
        report: Called after every update.

    Returns:
        Networks with the averaged weights, in eval mode; classifier and reconstructor share an
        encoder.

    Raises:
        CheckpointError: The folder holds the state of another config.
    """
    torch.manual_seed(config.seed)
    nets = Networks(config.model)
    nets.share_encoder()
    return train_path(config, nets, folder, Lesson(DrawnBatches(config)), report)


@dataclass(frozen=True)
class Lesson:
    """What encoder and detector are shown."""

    batches: Dataset[Windows]
    """Batch k of the training at index k."""
    identity: str = ""
    """What the batches and first weights follow from beside the config: a state of another lesson
    is not continued."""


def train_path(
    config: DrawnTrainConfig,
    nets: Networks,
    folder: Path,
    lesson: Lesson,
    report: Report | None = None,
    device: torch.device = CPU,
) -> Networks:
    """Train encoder and detector of networks on any windows; see `pretrain`.

    Of networks with two encoders, as some of `wpcrack train`, both are trained.

    Where there are several ranks, each learns from its share of the windows of a batch, and all
    together do what one rank does with all of them; the first writes the state and reports.

    Args:
        config: What is learned; every shape of batch is shared equally among the ranks.
        nets: Whose weights are trained.
        folder: Where the state is kept, seen by all ranks.
        lesson: What is shown, the same on every rank.
        report: Called after every update.
        device: On which the networks learn.

    Returns:
        As for `pretrain`, on the CPU.

    Raises:
        CheckpointError: The folder holds the state of another config or lesson.
        TrainingError: A loss or gradient is not finite; the last state is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(config, nets, folder, lesson, device)
    run.resume()
    with torch_threads(config.threads):
        run.train(report)
    return deliver(run)


def keep_start(config: DrawnTrainConfig, nets: Networks, folder: Path, lesson: Lesson) -> None:
    """Keep a state before the first update, from which any process can begin; one is kept as it is.

    Raises:
        CheckpointError: The folder holds the state of another config or lesson.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(config, nets, folder, lesson)
    run.resume()
    if run.step == 0:
        run.save()


def deliver(run: _Run) -> Networks:
    """Return the averaged weights as networks for inference."""
    for trained, mean in zip(run.path, run.average, strict=True):
        trained.load_state_dict(mean.state_dict())
    return run.nets.to(CPU).eval().requires_grad_(False)


class _Run:
    """One training: trained path, its average, optimizer, step."""

    def __init__(
        self,
        config: DrawnTrainConfig,
        nets: Networks,
        folder: Path,
        lesson: Lesson,
        device: torch.device = CPU,
    ) -> None:
        assert isinstance(nets.detector, Detector)
        self.config, self.nets, self.folder, self.lesson = config, nets, folder, lesson
        self.path = nn.ModuleList([nets.classifier.encoder, nets.detector])
        if not nets.shares_encoder:
            self.path.append(nets.reconstructor.encoder)
        self.path.to(device).to(memory_format=torch.channels_last)
        self.device = device
        self.path.requires_grad_(True).train()
        freeze_norms(self.path)
        self.average = copy.deepcopy(self.path).requires_grad_(False)
        encoders = [self.path[0], *self.path[2:]]
        self.optimizer = torch.optim.AdamW(
            [
                *groups_at(config.encoder_lr, encoders, config.weight_decay),
                *groups_at(config.head_lr, [nets.detector], config.weight_decay),
            ],
            lr=config.head_lr,
            fused=True,
        )
        self.step = 0

    def train(self, report: Report | None) -> None:
        """Run all updates that are left."""
        world = distributed.world_size()
        for windows in batches_from(self.lesson.batches, self.config, self.step):
            share = drawn_rate_share(self.step, self.config)
            set_learning_rate(self.optimizer, share)
            terms = self._update(tuple(part[distributed.rank() :: world] for part in windows))
            self.step += 1
            decay = min(self.config.ema_decay, self.step / (self.step + 10))
            average(self.average, self.path, decay)
            if report is not None and distributed.rank() == 0:
                report(Progress(self.step, self.config.steps, terms))
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()

    def _update(self, windows: tuple[Tensor, ...]) -> dict[str, float]:
        image, mask, faint = (part.to(self.device) for part in windows)
        image = image.permute(0, 3, 1, 2).float().div(255)
        image = image.contiguous(memory_format=torch.channels_last)
        encoder, detector, *others = self.path
        logits = crack_logits(encoder, detector, image, *others)
        clear = 1 - F.max_pool2d(faint[:, None].float(), 3, 1, 1)
        terms = loss_terms(logits, mask[:, None].float(), clear, self.config)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        values = torch.stack([term.detach() for term in terms.values()])
        values = distributed.average_gradients(self.path.parameters(), values)
        norm = nn.utils.clip_grad_norm_(self.path.parameters(), self.config.clip_norm)
        means = (values / distributed.world_size()).tolist()
        found = {name: float(mean) for name, mean in zip(terms, means, strict=True)}
        if not math.isfinite(sum(found.values()) + float(norm)):  # the same on every rank
            here = ", ".join(f"{name}={value:.4g}" for name, value in found.items())
            raise TrainingError(
                f"update {self.step + 1}: a loss or its gradient is not finite ({here}); lower "
                "encoder_lr and head_lr, and start again in another folder"
            )
        self.optimizer.step()
        return found

    def save(self) -> None:
        """Write the state, on the first rank; the old one stays until the new one is whole.

        Raises:
            OSError: The disk does not take it.
        """
        if distributed.rank():
            return
        state = {
            "config": self._identity(),
            "step": self.step,
            "path": self.path.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.folder / STATE) as fresh:
            write_state(state, fresh)

    def resume(self) -> None:
        """Continue from the folder's state if there is one.

        Raises:
            CheckpointError: It is damaged, or belongs to another config.
        """
        file = self.folder / STATE
        state = None
        if distributed.rank() == 0 and file.is_file():
            state = read_state(file, RESTART)
        state = distributed.from_first(state)  # a rank elsewhere may see an older file
        if state is None:
            return
        if state.get("config") != self._identity():
            raise _of_another_config(file)
        try:
            self.path.load_state_dict(state["path"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except DAMAGE as error:
            raise CheckpointError(f"{file} is damaged ({first_line(error)}); {RESTART}") from error

    def _identity(self) -> str:
        """Return what decides the result, as text."""
        return _settings(self.config) + self.lesson.identity


def kept_step(config: DrawnTrainConfig, folder: Path, identity: str = "") -> int:
    """Return the step that a training would go on from; 0: it would begin.

    Args:
        config: What is learned.
        folder: Of the state.
        identity: Of the lesson; nothing: any.

    Raises:
        CheckpointError: The state in the folder is damaged, or belongs to another config or lesson.
    """
    file = folder / STATE
    if not file.is_file():
        return 0
    state = read_state(file, RESTART)
    if not str(state.get("config")).startswith(_settings(config) + identity):
        raise _of_another_config(file)
    return int(state["step"]) if isinstance(state.get("step"), int) else 0


def _settings(config: DrawnTrainConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude=SPEED_FIELDS), sort_keys=True)


def _of_another_config(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} belongs to a training with another config, model or pictures; choose another "
        "folder"
    )


def crack_logits(
    encoder: nn.Module, detector: nn.Module, image: Tensor, beside: nn.Module | None = None
) -> Tensor:
    """Return (B, 1, H, W) logits of (B, 3, H, W) images in [0, 1]; one encoder feeds both inputs.

    Where there is one `beside` it, that one feeds the second.
    """
    features = encoder(image)
    others = features if beside is None else beside(image)
    logits: Tensor = detector(features, others, image.shape[-2:])
    return logits


def loss_terms(
    logits: Tensor, truth: Tensor, clear: Tensor, config: DrawnTrainConfig
) -> dict[str, Tensor]:
    """Return weighted terms: cross-entropy of pixels, soft Dice of windows, surest false alarms.

    Args:
        logits: (B, 1, H, W).
        truth: (B, 1, H, W) in [0, 1].
        clear: (B, 1, H, W) 1 where the truth can be seen, 0 where nothing is learned.
        config: Weights.
    """
    truth = truth * clear
    entropy = clear * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = torch.sigmoid(logits) * clear
    area = truth.sum((1, 2, 3))
    overlap = (probability * truth).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2, 3)) + area + 1)
    shown = (area > 0).float()
    cracked, clean = shared_counts(shown.sum(), (1 - shown).sum())
    alarms = (entropy * (1 - truth)).flatten(1)
    surest = alarms.topk(max(1, int(config.alarm_share * alarms.shape[1])), dim=1).values.mean(1)
    return {
        "pixel": config.pixel_weight * entropy.mean(),
        "region": config.region_weight * (dice * shown).sum() / cracked,
        "alarm": config.alarm_weight * (surest * (1 - shown)).sum() / clean,
    }


def shared_counts(*counts: Tensor) -> Tensor:
    """Return counts of the windows of all ranks, per rank and never 0.

    A sum over the windows of this rank, divided by such a count, averages over ranks to the mean
    over all windows that were counted.
    """
    world = distributed.world_size()
    everywhere = distributed.total(torch.stack(counts), counts[0].device)
    return (everywhere / world).clamp_min(1 / world)


def drawn_rate_share(step: int, config: DrawnTrainConfig) -> float:
    """Return the share of the peak at a step (from 0): line up, level, cosine to `final_share`."""
    rise = min(1.0, (step + 1) / config.warmup_steps)
    left = (config.steps - step) / (config.decay_share * config.steps)
    fall = (1 - math.cos(math.pi * min(1.0, left))) / 2
    return rise * (config.final_share + (1 - config.final_share) * fall)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limit torch's threads; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
