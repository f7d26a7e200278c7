"""How the old survey has to be moved to lie on the new one, estimated from the cracks.

Per neighborhood a shift and a small rotation. A vote over all pairs of nearby pieces of line finds
the shift roughly; then the distances across the lines are made small, for all neighborhoods at
once: neighbors are tied together, so that one with few cracks, or with cracks of one direction
only, takes from the others what it cannot know itself. Lines that changed do not pull, because
pairs that lie far apart count little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.compare.displacement import Registration, find_cells
from geo.compare.options import RegistrationOptions
from geo.compare.survey import Samples, sums
from geo.errors import InputError

BIN_M = 0.04
"""Of the votes: a fifth of the distance that the fit still pulls in."""
VOTE_SPREAD = 1.25
"""Bins over which votes are spread: what a rotation of .1 degree does within a neighborhood."""
VOTE_STEP = 2
"""Every so many old samples vote."""
NEIGHBORS = 24
"""Pieces of line around one that vote."""
AT_ONCE = 20_000
"""Samples whose pairs are held together."""
CELLS_AT_ONCE = 500
"""Neighborhoods whose votes are spread together."""
ROUNDS_M = (0.2, 0.12, 0.08, 0.06, 0.06)
"""Farthest pairs of each round of the fit."""
AGAIN_M = (0.08, 0.06)
"""The same once mistaken neighborhoods are left out."""
UNKNOWN_M = 0.5
"""Shift to be expected where nothing is known (standard deviation)."""
SMALLEST_NOISE_M = 0.002
MAD = 1.4826
"""Median absolute deviation -> standard deviation."""
BEYOND_SHARE = 0.1
"""Share of the neighborhoods beyond the limit from which surveys are refused; single ones are
left out as mistakes."""
UNSUPPORTED = 1e-9
HOPS = 4
"""Ties over which a neighborhood hears what others know: beyond 100 m a shift says little."""
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def register(old: Samples, new: Samples, options: RegistrationOptions) -> Registration:
    """Estimate how the old survey has to be moved.

    Args:
        old: samples of its cracks, ``options.step_m`` apart.
        new: the same of the new survey.
        options: limits.

    Raises:
        InputError: the surveys are farther apart than the limit.
    """
    cells = _neighborhoods(old, new, options.cell_m)
    kept = _thin(old, cells, options)
    problem = _Problem(cells, old, new, kept, options)
    start = np.zeros((len(cells), 3))
    start[:, :2] = _vote(problem)
    fit = _fit(problem, start, np.ones(len(cells), bool), ROUNDS_M)
    trusted = (fit.support_m >= options.min_support_m) & (fit.share >= options.min_share)
    far = np.hypot(*fit.pose[:, :2].T) > options.limit_m
    _refuse_far(fit, trusted, far, options)
    trusted &= ~far
    fit = _fit(problem, np.where(trusted[:, None], fit.pose, 0.0), trusted, AGAIN_M)
    return _conclude(problem, fit, trusted)


def _neighborhoods(old: Samples, new: Samples, cell_m: float) -> IntArray:
    """Return cells with cracks and the cells around them, sorted."""
    place = np.floor(np.vstack((old.xy, new.xy)) / cell_m).astype(np.int64)
    jump = np.any(np.diff(place, axis=0, prepend=place[:1] - 1) != 0, axis=1)  # most stay
    home = np.unique(place[jump], axis=0)
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    return np.unique((home[:, None] + around).reshape(-1, 2), axis=0)


def _thin(old: Samples, cells: IntArray, options: RegistrationOptions) -> IntArray:
    """Choose samples evenly, at most so many per neighborhood, neighborhood by neighborhood."""
    home, _ = find_cells(cells, np.floor(old.xy / options.cell_m).astype(np.int64))
    order = np.argsort(home, kind="stable")
    count = np.bincount(home, minlength=len(cells))
    rank = np.arange(len(order)) - (np.cumsum(count) - count)[home[order]]
    most = np.minimum(count, options.samples)[home[order]]
    total = count[home[order]]
    chosen = (rank * most) // total != ((rank + 1) * most) // total
    return np.asarray(order[chosen])


class _Problem:
    """Samples of the old survey, where they belong, and the new survey's to be found."""

    def __init__(
        self,
        cells: IntArray,
        old: Samples,
        new: Samples,
        kept: IntArray,
        options: RegistrationOptions,
    ) -> None:
        self.cells = cells
        self.options = options
        self.xy = old.xy[kept]
        self.tangent = old.tangent[kept]
        self.home, _ = find_cells(cells, np.floor(self.xy / options.cell_m).astype(np.int64))
        home, _ = find_cells(cells, np.floor(old.xy / options.cell_m).astype(np.int64))
        total = sums(home, old.length_m, len(cells))
        samples = np.bincount(self.home, minlength=len(cells))
        self.meters = (total / np.maximum(samples, 1))[self.home]
        self.lever = self.xy - (cells[self.home] + 0.5) * options.cell_m
        self.new = new
        self.tree = cKDTree(new.xy, balanced_tree=False) if len(new) else None
        self.cosine = float(np.cos(np.radians(options.angle_deg)))
        self.ties = _ties(cells)

    def move(self, pose: FloatArray) -> FloatArray:
        """Return the samples by the poses (N, 3) of their neighborhoods."""
        turned = np.column_stack((-self.lever[:, 1], self.lever[:, 0]))
        moved: FloatArray = self.xy + pose[self.home, :2] + pose[self.home, 2:] * turned
        return moved


def _ties(cells: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return pairs of adjacent cells and the way from one to the other, in cells."""
    found = []
    for step in ((1, 0), (0, 1)):
        other, there = find_cells(cells, cells + step)
        first = np.flatnonzero(there)
        found.append((first, other[there], np.tile(np.array(step, float), (len(first), 1))))
    first, second, way = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, way


def _vote(problem: _Problem) -> FloatArray:
    """Return the shift (N, 2) that most pairs of nearby, parallel pieces of line agree on.

    A neighborhood hears its neighbors: cracks of one direction do not tell the shift along it.
    """
    options, count = problem.options, len(problem.cells)
    side = round(options.search_m / BIN_M)
    best = np.zeros((count, 2))
    voters = np.arange(0, len(problem.xy), VOTE_STEP)
    if problem.tree is None or not len(voters):
        return best
    heard, place = np.unique(problem.home[voters], return_inverse=True)
    votes = np.zeros((len(heard), 2 * side + 1, 2 * side + 1), np.uint16)
    near = np.arange(1, min(NEIGHBORS, len(problem.new)) + 1)
    for low in range(0, len(voters), AT_ONCE):
        own = voters[low : low + AT_ONCE]
        _, found = problem.tree.query(
            problem.xy[own], k=near, distance_upper_bound=options.search_m
        )
        row, column = np.nonzero(found < len(problem.new))
        other = found[row, column]
        like = np.abs((problem.tangent[own[row]] * problem.new.tangent[other]).sum(axis=1))
        row, other = row[like > problem.cosine], other[like > problem.cosine]
        offset = np.rint((problem.new.xy[other] - problem.xy[own[row]]) / BIN_M).astype(np.int64)
        offset = (offset + side).clip(0, 2 * side)
        np.add.at(votes, (place[low + row], offset[:, 0], offset[:, 1]), np.uint16(1))
    axis = np.arange(-side, side + 1) * BIN_M
    expected = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / UNKNOWN_M**2)
    slot = np.full(count, -1)
    slot[heard] = np.arange(len(heard))
    around = [find_cells(problem.cells, problem.cells[heard] + step) for step in STEPS]
    beside = [np.where(there, slot[other], -1) for other, there in around]
    for low in range(0, len(heard), CELLS_AT_ONCE):
        here = np.arange(low, min(low + CELLS_AT_ONCE, len(heard)))
        pooled = votes[here].astype(np.float32)
        for neighbor in beside:
            known = np.flatnonzero(neighbor[here] >= 0)
            pooled[known] += votes[neighbor[here][known]]
        score = gaussian_filter(pooled, (0, VOTE_SPREAD, VOTE_SPREAD), mode="constant") * expected
        most = score.reshape(len(here), -1).argmax(axis=1)
        found = axis[np.column_stack(np.unravel_index(most, score.shape[1:]))]
        best[heard[here]] = np.where((pooled.max(axis=(1, 2)) > 0)[:, None], found, 0.0)
    return best


@dataclass(frozen=True, eq=False)
class _Fit:
    """Poses (N, 3) with their information (N, 3, 3), the agreeing meters and their share."""

    pose: FloatArray
    information: FloatArray
    support_m: FloatArray
    share: FloatArray
    noise_m: float


def _fit(problem: _Problem, pose: FloatArray, used: BoolArray, rounds_m: tuple[float, ...]) -> _Fit:
    """Make the distances across agreeing lines small, in rounds of nearer pairs."""
    count = len(problem.cells)
    information = np.zeros((count, 3, 3))
    support = share = np.zeros(count)
    noise = rounds_m[0] / 4
    if problem.tree is None or not len(problem.xy):
        return _Fit(np.zeros((count, 3)), information, support, share, noise)
    smooth, _ = _smoothness(problem)
    total = sums(problem.home, problem.meters, count)
    for reach in rounds_m:
        information, pull, support, noise = _equations(problem, pose, used, reach, noise)
        pull += np.einsum("nij,nj->ni", information, pose)
        pose = _solve(smooth, information, pull)
        share = support / np.maximum(total, UNSUPPORTED)
    return _Fit(pose, information, support, share, noise)


def _equations(
    problem: _Problem, pose: FloatArray, used: BoolArray, reach: float, noise: float
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return normal equations (N, 3, 3) and (N, 3) of pairs in reach, their meters and noise."""
    across, normal, paired = _distances(problem, problem.move(pose), reach)
    paired &= used[problem.home]
    if paired.sum() > 10:
        middle = float(np.median(np.abs(across[paired]))) * MAD
        noise = min(max(middle, SMALLEST_NOISE_M), reach / 3)
    weight = np.where(paired, 1 / (1 + (across / (2 * noise)) ** 2), 0.0)
    weight *= (problem.meters / problem.options.correlation_m).clip(max=1.0) / noise**2
    turned = np.column_stack((-problem.lever[:, 1], problem.lever[:, 0]))
    slope = np.column_stack((normal, (normal * turned).sum(axis=1)))
    information, pull = _gather(problem, slope, weight, across)
    support = sums(problem.home, np.where(paired, problem.meters, 0), len(problem.cells))
    return information, pull, support, noise


def _distances(
    problem: _Problem, moved: FloatArray, reach: float
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return each sample's distance across the nearest parallel line, its normal, if any."""
    assert problem.tree is not None
    paired, chosen = np.zeros(len(moved), bool), np.zeros(len(moved), np.int64)
    left = np.arange(len(moved))
    for near in ([1], [2, 3, 4][: len(problem.new) - 1]):  # mostly the nearest is parallel
        if not near or not len(left):
            break
        _, found = problem.tree.query(moved[left], k=near, distance_upper_bound=reach)
        there = found < len(problem.new)
        other = np.where(there, found, 0)
        like = np.einsum("nkd,nd->nk", problem.new.tangent[other], problem.tangent[left])
        there &= np.abs(like) > problem.cosine
        rows, first = np.arange(len(left)), there.argmax(axis=1)
        hit = there[rows, first]
        chosen[left[hit]], paired[left[hit]] = other[rows, first][hit], True
        left = left[~hit & (found[:, 0] < len(problem.new))]
    tangent = problem.new.tangent[chosen]
    normal = np.column_stack((-tangent[:, 1], tangent[:, 0]))
    across = (normal * (problem.new.xy[chosen] - moved)).sum(axis=1)
    return across, normal, paired


def _gather(
    problem: _Problem, slope: FloatArray, weight: FloatArray, across: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return normal equations of each neighborhood: (N, 3, 3) and (N, 3)."""
    count = len(problem.cells)
    information = np.empty((count, 3, 3))
    pull = np.empty((count, 3))
    for i in range(3):
        pull[:, i] = sums(problem.home, weight * slope[:, i] * across, count)
        for j in range(3):
            product = weight * slope[:, i] * slope[:, j]
            information[:, i, j] = sums(problem.home, product, count)
    return information, pull


def _smoothness(problem: _Problem) -> tuple[coo_matrix, FloatArray]:
    """Return what ties neighbors and holds the unknown (3N, 3N), and one tie (T, 6, 6)."""
    options, count = problem.options, len(problem.cells)
    first, second, way = problem.ties
    half = way * options.cell_m / 2
    bend, bend_rad = options.bend_m, np.radians(options.bend_deg)
    rows = np.zeros((len(first), 3, 6))
    rows[:, 0, [0, 3]] = np.array([1.0, -1.0]) / bend
    rows[:, 1, [1, 4]] = np.array([1.0, -1.0]) / bend
    rows[:, 0, 2], rows[:, 0, 5] = -half[:, 1] / bend, -half[:, 1] / bend
    rows[:, 1, 2], rows[:, 1, 5] = half[:, 0] / bend, half[:, 0] / bend
    rows[:, 2, [2, 5]] = np.array([1.0, -1.0]) / bend_rad
    tie = np.einsum("tri,trj->tij", rows, rows)
    places = np.concatenate(
        (first[:, None] * 3 + np.arange(3), second[:, None] * 3 + np.arange(3)), axis=1
    )
    prior = np.tile([UNKNOWN_M**-2, UNKNOWN_M**-2, np.radians(options.rotation_deg) ** -2], count)
    diagonal = np.arange(3 * count)
    matrix = coo_matrix(
        (
            np.concatenate((tie.ravel(), prior)),
            (
                np.concatenate((np.repeat(places, 6, axis=1).ravel(), diagonal)),
                np.concatenate((np.tile(places, (1, 6)).ravel(), diagonal)),
            ),
        ),
        shape=(3 * count, 3 * count),
    )
    return matrix, tie


def _solve(smooth: coo_matrix, information: FloatArray, pull: FloatArray) -> FloatArray:
    count = len(information)
    base = 3 * np.arange(count)[:, None, None]
    rows = np.broadcast_to(base + np.arange(3)[:, None], information.shape)
    columns = np.broadcast_to(base + np.arange(3), information.shape)
    data = coo_matrix((information.ravel(), (rows.ravel(), columns.ravel())), smooth.shape)
    return np.asarray(spsolve((smooth + data).tocsc(), pull.ravel())).reshape(count, 3)


def _refuse_far(
    fit: _Fit, trusted: BoolArray, far: BoolArray, options: RegistrationOptions
) -> None:
    apart = trusted & far
    if apart.sum() > BEYOND_SHARE * trusted.sum():
        shift = float(np.median(np.hypot(*fit.pose[apart, :2].T)))
        raise InputError(
            f"the surveys lie {shift:.2f} m apart in {apart.sum()} of {trusted.sum()} "
            f"neighborhoods, more than {options.limit_m:g} m; place the imagery of one of them anew"
        )


def _conclude(problem: _Problem, fit: _Fit, trusted: BoolArray) -> Registration:
    """State how sure each neighborhood is by its own lines and by what its neighbors know."""
    options = problem.options
    weak = np.diag([UNKNOWN_M**-2, UNKNOWN_M**-2, np.radians(options.rotation_deg) ** -2])
    own = fit.information + weak
    _, tie = _smoothness(problem)
    first, second, _ = problem.ties
    forth = np.zeros((len(first), 3, 3))
    back = np.zeros_like(forth)
    for _ in range(HOPS):
        known = _heard(own, problem.ties, forth, back)
        forth, back = (
            _pass_on(tie, known[first] - back, forward=True),
            _pass_on(tie, known[second] - forth, forward=False),
        )
    known = _heard(own, problem.ties, forth, back)
    spread = np.linalg.inv(known)
    sd = np.sqrt((spread[:, 0, 0] + spread[:, 1, 1]) / 2)
    source = np.where(trusted, "own", np.where(sd <= options.certain_m, "neighbors", "none"))
    return Registration(
        cell=problem.cells,
        cell_m=options.cell_m,
        shift_m=fit.pose[:, :2],
        rotation_rad=fit.pose[:, 2],
        sd_m=sd,
        support_m=np.where(trusted, fit.support_m, 0.0),
        source=source.astype(object),
        residual_m=fit.noise_m,
    )


def _heard(
    own: FloatArray,
    ties: tuple[IntArray, IntArray, FloatArray],
    forth: FloatArray,
    back: FloatArray,
) -> FloatArray:
    """Return what each neighborhood knows with what came over its ties."""
    first, second, _ = ties
    known = own.copy()
    np.add.at(known, second, forth)
    np.add.at(known, first, back)
    return known


def _pass_on(tie: FloatArray, known: FloatArray, *, forward: bool) -> FloatArray:
    """Return what a neighborhood learns over a tie: the Schur complement of the one that knows."""
    there, here = (slice(0, 3), slice(3, 6)) if forward else (slice(3, 6), slice(0, 3))
    inner = tie[:, there, there] + known
    cross = tie[:, here, there]
    return np.asarray(tie[:, here, here] - cross @ np.linalg.solve(inner, np.swapaxes(cross, 1, 2)))
