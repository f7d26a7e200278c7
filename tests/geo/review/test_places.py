"""Squares of a map that a person can judge."""

from __future__ import annotations

from itertools import product

import geopandas
import numpy as np
import shapely

from geo.review.places import _cells_in, _unpack


def test_a_square_whose_middle_lies_on_the_side_of_two_blocks_belongs_to_one():
    corners = product((0.0, 2.5), repeat=2)
    blocks = geopandas.GeoDataFrame(
        geometry=[shapely.box(x, y, x + 2.5, y + 2.5) for x, y in corners]
    )
    cells = _unpack(np.concatenate(list(_cells_in(blocks, 1.0))))
    assert sorted(map(tuple, cells.tolist())) == list(product(range(5), repeat=2))
