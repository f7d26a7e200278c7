"""Two surveys -> what changed, in meters of line and square meters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray, IntArray, Shapes
from geo.compare.areas import AreaChanges, compare_networks
from geo.compare.displacement import Registration
from geo.compare.matching import Other, State, beside, match
from geo.compare.options import CompareOptions, MatchOptions
from geo.compare.registration import register
from geo.compare.stretches import Ends, RowLines, Stretches, stretches
from geo.compare.survey import Samples, Survey, sample_lines, sums
from geo.errors import InputError
from geo.layers.words import CLASS_WORDS

KINDS = tuple(CLASS_WORDS["change"])
"""What a row can be, worst first."""

MM = 1000.0


@dataclass(frozen=True, eq=False)
class LineChanges:
    """R rows: stretches of cracks in one state.

    Meters before add up to the cracks of the old survey, meters after to those of the new one.

    Attributes:
        kind: (R,) of `KINDS`.
        old, new: (R,) crack of each survey, -1 for none.
        before_m, after_m: (R,) of the stretch in each survey, with the gaps inside.
        sd_m: (R,) standard deviation of after - before.
        width_mm: (R, 2) mean widths before and after, nan where not measured or not there.
        width_sd_mm: (R,) standard deviation of their difference.
        lines: (R,) in the new survey's place.
    """

    kind: NDArray[np.object_]
    old: IntArray
    new: IntArray
    before_m: FloatArray
    after_m: FloatArray
    sd_m: FloatArray
    width_mm: FloatArray
    width_sd_mm: FloatArray
    lines: RowLines

    def meters(self, kind: str) -> float:
        """Return meters of a kind, in the survey that has more of it."""
        own = self.kind == kind
        return float(np.maximum(self.before_m, self.after_m)[own].sum())

    @property
    def growth_m(self) -> FloatArray:
        """(R,) meters that came (or, below 0, went); 0 for what did not change in length."""
        changed = np.isin(self.kind, ["new", "grown", "shrunk", "gone"])
        return np.where(changed, self.after_m - self.before_m, 0.0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two surveys compared.

    Attributes:
        registration: how the old one was moved.
        lines, areas: what changed.
        both: ground that both surveys saw.
        tolerance_m: median distance up to which lines were the same.
    """

    registration: Registration
    lines: LineChanges
    areas: AreaChanges
    both: shapely.Geometry
    tolerance_m: float


def align(old: Survey, new: Survey, options: CompareOptions) -> Registration:
    """Estimate how the old survey has to be moved.

    Args:
        old: the earlier one, in meters.
        new: the later one, in the same coordinate system.
        options: limits.

    Raises:
        InputError: they have no ground in common, or lie too far apart.
    """
    if not shapely.intersects(old.inspected, new.inspected):
        raise InputError(
            "the two maps have no inspected ground in common; compare surveys of the same roads"
        )
    step_m = options.registration.step_m
    return register(
        sample_lines(old.cracks, step_m), sample_lines(new.cracks, step_m), options.registration
    )


@dataclass(frozen=True, eq=False)
class Aligned:
    """Cracks of two surveys, cut into small pieces, where the new one has them.

    Attributes:
        registration: how the old one was moved.
        before, after: pieces of the old and the new survey, N and M.
        sd_before_m, sd_after_m: (N,), (M,) standard deviation of the shift there.
    """

    registration: Registration
    before: Samples
    after: Samples
    sd_before_m: FloatArray
    sd_after_m: FloatArray

    @classmethod
    def of(
        cls, old: Survey, new: Survey, registration: Registration, options: CompareOptions
    ) -> Aligned:
        """Cut the cracks of two surveys and move those of the old one."""
        before = sample_lines(old.cracks, options.match.step_m)
        sd_before = registration.sd_at(before.xy)
        before = before.move(registration.shift_at(before.xy))
        after = sample_lines(new.cracks, options.match.step_m)
        return cls(registration, before, after, sd_before, registration.sd_at(after.xy))


def compare(old: Survey, new: Survey, options: CompareOptions) -> Comparison:
    """Compare two surveys: `align`, `Aligned.of` and `changes`, of which each needs less at a time.

    Args:
        old: the earlier one, in meters.
        new: the later one, in the same coordinate system.
        options: limits.

    Raises:
        InputError: as `align` does.
    """
    aligned = Aligned.of(old, new, align(old, new, options), options)
    return changes(old, new, aligned, options)


def changes(old: Survey, new: Survey, aligned: Aligned, options: CompareOptions) -> Comparison:
    """Find what changed between two surveys, of which the lines are not needed any more."""
    limits, registration = options.match, aligned.registration
    seen = shapely.intersection(registration.warped_one(old.inspected), new.inspected)
    both = shapely.buffer(seen, -limits.edge_m, join_style="mitre")
    noise_m = max(
        limits.position_px * float(np.hypot(old.gsd_m, new.gsd_m)), registration.residual_m
    )
    networks = registration.warp(old.networks)
    shapely.prepare(both)
    before, after = aligned.before, aligned.after
    sides = [
        _Side(before, aligned.sd_before_m, Other(after, both, _union(new.networks))),
        _Side(after, aligned.sd_after_m, Other(before, both, _union(networks))),
    ]
    tip_m = limits.tip_px * float(np.hypot(old.gsd_m, new.gsd_m))
    (first, second), tolerance_m = _halves(sides, noise_m, tip_m, limits)
    lines = _rows(*_judged_together(first, second, limits), old, new, limits)
    areas = compare_networks(old, networks, new, both, limits)
    return Comparison(registration, lines, areas, both, tolerance_m)


@dataclass(frozen=True, eq=False)
class _Side:
    """Samples (N,) of one survey, the deviation of their places, and what the other one has."""

    own: Samples
    sd_m: FloatArray
    other: Other


def _halves(
    sides: Sequence[_Side], noise_m: float, tip_m: float, limits: MatchOptions
) -> tuple[list[_Half], float]:
    """Name the runs of both surveys; and the median distance up to which lines are the same."""
    tolerances = [_tolerance(side.sd_m, noise_m, limits) for side in sides]
    near = [
        beside(side.own, tolerance, side.other.samples, limits)
        for side, tolerance in zip(sides, tolerances, strict=True)
    ]
    together = np.concatenate(tolerances)
    median_m = float(np.median(together)) if len(together) else 0.0
    del tolerances, together  # of a million samples each
    halves = []
    for number, (side, forth, back) in enumerate(zip(sides, near, reversed(near), strict=True)):
        labels = match(side.own, forth, back, side.other, limits)
        ends = Ends.of(side.own, forth, side.other.samples)
        found = stretches(side.own, labels, ends, limits)
        halves.append(_half(side, found, tip_m, limits, is_new=bool(number)))
    return halves, median_m


def _tolerance(sd_m: FloatArray, noise_m: float, limits: MatchOptions) -> FloatArray:
    """Return (N,) how far beside each piece the same line may lie."""
    wide = limits.sigmas * np.hypot(sd_m, noise_m)
    return np.asarray(wide.clip(limits.min_tolerance_m, limits.max_tolerance_m))


def _union(networks: Shapes) -> shapely.Geometry | None:
    if not len(networks):
        return None
    union = shapely.union_all(networks)
    shapely.prepare(union)
    return union


@dataclass(frozen=True, eq=False)
class _Half:
    """The R runs of one survey: kind, own and other crack, meters, their deviation."""

    own: Samples
    stretches: Stretches
    kind: NDArray[np.object_]
    crack: IntArray
    partner: IntArray
    length_m: FloatArray
    sd_m: FloatArray


def _half(
    side: _Side, found: Stretches, tip_m: float, limits: MatchOptions, *, is_new: bool
) -> _Half:
    """Name the runs of one survey."""
    runs = found.runs
    alone = runs.state == State.ALONE
    length = _with_gaps(found) + found.shift_m
    # an end is shifted by the registration too; a whole crack has two ends of its own
    deviation = np.sqrt(found.ends) * np.hypot(tip_m, side.sd_m[runs.first])
    kind = np.full(len(length), "unchanged", object)
    longer = alone & found.attached & (length > limits.sigmas * deviation)
    kind[longer] = "grown" if is_new else "shrunk"
    lonely = alone & ~found.attached
    kind[lonely] = np.where(
        length[lonely] >= limits.min_crack_m, "new" if is_new else "gone", "unsure"
    )
    kind[runs.state == State.UNSEEN] = "not_inspected"
    kind[runs.state == State.IN_NETWORK] = "in_network"
    deviation = np.where(kind == "unsure", length, deviation)
    return _Half(side.own, found, kind, runs.crack, found.partner, length, deviation)


def _judged_together(before: _Half, after: _Half, limits: MatchOptions) -> tuple[_Half, _Half]:
    """Name ends that are no change each by itself, but all those of a crack together.

    What came at the ends of a crack less what went has the deviation of them all: two ends that
    grew by two deviations each are a growth of 2.8.
    """
    halves = before, after
    split = len(before.kind)
    small = np.concatenate([h.stretches.attached & (h.kind == "unchanged") for h in halves])
    small = np.flatnonzero(small)
    if not len(small):
        return before, after
    old_crack = np.concatenate((before.crack, after.partner))[small]
    new_crack = np.concatenate((before.partner, after.crack))[small]
    pair = np.unique(old_crack * (new_crack.max() + 1) + new_crack, return_inverse=True)[1]
    count = int(pair.max()) + 1
    net = sums(pair, np.concatenate((-before.length_m, after.length_m))[small], count)
    variance = sums(pair, np.concatenate((before.sd_m, after.sd_m))[small] ** 2, count)
    net[np.abs(net) <= limits.sigmas * np.sqrt(variance)] = 0.0
    kinds = [half.kind.copy() for half in halves]
    kinds[0][small[(small < split) & (net[pair] < 0)]] = "shrunk"
    kinds[1][small[(small >= split) & (net[pair] > 0)] - split] = "grown"
    return replace(before, kind=kinds[0]), replace(after, kind=kinds[1])


def _with_gaps(found: Stretches) -> FloatArray:
    """Add to each run the gap beside it: of a match and a lonely run, the lonely one has it."""
    runs = found.runs
    length = runs.length_m.copy()
    alone = runs.state == State.ALONE
    following = np.append(alone[1:], False) & ~alone & ~runs.ends
    length += np.where(following, 0.0, runs.after_m)
    length[1:] += np.where(following, runs.after_m, 0.0)[:-1]
    return length


def _rows(
    before: _Half, after: _Half, old: Survey, new: Survey, limits: MatchOptions
) -> LineChanges:
    """Put runs of one kind and one pair of cracks together, from both surveys."""
    codes = {name: code for code, name in enumerate(KINDS)}
    kind = np.concatenate([[codes[name] for name in half.kind] for half in (before, after)])
    kind = kind.astype(np.int64)
    old_crack = np.concatenate((before.crack, after.partner))
    new_crack = np.concatenate((before.partner, after.crack))
    split = len(before.kind)
    table = np.column_stack((kind, old_crack, new_crack))
    unique, row = np.unique(table, axis=0, return_inverse=True)
    row = row.reshape(-1)
    count = len(unique)
    before_m = sums(row[:split], before.length_m, count)
    after_m = sums(row[split:], after.length_m, count)
    variance = np.concatenate((before.sd_m, after.sd_m)) ** 2
    sd_m = np.sqrt(sums(row, variance, count))
    names = np.array(KINDS, object)[unique[:, 0]]
    widths = np.column_stack(
        (_of(old.width_mm, unique[:, 1]), _of(new.width_mm, unique[:, 2]))
    ).reshape(-1, 2)
    width_sd = limits.width_px * MM * float(np.hypot(old.gsd_m, new.gsd_m))
    comparable = names == "unchanged"
    comparable &= _of(_matched_share(before, len(old)), unique[:, 1]) >= limits.width_share
    comparable &= _of(_matched_share(after, len(new)), unique[:, 2]) >= limits.width_share
    wider = np.diff(widths, axis=1)[:, 0]
    names[comparable & (wider > limits.sigmas * width_sd)] = "widened"
    names[comparable & (wider < -limits.sigmas * width_sd)] = "narrowed"
    return LineChanges(
        kind=names,
        old=unique[:, 1],
        new=unique[:, 2],
        before_m=before_m,
        after_m=after_m,
        sd_m=sd_m,
        width_mm=widths,
        width_sd_mm=np.where(np.isnan(wider), np.nan, width_sd),
        lines=_lines(before, after, row, count),
    )


def _of(values: FloatArray, index: IntArray) -> FloatArray:
    """Return values by index; nan where the index is -1."""
    return np.append(values, np.nan)[index]


def _matched_share(half: _Half, count: int) -> FloatArray:
    """Return (count,) share of each crack that the other survey has too."""
    matched = half.stretches.runs.state == State.MATCHED
    total = sums(half.crack, half.length_m, count)
    part = sums(half.crack, np.where(matched, half.length_m, 0.0), count)
    return np.divide(part, total, out=np.zeros(count), where=total > 0)


def _lines(before: _Half, after: _Half, row: IntArray, count: int) -> RowLines:
    """Return the lines of each row, of the new survey where it has some."""
    split = len(before.kind)
    in_new: BoolArray = np.bincount(row[split:], minlength=count) > 0
    groups = []
    for half, rows, taken in (
        (after, row[split:], np.ones(len(row) - split, bool)),
        (before, row[:split], ~in_new[row[:split]]),
    ):
        chosen = np.flatnonzero(taken)
        chosen = chosen[np.argsort(rows[chosen], kind="stable")]
        groups.append((half.own, half.stretches.runs, chosen, rows[chosen]))
    return RowLines(tuple(groups), count)
