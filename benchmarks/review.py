"""Do the intervals of `wpcrack review` hold the truth as often as they say?

    python -m benchmarks.review --reviews 500 --seed 0

A city is drawn as squares with and without marks, with clustered truth: in which of them the marks
are right, and where a crack was missed. The sample, the strata and the estimators are those of the
command; only the person is drawn. A share of 93 to 97 % of the intervals should hold the truth.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.review.estimate import Stratum, Verdict, precision, recall
from geo.review.places import Places, draw_sample

TYPES = ("longitudinal", "transverse", "diagonal", "unknown", "alligator")
TYPE_SHARES = (0.4, 0.25, 0.15, 0.15, 0.05)
CLUSTER = 24
"""Side in squares of the parts of a city in which one kind of error is more or less common."""


@dataclass(frozen=True)
class City:
    """A drawn map: its size, and how often it is wrong.

    Attributes:
        rows, cols: squares.
        marked: share of the squares with marks.
        wrong: share of marks that are none, where the confidence is low and where it is high.
        missed: share of squares without marks that show a crack, near a marked one and elsewhere.
    """

    rows: int
    cols: int
    marked: float
    wrong: tuple[float, float]
    missed: tuple[float, float]


CITIES = {
    "usual": City(200, 200, 0.1, (0.35, 0.04), (0.03, 0.01)),
    "careful": City(200, 200, 0.1, (0.2, 0.03), (0.08, 0.02)),
    "careless": City(200, 200, 0.15, (0.6, 0.2), (0.03, 0.01)),
    "village": City(70, 70, 0.1, (0.35, 0.04), (0.05, 0.02)),
}


def draw_city(city: City, rng: np.random.Generator) -> tuple[Places, NDArray[np.object_]]:
    """Return the squares of a city and the verdict that a person who is right gives on each."""
    cell = np.indices((city.rows, city.cols)).reshape(2, -1).T.astype(np.int64)
    part = (cell // CLUSTER) @ np.array([1000, 1])
    factor = rng.uniform(0.6, 1.4, part.max() + 1)[part]
    marked = rng.random(len(cell)) < city.marked
    grid = np.pad(marked.reshape(city.rows, city.cols), 2)
    near = np.zeros((city.rows, city.cols), bool)
    for row in range(5):
        for col in range(5):
            near |= grid[row : row + city.rows, col : col + city.cols]
    confidence = np.where(marked, rng.beta(5, 2, len(cell)), np.nan)
    low, high = city.wrong[0], city.wrong[1]
    wrong = np.clip(factor * (low + (high - low) * np.nan_to_num(confidence)), 0, 1)
    missed = factor * np.where(near.ravel(), *city.missed)
    chance = rng.random(len(cell))
    verdict = np.where(marked, np.where(chance < wrong, "reject", "accept"), "accept")
    verdict = np.where(~marked & (chance < missed), "missed", verdict).astype(object)
    some = rng.random(len(cell)) < 0.08
    verdict[marked & some & (verdict == "accept")] = "partly"
    kinds = np.where(marked, rng.choice(TYPES, len(cell), p=TYPE_SHARES), "").astype(object)
    places = Places(
        cell=cell,
        marked=marked,
        confidence=confidence,
        kind=kinds,
        severity=kinds,
        near=near.ravel(),
        side=1.0,
        crs="",
    )
    return places, verdict


def strata_of(
    places: Places, verdict: NDArray[np.object_], index: NDArray[np.int64], names: Mapping[str, int]
) -> list[Stratum]:
    """Return the strata with the verdicts on some places."""
    known, of_place = places.strata
    counts: dict[str, Counter[Verdict]] = {name: Counter() for name in names}
    for number in index:
        counts[known[of_place[number]]][verdict[number]] += 1
    return [
        Stratum(not name.startswith("no crack"), size, dict(counts[name]))
        for name, size in names.items()
    ]


def cover(city: City, reviews: int, seed: int, count: int = 300) -> dict[str, float]:
    """Return how often the intervals of precision and recall hold the truth, and their width."""
    places, verdict = draw_city(city, np.random.default_rng(seed))
    every = draw_sample(places, count, seed).sizes
    whole = strata_of(places, verdict, np.arange(len(places)), every)
    true_precision, true_recall = precision(whole), recall(whole)
    assert true_precision is not None
    assert true_recall is not None
    truth = {"precision": true_precision.value, "recall": true_recall.value}
    hits: Counter[str] = Counter()
    widths: Counter[str] = Counter()
    for number in range(reviews):
        sample = draw_sample(places, count, seed + 1 + number)
        strata = strata_of(places, verdict, sample.index, every)
        for name, share in (("precision", precision(strata)), ("recall", recall(strata, number))):
            assert share is not None
            hits[name] += share.low <= truth[name] <= share.high
            widths[name] += share.high - share.low
    found = {name: hits[name] / reviews for name in truth}
    found |= {f"true_{name}": value for name, value in truth.items()}
    return found | {f"{name}_width": widths[name] / reviews for name in truth}


def main() -> None:
    """Print the shares for each city."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reviews", type=int, default=500)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name, city in CITIES.items():
        shares = cover(city, given.reviews, given.seed, given.count)
        print(name, json.dumps({key: round(value, 3) for key, value in shares.items()}))


if __name__ == "__main__":
    main()
