"""The work folder of an inference job: what was asked, and which blocks are finished.

<out stem>.work/
    fingerprint.json   settings, model, grid and input files that the result depends on
    manifest.jsonl     one line per finished or failed block, in the order of completion
    session.json       when the job was last started, and how many blocks it has: for --status
    probability/       with probability=keep: one COG per block, and a VRT over all of them
    job.json           settings, model, blocks: for `wpcrack assemble`
    backdrop.tif       the imagery reduced, as it lies behind the map
    parts/             one file per block, written atomically: the truth about what is finished
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from geo.errors import OutputError
from geo.mosaic import Block
from jobs.infer_fingerprint import ASSEMBLY_KEYS, Fingerprint
from jobs.infer_job import InferJob
from jobs.infer_manifest import MANIFEST, SESSION, ManifestLine, Session, read_manifest
from jobs.infer_probability import probability_file
from jobs.infer_worker import BlockResult, Plan
from jobs.work_record import BACKDROP, RECORD
from wpcrack.errors import ConfigError

LOCK = ".lock"
"""Held while a process works in the folder."""

LOCK_PATIENCE_S = 0.5
"""`--status` holds the lock for a moment to see whether it is free."""

OWN = frozenset(
    {"fingerprint.json", "fingerprint.tmp", MANIFEST, "manifest.tmp", SESSION, "session.tmp"}
    | {"parts", "probability", LOCK, RECORD, "job.tmp", BACKDROP}
)
"""What a work folder may hold."""


@contextmanager
def open_work(job: InferJob, plan: Plan, fingerprint: Fingerprint) -> Iterator[WorkFolder]:
    """Opens the work folder of a job as `resume` asks for, and keeps other processes out of it.

    Raises:
        ConfigError: The folder belongs to other settings or inputs, to another running process,
            or to nobody that we know.
        OutputError: The folder cannot be written.
    """
    root = job.work_folder
    _refuse_foreign(root)
    with explained(root):
        plan.parts.mkdir(parents=True, exist_ok=True)
        _make_probability(plan)
        lock = (root / LOCK).open("w")
    with lock:
        _acquire(lock.fileno(), root)
        with explained(root):
            _sweep(job, plan)
            _prepare(root, job, plan, fingerprint)
            Session(time.time(), len(plan.blocks)).save(root)
        yield WorkFolder(root, plan)


def finished_blocks(job: InferJob, plan: Plan, now: Fingerprint) -> list[BlockResult]:
    """Results that a start of the job would take over; reads only the manifest, writes nothing."""
    before = Fingerprint.read(job.work_folder / "fingerprint.json")
    if before is None or job.resume == "never" or before.difference(now, ASSEMBLY_KEYS):
        return []
    lines = read_manifest(job.work_folder)
    return [
        line.result
        for block in plan.blocks
        if (line := lines.get(block.block_id)) and line.result.status != "failed"
    ]


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turns what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the work folder {root} cannot be written ({error}); check its folder and the free "
            "space, or choose another out"
        ) from error


def _refuse_foreign(root: Path) -> None:
    """Never works, and above all never deletes, in a folder that holds something else."""
    strange = sorted({path.name for path in root.iterdir()} - OWN) if root.is_dir() else []
    if strange or (root.exists() and not root.is_dir()):
        what = f"holds {strange[0]}" if strange else "is a file"
        raise ConfigError(
            f"{root} is where finished blocks are kept, but {what}, which is not of this program; "
            "move it away or choose another out"
        )


def _acquire(lock: int, root: Path) -> None:
    end = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ConfigError(
                    f"another process works in {root}; wait for its end or choose another out"
                ) from None
            time.sleep(LOCK_PATIENCE_S / 10)
        else:
            return


def _sweep(job: InferJob, plan: Plan) -> None:
    """Removes the unfinished files of a process that was killed; the lock says that it is gone."""
    for path in (
        *job.out.absolute().parent.glob(f".{glob.escape(job.out.stem)}.*.tmp.gpkg*"),
        *plan.parts.glob(".*.tmp"),
        *(plan.parts.parent / "probability").glob(".*.tmp"),
        *plan.parts.parent.glob(".*.tmp"),
    ):
        path.unlink(missing_ok=True)


def _prepare(root: Path, job: InferJob, plan: Plan, now: Fingerprint) -> None:
    """Leaves only parts that hold for the present fingerprint, and saves that."""
    before = Fingerprint.read(root / "fingerprint.json")
    if before is None or job.resume == "never":
        _clear(root, plan)
    elif job.resume == "auto" and (difference := before.difference(now, ASSEMBLY_KEYS)):
        raise ConfigError(
            f"{root} holds blocks of another run ({difference}); resume=force keeps what still "
            "holds and computes the rest, resume=never starts anew"
        )
    elif set(before.changed_settings(now)) - ASSEMBLY_KEYS:
        _clear(root, plan)
    else:
        _drop_changed(root, plan, before, now)
    now.save(root / "fingerprint.json")


def _make_probability(plan: Plan) -> None:
    if plan.probability is not None:
        plan.probability.mkdir(exist_ok=True)


def _clear(root: Path, plan: Plan) -> None:
    (root / "fingerprint.json").unlink(missing_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(plan.parts)
    plan.parts.mkdir()
    shutil.rmtree(root / "probability", ignore_errors=True)
    _make_probability(plan)


def _drop_changed(root: Path, plan: Plan, before: Fingerprint, now: Fingerprint) -> None:
    """Removes the parts of blocks whose windows saw an input that has changed."""
    paths = before.changed_inputs(now)
    places = [place for path in paths for place in (before.place(path), now.place(path)) if place]
    reach = [place.pad(plan.lattice.window) for place in places]
    stale = [b for b in plan.blocks if any(b.window.intersection(area) for area in reach)]
    WorkFolder(root, plan).discard(stale)


class WorkFolder:
    """Finished blocks on disk; survives any end of the process that writes it."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root = root
        self.plan = plan

    @property
    def manifest(self) -> Path:
        """One JSON line per block."""
        return self.root / MANIFEST

    def results(self) -> dict[str, BlockResult]:
        """The last result of each block of the plan whose part exists.

        A part without a line in the manifest was finished as the job was killed: its line is
        written now. A part that cannot be read is computed again.
        """
        known = read_manifest(self.root)
        results = {}
        for block in self.plan.blocks:
            if not self.plan.is_complete(block):
                continue
            line = known.get(block.block_id)
            result = line.result if line else self.plan.stored(block)
            if line is None and result is not None:
                self.record(result)
            if result is not None:
                results[block.block_id] = result
        return results

    def record(self, result: BlockResult) -> None:
        """Appends a line to the manifest."""
        with explained(self.root), self.manifest.open("a", encoding="utf-8") as stream:
            stream.write(ManifestLine(result, round(time.time(), 3)).text())

    def discard(self, blocks: Sequence[Block]) -> None:
        """Removes parts, and rewrites the manifest without them or a line that a kill cut short."""
        for block in blocks:
            self.plan.part(block).unlink(missing_ok=True)
            stored = probability_file(self.root / "probability", block)
            stored.unlink(missing_ok=True)  # also of a start that kept it, while this one does not
        block_ids = {block.block_id for block in blocks}
        kept = [line for name, line in read_manifest(self.root).items() if name not in block_ids]
        temporary = self.manifest.with_suffix(".tmp")
        temporary.write_text("".join(line.text() for line in kept), "utf-8")
        os.replace(temporary, self.manifest)
