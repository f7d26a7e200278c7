"""Precision and recall from verdicts: what the estimators are, and that their intervals hold."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.review import CITIES, cover
from geo.review.estimate import Accuracy, Share, Stratum, precision, recall, wilson


def test_estimates_weigh_each_stratum_by_its_places():
    strata = [
        Stratum(True, 100, {"accept": 8, "reject": 2}),
        Stratum(True, 300, {"accept": 4, "partly": 2, "reject": 4}),
        Stratum(False, 1000, {"accept": 19, "missed": 1}),
    ]
    right, lacking = 100 * 0.8 + 300 * 0.5, 1000 * 0.05
    found, seen = precision(strata), recall(strata)
    assert found is not None
    assert seen is not None
    assert found.value == pytest.approx(right / 400)
    assert seen.value == pytest.approx(right / (right + lacking))
    assert found.low < found.value < found.high
    assert seen.low < seen.value < seen.high


def test_a_map_that_was_judged_everywhere_has_no_interval():
    found = precision([Stratum(True, 10, {"accept": 9, "reject": 1})])
    assert found == Share(0.9, 0.9, 0.9)


def test_verdicts_of_one_kind_still_leave_room_for_doubt():
    found = precision([Stratum(True, 1000, {"accept": 20})])
    assert found is not None
    assert found.value == 1
    assert found.low == pytest.approx(wilson(1.0, 20).low)
    assert found.low < 0.9


def test_nothing_is_said_of_what_nobody_judged():
    unmarked = Stratum(False, 10, {"accept": 3})
    assert precision([unmarked, Stratum(True, 10, {})]) is None
    assert recall([unmarked]) is None


def test_an_accuracy_survives_json():
    share = Share(0.5, 0.25, 0.75)
    accuracy = Accuracy(share, None, 3, 4, 5, {"transverse": share}, {})
    assert Accuracy.of_values(accuracy.values()) == accuracy


def test_intervals_cover_the_truth_of_a_drawn_city():
    """One city of the benchmark and fewer reviews: 95 % within the chance of 200 of them."""
    shares = cover(CITIES["usual"], reviews=200, seed=1)
    for name in ("precision", "recall"):
        assert 0.91 <= shares[name] <= 0.99, shares
    assert np.isfinite(list(shares.values())).all()
