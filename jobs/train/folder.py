"""The run folder of a training: whose it is, what is finished, what was measured.

run_dir/
    config.yaml      the resolved config; decides whether a run may be continued
    model/           the best model so far (wpcrack.model)
    checkpoints/     states to continue from, kept by Ray Train
    metrics.jsonl    one line per epoch
    tensorboard/     the same figures
    report.json      written last: the run is finished
    MODEL_CARD.md
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from jobs.runtime.folder import FREE_KEYS, FolderKind, write_text
from jobs.train.job import TrainJob
from wpcrack.errors import ConfigError, DataError, TrainingError

CONFIG, METRICS, REPORT, CARD = "config.yaml", "metrics.jsonl", "report.json", "MODEL_CARD.md"
CHECKPOINTS, TENSORBOARD, LOCK = "checkpoints", "tensorboard", ".lock"
WRITER = ".writer.lock"
LEAVING_S = 60.0
"""After the SIGKILL of a driver its Ray needs some seconds to end the workers."""
OWN = {CONFIG, METRICS, REPORT, CARD, CHECKPOINTS, TENSORBOARD, LOCK, "model"}
RAY_OWN = {"checkpoint_manager_snapshot.json", ".validate_storage_marker"}


TRAINING = FolderKind("training run", "trains", frozenset(OWN | RAY_OWN))


@contextmanager
def open_run(job: TrainJob, kind: FolderKind = TRAINING) -> Iterator[Path]:
    """Prepares the run folder as `resume` asks, and keeps other processes out of it.

    Args:
        job: Names the folder, and decides whether it may be continued.
        kind: What it is for.

    Raises:
        ConfigError: The folder belongs to another config, to a running process or to nobody known.
        DataError: The folder cannot be written.
    """
    root = job.run_dir.absolute()
    refuse_foreign(root, kind)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / LOCK).open("w")
    except OSError as error:
        raise DataError(
            f"run_dir {job.run_dir} cannot be written ({error.strerror}); choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process {kind.verb} in {job.run_dir}; wait for its end or choose another "
                "run_dir"
            ) from None
        if job.resume == "never":
            empty(root)
        claim(root, job, kind)
        yield root


@contextmanager
def sole_writer(root: Path, patience_s: float = LEAVING_S) -> Iterator[None]:
    """Keeps the worker of a driver that was just killed from writing beside its successor.

    Args:
        root: run folder.
        patience_s: how long to wait for the other to end.

    Raises:
        TrainingError: It does not.
    """
    with (root / WRITER).open("w") as lock:
        end = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TrainingError(
                        f"a worker of an earlier start still writes in {root}; end that process, "
                        "and the same command continues"
                    ) from None
                time.sleep(0.2)
        yield


def refuse_foreign(root: Path, kind: FolderKind = TRAINING) -> None:
    """Never works, and above all never deletes, in a folder that holds something else."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"run_dir {root} is a file; choose another one")
    found = [path.name for path in root.iterdir()] if root.is_dir() else []
    strange = [name for name in found if name not in kind.own and not name.startswith(".")]
    if strange:
        raise ConfigError(
            f"run_dir {root} holds {sorted(strange)[0]}, which is not of a {kind.noun}; "
            "choose another folder"
        )


def empty(root: Path) -> None:
    """Removes everything but the locks."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, WRITER):
            path.unlink()


def claim(root: Path, job: TrainJob, kind: FolderKind = TRAINING) -> None:
    """Writes config.yaml, or compares with the one that is there."""
    if require_same(root, job, kind):
        (root / REPORT).unlink(missing_ok=True)
    write_text(root / CONFIG, yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))


def require_same(root: Path, job: TrainJob, kind: FolderKind = TRAINING) -> list[str]:
    """What decides and differs from the run that lies in the folder, which resume=force allows.

    Raises:
        ConfigError: Something differs, and `resume` does not say what shall happen.
    """
    path = root / CONFIG
    if not path.exists():
        return []
    wanted = decisive(job.model_dump(mode="json"), kind.free_keys)
    found = decisive(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, kind.free_keys)
    changed = differences(found, wanted)
    if changed and job.resume != "force":
        raise ConfigError(
            f"run_dir {job.run_dir} holds a {kind.noun} of other settings "
            f"({'; '.join(changed[:3])}"
            f"{'; ...' if len(changed) > 3 else ''}); choose another run_dir, or set "
            "resume=force to continue it with the new ones, resume=never to start anew"
        )
    return changed


def decisive(
    values: Mapping[str, Any], free_keys: Collection[str] = FREE_KEYS, prefix: str = ""
) -> dict[str, Any]:
    """The part of a config that decides what is learned: everything but the free keys."""
    return {
        key: decisive(value, free_keys, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in free_keys
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf that differs."""
    found: list[str] = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append(f"{prefix}{key}: {x} -> {y}")
    return found


def truncate_metrics(root: Path, epoch: int) -> None:
    """Drops lines of epochs that will be run again, and a line that was cut off by a crash."""
    path = root / METRICS
    kept = [line for line in read_metrics(path) if line["epoch"] < epoch]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]
