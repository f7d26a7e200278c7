"""Width of cracks from the imagery: how much light they take, as sums along their centerlines.

A mask says where a crack is and not how wide: networks draw thin cracks some pixels too wide. The
imagery says more. Across a crack of width w that takes a share d of the light (its depth), the
loss of light adds up to w * d, whatever the camera's blur and the pixels do to its shape. At its
darkest the loss is d only if the crack is wide enough for the pixels, and d * p(w) in general,
where p is the peak of a slit of that width seen through the blur. So each place on a centerline
tells two things, loss and peak, from which depth and width follow where the crack is wide; where
it is thin, the depth of the places beside it and the usual depth of cracks decide.

All that is kept of a branch are sums along it. They add up over the branches of a crack, and a
crack's depth is known better than that of each branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from geo.arrays import Float32, FloatArray, IntArray
from geo.cracks.branches import UM, BranchSet
from geo.cracks.light import Pixels

POINTS_AT_ONCE = 20_000
"""Places on centerlines whose profiles are held at once: some 40 MB."""

OFFSET_PX = 0.5
"""Distance of the samples across a crack."""

STEP_PX = 2.0
"""Distance of the places along a centerline."""

LEAST_WINDOW_PX = 2.0
"""Half of the window in which loss is summed: a crack of two pixels and its blur."""

WINDOW_SHARE = 0.75
"""The window grows while loss / peak, which is about the width, is more than this share of it."""

CORE_SHARE = 0.9
"""The middle of a crack is that of the samples which lose this share of the most."""

LEAST_PEAK = 0.05
"""Below it a peak is texture, and says nothing about the width."""

SMOOTHED_PX = 3
"""How far a smoothed centerline may lie outside the mask."""

_SLITS = np.linspace(0.0, 20.0, 801)
"""Widths in pixels for which the peak is tabled; the last one holds for wider cracks."""

DEPTHS = np.exp(np.linspace(math.log(0.15), math.log(1.0), 40))
"""Depths that are tried for each branch."""


@dataclass(frozen=True)
class WidthOptions:
    """How widths are read from the imagery; calibrated on drawn streets.

    Attributes:
        blur_px: deviation of the blur of the whole way from the ground to a sample: optics, pixel,
            interpolation, and the place of the centerline.
        depth: usual share of the light that a crack takes.
        depth_spread: deviation of its logarithm among cracks.
        peak_noise: deviation of a peak from the model: texture, and cracks that are no slits.
        run_px: peaks and losses are averaged along so much of a line, and count once.
        side_px: width of the strip on either side that gives the light beside a crack.
        guard_px: distance of that strip from the border of the mask.
        light_px: length along the line over which that light is averaged.
        node_px: places so near to a junction show the other branches, too, and are left out.
        widest_px: where the mask is wider, its own width is taken: that is right to a few percent
            there, and the light beside a crack so wide is far from it.
    """

    blur_px: float = 0.75
    depth: float = 0.62
    depth_spread: float = 0.17
    peak_noise: float = 0.07
    run_px: float = 10.0
    side_px: float = 4.0
    guard_px: float = 1.5
    light_px: float = 14.0
    node_px: float = 3.0
    widest_px: float = 32.0

    @property
    def reach_px(self) -> int:
        """How far from the mask's pixels the imagery is looked at, at most.

        A centerline may run beside the mask where it is smoothed across a bay; samples lie
        between the centers of pixels.
        """
        return math.ceil(self.widest_px / 2 + self.guard_px + self.side_px + SMOOTHED_PX + 1)


@dataclass(frozen=True, eq=False)
class WidthSums:
    """Sums along branches, (N,) each; those of several branches add up to those of a crack.

    Attributes:
        length_px: of the line that was seen.
        loss_px2: loss of light across the line, summed along it.
        weight, weighted_depth: how much is known of the logarithm of the depth, and its value
            times that.
        most_px: largest loss of any run on it, pixels. A maximum.
    """

    length_px: FloatArray
    loss_px2: FloatArray
    weight: FloatArray
    weighted_depth: FloatArray
    most_px: FloatArray

    def __len__(self) -> int:
        """Return number of branches."""
        return len(self.length_px)

    def group(self, owner: IntArray, count: int) -> WidthSums:
        """Return sums of groups of branches.

        Args:
            owner: (N,) group of each branch.
            count: number of groups.
        """
        most = np.zeros(count)
        np.maximum.at(most, owner, self.most_px)
        return WidthSums(
            _sums(self.length_px, owner, count),
            _sums(self.loss_px2, owner, count),
            _sums(self.weight, owner, count),
            _sums(self.weighted_depth, owner, count),
            most,
        )


def _sums(values: FloatArray, owner: IntArray, count: int) -> FloatArray:
    return np.asarray(np.bincount(owner, values, count), np.float64)


def width_sums(
    pixels: Pixels,
    branches: BranchSet,
    mask_width_px: FloatArray,
    options: WidthOptions,
    aspect: tuple[float, float] = (1.0, 1.0),
) -> WidthSums:
    """Look at the imagery across each branch.

    Args:
        pixels: the imagery, `WidthOptions.reach_px` beyond the mask.
        branches: N centerlines, x = col and y = row in the mosaic, of whole pieces: for the
            junctions. A pixel is what is a meter elsewhere.
        mask_width_px: (N,) mean width of the mask along each.
        options: see `WidthOptions`.
        aspect: width and height of a pixel as parts of the side of a square of its area.
    """
    found = np.zeros((len(fields(WidthSums)), len(branches)))
    wide = mask_width_px > options.widest_px
    half = np.maximum(np.ceil(mask_width_px / 2), 1).astype(np.int64)
    for size in np.unique(half[~wide]).tolist():
        members = np.flatnonzero((half == size) & ~wide)
        for chunk in _chunks(branches.lengths[members]):
            places = _Places.along(branches, members[chunk], options, np.array(aspect))
            loss = _losses(pixels, places, size, options)
            found[:, members[chunk]] = _sum(places, loss, options)
    length, dark = branches.lengths[wide] / UM, mask_width_px[wide] * options.depth
    found[:, wide] = length, dark * length, 0 * length, 0 * length, dark
    return WidthSums(*found)


def widths_mm(sums: WidthSums, depth: FloatArray, pixel_mm: float) -> FloatArray:
    """Return (N,) mean width of branches or cracks: loss of light / depth; nan where none was seen.

    Args:
        sums: of N branches or cracks.
        depth: (N,) share of the light that each takes, see `depths`.
        pixel_mm: size of the pixels in which the sums are.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        width: FloatArray = pixel_mm * np.maximum(sums.loss_px2, 0.0) / sums.length_px / depth
    return width


def depths(sums: WidthSums, options: WidthOptions) -> FloatArray:
    """Return (N,) share of the light that cracks take, from their sums and what is usual."""
    usual = 1 / options.depth_spread**2
    mean = (sums.weighted_depth + usual * math.log(options.depth)) / (sums.weight + usual)
    depth: FloatArray = np.exp(mean)
    return depth


def _chunks(lengths: IntArray) -> Iterator[IntArray]:
    """Return runs of branches of about POINTS_AT_ONCE places."""
    run = np.cumsum(lengths // UM + 1) // POINTS_AT_ONCE
    yield from np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(run)) + 1)


@dataclass(frozen=True, eq=False)
class _Places:
    """M places along B branches.

    Attributes:
        starts: (B + 1,) where the places of each branch begin.
        owner: (M,) branch of each.
        points: (M, 2) col, row.
        across: (M, 2) col, row of a step of one pixel to the right of the line.
        step_px: (M,) length of line that each stands for; 0 beside a junction.
    """

    starts: IntArray
    owner: IntArray
    points: FloatArray
    across: FloatArray
    step_px: FloatArray

    @classmethod
    def along(
        cls, branches: BranchSet, chosen: IntArray, options: WidthOptions, aspect: FloatArray
    ) -> _Places:
        degrees = branches.degrees.reshape(-1, 2)[chosen]
        part = branches.take(chosen)
        stretched = BranchSet(
            np.rint(part.vertices * aspect).astype(np.int64), part.starts, part.nodes
        )
        length = stretched.lengths
        count = np.maximum(np.rint(length / (STEP_PX * UM)).astype(np.int64), 1)
        starts = np.append(0, np.cumsum(count))
        owner = np.repeat(np.arange(len(chosen)), count)
        number = np.arange(len(owner)) - starts[owner]
        way, end = length[owner] * (2 * number + 1) // (2 * count[owner]), 2 * owner
        reach = round(options.run_px / 2 * UM)
        ahead = stretched.at(end, np.minimum(way + reach, length[owner]))
        behind = stretched.at(end, np.maximum(way - reach, 0))
        along = (ahead - behind).astype(np.float64)
        norm = np.maximum(np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2), 1.0)
        across = np.column_stack((-along[:, 1] / norm, along[:, 0] / norm)) / aspect
        step = (length / count / UM)[owner]
        near = round(options.node_px * UM)
        hidden = (way < near) & (degrees[owner, 0] > 1)
        hidden |= (length[owner] - way < near) & (degrees[owner, 1] > 1)
        open_ = np.bincount(owner, ~hidden, len(chosen))[owner] > 0
        return cls(
            starts,
            owner,
            stretched.at(end, way) / UM / aspect,
            across,
            np.where(hidden & open_, 0.0, step),
        )

    def means(self, values: NDArray[np.floating], run_px: float) -> NDArray[np.floating]:
        """Return (M, ...) moving mean along each branch, which ends repeat; nan counts nowhere."""
        run = max(1, round(run_px / STEP_PX))
        first, last = self.starts[self.owner], self.starts[self.owner + 1] - 1
        known = ~np.isnan(values)
        whole = bool(known.all())
        filled = values if whole else np.where(known, values, 0)
        total = np.zeros_like(values)
        seen = np.full(values.shape, run if whole else 0, np.float32)
        index = np.arange(len(self.owner))
        for step in range(-(run // 2), run - run // 2):
            place = np.clip(index + step, first, last)
            total += filled[place]
            if not whole:
                seen += known[place]
        with np.errstate(invalid="ignore"):
            return np.asarray(total / seen)


@dataclass(frozen=True, eq=False)
class _Losses:
    """Per place: loss of light across the line in pixels, and at its darkest; nan where unseen."""

    loss_px: FloatArray
    peak: FloatArray


def _losses(pixels: Pixels, places: _Places, half: int, options: WidthOptions) -> _Losses:
    """Compare profiles across the line with the light on either side of it."""
    guard = half + options.guard_px
    count = math.ceil((guard + options.side_px) / OFFSET_PX)
    offsets = np.arange(-count, count + 1, dtype=np.float64) * OFFSET_PX
    light = _sample(pixels, places, offsets)
    beside = np.column_stack(
        [
            _median(light[:, (offsets <= -guard)]),
            _median(light[:, (offsets >= guard)]),
        ]
    )
    left, right = places.means(beside, options.light_px).T
    left, right = np.where(np.isnan(left), right, left), np.where(np.isnan(right), left, right)
    share = np.clip((offsets + guard) / (2 * guard), 0, 1).astype(np.float32)
    ground = left[:, None] * (1 - share) + right[:, None] * share
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = (1 - light / ground).astype(np.float32)
    runs = places.means(loss, options.run_px)
    inner = np.flatnonzero(np.abs(offsets) <= half + 0.5)
    shown = np.nan_to_num(runs[:, inner], nan=-1.0)
    dark = shown >= CORE_SHARE * shown.max(axis=1, keepdims=True)
    center = (dark * offsets[inner]).sum(axis=1) / np.maximum(dark.sum(axis=1), 1)
    middle = np.rint(places.means(center, options.run_px) / OFFSET_PX).astype(np.int64) + count
    return _measure(places, loss, middle, options)


def _measure(places: _Places, loss: Float32, middle: IntArray, options: WidthOptions) -> _Losses:
    """Return peak, and loss in a window as wide as the crack and its blur, of runs."""
    row, most = np.arange(len(loss))[:, None], loss.shape[1] - 1
    least, widest = round(LEAST_WINDOW_PX / OFFSET_PX), most // 2 - 1
    peak = loss[row, np.clip(middle[:, None] + np.array([-1, 0, 1]), 0, most)].mean(axis=1)
    core = np.clip(middle[:, None] + np.arange(-least, least + 1), 0, most)
    windows = [OFFSET_PX * loss[row, core].sum(axis=1)]
    for size in range(least + 1, widest + 1):
        sides = np.clip(middle[:, None] + np.array([-size, size]), 0, most)
        windows.append(windows[-1] + OFFSET_PX * loss[row, sides].sum(axis=1))
    means = places.means(np.column_stack((peak, *windows)), options.run_px)
    run_peak, sums = means[:, 0], means[:, 1:]
    spans = 2 * OFFSET_PX * np.arange(least, widest + 1)
    enough = sums <= WINDOW_SHARE * spans * np.maximum(run_peak, LEAST_PEAK)[:, None]
    enough[:, -1] = True
    chosen = sums[np.arange(len(sums)), enough.argmax(axis=1)]
    return _Losses(chosen.astype(np.float64), run_peak.astype(np.float64))


def _sample(pixels: Pixels, places: _Places, offsets: FloatArray) -> Float32:
    """Return (M, K) light at the offsets across the line, between the centers of pixels."""
    x = places.points[:, :1] + places.across[:, :1] * offsets - 0.5
    y = places.points[:, 1:] + places.across[:, 1:] * offsets - 0.5
    col, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, down = (x - col).astype(np.float32), (y - row).astype(np.float32)
    upper = pixels.at(row, col) * (1 - right) + pixels.at(row, col + 1) * right
    lower = pixels.at(row + 1, col) * (1 - right) + pixels.at(row + 1, col + 1) * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def _median(light: Float32) -> Float32:
    """Return (M,) median of each row; nan counts nowhere."""
    ordered = np.sort(light, axis=1)  # nan comes last
    known = (~np.isnan(light)).sum(axis=1)
    row, top = np.arange(len(light)), np.maximum(known - 1, 0)
    middle: Float32 = (ordered[row, top // 2] + ordered[row, (top + 1) // 2]) / 2
    return middle


def _sum(places: _Places, losses: _Losses, options: WidthOptions) -> FloatArray:
    """Return the sums (5, B) of `WidthSums`."""
    count = len(places.starts) - 1
    seen = ~(np.isnan(losses.loss_px) | np.isnan(losses.peak))
    step = np.where(seen, places.step_px, 0.0)
    loss = np.where(seen, losses.loss_px, 0.0)
    peak = np.where(seen, losses.peak, 0.0)
    most = np.zeros(count)
    np.maximum.at(most, places.owner, loss)
    weight, weighted = _known_depth(places, loss, peak, step, options)
    length = np.bincount(places.owner, step, count)
    return np.stack((length, np.bincount(places.owner, loss * step, count), weight, weighted, most))


def _known_depth(
    places: _Places, loss: FloatArray, peak: FloatArray, step: FloatArray, options: WidthOptions
) -> tuple[FloatArray, FloatArray]:
    """Return what the peaks of a branch say of the logarithm of its depth: weight, weight x value.

    The likelihood of each of DEPTHS is summed along the branch and, with what is usual, made a
    normal distribution, from which the usual is taken away again.
    """
    width = np.maximum(loss, 0.0)[:, None] / DEPTHS
    peaks = np.interp(width, _SLITS, erf(_SLITS / (2 * math.sqrt(2) * options.blur_px)))
    misfit = (peak[:, None] - DEPTHS * peaks) / options.peak_noise
    each = misfit * misfit * (step / options.run_px)[:, None]
    usual, spread = math.log(options.depth), options.depth_spread
    logs = np.log(DEPTHS)
    doubt = np.add.reduceat(each, places.starts[:-1], axis=0) + ((logs - usual) / spread) ** 2
    share = np.exp(-0.5 * (doubt - doubt.min(axis=1, keepdims=True)))
    share /= share.sum(axis=1, keepdims=True)
    mean = (share * logs).sum(axis=1)
    variance = (share * (logs - mean[:, None]) ** 2).sum(axis=1)
    variance = np.maximum(variance, ((logs[1] - logs[0]) / 2) ** 2)
    weight = np.maximum(1 / variance - 1 / spread**2, 0.0)
    value = mean / variance - usual / spread**2
    return weight, np.where(weight > 0, value, 0.0)
