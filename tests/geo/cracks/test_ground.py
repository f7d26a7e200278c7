"""What is remembered of a block's imagery."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from factories import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geo.cracks.branch_sums import WIDTH_OPTIONS
from geo.cracks.light import Picture
from geo.cracks.pieces import Ground, block_pieces
from geo.errors import InputError
from geo.grid import Window

shapes = st.tuples(st.integers(3, 40), st.integers(3, 40))


@settings(max_examples=30, deadline=None)
@given(arrays(bool, shapes), st.booleans())
def test_ground_survives_its_file(ring, is_mixed):
    window = Window(7, 9, ring.shape[0] - 2, ring.shape[1] - 2)
    sizes = np.full((window.height, window.width), 0.005) if is_mixed else None
    light = Picture.of_bands(np.full(ring.shape, 90, np.uint8), ring, window.pad(1))
    probability = np.zeros((window.height, window.width), np.uint8)
    probability[0, 0] = 1
    with TemporaryDirectory() as folder:
        path = Path(folder) / "block.npz"
        Ground(ring, sizes, light).write(path, probability, window)
        read = Ground.read(path)
    assert np.array_equal(read.ring, ring)
    assert (read.gsd_m is None) == (sizes is None)
    assert sizes is None or np.array_equal(read.gsd_m, sizes)
    near = np.s_[: 2 + WIDTH_OPTIONS.reach_px, : 2 + WIDTH_OPTIONS.reach_px]
    assert np.array_equal(read.light.gray[near], light.gray[near])
    assert read.light.window == light.window


@pytest.mark.parametrize("text", [b"", b"nonsense", b"UEsDBA=="])
def test_a_damaged_record_is_said(text, tmp_path):
    path = tmp_path / "block.npz"
    path.write_bytes(text)
    with pytest.raises(InputError, match="cannot be read"):
        Ground.read(path)


def test_imagery_without_cracks_takes_little_room(tmp_path):
    window = Window(0, 0, 1536, 1536)
    noise = np.random.default_rng(0).integers(0, 255, (1538, 1538), np.uint8)
    ring = np.ones((1538, 1538), bool)
    ground = Ground(ring, None, Picture.of_bands(noise, ring, window.pad(1)))
    ground.write(tmp_path / "block.npz", np.zeros((1536, 1536), np.uint8), window)
    assert (tmp_path / "block.npz").stat().st_size < 10_000


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
