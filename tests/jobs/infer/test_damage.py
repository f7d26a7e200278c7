"""Damaged work folders: a line that is cut short costs nothing, anything else is one sentence."""

from __future__ import annotations

import functools
import importlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from factories import Pool, darkness, infer_job, layer, street, write_tile

from geo.cracks.parts import read_part
from geo.errors import InputError
from jobs.infer import run as infer
from jobs.infer import work_folder
from jobs.infer.job_log import JobLog
from jobs.runtime.shared import NotShared, is_seen
from wpcrack.errors import ConfigError


@pytest.fixture
def log(tmp_path):
    return importlib.import_module("benchmarks.fuzz.folders").draw_work(tmp_path)[0]


def test_a_line_that_is_cut_short_is_left_out_wherever_it_is(log):
    first, one, other, _ = log.read_text().split("\n")
    log.write_text("\n".join((first, one[: len(one) // 2], other, "")))
    assert list(JobLog.read(log.parent).lines) == ["r0_c1"]


@pytest.mark.parametrize("side", [0.0, 1e-200, 1e200, float("nan")])
def test_pixels_of_a_size_that_none_has_are_refused_in_a_sentence(log, side):
    first, *others = log.read_text().split("\n")
    record = json.loads(first)
    record["ground"]["grid"][0] = record["ground"]["grid"][4] = side
    log.write_text("\n".join((json.dumps(record), *others)))
    with pytest.raises(ConfigError, match=r"damaged .*resume=never"):
        JobLog.read(log.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"started": "now"},
        {"started": float("nan")},
        {"config": []},
        {"config": {}},
        {"ground": {"grid": [1, 2, 3], "stretch": None, "area": None}},
        {"inputs": {"a.tif": ["x"]}},
        {"blocks": [["r0_c0", 0, 0]]},
        {"blocks": [[7, 0, 0, 96, 48]]},
        {"problems": [["a.tif", "is bad", "POLYGON ((0", None]]},
        {"model": None},
    ],
    ids=str,
)
def test_a_record_that_is_none_is_refused_in_a_sentence(log, change):
    first, *others = log.read_text().split("\n")
    log.write_text("\n".join((json.dumps(json.loads(first) | change), *others)))
    with pytest.raises(ConfigError, match=r"damaged .*resume=never"):
        JobLog.read(log.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"window": {"row_off": 0, "col_off": 0, "height": 10**9, "width": 10**9}},
        {"window": 3},
        {"status": "done"},
        {"valid_pct": float("inf")},
        {"seconds": "1 s"},
        {"footprint": "zz"},
        {"at": None},
    ],
    ids=str,
)
def test_a_row_that_no_block_has_is_refused_in_a_sentence(log, change):
    first, one, *others = log.read_text().split("\n")
    log.write_text("\n".join((first, json.dumps(json.loads(one) | change), *others)))
    with pytest.raises(ConfigError, match="damaged"):
        JobLog.read(log.parent)


# -- stored parts ------------------------------------------------------------------------------


def replaced(name, change):
    """Change the column of a table by a function of its values."""

    def damage(table):
        values = [change(value) for value in table[name].to_pylist()]
        column = pa.array(values, table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), name, column)

    return damage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished job, and where a copy of its work folder is kept."""
    folder = tmp_path_factory.mktemp("finished")
    image, _ = street(160, ((((10, 10), (50, 60)), 5), (((100, 20), (150, 30)), 5)))
    tiles = write_tile(folder / "tiles" / "a.tif", image).parent
    job = infer_job(tiles, folder / "o.gpkg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "compute", Pool())
        infer.run_inference(job, darkness)
    return job, shutil.copytree(job.work_folder, folder / "kept")


def moved_line(branches):
    return [{**branch, "line": [float("inf"), *branch["line"][1:]]} for branch in branches or ()]


def short_line(branches):
    return [{**branch, "line": branch["line"][:-1]} for branch in branches or ()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.drop_columns(["n_pixels"]),
        lambda table: table.set_column(1, "n_pixels", pa.array(["many"] * len(table))),
        replaced("n_pixels", lambda value: -value),
        replaced("n_pixels", lambda value: None),
        replaced("top", lambda value: 10**9),
        replaced("gsd_m", lambda value: float("nan")),
        replaced("geometry", lambda value: value[:-7]),
        replaced("geometry", lambda value: shapely.Point(1, 1).wkb),
        replaced("geometry", lambda value: b""),
        replaced("seam_pixels", lambda value: [*value, 1]),
        replaced("branches", moved_line),
        replaced("branches", short_line),
    ],
)
def test_a_damaged_part_is_named_and_the_same_command_computes_it_again(
    finished, monkeypatch, damage
):
    pool, (job, kept) = Pool(), finished
    monkeypatch.setattr(infer, "compute", pool)
    monkeypatch.setattr(infer, "draw_map", lambda *_: None)
    shutil.rmtree(job.work_folder)
    shutil.copytree(kept, job.work_folder)
    whole = layer(job.out)
    parts = [(p, read_part(p).pieces["branches"]) for p in (job.work_folder / "parts").iterdir()]
    part = next(path for path, column in parts if column.null_count < len(column))
    table = pq.read_table(part)
    pq.write_table(damage(table).replace_schema_metadata(table.schema.metadata), part)
    with pytest.raises(InputError, match=r"is not a readable part .*same command does that now"):
        infer.run_inference(job, darkness)
    infer.run_inference(job, darkness)
    assert pool.computed == [part.stem]
    assert layer(job.out).equals(whole)


def test_a_block_that_was_written_elsewhere_is_not_taken_for_finished(finished, monkeypatch):
    pool, (job, _) = Pool(), finished

    def elsewhere(job, plan, todo, factory, *, local=False):
        for result in pool(job, plan, todo, factory):
            shutil.rmtree(plan.parts)  # as if the node had made a folder of its own
            yield result

    monkeypatch.setattr(infer, "compute", elsewhere)
    monkeypatch.setattr(work_folder, "is_seen", functools.partial(is_seen, patience_s=0.0))
    whole = layer(job.out)
    with pytest.raises(NotShared, match=r"finished on a node.* not in .*parts; mount the folder"):
        infer.run_inference(job.model_copy(update={"resume": "never"}), darkness)
    assert not JobLog.read(job.work_folder).lines
    monkeypatch.setattr(infer, "compute", Pool())
    infer.run_inference(job, darkness)
    assert layer(job.out).equals(whole)
