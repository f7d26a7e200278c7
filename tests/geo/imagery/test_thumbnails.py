"""Thumbnails of blocks are together the picture of the map."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geo.grid import Grid, Window
from geo.imagery.thumbnails import PictureGrid

SHAPE = (31, 47)
GRID = Grid(Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6), CRS.from_epsg(25832), SHAPE)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (*SHAPE, 3), np.uint8)
VALID = RNG.random(SHAPE) < 0.7


def windows(height, width):
    for row in range(0, SHAPE[0], height):
        for col in range(0, SHAPE[1], width):
            yield Window(row, col, min(height, SHAPE[0] - row), min(width, SHAPE[1] - col))


def compose(longest_px, height, width, image=IMAGE, valid=VALID):
    picture = PictureGrid(GRID, longest_px)
    whole = Window(0, 0, *SHAPE)
    at = [(part, part.slices_in(whole)) for part in windows(height, width)]
    return picture.compose([picture.thumbnail(image[here], valid[here], p) for p, here in at])


@given(st.integers(4, 60), st.integers(4, 60))
def test_a_picture_that_is_not_reduced_is_the_imagery(height, width):
    found = compose(200, height, width)
    assert (found.valid == VALID).all()
    assert (found.image == np.where(VALID[..., None], IMAGE, 0)).all()


@settings(max_examples=25)
@given(st.integers(1, 60))
def test_a_pixel_of_one_block_is_the_mean_of_its_ground(longest_px):
    found = compose(longest_px, *SHAPE)
    rows, cols = found.grid.shape
    for row, col in np.ndindex(rows, cols):
        top, end = (math.floor(k * SHAPE[0] / rows + 0.5) for k in (row, row + 1))
        left, right = (math.floor(k * SHAPE[1] / cols + 0.5) for k in (col, col + 1))
        seen = VALID[top:end, left:right]
        assert found.valid[row, col] == (seen.mean() >= 0.5)
        if found.valid[row, col]:
            mean = IMAGE[top:end, left:right][seen].mean(axis=0)
            assert np.abs(found.image[row, col] - mean).max() <= 0.5 + 1e-9


@given(st.integers(1, 60), st.integers(4, 60), st.integers(4, 60))
def test_every_pixel_of_the_picture_comes_from_a_block(longest_px, height, width):
    everywhere, gray = np.ones(SHAPE, bool), np.full((*SHAPE, 3), 77, np.uint8)
    found = compose(longest_px, height, width, gray, everywhere)
    assert found.valid.all()
    assert (found.image == 77).all()
    assert found.grid.shape == PictureGrid(GRID, longest_px).small.shape


@pytest.mark.parametrize("damaged", ["", "AAAA", "?", "A" * 40])
def test_without_all_thumbnails_there_is_no_picture(damaged):
    picture = PictureGrid(GRID, 50)
    whole = picture.thumbnail(IMAGE, VALID, Window(0, 0, *SHAPE))
    assert picture.compose([whole, damaged]) is None
