"""Where the CPU time of a block goes: all blocks of a job one after the other in this process."""

from __future__ import annotations

import argparse
import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from benchmarks.inference.scale_job import predictor_of
from geo.imagery.mosaic import Mosaic
from jobs.infer import worker as infer_worker
from jobs.infer.inputs import open_mosaic
from jobs.infer.job import InferJob
from jobs.infer.plan import make_plan

MOST_BLOCKS = 8
"""Blocks that are measured; the others are alike."""


@dataclass(frozen=True)
class Alone:
    """What was measured without Ray: pixels, the bare engine's wall time, CPU time by step."""

    mpx: float
    bare_s: float
    cpu_s: dict[str, float]


def in_one_process(job: InferJob, model: Path, options: argparse.Namespace) -> Alone:
    """Run the blocks of a job with a clock at each step, then the engine alone on as much."""
    plan = make_plan(job, open_mosaic(job, None, lambda text: None))
    plan.parts.mkdir(parents=True)
    cv2.setNumThreads(1)
    clocks = dict.fromkeys(("reading", "model", "vectorizing", "writing"), 0.0)
    network = _timed(predictor_of(model, 1)(), clocks, "model")
    side = job.lattice.window
    network(np.zeros((1, side, side, 3), np.uint8))  # compiles
    clocks["model"] = 0.0
    worker = infer_worker.BlockWorker(plan, network)
    blocks = range(min(MOST_BLOCKS, len(plan.blocks)))
    with (
        patch.object(Mosaic, "read", _timed(Mosaic.read, clocks, "reading")),
        patch.object(
            infer_worker, "block_pieces", _timed(infer_worker.block_pieces, clocks, "vectorizing")
        ),
        patch.object(
            infer_worker, "write_part", _timed(infer_worker.write_part, clocks, "writing")
        ),
    ):
        begin = time.process_time()
        mpx = sum(worker.run(index).valid_px for index in blocks) / 1e6
    clocks["blending and the rest"] = time.process_time() - begin - sum(clocks.values())
    shutil.rmtree(plan.parts.parent)
    spans = job.lattice.spans
    windows = sum(
        len(spans(b.row_off, b.row_end)) * len(spans(b.col_off, b.col_end))
        for b in (plan.blocks[index].window for index in blocks)
    )
    return Alone(mpx, _bare(predictor_of(model, options.threads)(), windows, side), clocks)


def _bare(network: Any, windows: int, side: int) -> float:
    """Measure seconds of the engine for as many windows, all threads together."""
    batch = np.random.default_rng(0).integers(130, 170, (8, side, side, 3), np.uint8)
    network(batch)
    begin = time.perf_counter()
    for first in range(0, windows, len(batch)):
        network(batch[: windows - first])
    return time.perf_counter() - begin


def _timed(function: Callable[..., Any], clocks: dict[str, float], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            clocks[name] += time.process_time() - begin

    return timed
