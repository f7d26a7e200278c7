"""Tiles -> GeoPackage of cracks: plan, predict blocks on Ray Data, assemble.

    wpcrack infer configs/infer.yaml tiles=tiles/ model=runs/city out=maps/cracks.gpkg
    python -m jobs.infer configs/infer.yaml tiles=tiles/ model=runs/city out=maps/cracks.gpkg

Rows that describe blocks go through Ray; pixels do not. An actor reads its block with a halo,
predicts, vectorizes and stores the pieces as one file; only a small row comes back. The same
command continues an interrupted job.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from geo.cracks.parts import DamagedPart, InspectedRow
from geo.errors import InputError
from geo.layers.roads import Segment, read_roads, roads_digest
from geo.outputs import require_replaceable
from jobs.infer.actors import cluster_has_gpus, compute, require_room
from jobs.infer.block_store import BlockStore
from jobs.infer.delivery import Delivery
from jobs.infer.inputs import ModelFiles, load_model, model_files, open_mosaic
from jobs.infer.job import InferJob
from jobs.infer.job_log import JobLog, JobRecord
from jobs.infer.outputs import MapFiles, assemble_map, draw_map, require_shown, warn_of_districts
from jobs.infer.plan import Forecast, Plan, make_plan, outline
from jobs.infer.probability import write_vrt
from jobs.infer.report import Failures, InferReport, Progress
from jobs.infer.work_folder import WorkFolder, explain_errors, open_work, require_own
from jobs.infer.worker import PredictorFactory
from jobs.runtime.folder import how_to_continue
from jobs.runtime.ray_session import joins_cluster
from jobs.runtime.signals import Interrupted, stop_on_sigterm
from jobs.runtime.terminal import say


def run_inference(
    job: InferJob,
    predictor_factory: PredictorFactory | None = None,
    *,
    local: bool = False,
    alone: bool = True,
) -> InferReport:
    """Map the cracks on a set of tiles.

    Args:
        job: What to do.
        predictor_factory: Makes the network in each actor; None: the model of the job. For tests.
        local: Use a Ray of our own even if RAY_ADDRESS names another.
        alone: False: it is a step of a job that says itself what comes after Ctrl-C.

    Raises:
        WpcrackError, GeoError: Nothing usable, wrong settings, unusable model, too many failures.
        KeyboardInterrupt: Ctrl-C or SIGTERM; finished blocks are kept and the user is told so.
    """
    started = time.time()
    joins_cluster(local=local)  # what it cannot join is refused before any work
    with stop_on_sigterm():
        _adopt(job)
        if predictor_factory is None:
            job = with_engine(job, local=local)
        MapFiles.of(job.out).prepare(job, job.roads, job.vectors)
        delivery = _check_delivery(job)
        model = model_files(job.model) if predictor_factory is None else ModelFiles.stand_in()
        plan, failures = _plan(job, model, local=local)
        roads = read_roads(job.roads, plan.mosaic.grid)
        warn_of_districts(job, job.roads, roads)
        say(outline(plan))
        factory = predictor_factory or functools.partial(
            load_model, model, job.cpus_per_actor, job.engine, 1000 * plan.mosaic.grid.gsd_m
        )
        record = JobRecord.of(job, plan, model, started, roads_digest(roads))
        with open_work(job, plan, record) as work:
            if delivery is not None:
                delivery.claim()
                work.keep_owner()
            try:
                report = _run(_Context(job, plan, failures, roads, work, factory, local))
                return report if delivery is None else _deliver(report, job, delivery)
            except KeyboardInterrupt as error:
                if not alone:
                    raise
                _say_how_to_continue(work, job.resume)
                raise Interrupted from error


def plan_inference(job: InferJob) -> Forecast:
    """Say what a job will do and cost; writes nothing.

    Raises:
        WpcrackError, GeoError: Nothing usable, wrong settings, unusable model.
    """
    joins_cluster()
    MapFiles.of(job.out).prepare(job, job.roads, job.vectors)
    _check_delivery(job)
    model = model_files(job.model)
    plan, failures = _plan(job, model)
    warn_of_districts(job, job.roads, read_roads(job.roads, plan.mosaic.grid))
    require_own(job)
    if store := BlockStore.of(job):
        store.require_own(JobRecord.of(job, plan, model, time.time()))
    log = JobLog.of_job(job)
    if log is None:
        return Forecast.of(job, plan, ())
    job = log.with_engine(job)
    now = JobRecord.of(job, plan, model, time.time())
    log.require_same(job, now)
    finished = log.usable_results(plan, now)
    failures.count(finished)
    return Forecast.of(job, plan, finished, [line.inspected for line in log.lines.values()])


def _plan(job: InferJob, model: ModelFiles, *, local: bool = False) -> tuple[Plan, Failures]:
    """Cut the tiles into blocks, and refuse what headers alone tell, before any work."""
    plan = make_plan(job, open_mosaic(job, model.gsd_mm, say))
    require_shown(job, plan.mosaic.grid)
    failures = Failures(job, plan.mosaic)
    failures.refuse_too_many()
    require_room(job, plan, local=local)
    return plan, failures


def with_engine(job: InferJob, *, local: bool) -> InferJob:
    """Return a job with one engine for all actors: that of its finished blocks, or chosen here.

    Raises:
        ConfigError: The engine is not installed, or the work folder is damaged.
    """
    log = JobLog.of_job(job)
    job = job if log is None else log.with_engine(job)
    if job.engine != "auto":
        return job
    from wpcrack.inference.engine import choose

    gpu = None if job.gpus_per_actor is None else job.gpus_per_actor > 0
    if gpu is None and joins_cluster(local=local):
        gpu = cluster_has_gpus()
    return job.model_copy(update={"engine": choose("auto", gpu=gpu)})


@dataclass(frozen=True)
class _Context:
    """What the steps of a run share."""

    job: InferJob
    plan: Plan
    failures: Failures
    roads: tuple[Segment, ...]
    work: WorkFolder
    factory: PredictorFactory
    local: bool


def _run(context: _Context) -> InferReport:
    job, plan, work = context.job, context.plan, context.work
    mosaic, failures = plan.mosaic, context.failures
    start = time.monotonic()
    results = _compute_missing(context)
    computed = time.monotonic()
    say("joining the blocks")
    require_replaceable(MapFiles.of(job.out).list_replaced(job, job.roads))  # edited meanwhile?
    if plan.probability is not None:
        with explain_errors(work.root):
            write_vrt(plan.probability, plan.blocks, mosaic.grid)
    with _dropping_damaged_parts(work):
        alone = context.local or work.store is not None  # no other node sees the work folder
        assembled = assemble_map(job, plan, work.record, context.roads, local=alone)
    draw_map(job, plan, failures.without_silent_tiles(mosaic))
    return InferReport(
        package=job.out,
        overview=job.overview,
        map_page=MapFiles.of(job.out).page,
        run_id=work.record.run_id,
        n_cracks=assembled.n_cracks,
        area_m2=assembled.area_m2,
        n_tiles=len(mosaic.tiles) + len(mosaic.problems),
        n_blocks=len(plan.blocks),
        surveyed_mpx=sum(result.valid_px for result in results) / 1e6,
        failures=failures.texts(),
        infer_s=computed - start,
        assemble_s=time.monotonic() - computed,
    )


def _adopt(job: InferJob) -> None:
    """Let an empty work folder go on with the blocks in object storage."""
    store = BlockStore.of(job)
    if store is not None and job.resume != "never":
        require_own(job)
        store.adopt(job.work_folder)


def _check_delivery(job: InferJob) -> Delivery | None:
    """Return where the map will be copied to, if it may lie there."""
    delivery = Delivery.of(job, MapFiles.of(job.out).list_replaced(job, job.roads))
    if delivery is not None:
        delivery.check()
    return delivery


def _deliver(report: InferReport, job: InferJob, delivery: Delivery) -> InferReport:
    """Copy the files of a finished map to object storage."""
    say(f"copying the map to {delivery.address}")
    copies = delivery.deliver(MapFiles.of(job.out).list_replaced(job, job.roads))
    return replace(report, copies=tuple(copies))


@contextmanager
def _dropping_damaged_parts(work: WorkFolder) -> Iterator[None]:
    """Remove a part that cannot be read, so that the next start computes it again.

    Raises:
        InputError: There was one.
    """
    try:
        yield
    except DamagedPart as error:
        work.discard([block for block in work.plan.blocks if work.plan.part(block) == error.path])
        raise InputError(f"{error}: the same command does that now") from error


def _compute_missing(context: _Context) -> list[InspectedRow]:
    """Compute the blocks that are not finished; return the results of all."""
    plan, work, failures = context.plan, context.work, context.failures
    results = {name: r for name, r in work.results().items() if r.status != "failed"}
    failures.count(results.values())
    todo = [i for i, block in enumerate(plan.blocks) if block.block_id not in results]
    if results:
        say(f"{len(results)} of {len(plan.blocks)} blocks are finished already")
    progress = Progress(len(plan.blocks), list(results.values()))
    if todo:
        work.discard([plan.blocks[index] for index in todo])  # failed ones are computed again
        say("starting Ray")
        computed = compute(context.job, plan, todo, context.factory, local=context.local)
        with closing(computed), closing(progress):
            for result in computed:
                work.require_seen(result)
                work.add(result)
                results[result.block_id] = result
                progress.add(result)
                failures.count([result])
    _refuse_if_nothing_seen(results.values())
    return [results[block.block_id] for block in plan.blocks]


def _refuse_if_nothing_seen(results: Collection[InspectedRow]) -> None:
    if not any(result.valid_px for result in results):
        reasons = dict.fromkeys(result.reason for result in results)
        raise InputError(
            f"none of the {len(results)} blocks could be inspected: {next(iter(reasons))}; "
            "check the tiles"
        )


def _say_how_to_continue(work: WorkFolder, resume: str) -> None:
    finished, total = len(work.results()), len(work.plan.blocks)
    say(
        f"interrupted: {finished} of {total} blocks are finished and kept in {work.root}; "
        f"{how_to_continue(resume)}"
    )
