"""Networks of two surveys, compared by area where both were inspected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from geo.arrays import FloatArray, IntArray, Shapes
from geo.compare.options import MatchOptions
from geo.compare.survey import Survey, sums


@dataclass(frozen=True, eq=False)
class AreaChanges:
    """A rows: networks of both surveys that overlap, together.

    Attributes:
        kind: (A,) new, grown, unchanged, shrunk, gone, unsure or not_inspected.
        old_ids, new_ids: (A,) ids of the networks, separated by ;.
        before_m2, after_m2: (A,) area where both surveys looked.
        sd_m2: (A,) standard deviation of after - before.
        shape: (A,) MultiPolygons: of the new survey, or what is gone of the old one.
    """

    kind: NDArray[np.object_]
    old_ids: NDArray[np.object_]
    new_ids: NDArray[np.object_]
    before_m2: FloatArray
    after_m2: FloatArray
    sd_m2: FloatArray
    shape: Shapes


def compare_networks(
    old: Survey, old_shapes: Shapes, new: Survey, both: shapely.Geometry, limits: MatchOptions
) -> AreaChanges:
    """Compare the areas of networks.

    Args:
        old: the old survey.
        old_shapes: its networks, in the new survey's place.
        new: the new survey.
        both: ground that both saw.
        limits: what counts as a change.
    """
    whole = np.concatenate((old_shapes, new.networks))
    split = len(old_shapes)
    is_new = np.arange(len(whole)) >= split
    seen = whole.copy()
    shapely.prepare(both)
    cut = ~shapely.contains_properly(both, whole)
    seen[cut] = shapely.intersection(whole[cut], both)
    group, count = _groups(seen, split)
    area, edge = shapely.area(seen), shapely.length(seen)
    before = sums(group[~is_new], area[~is_new], count)
    after = sums(group[is_new], area[is_new], count)
    # the sum over n independent stretches of an outline, each as long as its noise is the same
    variance = limits.outline_m**2 * limits.outline_correlation_m * edge
    sd = np.sqrt(sums(group, variance, count))
    ids = np.concatenate((old.network_ids, new.network_ids))
    shape = np.empty(count, object)
    names: list[tuple[str, str]] = []
    for index, members in enumerate(_members(group, count)):
        fresh = members[is_new[members]]
        shape[index] = _multi(shapely.union_all(whole[fresh if len(fresh) else members]))
        past = members[~is_new[members]]
        names.append((";".join(map(str, ids[past])), ";".join(map(str, ids[fresh]))))
    texts = np.array(names, object).reshape(-1, 2)
    kind = _kinds(before, after, sd, limits)
    return AreaChanges(kind, texts[:, 0], texts[:, 1], before, after, sd, shape)


def _groups(seen: Shapes, split: int) -> tuple[IntArray, int]:
    """Return number of the group of each network: overlapping ones of different surveys."""
    size = len(seen)
    first, second = shapely.STRtree(seen[split:]).query(seen[:split], predicate="intersects")
    pairs = coo_matrix((np.ones(len(first)), (first, second + split)), (size, size))
    if not size:
        return np.empty(0, np.int64), 0
    count, group = connected_components(pairs, directed=False)
    return group.astype(np.int64), int(count)


def _members(group: IntArray, count: int) -> list[IntArray]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group, minlength=count))[:-1]) if count else []


def _kinds(
    before: FloatArray, after: FloatArray, sd: FloatArray, limits: MatchOptions
) -> NDArray[np.object_]:
    change = after - before
    certain = np.abs(change) > np.maximum(limits.sigmas * sd, limits.min_network_m2)
    kind = np.full(len(change), "unchanged", object)
    kind[certain & (change > 0)] = "grown"
    kind[certain & (change < 0)] = "shrunk"
    one = (before == 0) | (after == 0)
    kind[one] = "unsure"
    kind[one & certain & (before == 0)] = "new"
    kind[one & certain & (after == 0)] = "gone"
    kind[(before == 0) & (after == 0)] = "not_inspected"
    return kind


def _multi(shape: shapely.Geometry) -> shapely.MultiPolygon:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts)
