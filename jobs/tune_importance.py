"""Which settings go with a high score: rank correlation, honest for few trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from jobs.tune_folder import Trial
from jobs.tune_space import Dimension

SHUFFLES = 999
FEWEST = 5
"""Below this many scored trials nothing is said."""
CHANCE = 0.05
"""A setting whose strength is reached by more than this share of shuffles may be chance."""


@dataclass(frozen=True)
class Importance:
    """How a setting goes with the score over the trials of a sweep.

    Attributes:
        key: dotted name.
        strength: of a number |Spearman's rank correlation|; of a choice without an order the
            correlation ratio eta of the score's ranks; both in [0, 1].
        sign: +1 if larger values go with higher scores, -1 if lower, 0 without an order.
        p: share of random shuffles of the scores that reach this strength.
    """

    key: str
    strength: float
    sign: int
    p: float

    @property
    def is_clear(self) -> bool:
        """Unlikely to be chance."""
        return self.p <= CHANCE


def importances(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> list[Importance]:
    """Strongest first; empty for fewer than FEWEST scored trials.

    Trials that were stopped early count with what they had reached.
    """
    scored = [t for t in trials if t.score is not None]
    if len(scored) < FEWEST:
        return []
    ranks = rankdata([t.score for t in scored])
    found = [importance(d.key, [t.params[d.key] for t in scored], ranks) for d in dimensions]
    return sorted(found, key=lambda one: -one.strength)


def importance(key: str, values: Sequence[Any], ranks: NDArray[np.float64]) -> Importance:
    """Of one setting, with a permutation test.

    Args:
        key: of the setting.
        values: (N,) numbers, or anything for a choice without an order.
        ranks: (N,) of the scores.
    """
    rng = np.random.default_rng(0)
    ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    names = [repr(v) for v in values]
    if len(set(names)) < 2:
        return Importance(key, 0.0, 0, 1.0)
    x = rankdata(values) if ordered else np.unique(names, return_inverse=True)[1]
    strength = abs(correlation(x, ranks)) if ordered else eta(x, ranks)
    shuffled = (rng.permutation(ranks) for _ in range(SHUFFLES))
    chance = [abs(correlation(x, r)) if ordered else eta(x, r) for r in shuffled]
    reached = 1 + sum(value >= strength - 1e-12 for value in chance)
    sign = int(np.sign(correlation(x, ranks))) if ordered else 0
    return Importance(key, strength, sign, reached / (SHUFFLES + 1))


def correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Pearson's, of ranks Spearman's; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


def eta(groups: NDArray[Any], y: NDArray[Any]) -> float:
    """Square root of the share of y's variance between groups."""
    total = float(((y - y.mean()) ** 2).sum())
    sizes = np.bincount(groups)
    means = np.bincount(groups, weights=y) / np.maximum(sizes, 1)
    between = float((sizes * (means - y.mean()) ** 2).sum())
    return float(np.sqrt(between / total)) if total else 0.0
