"""The drawn surveys that comparisons are measured with."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare_city import DATES, map_options


def test_each_survey_has_its_own_day() -> None:
    days = {name: map_options(name, Path("roads.gpkg")).survey_date for name in DATES}
    assert days == DATES
