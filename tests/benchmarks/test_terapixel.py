"""The foreseen job follows from its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.inference.terapixel import Figures, foresee

EVEN = replace(
    Figures(spread=0.0, mpx_per_s=1.0, block_mpx=1.0, cores=4, start_s=0.0, row_s=0.0),
    cracks_per_block=0.0,
)


def test_blocks_are_shared_out_among_all_cores():
    job = foresee(2, 160.0, EVEN, tasks=160)
    assert (job.compute_s, job.tail_s, job.waited_s) == pytest.approx((20.0, 0.0, 0.0), abs=0.02)
    assert job.bound == "the model on the cores"


def test_long_tasks_leave_actors_idle_at_the_end():
    few, many = (foresee(2, 160.0, EVEN, tasks=tasks) for tasks in (9, 160))
    assert few.compute_s > many.compute_s
    assert few.tail_s > many.tail_s


def test_a_slow_storage_bounds_the_job():
    slow = replace(EVEN, storage_bytes_s=1e6 * EVEN.bytes_per_px)  # a block a second
    job = foresee(2, 160.0, slow, tasks=160)
    assert job.compute_s == pytest.approx(160.0, rel=0.02)
    assert job.bound == "the storage"
