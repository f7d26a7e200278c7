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


def test_strata_without_a_wrong_place_do_not_narrow_the_interval():
    """Twenty of a thousand places say little, also where only a small stratum has wrong ones."""
    good = Stratum(True, 900, {"accept": 20})
    found = precision([good, Stratum(True, 20, {"accept": 4, "reject": 4})])
    assert found is not None
    alike = wilson(found.value, 28 / (1 - 28 / 920))
    assert (found.low, found.high) == pytest.approx((alike.low, alike.high))


@pytest.mark.parametrize("count", [60, 300])
def test_intervals_hold_where_large_strata_are_good_and_small_ones_bad(count):
    strata = [(1000, 0.99), (1000, 0.985), (1000, 0.97), (20, 0.5), (20, 0.6)]
    right = [round(size * share) for size, share in strata]
    wrong = [size - some for (size, _), some in zip(strata, right, strict=True)]
    truth = sum(right) / sum(size for size, _ in strata)
    judged = [min(size, max(8, count // 2 * size // 3040)) for size, _ in strata]
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        accepted = rng.hypergeometric(right, wrong, judged)
        found = precision(
            [
                Stratum(True, size, {"accept": int(k), "reject": n - int(k)})
                for (size, _), k, n in zip(strata, accepted, judged, strict=True)
            ]
        )
        held += found.low <= truth <= found.high
    assert held > 930


def test_nothing_is_said_of_what_nobody_judged():
    unmarked = Stratum(False, 10, {"accept": 3})
    assert precision([unmarked, Stratum(True, 10, {})]) is None
    assert recall([unmarked]) is None


def test_an_accuracy_survives_json():
    share = Share(0.5, 0.25, 0.75)
    accuracy = Accuracy(share, None, 3, 4, 5, {"transverse": share}, {})
    assert Accuracy.of_values(accuracy.values()) == accuracy


def test_intervals_cover_the_truth_of_a_drawn_city():
    """One city of the benchmark and fewer reviews: 95 % within the chance of 100 of them."""
    shares = cover(CITIES["usual"], reviews=100, seed=1)
    for name in ("precision", "recall"):
        assert 0.91 <= shares[name] <= 0.99, shares
    assert np.isfinite(list(shares.values())).all()
