"""The work folder of an inference job: what was asked, and which blocks are finished.

<out stem>.work/
    job.jsonl      the job as it was last started, then a line per finished or failed block
    parts/         one file per block, written atomically: the truth about what is finished
    probability/   with probability=keep: one COG per block, and a VRT over all of them
    backdrop.tif   the imagery reduced, as it lies behind the map
    crops.json     imagery at full resolution around the worst cracks
    assembly/      results of regions, while many blocks are joined
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from geo.cracks.parts import InspectedRow
from geo.files import remove_leftovers
from geo.imagery.mosaic import Block
from jobs.infer.block_store import BlockStore, names_of
from jobs.infer.delivery import OWNER
from jobs.infer.job import InferJob
from jobs.infer.job_log import LOG, OLD, BlockLine, JobLog, JobRecord
from jobs.infer.plan import PARTS, PROBABILITY, Plan
from jobs.infer.probability import ground_file, probability_file
from jobs.runtime.folder import explain_write_errors, hold_lock, hold_output, refuse_foreign
from jobs.runtime.shared import NotShared, is_seen
from wpcrack.errors import ConfigError

BACKDROP, CROPS, LOCK = "backdrop.tif", "crops.json", ".lock"

ASSEMBLY = "assembly"

OWN = frozenset({LOG, BACKDROP, CROPS, LOCK, PARTS, PROBABILITY, ASSEMBLY, *OLD})
"""What a work folder may hold."""

LOCK_PATIENCE_S = 0.5
"""`--status` and `assemble` hold the lock for a moment."""


@contextmanager
def open_work(job: InferJob, plan: Plan, record: JobRecord) -> Iterator[WorkFolder]:
    """Open the work folder of a job as `resume` asks for, and keep other processes out of it.

    Raises:
        ConfigError: The folder is of other settings, inputs or version, in use, or not ours.
        OutputError: The folder, or the storage of `parts`, cannot be written; or another process
            writes the map.
    """
    root = job.work_folder
    require_own(job)
    store = BlockStore.of(job)
    busy = ConfigError(f"another process works in {root}; wait for its end or choose another out")
    with ExitStack() as stack:
        stack.enter_context(hold_output(job.out, f"out={job.out}"))
        with explain_errors(root):
            plan.parts.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_lock(root / LOCK, busy, patience_s=LOCK_PATIENCE_S))
            _sweep(job, plan)
            if store is not None:
                store.require_own(record)
                if job.resume != "never":
                    store.complete(root, plan)
            _prepare(root, job, plan, record)
            if store is not None:
                store.follow(root)
        yield WorkFolder(root, plan, record, store)


def require_own(job: InferJob) -> None:
    """Refuse a work folder that holds something else.

    Raises:
        ConfigError: See `refuse_foreign`.
    """
    refuse_foreign(job.work_folder, OWN, "the work folder", "an inference job")


def explain_errors(root: Path) -> AbstractContextManager[None]:
    """Turn what the file system refuses in a work folder into a sentence."""
    remedy = "check its folder and the free space, or choose another out"
    return explain_write_errors(f"the work folder {root}", remedy)


class WorkFolder:
    """Finished blocks on disk; survives any end of the process that writes it."""

    def __init__(
        self, root: Path, plan: Plan, record: JobRecord, store: BlockStore | None = None
    ) -> None:
        self.root = root
        self.plan = plan
        self.record = record
        self.store = store
        self._blocks = {block.block_id: block for block in plan.blocks}

    def results(self) -> dict[str, InspectedRow]:
        """Return the last result of each block of the plan whose part exists.

        A part without a line was finished as the job was killed: its line is written now. A part
        that cannot be read is computed again.
        """
        lines = self._log().lines
        results = {}
        for block in self.plan.blocks:
            if not self.plan.is_complete(block):
                continue
            line = lines.get(block.block_id)
            result = line.inspected if line else self.plan.read_result(block)
            if line is None and result is not None:
                self.add(result)
            if result is not None:
                results[block.block_id] = result
        return results

    def require_seen(self, result: InspectedRow) -> None:
        """Look whether the file of a block that a worker has finished is really here.

        Raises:
            NotShared: It is not: another node wrote it elsewhere.
            OutputError: It cannot be copied here.
        """
        block = self._blocks[result.block_id]
        if self.store is not None:
            self.store.fetch(self.root, names_of(self.plan, block))
            if not self.plan.is_complete(block):
                raise NotShared(
                    f"block {block.block_id} was finished on a node, but its file is not in parts="
                    f"{self.store.shown}; let no other program change what is "
                    "there, then give the same command again"
                )
            return
        if not is_seen(self.plan.part(block), seen=lambda: self.plan.is_complete(block)):
            raise NotShared(
                f"block {block.block_id} was finished on a node, but its file is not in "
                f"{self.plan.parts}; mount the folder of out= on every node at the same path, then "
                "give the same command again"
            )

    def add(self, result: InspectedRow) -> None:
        """Append the line of a block."""
        line = BlockLine(result, round(time.time(), 3))
        with explain_errors(self.root), (self.root / LOG).open("a", encoding="utf-8") as stream:
            stream.write(line.text())

    def keep_owner(self) -> None:
        """Let a driver elsewhere, which goes on with the blocks, own the claims of this one too."""
        if self.store is not None:
            self.store.put(self.root, [OWNER])

    def discard(self, blocks: Sequence[Block]) -> None:
        """Remove the files of blocks and their lines."""
        _remove(self.root, self.plan, blocks)
        if self.store is not None:
            self.store.remove(name for block in blocks for name in names_of(self.plan, block))
        self._log().without(blocks).save(self.root)

    def _log(self) -> JobLog:
        return JobLog.read(self.root) or JobLog(self.record, {})


def _sweep(job: InferJob, plan: Plan) -> None:
    """Remove the unfinished files of a process that was killed.

    Of those in the work folder the lock says that it is gone; beside the map other commands write.
    """
    root = plan.parts.parent
    remove_leftovers(job.out)
    left: list[Path] = []
    for folder in (root, plan.parts, root / PROBABILITY, root / ASSEMBLY):
        left += folder.glob(".*.tmp*")
    for path in left:
        path.unlink(missing_ok=True)


def _prepare(root: Path, job: InferJob, plan: Plan, now: JobRecord) -> None:
    """Leave only parts that hold for the present settings and inputs, and note the start."""
    log = JobLog.of_job(job)
    if log is not None:
        log.require_same(job, now)
    if log is None or log.record.changed_settings(now):
        log = JobLog(now, {})
        _clear(root)
    plan.parts.mkdir(exist_ok=True)
    if plan.probability is not None:
        plan.probability.mkdir(exist_ok=True)
    stale = _stale(log.record, now, plan)
    _remove(root, plan, stale)
    JobLog(now, log.without(stale).lines).save(root)


def _clear(root: Path) -> None:
    """Empty the folder; what says that its parts can be used goes first."""
    for name in (LOG, *OLD, BACKDROP, CROPS):
        (root / name).unlink(missing_ok=True)
    for folder in (root / PARTS, root / PROBABILITY, root / ASSEMBLY):
        if folder.exists():
            shutil.rmtree(folder)


def _stale(before: JobRecord, now: JobRecord, plan: Plan) -> list[Block]:
    """Return the blocks whose windows saw an input that has changed."""
    paths = before.changed_inputs(now)
    places = [place for path in paths for place in (before.place(path), now.place(path)) if place]
    reach = [place.pad(plan.lattice.window) for place in places]
    return [b for b in plan.blocks if any(b.window.intersection(area) for area in reach)]


def _remove(root: Path, plan: Plan, blocks: Sequence[Block]) -> None:
    for block in blocks:
        plan.part(block).unlink(missing_ok=True)
        # also of a start that kept it, while this one does not
        for file_of in (probability_file, ground_file):
            file_of(root / PROBABILITY, block).unlink(missing_ok=True)
