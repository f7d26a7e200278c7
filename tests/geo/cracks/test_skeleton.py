"""Thinning all border pixels of a side at once against thinning them one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label
from skimage.morphology import skeletonize

from geo.cracks.pixel_set import PixelSet
from geo.cracks.skeleton import thin

masks = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans())


@settings(deadline=None)
@given(masks | masks.map(lambda mask: np.kron(mask, np.ones((4, 4), bool))))
def test_skeletons_are_those_of_lee_pixel_for_pixel(mask):
    pixels = PixelSet.of_mask(mask, 3, 5)
    rows, cols = pixels.places(pixels.keys[thin(pixels)])
    skeleton = np.zeros_like(mask)
    skeleton[rows - 3, cols - 5] = True
    assert np.array_equal(skeleton, skeletonize(np.pad(mask, 1), method="lee")[1:-1, 1:-1])


@settings(deadline=None)
@given(masks)
def test_components_are_numbered_by_their_first_pixel(mask):
    pixels = PixelSet.of_mask(mask, 0, 0)
    assert np.array_equal(pixels.parts + 1, label(mask, connectivity=1)[mask])
    assert np.array_equal(pixels.components + 1, label(mask, connectivity=2)[mask])


def test_a_set_of_places_is_that_of_their_mask():
    mask = np.random.default_rng(0).random((20, 30)) > 0.6
    rows, cols = np.nonzero(mask)
    one = PixelSet.of_mask(mask, 100, 200)
    other = PixelSet.of_places(rows[::-1] + 100, cols[::-1] + 200)
    assert np.array_equal(one.places(), other.places())
    assert np.array_equal(one.neighbors, other.neighbors)


@settings(deadline=None, max_examples=60)
@given(arrays(np.bool_, (9, 11), elements=st.booleans()), st.sampled_from([1, 40]))
def test_codes_name_the_neighbors_whether_the_raster_is_full_or_empty(mask, apart):
    wide = np.zeros((9, 11 * apart), bool)  # many empty columns: neighbors are found by their keys
    wide[:, :11] = mask
    wide[0, -1] = wide[-1, -1] = True
    pixels = PixelSet.of_mask(wide, 0, 0)
    ring = np.pad(wide, 1)
    rows, cols = pixels.places()
    steps = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]  # from the east
    codes = sum(ring[rows + 1 + y, cols + 1 + x] << k for k, (y, x) in enumerate(steps))
    assert (pixels.codes == codes).all()
    assert ((pixels.neighbors < len(pixels)) == (codes >> np.arange(8)[:, None] & 1)).all()
