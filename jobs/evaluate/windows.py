"""`wpcrack evaluate --windows`: how often a model is right about labeled windows, without masks."""

from __future__ import annotations

import filecmp
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geo.review.estimate import wilson
from jobs.runtime.folder import explain_damage
from jobs.runtime.pictures import require_room
from jobs.runtime.terminal import say
from jobs.train.split import read_sides
from wpcrack.config import TrainConfig
from wpcrack.data.images import read_rgb
from wpcrack.data.manifest import Split
from wpcrack.data.read import Labeled, read_labeled
from wpcrack.errors import ConfigError, DataError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.predict import DEFAULT_THRESHOLD, Engine, WindowPredictor
from wpcrack.model import CONFIG, MODEL_FOLDER, find_model
from wpcrack.plain_yaml import load_plain
from wpcrack.scoring.windows import WindowScores, score_windows

MIN_SHARE = TrainConfig().label_min_share

REMEDY = "restore it, or score a copy of the run's model/ folder"
"""What to do about a damaged file of the run."""


@dataclass(frozen=True)
class WindowOptions:
    """What to score.

    Attributes:
        model: run folder, or its model/ folder; None: the shipped model.
        windows: folder of an image-level set.
        split: only windows of this side. None: those that the model's training held out; all, if
            it did not learn from this set.
        engine: what computes the network.
        gsd_mm: pixel size on the ground, by which a map chooses its scales; None: unknown.
    """

    model: Path | None
    windows: Path
    split: Split | None = None
    engine: Engine = "auto"
    gsd_mm: float | None = None

    def __post_init__(self) -> None:
        if self.gsd_mm is not None and not 0 < self.gsd_mm < float("inf"):
            raise ConfigError(f"gsd-mm is {self.gsd_mm:g}; give millimeters, more than 0")


@dataclass(frozen=True)
class WindowEvaluation:
    """How often a model is right about windows, and which windows these are."""

    scores: WindowScores
    which: str
    seconds: float

    def values(self) -> dict[str, object]:
        """Return the figures of `--json`; shares lie in [0, 1], None where there is no window."""
        s = self.scores
        recall, alarms = _share(s.found, s.cracks), _share(s.marked, s.roads)
        return {
            "n_windows": s.cracks + s.roads,
            "which": self.which,
            "threshold": DEFAULT_THRESHOLD,
            "min_share": MIN_SHARE,
            "cracks": s.cracks,
            "found": s.found,
            "roads": s.roads,
            "marked": s.marked,
            "recall": recall and recall[0],
            "false_alarms": alarms and alarms[0],
            "f1": s.f1,
            "road_share": s.road_share if s.roads else None,
            "ci95": {"recall": recall and recall[1:], "false_alarms": alarms and alarms[1:]},
            "seconds": self.seconds,
        }

    def summary(self) -> str:
        """Return a table for the terminal."""
        s = self.scores
        facts = {
            "windows with a crack": _sentence(s.found, s.cracks),
            "windows without": _sentence(s.marked, s.roads),
            "marked on these": f"{s.road_share:.3%} of their pixels" if s.roads else "-",
            "F1 of these windows": f"{s.f1:.3f}",
            "windows": f"{s.cracks + s.roads}, {self.which}, {self.seconds:.1f} s",
        }
        return "\n".join(f"{name:22}{fact}" for name, fact in facts.items())


def evaluate_windows(
    options: WindowOptions, predictor: WindowPredictor | None = None
) -> WindowEvaluation:
    """Predict labeled windows and count in which of them a crack is found.

    Args:
        options: what to score.
        predictor: takes the model's place, for tests.

    Raises:
        WpcrackError: a missing model, no labeled windows, or one that cannot be read.
    """
    folder = None if predictor is not None and options.model is None else find_model(options.model)
    labeled, warnings = read_labeled(options.windows)
    chosen, which = _choose(labeled, options, _sides(folder, options.windows))
    for warning in warnings:
        say(f"warning: {warning}")
    for each in chosen:
        require_room(each.path)
        read_rgb(each.path)
    predictor = predictor or load_predictor(options.model, options.engine, gsd_mm=options.gsd_mm)
    started = time.perf_counter()
    scores = score_windows(chosen, predictor, MIN_SHARE)
    return WindowEvaluation(scores, which, time.perf_counter() - started)


def _choose(
    labeled: Sequence[Labeled], options: WindowOptions, sides: Mapping[str, Split]
) -> tuple[list[Labeled], str]:
    """Return the windows to score, and in words which these are."""
    names = {each.path: each.path.relative_to(options.windows).as_posix() for each in labeled}
    held = {path: sides.get(name) for path, name in names.items()}
    learned_here = any(held.values())
    wanted = options.split or ("val" if learned_here else None)
    if wanted is None:
        return list(labeled), "all that are labeled"
    if not learned_here:
        held = {each.path: each.split for each in labeled}
    if not any(held.values()):
        raise ConfigError(
            f"{options.windows} has no split, and the model was not trained on it; leave out "
            f"--split {wanted} to score all its windows"
        )
    chosen = [each for each in labeled if held[each.path] == wanted]
    if not chosen:
        raise DataError(f"{options.windows} has no labeled window of the split {wanted}")
    return chosen, "held out by the training" if learned_here and wanted == "val" else wanted


def _sides(folder: Path | None, windows: Path) -> Mapping[str, Split]:
    """Return the side of each file in the training of a model, none if it is not known.

    A file of another set may have the name of one that the training saw: where that one is still
    there, its content tells.
    """
    if folder is None or folder.name != MODEL_FOLDER:
        return {}
    run = folder.parent
    sides = read_sides(run, REMEDY) or {}
    root = _learned_from(run)
    if root is None or root.resolve() == windows.resolve():
        return sides
    return {name: side for name, side in sides.items() if not _differ(root / name, windows / name)}


def _learned_from(run: Path) -> Path | None:
    """Return the folder of the set that a run learned from; None if its settings are not there."""
    path = run / CONFIG
    if not path.is_file():
        return None
    with explain_damage(path, REMEDY):
        return Path(load_plain(path.read_text(encoding="utf-8"))["data"]["root"])


def _differ(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and not filecmp.cmp(one, other, shallow=False)


def _share(part: int, whole: int) -> tuple[float, float, float] | None:
    """Return a share and its 95 % interval (Wilson 1927); None of nothing."""
    if not whole:
        return None
    share = wilson(part / whole, whole)
    return share.value, share.low, share.high


def _sentence(part: int, whole: int) -> str:
    share = _share(part, whole)
    if share is None:
        return "none"
    value, low, high = share
    return f"{whole}, a crack found in {part}: {value:.1%} (95 % interval {low:.1%} - {high:.1%})"
