"""Damaged work folders: a line that is cut short costs nothing, anything else is one sentence."""

from __future__ import annotations

import importlib
import json

import pytest

from jobs.infer.work_folder import JobLog
from wpcrack.errors import ConfigError


@pytest.fixture
def log(tmp_path):
    return importlib.import_module("benchmarks.fuzz.targets").draw_work(tmp_path)[0]


def test_a_line_that_is_cut_short_is_left_out_wherever_it_is(log):
    first, one, other, _ = log.read_text().split("\n")
    log.write_text("\n".join((first, one[: len(one) // 2], other, "")))
    assert list(JobLog.read(log.parent).lines) == ["r0_c1"]


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
