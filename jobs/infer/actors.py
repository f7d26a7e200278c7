"""Blocks through a pool of Ray actors; what comes back is one small row per block."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

from geo.cracks.parts import InspectedRow
from jobs.infer.attempts import Attempts, WorkerDied
from jobs.infer.job import InferJob
from jobs.infer.plan import Plan
from jobs.infer.worker import BLOCKS_AT_A_TIME, BlockWorker, PredictorFactory
from jobs.runtime.ray_session import READER_CPUS, ray_session, reachable_resources
from jobs.runtime.shared import SharedFolder, share
from jobs.runtime.terminal import USER_ERRORS
from wpcrack.errors import WpcrackError

ACTOR_MEMORY_BYTES = 3 * 2**29
"""What an actor needs at most (1.5 GiB): libraries, model and two blocks with halo."""

MOST_TASKS = 2000
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
        WpcrackError: The model is unusable, or the parts cannot be written.
    """
    least = min(job.actors or _local_actors(job, local), len(todo))
    cpus, gpus = least * job.cpus_per_actor, (job.gpus_per_actor or 0) * (job.actors or 1)
    work = plan.parts.parent
    with share(work, _inputs(job, plan)) as shared, ray_session(cpus, gpus=gpus, local=local):
        import ray
        import ray.data

        _silence_ray_data()
        size = _actor_size(job, len(todo))
        blocks = (
            ray.data.from_items(
                [{"index": index} for index in todo], override_num_blocks=_tasks(todo)
            )
            .map(
                _Actor,  # type: ignore[arg-type]  # a class is instantiated in each actor
                compute=ray.data.ActorPoolStrategy(
                    size=size.actors,
                    max_concurrent_calls_per_actor=BLOCKS_AT_A_TIME,
                    enable_true_multi_threading=True,
                ),
                num_cpus=job.cpus_per_actor,
                num_gpus=size.gpus,
                fn_constructor_args=(ray.put(plan), factory, shared),
            )
            .iter_rows()
        )
        # closed before Ray ends, which waits for the threads behind it
        with closing(cast("Generator[dict[str, Any]]", iter(blocks))) as rows:
            for row in rows:
                if row["error"]:
                    raise WpcrackError(row["error"])
                yield InspectedRow.of_row(json.loads(row["result"]))


class _Actor:
    """Adapts BlockWorker to Ray Data: errors that end the job travel as a column."""

    def __init__(self, plan: Any, factory: PredictorFactory, shared: SharedFolder) -> None:
        import ray

        self.error = ""
        given: Plan = ray.get(plan)
        name = f"model-{ray.get_runtime_context().get_actor_id()}"  # the same after a restart
        try:
            shared.require()
            with Attempts(given.parts.parent).begin(name, "loading the model"):
                self.worker = BlockWorker(given, factory())
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
        return {"result": json.dumps(asdict(result)), "error": ""}


def _inputs(job: InferJob, plan: Plan) -> set[Path]:
    """Return what the workers read: the folders of the tiles, and the model."""
    folders = {Path(tile.path).parent for tile in plan.mosaic.tiles}
    return folders if job.model is None else {*folders, job.model}


def _tasks(todo: Sequence[int]) -> int:
    return min(len(todo), MOST_TASKS)


def _local_actors(job: InferJob, local: bool) -> int:
    """Return how many actors to make room for before the cluster is known."""
    if os.environ.get("RAY_ADDRESS") and not local:
        return 1
    return max(1, (os.cpu_count() or 1) // job.cpus_per_actor)


class _Size(NamedTuple):
    """How many actors, and GPUs of each."""

    actors: int
    gpus: float


def _actor_size(job: InferJob, most: int) -> _Size:
    """Return as many actors as CPUs, GPUs and memory allow, leaving Ray Data its own CPU."""
    has = reachable_resources()
    gpus = job.gpus_per_actor
    if gpus is None:
        gpus = 1 if has.get("GPU", 0) >= 1 else 0
    by_cpu = (has.get("CPU", 1) - READER_CPUS) // job.cpus_per_actor
    by_memory = math.floor(has.get("memory", sys.maxsize) / ACTOR_MEMORY_BYTES)
    limits = [most, job.actors or min(by_cpu, by_memory)]
    if gpus:
        limits.append(has.get("GPU", 0) // gpus)
    return _Size(max(1, int(min(limits))), gpus)


def _silence_ray_data() -> None:
    """Keep Ray Data's own progress off the terminal; the job shows its own line."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
