"""Tiles -> GeoPackage of cracks: plan, predict blocks on Ray Data, assemble.

    wpcrack infer configs/infer.yaml tiles=tiles/ model=runs/city out=maps/cracks.gpkg
    python -m jobs.infer configs/infer.yaml tiles=tiles/ model=runs/city out=maps/cracks.gpkg

Rows that describe blocks go through Ray; pixels do not. An actor reads its block with a halo,
predicts, vectorizes and stores the pieces as one file; only a small row comes back. The same
command continues an interrupted job.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass

from geo.errors import InputError
from jobs.infer.actors import compute
from jobs.infer.inputs import ModelFiles, load_model, model_files, open_mosaic
from jobs.infer.job import InferJob
from jobs.infer.outputs import Provenance, assemble_map, draw_map, now
from jobs.infer.plan import Forecast, make_plan, outline
from jobs.infer.probability import write_vrt
from jobs.infer.report import Failures, InferReport, Progress
from jobs.infer.work_folder import (
    Fingerprint,
    JobRecord,
    WorkFolder,
    explained,
    finished_blocks,
    open_work,
    read_manifest,
)
from jobs.infer.worker import BlockResult, Plan, PredictorFactory
from jobs.runtime.signals import stop_on_sigterm

__all__ = ["Forecast", "InferJob", "InferReport", "plan_inference", "run_inference"]


def run_inference(
    job: InferJob, predictor_factory: PredictorFactory | None = None, *, local: bool = False
) -> InferReport:
    """Maps the cracks on a set of tiles.

    Args:
        job: What to do.
        predictor_factory: Makes the network in each actor; None: the model of the job. For tests.
        local: Use a Ray of our own even if RAY_ADDRESS names another.

    Raises:
        WpcrackError, GeoError: Nothing usable, wrong settings, unusable model, too many failures.
        KeyboardInterrupt: Ctrl-C or SIGTERM; finished blocks are kept and the user is told so.
    """
    started = now()
    with stop_on_sigterm():
        model = model_files(job.model) if predictor_factory is None else ModelFiles.stand_in()
        mosaic = open_mosaic(job, model.gsd_mm, _say)
        plan = make_plan(job, mosaic)
        _say(outline(plan))
        fingerprint = Fingerprint.of(job, mosaic, model.sha256)
        factory = predictor_factory or functools.partial(
            load_model, model.folder, job.cpus_per_actor, job.engine
        )
        with open_work(job, plan, fingerprint) as work:
            try:
                return _run(_Context(job, plan, work, factory, model, fingerprint, started, local))
            except KeyboardInterrupt:
                _tell_how_to_continue(work)
                raise


def plan_inference(job: InferJob) -> Forecast:
    """What a job will do and cost; writes nothing.

    Raises:
        WpcrackError, GeoError: Nothing usable, wrong settings, unusable model.
    """
    model = model_files(job.model)
    mosaic = open_mosaic(job, model.gsd_mm, _say)
    plan = make_plan(job, mosaic)
    finished = finished_blocks(job, plan, Fingerprint.of(job, mosaic, model.sha256))
    earlier = [line.result for line in read_manifest(job.work_folder).values()]
    return Forecast.of(job, plan, finished, earlier)


@dataclass(frozen=True)
class _Context:
    """What the steps of a run share."""

    job: InferJob
    plan: Plan
    work: WorkFolder
    factory: PredictorFactory
    model: ModelFiles
    fingerprint: Fingerprint
    started: str
    """ISO 8601."""
    local: bool


def _run(context: _Context) -> InferReport:
    job, plan, mosaic, model = context.job, context.plan, context.plan.mosaic, context.model
    with explained(context.work.root):
        asked = job.model_dump(mode="json")
        record = JobRecord(asked, model.name, model.sha256, mosaic.problems, plan.blocks)
        record.save(context.work.root)
    failures = Failures(job, mosaic)
    start = time.monotonic()
    results = _compute_missing(context, failures)
    computed = time.monotonic()
    _say("joining the blocks")
    if plan.probability is not None:
        with explained(context.work.root):
            write_vrt(plan.probability, plan.blocks, mosaic.grid)
    origin = Provenance(context.model, context.fingerprint, context.started)
    assembled = assemble_map(job, plan, origin)
    draw_map(job, failures.without_silent_tiles(mosaic))
    return InferReport(
        package=job.out,
        overview=job.overview,
        map_page=job.map_page,
        run_id=context.fingerprint.run_id,
        n_cracks=assembled.n_cracks,
        area_m2=assembled.area_m2,
        n_tiles=len(mosaic.tiles) + len(mosaic.problems),
        n_blocks=len(plan.blocks),
        surveyed_mpx=sum(result.valid_px for result in results) / 1e6,
        failures=failures.texts(),
        infer_s=computed - start,
        assemble_s=time.monotonic() - computed,
    )


def _compute_missing(context: _Context, failures: Failures) -> list[BlockResult]:
    """Computes the blocks that are not finished; returns the results of all."""
    plan, work = context.plan, context.work
    results = {name: r for name, r in work.results().items() if r.status != "failed"}
    failures.count(results.values())
    todo = [i for i, block in enumerate(plan.blocks) if block.block_id not in results]
    if results:
        _say(f"{len(results)} of {len(plan.blocks)} blocks are finished already")
    progress = Progress(len(plan.blocks), list(results.values()))
    if todo:
        work.discard([plan.blocks[index] for index in todo])  # failed ones are computed again
        _say("starting Ray")
        computed = compute(context.job, plan, todo, context.factory, local=context.local)
        with closing(computed), closing(progress):
            for result in computed:
                work.record(result)
                results[result.block_id] = result
                progress.add(result)
                failures.count([result])
    _refuse_if_nothing_seen(results.values())
    return [results[block.block_id] for block in plan.blocks]


def _refuse_if_nothing_seen(results: Collection[BlockResult]) -> None:
    if not any(result.valid_px for result in results):
        reasons = dict.fromkeys(result.reason for result in results)
        raise InputError(
            f"none of the {len(results)} blocks could be inspected: {next(iter(reasons))}; "
            "check the tiles"
        )


def _tell_how_to_continue(work: WorkFolder) -> None:
    finished, total = len(work.results()), len(work.plan.blocks)
    _say(
        f"interrupted: {finished} of {total} blocks are finished and kept in {work.root}; "
        "the same command continues"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
