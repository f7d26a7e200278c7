"""The lattice and the blending of its windows, against loops; photographs; missing pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from wpcrack.errors import CheckpointError
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import (
    PHOTO_SIDE,
    WindowPredictor,
    fill_invalid,
    predict_block,
    predict_image,
)

SMALL = Lattice(window=64, overlap=24, blend=8)


class Window(NamedTuple):
    """What the lattice takes for a window: anything with these four numbers."""

    row_off: int
    col_off: int
    height: int
    width: int


@dataclass(frozen=True)
class Pixels:
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def reader(
    image: NDArray[np.uint8], valid: NDArray[np.bool_]
) -> Callable[[int, int, int, int], Pixels]:
    """Reads windows of an array; what lies beyond it is invalid."""

    def read(row_off: int, col_off: int, height: int, width: int) -> Pixels:
        row, col = np.arange(height) + row_off, np.arange(width) + col_off
        inside = ((row >= 0) & (row < len(image)))[:, None] & (col >= 0) & (col < image.shape[1])
        place = np.ix_(row.clip(0, len(image) - 1), col.clip(0, image.shape[1] - 1))
        return Pixels(np.where(inside[..., None], image[place], 0), inside & valid[place])

    return read


def position_dependent(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A stand-in network: what it says of a pixel depends on the window around it."""
    value = windows.astype(np.float32).mean(-1) / 255
    ramp = np.linspace(0.2, 1, windows.shape[1], dtype=np.float32)[:, None]
    return (value * ramp + 0.3 * value.mean((1, 2), keepdims=True)).clip(0, 1).astype(np.float32)


def constant(value: float) -> WindowPredictor:
    return lambda windows: np.full(windows.shape[:3], value, np.float32)


def darkness(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (1 - windows.astype(np.float32).mean(-1) / 255).astype(np.float32)


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    window = 32 * draw(st.integers(1, 3))
    overlap = 2 * draw(st.integers(0, window // 4))
    return Lattice(window=window, overlap=overlap, blend=2 * draw(st.integers(0, overlap // 2)))


@given(lattices(), st.integers(-300, 300), st.integers(1, 300))
def test_weights_of_all_windows_add_up_to_one_on_every_pixel(
    lattice: Lattice, start: int, size: int
) -> None:
    total = np.zeros(size)
    for span in lattice.spans(start, start + size):
        for pixel, weight in zip(range(span.start, span.stop), span.weights, strict=True):
            if start <= pixel < start + size:
                total[pixel - start] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(lattices(), st.integers(-300, 300), st.integers(1, 300))
def test_every_window_of_a_block_has_weight_on_it(lattice: Lattice, start: int, size: int) -> None:
    for span in lattice.spans(start, start + size):
        assert span.support.start < start + size
        assert span.support.stop > start


@given(lattices(), st.integers(-4, 4), st.integers(1, 5))
def test_a_block_of_n_strides_needs_at_most_one_window_more(
    lattice: Lattice, first: int, strides: int
) -> None:
    start = first * lattice.stride
    spans = lattice.spans(start, start + strides * lattice.stride)
    assert len(spans) == strides + (lattice.blend > 0)
    assert spans[0].start == start - lattice.blend - lattice.margin


def test_windows_of_a_block_do_not_depend_on_its_cut() -> None:
    def starts(first: int, stop: int) -> list[int]:
        return [span.start for span in SMALL.spans(first, stop)]

    parts = starts(-50, 61) + starts(61, 350)
    assert sorted(set(parts)) == starts(-50, 350)


@pytest.mark.parametrize(
    "wrong",
    [
        {"blend": 66},
        {"blend": 31},
        {"overlap": 400, "blend": 0},
        {"window": 100},
        {"window": 0},
    ],
)
def test_a_lattice_that_leaves_holes_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Lattice(**wrong)


@settings(deadline=None, max_examples=25)
@given(lattices(), st.integers(0, 255), st.integers(1, 150), st.integers(1, 150))
def test_blending_a_constant_gives_the_constant(
    lattice: Lattice, value: int, height: int, width: int
) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    read = reader(image, np.ones((height, width), bool))
    network = constant(value / 255)
    block = predict_block(read, network, Window(0, 0, height, width), lattice)
    assert (block == value).all()
    assert (predict_image(image, network, lattice) == value).all()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_cut_into_blocks_does_not_change_a_bit(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    height, width = data.draw(st.integers(20, 170)), data.draw(st.integers(20, 170))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    valid = rng.random((height // 16 + 1, width // 16 + 1)).repeat(16, 0).repeat(16, 1) > 0.3
    read = reader(image, valid[:height, :width])
    whole = predict_block(read, position_dependent, Window(0, 0, height, width), SMALL, batch=3)
    row, col = data.draw(st.integers(1, height - 1)), data.draw(st.integers(1, width - 1))
    batch = data.draw(st.integers(1, 9))
    parts = [
        [
            predict_block(read, position_dependent, Window(top, left, h, w), SMALL, batch=batch)
            for left, w in ((0, col), (col, width - col))
        ]
        for top, h in ((0, row), (row, height - row))
    ]
    np.testing.assert_array_equal(np.block(parts), whole)


def test_each_pixel_is_the_weighted_sum_of_its_windows() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (130, 90, 3), np.uint8)
    read = reader(image, np.ones((130, 90), bool))
    expected = np.zeros((130, 90))
    for row in SMALL.spans(0, 130):
        for col in SMALL.spans(0, 90):
            source = read(row.start, col.start, 64, 64)
            part = position_dependent(fill_invalid(source.image, source.valid)[None])[0]
            for r in range(max(row.start, 0), min(row.stop, 130)):
                for c in range(max(col.start, 0), min(col.stop, 90)):
                    i, j = r - row.start, c - col.start
                    expected[r, c] += part[i, j] * row.weights[i] * col.weights[j]
    got = predict_block(read, position_dependent, Window(0, 0, 130, 90), SMALL)
    assert np.abs(got - expected * 255).max() <= 0.5001


def test_invalid_pixels_are_zero_and_windows_without_valid_pixels_cost_nothing() -> None:
    valid = np.zeros((400, 400), bool)
    valid[:30, :30] = True
    seen = []

    def network(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(windows))
        return np.ones(windows.shape[:3], np.float32)

    read = reader(np.full((400, 400, 3), 90, np.uint8), valid)
    got = predict_block(read, network, Window(0, 0, 400, 400), SMALL)
    np.testing.assert_array_equal(got, valid * np.uint8(255))
    assert sum(seen) == 1


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_what_is_not_wanted_is_neither_read_nor_computed_and_changes_nothing(
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    block = Window(data.draw(st.integers(-50, 50)), data.draw(st.integers(-50, 50)), 150, 120)
    image = rng.integers(0, 256, (200, 180, 3), np.uint8)
    everything = reader(image, rng.random((200, 180)) > 0.1)
    wanted = np.zeros((150, 120), bool)
    for _ in range(data.draw(st.integers(0, 2))):
        row, col = data.draw(st.integers(0, 140)), data.draw(st.integers(0, 110))
        wanted[row : row + 30, col : col + 10] = True
    asked, seen = [], []

    def read(*window: int) -> Pixels:
        asked.append(window)
        return everything(*window)

    def network(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(windows))
        return position_dependent(windows)

    whole = predict_block(everything, position_dependent, block, SMALL)
    got = predict_block(read, network, block, SMALL, wanted=wanted)
    np.testing.assert_array_equal(got, whole * wanted)
    valid = everything(*block).valid
    with_weight, near = 0, []
    for row in SMALL.spans(block.row_off, block.row_off + 150):
        for col in SMALL.spans(block.col_off, block.col_off + 120):
            weight = np.zeros((400, 400), bool)  # of the window, from pixel (-100, -100) on
            weight[row.support.start + 100 : row.support.stop + 100] = True
            weight[:, : col.support.start + 100] = weight[:, col.support.stop + 100 :] = False
            here = weight[block.row_off + 100 :, block.col_off + 100 :][:150, :120] & wanted
            with_weight += bool((here & valid).any())
            near += [(row.start, col.start)] if here.any() else []
    assert sum(seen) == with_weight
    if near:
        top, left = min(row for row, _ in near), min(col for _, col in near)
        bottom, right = max(row for row, _ in near) + 64, max(col for _, col in near) + 64
        assert asked == [(top, left, bottom - top, right - left)]
    else:
        assert asked == []


def test_a_block_without_valid_pixels_asks_the_network_nothing() -> None:
    read = reader(np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50), bool))
    got = predict_block(read, constant(np.nan), Window(0, 0, 50, 50), SMALL)
    assert not got.any()


def test_the_end_of_the_imagery_looks_like_the_imagery() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(110, 130, (80, 80, 3), np.uint8)
    valid = np.add.outer(np.arange(80), np.arange(80)) % 97 < 80
    valid[:, 60:] = False
    image[~valid] = 0
    filled = fill_invalid(image, valid)
    np.testing.assert_array_equal(filled[valid], image[valid])
    assert filled.min() >= 110
    assert filled.max() < 130


def test_filling_mirrors_at_a_straight_border() -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    valid = np.ones((40, 50), bool)
    valid[:, 30:] = False
    filled = fill_invalid(image, valid)
    np.testing.assert_array_equal(filled[:, 30:], image[:, 28:8:-1])


@pytest.mark.parametrize("value", [True, False])
def test_nothing_is_filled_where_all_or_nothing_is_valid(value: bool) -> None:
    image = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
    assert fill_invalid(image, np.full((8, 8), value)) is image


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 300), (33, 64), (384, 544), (PHOTO_SIDE + 1, 40), (1100, 1200)]
)
def test_a_photograph_of_any_size_is_predicted_pixel_by_pixel(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(4).integers(0, 256, (*shape, 3), np.uint8)
    got = predict_image(image, darkness, Lattice())
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, 255 - image.astype(float).mean(-1), atol=0.51)


def test_a_photograph_of_usual_size_is_one_window_of_a_multiple_of_32() -> None:
    shapes = []

    def network(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.append(windows.shape)
        return np.zeros(windows.shape[:3], np.float32)

    predict_image(np.zeros((360, 640, 3), np.uint8), network, Lattice())
    assert shapes == [(1, 384, 640, 3)]


def test_a_network_that_gives_no_numbers_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not numbers"):
        predict_image(np.zeros((20, 20, 3), np.uint8), constant(np.nan), SMALL)
