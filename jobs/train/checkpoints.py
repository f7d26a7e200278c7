"""States to continue from: complete or absent, the newest always kept, the others by score.

With workers they go through Ray (`ray.train.report`), which copies them to its storage and hands
the last one to restarted workers. With num_workers=0 Ray runs the loop in the driver and keeps
nothing, so they are then kept by `LocalStates` in the same place. Either continues from the other.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from geo.addresses import without_secrets
from geo.files import write_text
from jobs.runtime.folder import SAME_COMMAND, explain_damage
from jobs.runtime.signals import postpone_signals
from jobs.train.folder import ANEW, CHECKPOINTS, METRICS, read_metrics
from jobs.train.job import TrainJob
from wpcrack import distributed
from wpcrack.errors import ConfigError, StorageError, first_line
from wpcrack.files import whole_folder
from wpcrack.tensor_files import is_zip, read_state
from wpcrack.tensor_files import write_state as keep_state
from wpcrack.training.selection import LABEL_FREE, MASKED_IOU, objective
from wpcrack.training.trainer import EpochReport, Position

STATE = "state.pt"
WITHIN = "_step_"
UNJUDGED = -1e9
"""Score that Ray is told of a state within an epoch: below any other, and no -inf for its JSON."""

RUN_ID = ".run_id"
"""In the run folder of a run whose states lie elsewhere: its id, and on two more lines where they
lie, scaling.storage_path and the run's name in it."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray's list of checkpoints, in the folder above them; written in place: a crash may halve it."""


class States(Protocol):
    """A place where states to continue from are kept."""

    def latest(self) -> dict[str, Any] | None:
        """Return the last complete state."""

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Add the one at the end of an epoch; called on every rank, `state` matters on rank 0.

        Raises:
            StorageError: It cannot be written; those before are as they were.
        """

    def keep_within(self, state: Mapping[str, Any], at: Position) -> None:
        """Add one of an unfinished epoch in the same way; all others are better than it."""

    def is_leaving(self) -> bool:
        """Return whether a machine of a worker will be taken back; asked on every rank."""


class RayStates:
    """States kept by Ray Train under run_dir/checkpoints, or at scaling.storage_path."""

    def __init__(self, job: TrainJob) -> None:
        self.folder = job.run_dir.absolute() / CHECKPOINTS
        self.judged_by = judged_by(job)

    def latest(self) -> dict[str, Any] | None:
        """Return the last that Ray completed; of a run that Ray does not know, the newest."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return newest_state(self.folder)
        with checkpoint.as_directory() as folder:
            return load_state(Path(folder))

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Report the epoch; a barrier over all workers."""
        metrics = {**report.metrics, "epoch": report.epoch, "stage": report.stage}
        self._report(state, metrics, report.epoch, folder_name(report.epoch))

    def keep_within(self, state: Mapping[str, Any], at: Position) -> None:
        """Report a state without an epoch: a sweep passes it over."""
        self._report(state, {self.judged_by: UNJUDGED}, at.epoch, folder_name(at.epoch, at.step))

    def is_leaving(self) -> bool:
        """Return what Ray heard of its nodes; a barrier over all workers."""
        import ray.train

        return ray.train.get_preemption_info() is not None

    def _report(
        self, state: Mapping[str, Any], metrics: dict[str, Any], epoch: int, folder: str
    ) -> None:
        import ray.train

        name = f"{CHECKPOINTS}/{folder}"
        if distributed.rank() != 0:
            ray.train.report(metrics, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory() as temporary:
            write_state(state, Path(temporary), epoch)
            checkpoint = ray.train.Checkpoint.from_directory(temporary)
            try:
                ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)
            except OSError as error:
                raise write_error(epoch, "its storage", error) from error


class LocalStates:
    """States kept by ourselves."""

    def __init__(self, job: TrainJob) -> None:
        self.root = job.run_dir.absolute()
        self.folder = self.root / CHECKPOINTS
        self.num_to_keep = job.scaling.num_to_keep

    def latest(self) -> dict[str, Any] | None:
        """Return the newest state."""
        return newest_state(self.folder)

    def keep(self, state: Mapping[str, Any], report: EpochReport) -> None:
        """Write under a temporary name, rename, drop what is neither new nor among the best."""
        import ray.train

        self._keep(state, report.epoch, folder_name(report.epoch))
        ray.train.report(dict(report.metrics))

    def keep_within(self, state: Mapping[str, Any], at: Position) -> None:
        """Write and rename in the same way."""
        self._keep(state, at.epoch, folder_name(at.epoch, at.step))

    def is_leaving(self) -> bool:
        """Return False: nobody tells a single process."""
        return False

    def _keep(self, state: Mapping[str, Any], epoch: int, name: str) -> None:
        folder = self.folder / name
        try:
            with whole_folder(folder) as fresh:
                write_state(state, fresh, epoch)
        except OSError as error:
            raise write_error(epoch, str(self.folder), error) from error
        self.drop()

    def drop(self) -> None:
        """Keep the newest state and the `num_to_keep` best, as Ray does."""
        scores = {
            folder_name(line["epoch"]): line[objective(line)]
            for line in read_metrics(self.root / METRICS)
        }
        states = complete_states(self.folder)
        ranked = sorted(states, key=lambda path: (scores.get(path.name, float("-inf")), path.name))
        for path in set(ranked[: -self.num_to_keep]) - {states[-1]}:
            shutil.rmtree(path)


def storage_of(job: TrainJob) -> tuple[str, str]:
    """Return Ray's storage path and the name of the run in it.

    Elsewhere than in the run folder the name carries an id of the run, so that runs of one name do
    not continue from each other; resume=never makes another one.

    Args:
        job: whose run folder is ours.

    Raises:
        ConfigError: Nothing can be kept at scaling.storage_path.
    """
    root, place = job.run_dir.absolute(), job.scaling.storage_path
    if place is None:
        return str(root.parent), root.name
    path = _resolve(place)
    require_storage(path)
    number = [*_known_place(root), uuid.uuid4().hex[:8]][0]
    name = f"{root.name}-{number}"
    write_text(root / RUN_ID, f"{number}\n{without_secrets(path)}\n{name}\n")
    return path, name


def require_same_storage(job: TrainJob) -> None:
    """Refuse to go on with a run whose states lie where Ray would not look for them.

    It would begin anew, and drop the epochs that are there.

    Args:
        job: an unfinished run, or one that has not begun.

    Raises:
        ConfigError: Its states lie at another scaling.storage_path, or under the name that the run
            folder had before.
    """
    root, place = job.run_dir.absolute(), job.scaling.storage_path
    known = _known_place(root)
    if len(known) < 3 or not read_metrics(root / METRICS):
        return
    number, kept, name = known
    now = None
    if place is not None:
        path = _resolve(place)
        now = f"{root.name}-{number}"
        if now == name and (without_secrets(path) == kept or _has_run(path, name)):
            return
    if now is not None and now != name:
        remedy = f"give the folder the name {name.removesuffix(f'-{number}')} again"
    else:
        remedy = f"set scaling.storage_path={kept} again, and scaling.num_workers=1 or more"
    raise ConfigError(
        f"run_dir {job.run_dir} has its checkpoints in {name} at scaling.storage_path={kept}, and "
        f"not {'in run_dir' if now is None else f'in {now} at {place}'}; {remedy}, or {ANEW}"
    )


def drop_states(job: TrainJob) -> None:
    """Free the space of states that nobody will continue from; the best model stays.

    Args:
        job: whose states they are; they lie in its run folder or elsewhere, at the
            scaling.storage_path of now or of then.
    """
    root, place = job.run_dir.absolute(), job.scaling.storage_path
    shutil.rmtree(root / CHECKPOINTS, ignore_errors=True)
    known: list[str] = []
    with suppress(ConfigError):  # it is damaged
        known = _known_place(root)
    if len(known) < 3 or known[2] != f"{root.name}-{known[0]}":
        return  # those of a folder of another name, which this one may be a copy of
    for path in (place, known[1]):
        if path is not None:
            with suppress(ConfigError), _storage(_resolve(path)) as (files, inner):  # or gone
                files.delete_dir(f"{inner}/{known[2]}")


def require_storage(path: str) -> None:
    """Make the folder, as Ray will, to learn now what does not work.

    Raises:
        ConfigError: Of what pyarrow and the storage say.
    """
    with _storage(path) as (files, inner):
        files.create_dir(inner, recursive=True)


def _resolve(place: str) -> str:
    """Return a place as Ray takes it: an address as it is, a path from the root."""
    return place if "://" in place else str(Path(place).absolute())


def _known_place(root: Path) -> list[str]:
    """Return the lines of RUN_ID; none if states lie in the run folder."""
    path = root / RUN_ID
    if not path.exists():
        return []
    with explain_damage(path, ANEW):
        return path.read_text(encoding="utf-8").splitlines()


def _has_run(path: str, name: str) -> bool:
    """Return whether a storage holds a run, as where it was moved."""
    with _storage(path) as (files, inner):
        return str(files.get_file_info(f"{inner}/{name}/{CHECKPOINTS}").type.name) == "Directory"


@contextmanager
def _storage(path: str) -> Iterator[tuple[Any, str]]:
    """Give pyarrow's file system of a path or address, and the folder in it.

    Raises:
        ConfigError: Of what pyarrow and the storage say.
    """
    import pyarrow.fs

    try:
        yield pyarrow.fs.FileSystem.from_uri(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"scaling.storage_path {path} cannot be used ({first_line(error)}); give a folder "
            "that all nodes share, or a URI that pyarrow knows, such as s3://BUCKET/runs or "
            "gs://BUCKET/runs"
        ) from error


def mend_list(root: Path) -> None:
    """Remove Ray's list of checkpoints if it is halved, or does not know the newest state.

    Ray would refuse such a run folder; without a list it takes `newest_state`. States that are then
    on no list are removed but the newest, since Ray would never drop them.

    Args:
        root: run folder.
    """
    snapshot, states = root / SNAPSHOT, complete_states(root / CHECKPOINTS)
    if not states:
        snapshot.unlink(missing_ok=True)
        return
    try:
        known = json.loads(snapshot.read_text(encoding="utf-8"))
        listed = {
            Path(result["checkpoint_dir_name"]).name for result in known["checkpoint_results"]
        }
        last = Path(known["latest_checkpoint_result"]["checkpoint_dir_name"]).name
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        listed, last = set(), ""
    if last == states[-1].name and listed <= {path.name for path in states}:
        return
    snapshot.unlink(missing_ok=True)
    for path in states[:-1]:
        shutil.rmtree(path)


def newest_state(folder: Path) -> dict[str, Any] | None:
    """Return the newest complete state in a folder."""
    states = complete_states(folder)
    return load_state(states[-1]) if states else None


def complete_states(folder: Path) -> list[Path]:
    """Return complete states in a folder, oldest first; a file that was cut off lacks its end."""
    found = sorted(folder.glob("epoch_*/"), key=moment)
    return [path for path in found if is_zip(path / STATE)]


def folder_name(epoch: int, step: int | None = None) -> str:
    """Return the folder of the state at the end of an epoch, or within it after a global step."""
    return f"epoch_{epoch:05d}" + ("" if step is None else f"{WITHIN}{step:09d}")


def moment(folder: Path) -> tuple[str, bool, str]:
    """Return by what states sort: those within an epoch come before the one at its end."""
    epoch, within, step = folder.name.partition(WITHIN)
    return epoch, not within, step


def judged_by(job: TrainJob) -> str:
    """Return the metric that says which epochs are the best."""
    return LABEL_FREE if job.data.val_masks is None else MASKED_IOU


def write_state(state: Mapping[str, Any], folder: Path, epoch: int) -> None:
    """Write a state and wait until it is on the disk; Ctrl-C waits too.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with postpone_signals():
            keep_state(state, folder / STATE)
    except OSError as error:
        raise write_error(epoch, str(folder.parent), error) from error


def write_error(epoch: int, place: str, error: OSError) -> StorageError:
    """Return the error for a state that could not be kept."""
    return StorageError(
        f"the checkpoint of epoch {epoch} cannot be written to {place} "
        f"({error.strerror or first_line(error)}); the one before is kept: {SAME_COMMAND}"
    )


def load_state(folder: Path) -> dict[str, Any]:
    """Read a state; tensors, numbers and strings only, never code.

    Raises:
        CheckpointError: It is damaged.
    """
    remedy = f"remove {folder}, and the same command continues from the state before"
    return read_state(folder / STATE, remedy)
