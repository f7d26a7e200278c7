"""Measure training steps: the paper's preset against the released schedule, and the default one.

Run from the repository root:
    python -m benchmarks.training.step paper [--divisor 1] [--steps 2] [--variants equal ...]
    python -m benchmarks.training.step default [--steps 10] [--side 128] [--timm] [--allocator]
        [--compile] [--two-encoders]

paper: one step of batch 4 at 256 x 256 (two crack, two road images), no CRF. "released" follows the
released schedule and what its phases compute without using it: the decoder also on road images,
whole networks where the trunk is used, gradients kept until the next step, the classifier's own
U-Net in memory. "equal" gives the same gradients (tests/benchmarks/test_training_step.py), "shared"
has one forward pass of each encoder per step, "shared bf16" that under autocast. Each variant runs
in a process of its own; time is that of its fastest step, memory the peak of the whole process.

default: seconds per step of each stage and the share spent waiting for data, on drawn windows, as
`wpcrack train` runs, and of an update of `wpcrack pretrain` on windows of noise that lie ready;
with --timm also with the convolutions and norms of timm in place of our own
(wpcrack/networks/fast_learning.py), with --allocator also before glibc is told to keep freed memory
(jobs/runtime/allocator.py), with --compile also with compiled encoders, with
--two-encoders also with two in the detector stage (train.one_encoder=false).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import machine
from jobs.runtime.allocator import keep_freed_memory
from jobs.settings.load import find_config, load
from jobs.train.job import TrainJob
from wpcrack.config import MethodConfig, ModelConfig
from wpcrack.data.batch import Batch
from wpcrack.data.images import write_png
from wpcrack.data.read import ImageLevelSet, Item
from wpcrack.labels.cam import crack_map, label_map, upsample
from wpcrack.labels.pseudo_label import pseudo_label, refine
from wpcrack.networks import CRACK, Networks, encoder
from wpcrack.networks.reconstructor import make_decoder
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window
from wpcrack.training import losses
from wpcrack.training.adversarial import detector_step, off_crack
from wpcrack.training.drawn import Lesson, Progress, train_path
from wpcrack.training.drawn_windows import DrawnTrainConfig
from wpcrack.training.footprint import footprint
from wpcrack.training.optim import Terms, descend, evaluating, frozen
from wpcrack.training.stages import STAGES, Learner
from wpcrack.training.trainer import Trainer

VARIANTS = {
    "released": ("train.schedule=fresh",),
    "equal": ("train.schedule=fresh",),
    "shared": ("train.schedule=shared",),
    "shared bf16": ("train.schedule=shared", "train.precision=bf16"),
}
"""Settings beside those of configs/paper.yaml."""
BATCH, SIDE = 4, 256


class Cost(NamedTuple):
    """Of one variant."""

    wall_s: float
    cpu_s: float
    peak_gb: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    presets = parser.add_subparsers(dest="preset", required=True)
    paper = presets.add_parser("paper")
    paper.add_argument("--divisor", type=int, default=1, help="width_divisor of the networks")
    paper.add_argument("--side", type=int, default=SIDE, help="pixels")
    paper.add_argument("--steps", type=int, default=2)
    paper.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    paper.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    default = presets.add_parser("default")
    default.add_argument("--steps", type=int, default=10, help="of each stage that are timed")
    default.add_argument("--side", type=int, default=128, help="pixels of a window")
    default.add_argument("--timm", action="store_true", help="compare with layers of timm")
    default.add_argument("--allocator", action="store_true", help="compare with glibc as it is")
    default.add_argument("--compile", action="store_true", help="torch.compile on both encoders")
    default.add_argument("--two-encoders", action="store_true", help="also in the detector stage")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.preset == "default":
        print_default(options)
    elif options.here:
        print(json.dumps(measured(options.variants[0], options)))
    else:
        print_paper(options)


# -- the paper's preset ------------------------------------------------------------------------


def print_paper(options: argparse.Namespace) -> None:
    """Print one line per variant; ratios against the first."""
    print(machine(options.threads))
    heads = "".join(f"{head:>9}{'ratio':>7}" for head in ("s/step", "CPU s", "peak GB"))
    print(f"{'variant':14}{heads}")
    first: Cost | None = None
    for variant in options.variants:
        command = [
            sys.executable,
            "-m",
            "benchmarks.training.step",
            "--threads",
            str(options.threads),
            "paper",
            "--here",
        ]
        command += ["--divisor", str(options.divisor), "--side", str(options.side)]
        command += ["--steps", str(options.steps), "--variants", variant]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        cost = Cost(*json.loads(run.stdout.splitlines()[-1]))
        first = first or cost
        pairs = zip(cost, first, strict=True)
        print(f"{variant:14}" + "".join(f"{a:9.2f}{a / b:7.2f}" for a, b in pairs), flush=True)


def measured(variant: str, options: argparse.Namespace) -> Cost:
    """Measure the fastest of a few steps, in this process."""
    learner = make_learner(variant, *narrowed(options.divisor))
    step: Callable[[Batch, int], Terms]
    if variant == "released":
        unused = make_decoder(learner.config.model)  # the classifier's own U-Net, which never runs
        unused.requires_grad_(False)
        step = ReleasedStep(learner)
    else:
        step = lambda batch, k: learner.step("adversarial", batch, 0.0, k, k)  # noqa: E731
    batch = noise(options.side)
    times = []
    for number in range(options.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        step(batch, number)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(min(t[0] for t in times), min(t[1] for t in times), peak / 1e9)


def narrowed(divisor: int) -> list[str]:
    """Return settings for networks of a fraction of the paper's widths."""
    model = load(TrainJob, find_config("paper"), ["data.root=.", "run_dir=."]).model
    widths = [width // divisor for width in model.decoder_widths]
    return [
        f"model.width_divisor={divisor}",
        f"model.cam_channels={model.cam_channels // divisor}",
        f"model.recon_channels={model.recon_channels // divisor}",
        f"model.decoder_widths={widths}",
    ]


def make_learner(variant: str, *settings: str) -> Learner:
    """Make a learner of the preset without its CRF, as a variant has it, ready to train."""
    fixed = ["data.root=.", "run_dir=.", "pseudo_label.refiners=[]"]
    job = load(TrainJob, find_config("paper"), [*fixed, *VARIANTS[variant], *settings])
    learner = Learner(job, torch.device("cpu"))
    learner.nets.train()
    return learner


def noise(side: int) -> Batch:
    """Make a batch of two crack and two road images of noise."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(BATCH, 3, side, side, generator=generator),
        torch.tensor([1.0, 0.0, 1.0, 0.0]),
        (torch.rand(BATCH, 1, side, side, generator=generator) < 0.3).float(),
        torch.tensor(float(BATCH)),
        torch.tensor(2.0),
    )


# -- the default preset ------------------------------------------------------------------------


def print_default(options: argparse.Namespace) -> None:
    """Print one line per stage: the second of two epochs, so nothing is done for the first time."""
    print(machine(options.threads) + f", windows of {options.side} px")
    heads = f"{'s/step':>9}{'CPU s':>9}{'first s':>9}{'data wait':>11}"
    print(f"{'variant':16}{'stage':13}{heads}")
    with TemporaryDirectory() as folder:
        data = drawn_set(Path(folder), options.side)
        if options.allocator:
            print_stages("glibc as it is", default_costs(data, options.steps, compiled=False))
        keep_freed_memory()
        if options.timm:
            with layers_of_timm():
                print_stages("layers of timm", default_costs(data, options.steps, compiled=False))
            print(kept_for_gradients(options.side))
        print_stages("eager", default_costs(data, options.steps, compiled=False))
        if options.two_encoders:
            two = {"train": {"one_encoder": False}}
            costs = default_costs(data, options.steps, compiled=False, settings=two)
            print_stages("two encoders", costs)
        if options.compile:
            print_stages("compiled", default_costs(data, options.steps, compiled=True))


def print_stages(variant: str, costs: Sequence[tuple[str, tuple[float, ...]]]) -> None:
    """Print one line per stage."""
    for stage, cost in costs:
        figures = "".join(f"{v:9.2f}" for v in cost[:3])
        print(f"{variant:16}{stage:13}{figures}{cost[3]:11.1%}", flush=True)


def default_costs(
    data: ImageLevelSet,
    steps: int,
    *,
    compiled: bool,
    settings: Mapping[str, Mapping[str, object]] | None = None,
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Measure each stage: wall and CPU seconds a step, excess of the first epoch, data wait."""
    length = dict.fromkeys(STAGES, 2 * steps)
    given = dict(settings or {})
    fixed = {"steps": length, "epoch_steps": steps, "val_items": 2}
    given["train"] = {**given.get("train", {}), **fixed}
    trainer = Trainer(MethodConfig.model_validate(given), data)
    if compiled:
        for network in (trainer.nets.classifier, trainer.nets.reconstructor):
            network.encoder.compile()
    found, before = [], 0.0
    cpu = time.process_time()
    for report in trainer.epochs():
        wall = trainer.config.train.batch_size / report.metrics["train/images_per_s"]
        used, cpu = (time.process_time() - cpu) / steps, time.process_time()
        if trainer.position.stage_step == steps:
            before = wall
        else:
            first = max(0.0, before - wall) * steps
            found.append((report.stage, (wall, used, first, report.metrics["train/data_wait"])))
    found.append(("drawn", drawn_cost(trainer.config.model, steps)))
    return found


def kept_for_gradients(side: int) -> str:
    """Say what a step's forward passes keep, counted as `wpcrack train --dry-run` does."""
    config = MethodConfig()
    ours, before = (
        footprint(config, (side, side), config.train.batch_size, on_cpu=on_cpu).activations
        for on_cpu in (True, False)
    )
    stages = (f"{stage} {ours[stage] / 1e9:.2f} ({before[stage] / 1e9:.2f})" for stage in STAGES)
    return f"kept for gradients, GB (layers of timm): {', '.join(stages)}"


def drawn_cost(model: ModelConfig, steps: int) -> tuple[float, float, float, float]:
    """Measure an update of encoder and detector as `default_costs` does a step of a stage.

    Windows of every shape come in turn, and lie ready, so none waits for data.
    """
    config = DrawnTrainConfig(model=model, steps=6 * steps, save_every=6 * steps)
    rng = np.random.default_rng(0)
    shapes = [(shape.count, shape.side, shape.side) for shape in config.batches]
    ready = [
        (
            torch.from_numpy(rng.integers(0, 256, (*shape, 3), np.uint8)),
            torch.from_numpy(rng.random(shape) < 0.1),
            torch.zeros(shape, dtype=torch.bool),
        )
        for shape in shapes
    ]
    windows = [ready[step % len(ready)] for step in range(config.steps)]
    clocks: dict[int, tuple[float, float]] = {}

    def note(progress: Progress) -> None:
        clocks[progress.step] = time.perf_counter(), time.process_time()

    nets = Networks(model)
    nets.share_encoder()
    config = config.model_copy(update={"threads": torch.get_num_threads()})
    with TemporaryDirectory() as folder:
        train_path(config, nets, Path(folder), Lesson(windows), note)  # type: ignore[arg-type]
    half, end = 3 * steps, 6 * steps
    (wall, used), (before, used_before) = (
        tuple((b - a) / (n - m) for a, b in zip(clocks[m], clocks[n], strict=True))
        for m, n in ((half, end), (1, half))
    )
    del used_before
    return wall, used, max(0.0, before - wall) * half, 0.0


@contextmanager
def layers_of_timm() -> Iterator[None]:
    """Make encoders with the convolutions and norms of timm."""
    ours = encoder.learn_fast
    encoder.learn_fast = lambda body: None
    try:
        yield
    finally:
        encoder.learn_fast = ours


def drawn_set(folder: Path, side: int, streets: int = 4, windows: int = 8) -> ImageLevelSet:
    """Draw as many crack as road windows; the last street is held out."""
    rng, config, items = np.random.default_rng(0), WindowConfig(size=side), []
    for s in range(streets):
        street = draw_training_street(rng, config)
        for k in range(windows):
            window = draw_window(rng, config, k % 2 == 0, street)
            path = folder / f"{s}_{k}.png"
            write_png(path, window.image)
            split = "val" if s == streets - 1 else "train"
            items.append(Item(path, k % 2 == 0, str(s), window.row, window.col, side, side, split))
    return ImageLevelSet(folder, tuple(items))


# -- the released step -------------------------------------------------------------------------


class ReleasedStep:
    """One step in the order and extent of the released code, on our networks and losses.

    It computes whole batches and whole networks where less would do, and keeps gradients until the
    next step. The lean step must give the same weights (tests/benchmarks/test_training_step.py).
    """

    def __init__(self, learner: Learner) -> None:
        self.nets, self.config = learner.nets, learner.config
        self.optimizers, self.clip = learner.optimizers, learner.config.optim.clip_norm

    def __call__(self, batch: Batch, number: int) -> Terms:
        """Do phases A, B and C."""
        del number
        return {**self.reconstruct(batch), **self.classify(batch), **self.detect(batch)}

    def error(self, batch: Batch, feature: Tensor, keep: Tensor | None, weight: Tensor) -> Tensor:
        """Paint every image; the loss is that of the crack images."""
        painted = self.nets.reconstructor.decode(feature, keep)
        image = self.nets.reconstructor.encoder.normalize(batch.image)
        return losses.masked_l1(painted, image, weight, batch.has_crack, batch.cracks)

    def reconstruct(self, batch: Batch) -> Terms:
        """Do phase A: infer each region from the other."""
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
        """Do phase B: make that inference fail."""
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
            maps = (
                crack_map(c[batch.has_crack > 0], batch.size, nets.config.cam_norm)
                for c in (cam, encoding.activation.cam.detach())
            )
            shown = torch.ones(int(batch.has_crack.sum()))
            same = losses.cam_consistency(*maps, shown, batch.cracks, weights.ceccm)
            terms = {
                "cls_bce": losses.classification(activation.logits, batch.label, batch.images),
                "cls_crack": -weights.cls_crack * crack,
                "cls_rest": -weights.cls_rest * rest,
                "ceccm": weights.ceccm_weight * same,
            }
            descend([terms], self.optimizers.classifier, self.clip)
        return terms

    def detect(self, batch: Batch) -> Terms:
        """Do phase C: whole forward passes for the trunks, another one for the pseudo label."""
        nets, rule = self.nets, self.config.pseudo_label
        with torch.no_grad(), evaluating(nets.classifier):
            cam = nets.classifier(batch.image).cam
            found = label_map(cam, batch.size, nets.config.cam_norm)
            found = refine(batch.image, found * batch.has_crack.view(-1, 1, 1, 1), rule)
            label = pseudo_label(found, batch.has_crack, rule)
        with torch.no_grad():
            features = (
                nets.classifier(batch.image).features,
                nets.reconstructor.encode(batch.image).activation.features,
            )
        optimizer = self.optimizers.detector
        return detector_step(nets, [(batch, features, label)], optimizer, self.config)


if __name__ == "__main__":
    main()
