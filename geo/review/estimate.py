"""Verdicts on a stratified sample of places -> precision and recall of a map, with intervals.

Let stratum h hold N_h places of which n_h were judged, r be the share of a place's marks that is
right, and m the crack that a place lacks. The stratified (Horvitz-Thompson) estimators are

    TP = sum N_h mean_h(r),  FN = sum N_h mean_h(m),  precision = TP / places with marks,
    recall = TP / (TP + FN).

Interval of the precision: Wilson's (1927) at the effective size of the sample, p (1 - p) / var(p),
as Korn and Graubard (1998) and Dean and Pagano (2015) do for surveys; var(p) has the finite
population correction. As in the former it is at most that of a sample of as many places without
strata: large strata in which nothing wrong was seen add nothing to var(p), however few of their
places were judged. Recall is a ratio of a common and a rare thing, for which normal intervals
fail: per stratum the shares of the verdicts are drawn from their posterior with Jeffreys' prior,
the places that nobody judged from these shares, and the interval is that of 95 % of the recalls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geo.arrays import FloatArray

Verdict = Literal["accept", "partly", "reject", "missed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

Z95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 %."""

DRAWS = 4000
"""From the posterior: the ends of the interval are exact to a hundredth of its width."""

JEFFREYS = 0.5
"""Weight of the prior of each outcome."""

RIGHT: Mapping[Verdict, float] = {"accept": 1.0, "partly": 0.5, "reject": 0.0, "missed": 1.0}
"""Share of a place's marks that is right: where only a part is, half."""

LACKING: Mapping[Verdict, float] = {"accept": 0.0, "partly": 0.0, "reject": 0.0, "missed": 0.5}
"""Crack that a place with marks lacks, in places: where more is marked rightly, half of one."""

ESTIMATOR = (
    "stratified estimate by places; precision: Wilson interval at the effective sample size; "
    "recall: 95 % of the posterior with Jeffreys' prior; partly right and partly missed count half"
)


@dataclass(frozen=True)
class Stratum:
    """Places of a kind.

    Attributes:
        marked: whether the map has a crack there.
        size: number of places.
        counts: judged places by verdict; of places without marks only accept and missed.
    """

    marked: bool
    size: int
    counts: Mapping[Verdict, int]

    @property
    def judged(self) -> int:
        """Number of judged places."""
        return sum(self.counts.values())

    def right(self) -> FloatArray:
        """Return the share of the marks that is right, by verdict."""
        return np.array([RIGHT[v] if self.marked else 0.0 for v in VERDICTS])

    def lacking(self) -> FloatArray:
        """Return how much crack is lacking, by verdict."""
        whole = {"missed": 1.0}
        return np.array([LACKING[v] if self.marked else whole.get(v, 0.0) for v in VERDICTS])

    def numbers(self) -> NDArray[np.int64]:
        """Return judged places in the order of the verdicts."""
        return np.array([self.counts.get(v, 0) for v in VERDICTS], np.int64)

    def outcomes(self) -> NDArray[np.bool_]:
        """Return which verdicts the prior takes as possible: two, and others that were given."""
        usual = ("accept", "reject") if self.marked else ("accept", "missed")
        return np.array([v in usual for v in VERDICTS]) | (self.numbers() > 0)


@dataclass(frozen=True)
class Share:
    """An estimate with its 95 % interval, each in [0, 1]."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """Return it in percent.

        >>> Share(0.92, 0.87, 0.954).text()
        '92 % (87 - 95 %)'
        """
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} - {100 * self.high:.0f} %)"


@dataclass(frozen=True)
class Accuracy:
    """What a review says of a map.

    Attributes:
        precision, recall: None where nothing was judged that could tell.
        judged: places with a verdict.
        marked, unmarked: places that the map has, with marks and without.
        by_type, by_severity: precision, by the class of the longest crack of a place.
    """

    precision: Share | None
    recall: Share | None
    judged: int
    marked: int
    unmarked: int
    by_type: Mapping[str, Share]
    by_severity: Mapping[str, Share]
    estimator: str = ESTIMATOR

    def values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Accuracy:
        """Undo `values`.

        Raises:
            LookupError, TypeError, AttributeError: these are no such values.
        """

        def share(value: Mapping[str, float] | None) -> Share | None:
            return None if value is None else Share(**value)

        def shares(group: Mapping[str, Mapping[str, float]]) -> dict[str, Share]:
            return {name: Share(**value) for name, value in group.items()}

        return cls(
            precision=share(values["precision"]),
            recall=share(values["recall"]),
            judged=int(values["judged"]),
            marked=int(values["marked"]),
            unmarked=int(values["unmarked"]),
            by_type=shares(values["by_type"]),
            by_severity=shares(values["by_severity"]),
            estimator=str(values["estimator"]),
        )

    def text(self) -> str:
        """Return one sentence."""
        if self.precision is None:
            return "No place with marks was judged, so the precision is not known."
        recall = "recall not known" if self.recall is None else f"recall {self.recall.text()}"
        return (
            f"Judged by people at {self.judged} places: precision {self.precision.text()}, "
            f"{recall}; in parentheses 95 % intervals."
        )


def precision(strata: Sequence[Stratum]) -> Share | None:
    """Estimate the share of marked places that is right.

    Args:
        strata: those without marks do not count. One of which nothing was judged is left out.

    Returns:
        None if nothing was judged.
    """
    judged = [s for s in strata if s.marked and s.judged]
    if not judged:
        return None
    total = sum(s.size for s in judged)
    value = variance = 0.0
    for s in judged:
        share, counts, weight = s.right(), s.numbers(), s.size / total
        mean = float(counts @ share) / s.judged
        value += weight * mean
        spread = float(counts @ (share - mean) ** 2) / max(s.judged - 1, 1)
        variance += weight**2 * spread / s.judged * (s.size - s.judged) / s.size
    count = sum(s.judged for s in judged)
    if all(s.judged == s.size for s in judged):
        return Share(value, value, value)
    if variance == 0 or not 0 < value < 1:
        return wilson(value, float(count))
    alike = count * total / (total - count)
    return wilson(value, min(value * (1 - value) / variance, alike))


def wilson(value: float, size: float) -> Share:
    """Return a share with Wilson's interval.

    Args:
        value: the share, in [0, 1].
        size: of the sample, > 0.
    """
    z2 = Z95**2 / size
    middle = (value + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (value * (1 - value) + z2 / 4)) / (1 + z2)
    return Share(value, max(0.0, middle - half), min(1.0, middle + half))


def recall(strata: Sequence[Stratum], seed: int = 0) -> Share | None:
    """Estimate the share of the places with a crack that the map has.

    Returns:
        None if no place with marks, or none without, was judged.
    """
    judged = [s for s in strata if s.judged]
    if len({s.marked for s in judged}) < 2:
        return None
    rng = np.random.default_rng(seed)
    found, lacking = np.zeros(DRAWS), np.zeros(DRAWS)
    right = lack = 0.0
    for s in judged:
        counts, weight = s.numbers(), s.size / s.judged
        right += weight * float(counts @ s.right())
        lack += weight * float(counts @ s.lacking())
        possible = s.outcomes()
        shares = np.zeros((DRAWS, len(VERDICTS)))
        shares[:, possible] = rng.dirichlet(counts[possible] + JEFFREYS, DRAWS)
        unseen = rng.multinomial(max(s.size - s.judged, 0), shares)
        found += (counts + unseen) @ s.right()
        lacking += (counts + unseen) @ s.lacking()
    if right + lack == 0:
        return None
    low, high = np.quantile(found / np.maximum(found + lacking, 1e-9), (0.025, 0.975))
    value = right / (right + lack)
    return Share(value, min(value, float(low)), max(value, float(high)))
