"""Rules of the map as config values: defaults, limits that make no sense, their way to the map."""

from __future__ import annotations

import pytest
import yaml

from geo.errors import InputError
from geo.options import AssembleOptions, MapRules
from jobs.infer.job import InferJob
from jobs.infer.job_log import MAP_KEYS
from jobs.settings.docs import render_defaults
from jobs.settings.load import load
from wpcrack.errors import ConfigError


def test_the_defaults_are_those_of_the_maps_own_records() -> None:
    assert AssembleOptions.of(MapRules()) == AssembleOptions(min_area_m2=0.0002, min_length_m=0.15)


def test_each_value_reaches_the_record() -> None:
    given = [
        "severity.d6433_mm=[3, 30]", "severity.ltpp_mm=[4, 40]", "severity.max_gsd_mm=2",
        "severity.measurable_px=5", "type.angle_deg=10", "type.min_length_m=0.5",
        "link.gaps_m=[0.1]", "network.block_cell_m=0.4", "segments.min_coverage_pct=60",
        "segments.rank_by=zeb_cell_pct", "segments.crack_band_m=0.2",
        "segments.medium_pct=7", "segments.high_pct=33", "simplify_px=0", "min_length_m=0.1",
    ]  # fmt: skip
    built = AssembleOptions.of(load(MapRules, overrides=given))
    assert (built.severity.d6433_mm, built.severity.ltpp_mm) == ((3, 30), (4, 40))
    assert (built.severity.max_gsd_mm, built.severity.measurable_px) == (2, 5)
    types = built.type
    assert (types.angle_deg, types.min_length_m) == (10, 0.5)
    assert (built.link.gaps_m, built.network.block_cell_m) == ((0.1,), 0.4)
    assert vars(built.segments) == {
        "min_coverage_pct": 60,
        "rank_by": "zeb_cell_pct",
        "crack_band_m": 0.2,
        "medium_pct": 7,
        "high_pct": 33,
    }
    assert (built.simplify_px, built.min_length_m) == (0, 0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("severity.d6433_mm=[75, 10]", r"severity: d6433_mm is \[75, 10\]; the second must be"),
        ("severity.ltpp_mm=[6]", r"severity\.ltpp_mm"),
        ("type.angle_deg=50", r"type\.angle_deg is 50"),
        ("segments.medium_pct=30", "segments: medium_pct is 30 and high_pct 20"),
        ("network.closing_m=110", "network looks .* cells of cell_m, around a place; give its"),
        ("network.cell_m=0.001", "network looks 21.9 m, 2.19e.04 cells"),
        ("network.max_block_m2=1e308", "network looks"),
        ("link.tries=101", r"link\.tries is 101"),
        ("severity.d6433=[1, 2]", r"did you mean severity\.d6433_mm"),
    ],
)
def test_limits_that_make_no_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(MapRules, overrides=[override])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        *((x, "a date like") for x in ("0", "86400", "'0'", "'0.0'", "1.5", "20240101", "2024")),
        *((x, "a day of the years") for x in ("1899-12-31", "0026-05-01", "9999-12-31")),
    ],
)
def test_a_number_or_a_year_of_another_age_is_no_day_of_a_survey(given: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"^survey_date is .*, but must be {wanted}"):
        load(MapRules, overrides=[f"survey_date={given}"])
    assert str(load(MapRules, overrides=["survey_date=2026-05-01"]).survey_date) == "2026-05-01"


@pytest.mark.parametrize("written", ["pdf", "[pdf]", "pdf,parquet"])
def test_formats_without_the_geopackage_are_refused_with_it(written: str) -> None:
    with pytest.raises(InputError, match=r"give \[gpkg\], or more as in"):
        load(MapRules, overrides=[f"formats={written}"])


def test_every_rule_is_documented_with_its_standard() -> None:
    text = render_defaults(InferJob)
    for standard in ("ASTM D6433", "LTPP", "AASHTO R 85", "23 CFR 490"):
        assert standard in text
    printed = yaml.safe_load(text)
    assert printed["severity"]["d6433_mm"] == [10, 75]


def test_rules_of_the_map_are_no_reason_to_compute_blocks_again() -> None:
    assert {"severity", "type", "segments", "min_length_m", "roads"} <= MAP_KEYS
    assert "threshold" not in MAP_KEYS
