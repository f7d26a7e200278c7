"""What an adaption would do and need, before any of it is done.

    wpcrack adapt --images photos --out runs/here --plan

The adaption itself asks here, too, so that both refuse alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geo.errors import count_of
from geo.imagery.samples import sample_windows
from jobs.adapt.job import AdaptJob, AdaptOptions
from jobs.runtime.folder import (
    explain_damage,
    refuse_foreign,
    require_no_model,
    require_writable,
)
from jobs.runtime.memory import require_memory
from jobs.runtime.ray_session import joins_cluster
from jobs.train.needs import require_gpus
from jobs.windows.cut import WindowsOptions
from jobs.windows.run import ground_of
from wpcrack.data.images import left_out, list_images, read_shape
from wpcrack.data.manifest import NAME
from wpcrack.errors import CheckpointError, DataError
from wpcrack.inference.predict import PICTURE_PX_BYTES
from wpcrack.model import MODEL_FOLDER, find_model, has_one_encoder, read_info, run_name
from wpcrack.training.adapt import (
    LONGEST_PX,
    REPORT,
    Adapted,
    choose_pictures,
    kept_updates,
    read_pictures,
)
from wpcrack.training.drawn import crack_logits
from wpcrack.training.footprint import WEIGHT_BYTES, measure, on_meta
from wpcrack.training.optim import freeze_norms
from wpcrack.training.taught_windows import AdaptConfig

CARD, WINDOWS, LOCK = "MODEL_CARD.md", "windows", ".lock"
OWN = {MODEL_FOLDER, REPORT, CARD, WINDOWS, LOCK, *(f"round-{number}" for number in range(100))}
"""Names of the entries of a run folder of this job."""

PROGRAM_BYTES = 0.6e9
"""Program and working memory beside what is counted."""

SEEN_PX_BYTES = 4
"""Of a pixel that is looked at: its colors and its label."""

COPIES = 5
"""Of the weights: networks, average, gradients, and two moments of the optimizer."""

UPDATE_PX_PER_S = 1.5e5
"""Pixels of windows that one core learns from in a second: 300 updates take 5 to 9 minutes."""

TWO_ENCODERS = 1.65
"""Times as long takes an update of a model with two encoders; measured: 1.62 and 1.68."""


@dataclass(frozen=True)
class AdaptPlan:
    """What `wpcrack adapt --plan` prints.

    Attributes:
        out: run folder.
        standing: what lies there.
        base: name of the model to start from.
        found: pictures, or windows of tiles.
        seen: those of them that are looked at.
        left_out: what is passed over, as sentences.
        config: how.
        memory_bytes: estimated.
        has_one_encoder: whether the model to start from does.
    """

    out: Path
    standing: str
    base: str
    found: int
    seen: int
    left_out: tuple[str, ...]
    config: AdaptOptions
    memory_bytes: float
    has_one_encoder: bool = True

    @property
    def minutes(self) -> float:
        """Of all updates, roughly, if each worker has a core."""
        config, batch = self.config, self.config.batch
        pixels = config.rounds * config.steps * batch.count * batch.side**2
        seconds = pixels / UPDATE_PX_PER_S * (1 if self.has_one_encoder else TWO_ENCODERS)
        return seconds / 60 / max(config.scaling.num_workers, 1)

    def text(self) -> str:
        """Return the figures for people."""
        config, batch = self.config, self.config.batch
        number = config.scaling.num_workers
        shared = f"{count_of(number, 'worker')} on Ray share each update" if number else ""
        found = [
            ("run", self.standing),
            ("start", self.base),
            ("pictures", f"{self.seen} of {self.found}, no label is read"),
            (
                "work",
                f"{count_of(config.rounds, 'round')} of {count_of(config.steps, 'update')} with "
                f"{batch.count} windows of {batch.side} px, {config.drawn_share:.0%} of them drawn",
            ),
            *([("workers", shared)] if shared else []),
            (
                "time",
                f"about {count_of(max(1, round(self.minutes)), 'minute')} of updates on one core"
                f"{' of each worker' if shared else ''}; before each round "
                "the labels of all pictures, then some three minutes of checks",
            ),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB; an estimate"),
            *(("left out", sentence) for sentence in self.left_out),
        ]
        return "\n".join(f"{name:10}{text}" for name, text in found)

    def values(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "config": self.config.model_dump(mode="json"),
            "out": str(self.out),
            "run": self.standing,
            "start": self.base,
            "found": self.found,
            "pictures": self.seen,
            "left_out": list(self.left_out),
            "minutes": self.minutes,
            "memory_bytes": round(self.memory_bytes),
        }


def plan_adapt(
    config: AdaptOptions, out: Path, *, model: Path | None = None, images: Path | None = None
) -> AdaptPlan:
    """Look at model, pictures and run folder as an adaption does first; write nothing.

    Args:
        config: How; an `AdaptJob` names tiles.
        out: Run folder.
        model: Run folder to start from; None: the shipped model.
        images: Folder of photographs; None: the tiles.

    Raises:
        WpcrackError, GeoError: What the adaption would raise before its first update.
    """
    require_workers(config)
    base = find_base(model)
    require_own(out)
    require_writable(out, f"out {out}")
    is_finished = read_finished(out) is not None
    paths = list_pictures(config, out, images)
    memory, steps = require_room(config, base, paths), 0
    if paths is None:
        assert isinstance(config, AdaptJob), "the command gives one of both"
        options = windows_of(config)
        chosen = sample_windows(
            ground_of(config, options), options.count, options.window, options.seed
        )
        found = seen = len(chosen)
        if seen < 2:
            raise DataError(f"{count_of(seen, 'window')} is too few to learn from; give more tiles")
    else:
        pictures = read_pictures(paths, config)  # what is damaged is said now
        found, seen = len(paths), len(pictures)
        if not is_finished:
            steps = kept_updates(base, config, pictures, out)
    standing = f"goes on in {out} after {steps} updates" if steps else f"starts in {out}"
    if is_finished:
        standing = f"is finished in {out}"
    passed_over = () if images is None else tuple(left_out(images))
    return AdaptPlan(
        out,
        standing,
        run_name(base),
        found,
        seen,
        passed_over,
        config,
        memory,
        has_one_encoder(base),
    )


# -- what the adaption asks as well ----------------------------------------------------------------


def find_base(model: Path | None) -> Path:
    """Return the folder of the model to start from; None: the shipped model.

    Raises:
        CheckpointError: There is none, or its detector is the paper's, which no window teaches.
    """
    base = find_model(model)
    if read_info(base).model.detector != "default":
        raise CheckpointError(
            f"model {base} has the detector of the paper, which an adaption cannot teach; give a "
            "model of `wpcrack train configs/train.yaml`, or leave out --model"
        )
    return base


def require_own(out: Path) -> None:
    """Refuse a folder that holds something else, be it a model of another command.

    Raises:
        ConfigError: It does.
    """
    refuse_foreign(out, OWN, "out", "an adaption")
    if not (any(out.glob("round-*")) or (out / REPORT).exists()):
        require_no_model(out / MODEL_FOLDER, "an adaption")


def require_workers(config: AdaptOptions, *, local: bool = False) -> None:
    """Refuse workers that cannot be had, before any work.

    Args:
        config: How.
        local: The adaption never joins RAY_ADDRESS.

    Raises:
        ConfigError: RAY_ADDRESS cannot be joined, or there are too few GPUs.
    """
    if config.scaling.num_workers:
        joins_cluster(local=local)
    require_gpus(config.scaling, local=local)


def read_finished(out: Path) -> Adapted | None:
    """Return how the adaption in a folder ended; None if it did not.

    Raises:
        ConfigError: What says so is damaged.
    """
    file = out / REPORT
    if not file.exists():
        return None
    with explain_damage(file, "remove it, and the same command adapts again"):
        return Adapted.of_values(json.loads(file.read_text(encoding="utf-8")))


def windows_of(config: AdaptJob) -> WindowsOptions:
    """Return what is cut out of tiles."""
    return WindowsOptions(
        config.pictures, config.window, config.seed, ordered=False, surroundings=False
    )


def list_pictures(config: AdaptConfig, out: Path, images: Path | None) -> list[Path] | None:
    """List the photographs, or the windows of tiles; None: they are not cut yet.

    Raises:
        DataError: There is no such folder, or no picture in it.
    """
    if images is None and not (out / WINDOWS / NAME).is_file():
        return None
    return list(list_images(images or out / WINDOWS).values())


def require_room(
    config: AdaptOptions, base: Path, paths: Sequence[Path] | None, *, local: bool = False
) -> float:
    """Return the memory that an adaption needs on this machine, if there is as much.

    Args:
        config: how.
        base: folder of the model to start from.
        paths: of the pictures; None: windows that are not cut yet.
        local: the adaption never joins RAY_ADDRESS.

    Raises:
        DataError: A picture cannot be opened, or there are too few.
        CheckpointError: The model cannot be read.
        ConfigError: There is too little memory.
    """
    if paths is None:
        shapes = [(config.window, config.window)] * config.pictures
    else:
        shapes = [read_shape(path) for path in choose_pictures(paths, config)]
    needed, workers = memory_bytes(config, base, shapes), config.scaling.num_workers
    if workers and not joins_cluster(local=local):  # the nodes of a cluster are other machines
        needed *= 1 + workers
    require_memory(
        needed,
        f"an adaption to {len(shapes)} pictures",
        "set fewer pictures=, a smaller batch.count, cut larger photographs, or end other programs",
    )
    return needed


def memory_bytes(config: AdaptOptions, base: Path, shapes: Sequence[tuple[int, int]]) -> float:
    """Estimate what an adaption holds in memory.

    Args:
        config: how.
        base: folder of the model to start from.
        shapes: (H, W) of the pictures that are looked at.

    Raises:
        CheckpointError: The model cannot be read.
    """
    seen = [min(height, LONGEST_PX) * min(width, LONGEST_PX) for height, width in shapes]
    nets = on_meta(read_info(base).model, on_cpu=not config.scaling.use_gpu)
    freeze_norms(nets)
    side, count = config.batch.side, config.batch.count
    windows = torch.empty(count, 3, side, side, device="meta")
    path = nets.classifier.encoder, nets.detector, windows
    beside = None if has_one_encoder(base) else nets.reconstructor.encoder
    _, kept = measure(nets, lambda: crack_logits(*path, beside))
    weights = WEIGHT_BYTES * COPIES * sum(p.numel() for p in nets.parameters())
    opened = PICTURE_PX_BYTES * max(height * width for height, width in shapes)
    return PROGRAM_BYTES + SEEN_PX_BYTES * sum(seen) + max(opened, kept + weights)
