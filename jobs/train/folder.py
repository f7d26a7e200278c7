"""The run folder of a training: whose it is, what is finished, what was measured.

run_dir/
    config.yaml      the resolved config; decides whether a run may be continued
    split.json       which images are held out; images that are added later change no side
    model/           the best model so far (wpcrack.model)
    checkpoints/     states to continue from, kept by Ray Train
    metrics.jsonl    one line per epoch
    tensorboard/     the same figures
    report.json      written last: the run is finished
    MODEL_CARD.md
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geo.addresses import all_without_secrets
from geo.files import whole_file, write_text
from jobs.runtime.folder import (
    explain_damage,
    explain_write_errors,
    hold_lock,
    read_lines,
    refuse_foreign,
)
from jobs.train.job import TrainJob
from jobs.train.split import SPLIT, read_sides
from wpcrack.data.read import ImageLevelSet, read_image_level
from wpcrack.errors import ConfigError, DataError, TrainingError
from wpcrack.plain_yaml import load_plain
from wpcrack.training.stages import STAGES

CONFIG, METRICS, REPORT, CARD = "config.yaml", "metrics.jsonl", "report.json", "MODEL_CARD.md"
CHECKPOINTS, TENSORBOARD, LOCK = "checkpoints", "tensorboard", ".lock"
WRITER = ".writer.lock"

STATUS_S = 0.5
"""Somebody who asks whether a run goes on holds its lock for a moment."""

LEAVING_S = 60.0
"""After the SIGKILL of a driver its Ray needs some seconds to end the workers."""
OWN = {CONFIG, SPLIT, METRICS, REPORT, CARD, CHECKPOINTS, TENSORBOARD, LOCK, "model"}
RAY_OWN = {"checkpoint_manager_snapshot.json", ".validate_storage_marker"}

ANEW = "set resume=never to start again"
"""What to do about a damaged file of a run."""

FREE_KEYS = ("resume", "run_dir", "scaling", "tracking")
"""Keys that may change between two starts of one run: they do not decide what is learned."""


@dataclass(frozen=True)
class FolderKind:
    """What a run folder is for.

    Attributes:
        noun: what lies in it, for messages.
        verb: what a process does in it, for messages.
        own: names of its entries; hidden ones are its own too.
        free_keys: dotted keys that may change between two starts.
        begun: file that a start writes anew when nothing can refuse it any more.
    """

    noun: str
    verb: str
    own: frozenset[str]
    free_keys: tuple[str, ...] = FREE_KEYS
    begun: str = METRICS


TRAINING = FolderKind("training run", "trains", frozenset(OWN | RAY_OWN))


@contextmanager
def open_run(
    job: TrainJob,
    kind: FolderKind = TRAINING,
    drop_elsewhere: Callable[[TrainJob], None] | None = None,
) -> Iterator[Path]:
    """Prepare the run folder as `resume` asks, and keep other processes out of it.

    What ends before it has begun leaves settings, split and report as they were.

    Args:
        job: Names the folder, and decides whether it may be continued.
        kind: What it is for.
        drop_elsewhere: Called before the folder is emptied, to remove what is kept outside of it.

    Raises:
        ConfigError: The folder belongs to another config, to a running process, or is not ours.
        DataError: The folder cannot be written.
    """
    root = job.run_dir.absolute()
    require_own(root, kind)
    with explain_write_errors(f"run_dir {job.run_dir}", "choose another folder", DataError):
        root.mkdir(parents=True, exist_ok=True)
        (root / LOCK).touch()
    busy = ConfigError(
        f"another process {kind.verb} in {job.run_dir}; wait for its end or choose another run_dir"
    )
    with hold_lock(root / LOCK, busy, patience_s=STATUS_S):
        if job.resume == "never":
            if drop_elsewhere is not None:
                drop_elsewhere(job)
            empty(root)
        before = {name: _content(root / name) for name in (CONFIG, SPLIT, REPORT)}
        begun = _state(root / kind.begun)
        try:
            claim(root, job, kind)
            yield root
        except BaseException:
            if _state(root / kind.begun) == begun:
                _put_back(root, before)
            raise


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew; it is opened, as NFS looks only then."""
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _put_back(root: Path, before: Mapping[str, bytes | None]) -> None:
    with suppress(OSError):  # the error that comes after says more
        for name, content in before.items():
            if content is None:
                (root / name).unlink(missing_ok=True)
            elif _content(root / name) != content:
                with whole_file(root / name) as temporary:
                    temporary.write_bytes(content)


@contextmanager
def sole_writer(root: Path, patience_s: float = LEAVING_S) -> Iterator[None]:
    """Keep the worker of a driver that was just killed from writing beside its successor.

    Args:
        root: run folder.
        patience_s: how long to wait for the other to end.

    Raises:
        TrainingError: It does not.
    """
    busy = TrainingError(
        f"a worker of an earlier start still writes in {root}; end that process, and the same "
        "command continues"
    )
    with hold_lock(root / WRITER, busy, patience_s=patience_s):
        yield


def require_own(root: Path, kind: FolderKind = TRAINING) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ConfigError: See `refuse_foreign`.
    """
    refuse_foreign(root, kind.own, "run_dir", f"a {kind.noun}")


def empty(root: Path) -> None:
    """Remove everything but the locks."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, WRITER):
            path.unlink()


def claim(root: Path, job: TrainJob, kind: FolderKind = TRAINING) -> None:
    """Write config.yaml, or compare it with the one that is there."""
    if require_same(root, job, kind):
        (root / REPORT).unlink(missing_ok=True)
    values = all_without_secrets(job.model_dump(mode="json"))
    write_text(root / CONFIG, yaml.safe_dump(values, sort_keys=False))


def require_same(root: Path, job: TrainJob, kind: FolderKind = TRAINING) -> list[str]:
    """Return the settings that differ from those of the run in the folder, as resume=force allows.

    Raises:
        ConfigError: Something differs, and `resume` does not say what to do; or the file of the
            run's settings is damaged.
    """
    path = root / CONFIG
    if not path.exists():
        return []
    wanted = decisive(all_without_secrets(job.model_dump(mode="json")), kind.free_keys)
    with explain_damage(path, ANEW):
        found = decisive(load_plain(path.read_text(encoding="utf-8")) or {}, kind.free_keys)
        changed = differences(found, wanted)
    if changed and job.resume != "force":
        raise ConfigError(
            f"run_dir {job.run_dir} holds a {kind.noun} with other settings "
            f"({'; '.join(changed[:3])}"
            f"{'; ...' if len(changed) > 3 else ''}); choose another run_dir, or set "
            "resume=force to continue it with the new ones, resume=never to start again"
        )
    return changed


def decisive(
    values: Mapping[str, Any], free_keys: Collection[str] = FREE_KEYS, prefix: str = ""
) -> dict[str, Any]:
    """Return the part of a config that decides what is learned: everything but the free keys."""
    return {
        key: decisive(value, free_keys, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in free_keys
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key: old -> new` for every leaf that differs."""
    found: list[str] = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append(f"{prefix}{key}: {x} -> {y}")
    return found


def read_data(job: TrainJob, *, anew: bool = False) -> ImageLevelSet:
    """Read the data set of a run, split as an earlier start of this run split it.

    Args:
        job: Names data and run folder.
        anew: As if there had been no earlier start.

    Raises:
        WpcrackError: See `read_image_level`; or the kept split cannot be read.
    """
    kept = None if anew else read_sides(job.run_dir, ANEW)
    return read_image_level(
        job.data.root,
        val_fraction=job.data.val_fraction,
        seed=job.seed,
        group=job.data.group,
        kept=kept,
    )


def truncate_metrics(root: Path, epoch: int) -> None:
    """Drop lines of epochs that will be run again, and a line that was cut off by a crash."""
    path = root / METRICS
    kept = [line for line in read_metrics(path) if line["epoch"] < epoch]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of metrics.jsonl.

    Raises:
        ConfigError: A line is none of an epoch.
    """
    lines = read_lines(path, ANEW)
    with explain_damage(path, ANEW):
        return [_of_epoch(line) for line in lines]


def _of_epoch(line: dict[str, Any]) -> dict[str, Any]:
    """Give a line back if it can be that of an epoch.

    Raises:
        LookupError, TypeError, ValueError: It cannot.
    """
    if type(line["epoch"]) is not int or line["epoch"] < 0 or line["stage"] not in STAGES:
        raise ValueError(f"epoch {line['epoch']!r} of stage {line['stage']!r}")
    for name, value in line.items():
        if name not in ("stage", "best", "warnings") and not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}, which is not a number")
    return line
