"""What is remembered of a block's imagery."""

from __future__ import annotations

import numpy as np
import pytest
from factories import grid_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geo.cracks.pieces import Ground, block_pieces
from geo.errors import InputError
from geo.grid import Window

shapes = st.tuples(st.integers(3, 40), st.integers(3, 40))


@given(arrays(bool, shapes), st.booleans())
def test_ground_survives_its_written_form(ring, is_mixed):
    sizes = np.full((ring.shape[0] - 2, ring.shape[1] - 2), 0.005) if is_mixed else None
    read = Ground.of_text(Ground(ring, sizes).text())
    assert np.array_equal(read.ring, ring)
    assert (read.gsd_m is None) == (sizes is None)
    assert sizes is None or np.array_equal(read.gsd_m, sizes)


@pytest.mark.parametrize("text", ["", "nonsense", "UEsDBA=="])
def test_a_damaged_record_is_said(text):
    with pytest.raises(InputError, match="damaged"):
        Ground.of_text(text)


def test_whole_imagery_takes_little_room():
    assert len(Ground(np.ones((1538, 1538), bool)).text()) < 3000


def test_a_crack_knows_the_coarsest_pixels_under_it():
    probability = np.zeros((6, 8), np.uint8)
    probability[1, 0:6] = probability[4, 0:3] = 200
    sizes = np.full((6, 8), 0.005)
    sizes[:, 5:] = 0.01
    grid = grid_of((30, 30))
    window, ground = Window(10, 20, 6, 8), Ground(np.ones((8, 10), bool), sizes)
    assert [p.gsd_m for p in block_pieces(probability, 128, window, grid, ground)] == [0.01, 0.005]
    plain = block_pieces(probability, 128, window, grid, Ground(ground.ring))
    assert [p.gsd_m for p in plain] == [None, None]
