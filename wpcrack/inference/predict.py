"""Image -> 8-bit crack probability: overlapping windows through a network, blended into one map.

The network is any callable on batches of windows, so everything here is tested without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from wpcrack.errors import CheckpointError
from wpcrack.inference.lattice import Lattice, Span, Window

SIDE_MULTIPLE = 32
"""Networks take sides that are a multiple of this many pixels."""

PHOTO_SIDE = 1024
"""A photograph's side up to this many pixels is predicted in one piece: no seam, fewest pixels."""

PICTURE_PX_BYTES = 20
"""Memory for a pixel of a photograph while it is read, predicted, and scored or painted (18 to 19
were measured on 25 million pixels)."""

SURROUND_PX = 65
"""Side of the box over which the tone of the nearest imagery is averaged."""

DEFAULT_THRESHOLD = 0.5
"""A pixel is crack from this probability on."""

Engine = Literal["auto", "torch", "openvino"]
"""What computes the network; auto: torch on a GPU, else openvino where it is installed."""


class WindowPredictor(Protocol):
    """A trained detector."""

    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Turn windows (N, H, W, 3) uint8 RGB into probability (N, H, W) float32 in [0, 1]."""


class Source(Protocol):
    """Pixels of a window, as a reader delivers them."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(H, W); False where there is no image."""


def predict_block(
    read: Callable[[int, int, int, int], Source],
    predictor: WindowPredictor,
    block: Window,
    lattice: Lattice,
    *,
    wanted: NDArray[np.bool_] | None = None,
    batch: int = 8,
) -> NDArray[np.uint8]:
    """Predict a block of a mosaic; neighboring blocks continue it without a seam.

    Each pixel blends the same windows with the same weights in the same order whatever the block
    and whatever else is wanted of it, so cutting an area differently gives the same bits (as far
    as the network itself does).

    Args:
        read: Reads row_off, col_off, height, width, which may reach beyond the mosaic (invalid
            there); called once, for the smallest rectangle around the windows that have weight on
            a wanted pixel, or not at all.
        predictor: The network.
        block: Where to predict, in the job's pixel grid.
        lattice: Window size, overlap and blending.
        wanted: (block.height, block.width), where a probability is asked for; None: everywhere.
        batch: Windows per call of the network.

    Returns:
        Probability * 255, (block.height, block.width), rounded; 0 on pixels that are invalid or
        not wanted.

    Raises:
        CheckpointError: The network gives values that are not numbers.
    """
    probability = np.zeros((block.height, block.width), np.uint8)
    if wanted is None:
        wanted = np.ones(probability.shape, bool)
    if not wanted.any():
        return probability
    rows = _with_weight(lattice, block.row_off, np.flatnonzero(wanted.any(axis=1)))
    cols = _with_weight(lattice, block.col_off, np.flatnonzero(wanted.any(axis=0)))
    top, left = rows[0].start, cols[0].start
    source = read(top, left, rows[-1].stop - top, cols[-1].stop - left)
    inner, outer = zip(
        _common(block.row_off, block.height, top, source.valid.shape[0]),
        _common(block.col_off, block.width, left, source.valid.shape[1]),
        strict=True,
    )
    here = np.zeros_like(source.valid)
    here[outer] = source.valid[outer] & wanted[inner]
    pixels = _Pixels(source.image, source.valid, here)
    blended = _blend(pixels, _shift(rows, top), _shift(cols, left), predictor, batch)
    probability[inner] = blended[outer]
    return probability


def predict_image(
    image: NDArray[np.uint8], predictor: WindowPredictor, lattice: Lattice, *, batch: int = 8
) -> NDArray[np.uint8]:
    """Predict a photograph; beyond its edges it is mirrored.

    A side of up to PHOTO_SIDE pixels is covered by one window, rounded up to a multiple of 32;
    a longer one by the windows of the lattice.

    Args:
        image: (H, W, 3) RGB.
        predictor: The network.
        lattice: Window size, overlap and blending.
        batch: Windows per call of the network.

    Returns:
        Probability * 255, (H, W), rounded.

    Raises:
        CheckpointError: The network gives values that are not numbers.
    """
    height, width = image.shape[:2]
    rows, cols = _photo_spans(height, lattice), _photo_spans(width, lattice)
    top, left = rows[0].start, cols[0].start
    pads = ((-top, rows[-1].stop - height), (-left, cols[-1].stop - width), (0, 0))
    padded = np.pad(image, pads, mode="reflect")
    everywhere = np.ones(padded.shape[:2], bool)
    here = slice(-top, height - top), slice(-left, width - left)
    pixels = _Pixels(padded, everywhere, everywhere)
    return _blend(pixels, _shift(rows, top), _shift(cols, left), predictor, batch)[here]


@dataclass(frozen=True)
class _Pixels:
    """What is known, (H, W[, 3]), and on which pixels a probability is wanted."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    wanted: NDArray[np.bool_]


def _blend(
    pixels: _Pixels,
    rows: Sequence[Span],
    cols: Sequence[Span],
    predictor: WindowPredictor,
    batch: int,
) -> NDArray[np.uint8]:
    """Sum weighted windows in a fixed order, row by row; unwanted pixels become 0."""
    places = [(row, col) for row in rows for col in cols if _is_wanted(pixels.wanted, row, col)]
    total = np.zeros(pixels.valid.shape, np.float32)
    weights = np.outer(rows[0].weights, cols[0].weights)  # the same for all windows
    for first in range(0, len(places), batch):
        part = places[first : first + batch]
        windows = np.stack([_window(pixels, row, col) for row, col in part])
        for (row, col), probability in zip(part, _predict(predictor, windows), strict=True):
            sum_here = total[row.start : row.stop, col.start : col.stop]
            cv2.accumulateProduct(probability, weights, sum_here)  # a view: summed in place
    return _to_8_bit(total, pixels.wanted)


def _to_8_bit(probability: NDArray[np.float32], wanted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Scale to 0-255 and round; unwanted pixels become 0."""
    scaled = np.asarray(cv2.convertScaleAbs(probability, alpha=255), np.uint8)
    scaled *= wanted
    return scaled


def _is_wanted(wanted: NDArray[np.bool_], row: Span, col: Span) -> bool:
    """Return whether a window has weight on any wanted pixel; if not, it need not be computed."""
    return bool(wanted[row.support, col.support].any())


def _window(pixels: _Pixels, row: Span, col: Span) -> NDArray[np.uint8]:
    here = slice(row.start, row.stop), slice(col.start, col.stop)
    return fill_invalid(pixels.image[here], pixels.valid[here])


def _predict(predictor: WindowPredictor, windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    probability = predictor(windows)
    assert probability.shape == windows.shape[:3], (probability.shape, windows.shape)
    if not np.isfinite(probability.sum()):  # one pass; what is not a number survives a sum
        raise CheckpointError(
            "the model gives values that are not numbers; choose another checkpoint or train again"
        )
    return probability.astype(np.float32, copy=False)


def _photo_spans(size: int, lattice: Lattice) -> list[Span]:
    if size > PHOTO_SIDE:
        return lattice.spans(0, size)
    side = -(-size // SIDE_MULTIPLE) * SIDE_MULTIPLE
    return [Span(0, np.ones(side, np.float32))]


def _shift(spans: Sequence[Span], origin: int) -> list[Span]:
    return [Span(span.start - origin, span.weights) for span in spans]


def _with_weight(lattice: Lattice, start: int, wanted: NDArray[np.intp]) -> list[Span]:
    """Return the windows along an axis with weight on a pixel of start + `wanted` (sorted)."""
    spans = lattice.spans(start + int(wanted[0]), start + int(wanted[-1]) + 1)
    edges = [(span.support.start - start, span.support.stop - start) for span in spans]
    counts = np.diff(np.searchsorted(wanted, edges), axis=1)[:, 0]
    return [span for span, count in zip(spans, counts, strict=True) if count]


def _common(start: int, size: int, read_start: int, read_size: int) -> tuple[slice, slice]:
    """Return the overlap of a block and what was read along an axis, as seen from both."""
    first, stop = max(start, read_start), min(start + size, read_start + read_size)
    return slice(first - start, stop - start), slice(first - read_start, stop - read_start)


def fill_invalid(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Continue an image into its invalid pixels by mirroring it at their border.

    A black or constant nodata area ends in a sharp line, which a network takes for a crack or a
    joint. Each invalid pixel p takes the pixel 2 q - p, q being the valid pixel nearest to p;
    where that one is invalid too or outside, the mean of the valid pixels around q.

    Args:
        image: (H, W, 3).
        valid: (H, W).

    Returns:
        (H, W, 3); the image itself if all of it is valid or none.
    """
    if valid.all() or not valid.any():
        return image
    height, width = valid.shape
    row, col = np.nonzero(~valid)
    near_row, near_col = (axis[row, col] for axis in _nearest_valid(valid))
    mirror_row, mirror_col = 2 * near_row - row, 2 * near_col - col
    inside = (mirror_row >= 0) & (mirror_row < height) & (mirror_col >= 0) & (mirror_col < width)
    inside[inside] = valid[mirror_row[inside], mirror_col[inside]]
    filled = image.copy()
    filled[row, col] = _local_mean(image, valid)[near_row, near_col]
    filled[row[inside], col[inside]] = image[mirror_row[inside], mirror_col[inside]]
    return filled


def _nearest_valid(valid: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the valid pixel nearest to each pixel, (H, W) each."""
    _, labels = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    row, col = np.nonzero(valid)
    place = np.zeros((labels.max() + 1, 2), np.int64)
    place[labels[row, col]] = np.column_stack((row, col))
    return place[labels, 0], place[labels, 1]


def _local_mean(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the mean of the valid pixels in the box around each pixel, (H, W, 3)."""
    size, known = (SURROUND_PX, SURROUND_PX), valid.astype(np.float32)
    total = cv2.boxFilter(image * known[..., None], -1, size, borderType=cv2.BORDER_CONSTANT)
    count = cv2.boxFilter(known, -1, size, borderType=cv2.BORDER_CONSTANT)
    return np.rint(total / np.maximum(count, 1e-6)[..., None]).clip(0, 255).astype(np.uint8)
