"""Blocks through a pool of Ray actors; what comes back is one small row per block."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from geo.cracks.parts import InspectedRow
from jobs.infer.attempts import Attempts, FolderMarks, WorkerDied
from jobs.infer.block_store import BlockStore
from jobs.infer.job import InferJob
from jobs.infer.plan import Plan
from jobs.infer.worker import BLOCKS_AT_A_TIME, BlockWorker, PredictorFactory
from jobs.runtime.capacity import (
    NodeKind,
    Request,
    nodes_now,
    nodes_to_come,
    room_for,
    say_while_waiting,
)
from jobs.runtime.counters import counter
from jobs.runtime.cpus import usable_cpus
from jobs.runtime.folder import be_present, is_anybody_present
from jobs.runtime.memory import require_memory
from jobs.runtime.ray_session import joins_cluster, ray_session
from jobs.runtime.shared import SharedFolder, share
from jobs.runtime.terminal import USER_ERRORS, say
from wpcrack.errors import ConfigError, WpcrackError
from wpcrack.inference.engine import gpus_here

ACTOR_MEMORY_BYTES = 3 * 2**29
"""What an actor needs at most (1.5 GiB): libraries, model and two blocks with halo."""

PROGRAM_BYTES, BLOCK_PX_BYTES, WINDOW_PX_BYTES = 6e8, 30, 100
"""The same in parts: libraries and model, each pixel of its blocks, each of a batch of windows.
With the default settings they add up to it; other sizes are not measured."""

READER_CPUS = 1
"""Logical CPUs left for Ray Data's own tasks: an actor pool that takes all of them hangs."""

PRESENT = ".present"
"""File in the work folder that each actor holds while it lives."""

MOST_TASKS = 10_000
"""Blocks are handed out in at most this many tasks; more only cost scheduling."""


def compute(
    job: InferJob,
    plan: Plan,
    todo: Sequence[int],
    factory: PredictorFactory,
    *,
    local: bool = False,
) -> Generator[InspectedRow]:
    """Compute blocks on Ray, and yield their results in the order of completion.

    Args:
        job: Number and size of the actors.
        plan: Sent once to each actor.
        todo: Indices of the blocks of the plan.
        factory: Makes the network inside an actor.
        local: Never join RAY_ADDRESS.

    Raises:
        WpcrackError: The model is unusable, the parts cannot be written, or a node does not see
            what the driver sees.
    """
    work, store = plan.parts.parent, BlockStore.of(job)
    inputs = _inputs(job, plan)
    sharing = share(work, inputs) if store is None else nullcontext(SharedFolder.of(inputs))
    with sharing as shared, ray_session(_least(job, local), local=local):
        import ray
        import ray.data

        _prepare_ray_data()
        pool = _pool(job, len(todo), actor_bytes(job, plan))
        setup = _Setup(ray.put(plan), factory, shared, pool.each["GPU"], store)
        blocks = (
            ray.data.from_items(
                [{"index": index} for index in todo],
                override_num_blocks=min(len(todo), MOST_TASKS),
            )
            .map(
                _Actor,  # type: ignore[arg-type]  # a class is instantiated in each actor
                compute=ray.data.ActorPoolStrategy(
                    size=pool.count,
                    max_concurrent_calls_per_actor=BLOCKS_AT_A_TIME,
                    enable_true_multi_threading=True,
                ),
                num_cpus=pool.each["CPU"],
                num_gpus=pool.each["GPU"],
                memory=pool.each["memory"],
                fn_constructor_args=(setup,),
            )
            .iter_rows()
        )
        # closed before Ray ends, which waits for the threads behind it
        rows = cast("Generator[dict[str, Any]]", iter(blocks))
        has_begun = store.is_busy if store else partial(is_anybody_present, work / PRESENT)
        with say_while_waiting(pool, has_begun), closing(rows):
            for row in rows:
                if row["error"]:
                    raise WpcrackError(row["error"])
                yield InspectedRow.of_row(json.loads(row["result"]))


@dataclass(frozen=True)
class _Setup:
    """What an actor is made of.

    Attributes:
        plan: reference to the Plan in Ray's object store.
        factory: makes the network.
        shared: what the actor must see before it works.
        gpus: that Ray gives it.
        store: where it copies finished blocks to; None: it sees the folders of the plan.
    """

    plan: Any
    factory: PredictorFactory
    shared: SharedFolder
    gpus: float
    store: BlockStore | None = None


class _Actor:
    """Adapts BlockWorker to Ray Data: errors that end the job travel as a column."""

    def __init__(self, setup: _Setup) -> None:
        import ray

        self.error = ""
        self.count = counter("wpcrack_blocks", "Blocks that inferences have computed.")
        if not setup.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what belongs to others is not even looked at
        plan, store = ray.get(setup.plan), setup.store
        if store is not None:
            self.folder = tempfile.TemporaryDirectory(prefix="wpcrack-")  # until this process ends
            plan = plan.moved_to(Path(self.folder.name))
        work = plan.parts.parent
        name = f"model-{ray.get_runtime_context().get_actor_id()}"  # the same after a restart
        try:
            setup.shared.require()
            self.presence = be_present(work / PRESENT)  # likewise
            with Attempts(store or FolderMarks(work)).begin(name, "loading the model"):
                self.worker = BlockWorker(plan, setup.factory(), store)
        except USER_ERRORS as error:
            self.error = str(error)
        except WorkerDied as error:
            self.error = f"{error}; give the workers more memory, or set another engine"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a block as JSON: a column of one type, whatever it says."""
        if self.error:
            return {"result": "", "error": self.error}
        try:
            result = self.worker.run(int(row["index"]))
        except USER_ERRORS as error:
            return {"result": "", "error": str(error)}
        self.count(1)
        return {"result": json.dumps(asdict(result)), "error": ""}


def actor_bytes(job: InferJob, plan: Plan) -> float:
    """Return what an actor needs with the blocks and windows of a job, estimated."""
    block_px = max((block.window.area_px for block in plan.blocks), default=0)
    windows_px = job.batch * job.lattice.window**2
    needed = BLOCKS_AT_A_TIME * block_px * BLOCK_PX_BYTES + windows_px * WINDOW_PX_BYTES
    return max(ACTOR_MEMORY_BYTES, PROGRAM_BYTES + needed)


def require_room(job: InferJob, plan: Plan, *, local: bool = False) -> None:
    """Refuse actors that do not fit into this machine; a cluster has other ones.

    Raises:
        ConfigError: One actor needs more memory or GPUs than there are.
    """
    if joins_cluster(local=local):
        return
    if job.gpus_per_actor:
        _require_gpus(job.gpus_per_actor)
    needed = actor_bytes(job, plan)
    if needed > ACTOR_MEMORY_BYTES:
        remedy = "set a smaller block_strides, batch or lattice.window"
        require_memory(needed, "one actor with such blocks and windows", remedy)


def _require_gpus(wanted: float) -> None:
    found = gpus_here()
    if found < wanted:
        raise ConfigError(
            f"gpus_per_actor={wanted:g} asks for that many GPUs here, and torch sees {found}; "
            "leave it out, or ask for fewer"
        )


def _inputs(job: InferJob, plan: Plan) -> set[Path]:
    """Return what the workers read: the folders of the tiles, and the model."""
    folders = {Path(tile.path).parent for tile in plan.mosaic.tiles}
    return folders if job.model is None else {*folders, job.model}


def _least(job: InferJob, local: bool) -> Request:
    """Return what a job needs before the nodes are known; our own Ray is made for all actors."""
    count = (
        1
        if joins_cluster(local=local)
        else job.actors or max(1, usable_cpus() // job.cpus_per_actor)
    )
    each = {"CPU": float(job.cpus_per_actor), "GPU": job.gpus_per_actor or 0.0}
    return Request("actor", count, each, READER_CPUS)


def cluster_has_gpus() -> bool:
    """Return whether the cluster of RAY_ADDRESS has GPUs, or may get some."""
    with ray_session(Request("actor", 0, {})):
        return _has_gpus([*nodes_now(), *nodes_to_come()])


def _has_gpus(kinds: Sequence[NodeKind]) -> bool:
    return any(kind.resources.get("GPU", 0) >= 1 for kind in kinds)


def _pool(job: InferJob, most: int, memory: float = ACTOR_MEMORY_BYTES) -> Request:
    """Return as many actors as can be placed on the nodes, leaving Ray Data its own CPU.

    Args:
        job: number and size of the actors.
        most: no more are of use.
        memory: bytes of each.
    """
    kinds = [*nodes_now(), *nodes_to_come()]
    gpus = job.gpus_per_actor
    if gpus is None:
        gpus = float(_has_gpus(kinds))
    each = {"CPU": float(job.cpus_per_actor), "GPU": gpus, "memory": float(memory)}
    room = room_for(Request("actor", 1, each, READER_CPUS))
    if not room:  # a small machine takes one all the same
        each["memory"] = 0.0
        room = min(1, room_for(Request("actor", 1, each, READER_CPUS)))
    wanted = min(most, job.actors or room)
    if room < wanted:
        say(f"there is room for {room} of {Request('actor', wanted, each).text()}")
    return Request("actor", max(1, min(wanted, room)), each, READER_CPUS)


def _prepare_ray_data() -> None:
    """Let a job wait as long as it takes, and keep Ray Data's own progress off the terminal."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in ("progress", "execution.resource_manager"):  # the job itself says that it waits
        logging.getLogger(f"ray.data._internal.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)  # it is raised as well
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the job shows its own line
    context.execution_no_progress_timeout_s = -1  # else half an hour: of waiting, or for one block
