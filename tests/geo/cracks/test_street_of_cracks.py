"""A street with every kind of crack, drawn as a mask: what is counted, and as what."""

from dataclasses import fields

import cv2
import numpy as np
import pytest
import shapely
from affine import Affine
from factories import join
from rasterio.crs import CRS
from rasterio.features import rasterize

from geo.cracks.branch_sums import WIDTH_OPTIONS
from geo.cracks.branches import BranchSet
from geo.cracks.chains import chain
from geo.cracks.light import Picture
from geo.cracks.linking import link
from geo.cracks.networks import find_networks
from geo.cracks.pieces import pieces
from geo.cracks.pixel_set import pixels_of
from geo.cracks.split import branch_of_pixels
from geo.cracks.width import WidthSums, depths, width_sums, widths_mm
from geo.grid import Grid, Window
from geo.layers.classes import crack_types
from geo.options import LinkOptions, NetworkOptions, TypeOptions

GSD = 0.005
LENGTH_M, HEIGHT_M = 9.0, 4.0
SHAPE = (round(HEIGHT_M / GSD), round(LENGTH_M / GSD))
GRID = Grid(Affine(GSD, 0, 5e5, 0, -GSD, 5.8e6), CRS.from_epsg(25832), SHAPE)
WIDTH_M = 0.012


def winding(start, end, sway=0.01):
    """A line that winds a little, ends where it should."""
    start, end = np.array(start, float), np.array(end, float)
    t = np.linspace(0, 1, 60)[:, None]
    aside = np.array([-(end - start)[1], (end - start)[0]]) / np.hypot(*(end - start))
    return shapely.LineString(start + t * (end - start) + sway * np.sin(9 * t) * aside)


def gap(line, middle_m, length_m):
    """The line without what lies around a place on it."""
    place = line.interpolate(middle_m).buffer(length_m / 2 + WIDTH_M / 2)
    return line.difference(place)


def arc(center, radius, begin, end):
    angle = np.radians(np.linspace(begin, end, 80))
    return shapely.LineString(
        np.array(center) + radius * np.column_stack((np.cos(angle), np.sin(angle)))
    )


def mesh(x, y, cell, cols, rows):
    lines = [[(x + k * cell, y), (x + k * cell, y + rows * cell)] for k in range(cols + 1)]
    lines += [[(x, y + k * cell), (x + cols * cell, y + k * cell)] for k in range(rows + 1)]
    return shapely.MultiLineString(lines)


LONG = winding((0.2, 0.3), (5.2, 0.4))
DRAWN = {
    "long with gaps": gap(gap(gap(LONG, 1.0, 0.03), 2.4, 0.12), 3.9, 0.22),
    "parallel": winding((0.2, 0.45 + 0.05), (2.2, 0.45 + 0.05), sway=0.004),
    "beside it": winding((0.2, 0.45), (2.2, 0.45), sway=0.004),
    "stem of the T": winding((3.0, 0.75), (3.1, 1.7)),
    "bar of the T": winding((2.2, 0.75), (3.9, 0.75)),
    "X along": winding((0.3, 2.4), (2.3, 2.5)),
    "X across": winding((1.2, 1.5), (1.3, 3.4)),
    "turns": arc((3.4, 3.0), 0.6, 200, 350),
    "ring": arc((5.4, 1.6), 0.35, 0, 360),
    "through the alligator": winding((5.0, 3.02), (8.9, 3.02), sway=0.004),
    "alligator": mesh(6.4, 2.5, 0.13, 8, 8),
}
WHOLE = ("long with gaps", "parallel", "beside it", "stem of the T", "bar of the T")
WHOLE += ("X along", "X across", "turns", "ring")


def drawn_mask(finer=1):
    """The street in pixels, or in so many parts of each side of a pixel."""
    part = GSD / finer
    shapes = [shapely.affinity.scale(line.buffer(WIDTH_M / 2), 1 / part, 1 / part, origin=(0, 0))
              for line in DRAWN.values()]  # fmt: skip
    return rasterize(shapes, out_shape=tuple(finer * side for side in SHAPE)).astype(bool)


def drawn_light():
    """Pavement of which cracks take a usual share of the light, seen by a camera of usual blur."""
    share = drawn_mask(4).reshape(SHAPE[0], 4, SHAPE[1], 4).mean(axis=(1, 3))
    seen = cv2.GaussianBlur(share, (0, 0), 0.6)
    gray = np.rint(150 * (1 - WIDTH_OPTIONS.depth * seen)).astype(np.uint8)
    return Picture.of_bands(gray, np.ones(SHAPE, bool), GRID.window)


class Map:
    """Cracks and networks of the street, delivered in blocks of some pixels."""

    def __init__(self, block):
        mask, found = drawn_mask(), []
        for row in range(0, SHAPE[0], block):
            for col in range(0, SHAPE[1], block):
                window = Window(row, col, block, block).intersection(GRID.window)
                part = mask[window.slices_in(GRID.window)]
                found += pieces(part, part * np.uint8(200), window, GRID)
        self.mask, self.pieces = mask, join(found, GRID)
        lines, nodes, piece, before = [], [], [], 0
        for number, one in enumerate(self.pieces):
            branches = one.branches
            lines += [branch.line for branch in branches]
            nodes += [(b.from_node + before, b.to_node + before) for b in branches]
            piece += [number] * len(branches)
            before += 1 + max(max(b.from_node, b.to_node) for b in branches)
        self.lines, self.piece, nodes = lines, np.array(piece), np.array(nodes)
        self.pixels = BranchSet.of_lines(lines, nodes)
        self.branches = BranchSet.of_lines([GRID.to_world(one) for one in lines], nodes)
        self.networks = find_networks(self.branches, NetworkOptions())
        self.free = np.flatnonzero(self.networks.of_branch < 0)
        self.outside = self.branches.take(self.free)
        self.chains = chain(self.outside, link(self.outside, LinkOptions()))

    def crack(self, name):
        """The crack with most line on a drawn one, and how much of that it covers."""
        truth = DRAWN[name].buffer(0.015)
        on = [shapely.LineString(self.lines[n] * GSD).intersection(truth).length for n in self.free]
        sums = np.bincount(self.chains.of_branch, on)
        return int(sums.argmax()), sums.max() / DRAWN[name].length


@pytest.fixture(scope="module")
def street():
    return Map(max(SHAPE))


def test_each_crack_is_one_and_only_one(street):
    owners = {}
    for name in WHOLE:
        owners[name], covered = street.crack(name)
        assert covered > 0.9, name
    assert len(set(owners.values())) == len(WHOLE)


def test_long_cracks_are_counted_as_drawn(street):
    """The nine that are whole, and two parts of the one through the alligator."""
    assert (street.chains.length_m(street.outside) >= 0.5).sum() == len(WHOLE) + 2


def test_the_alligator_is_one_network_and_the_crack_through_it_two(street):
    assert len(street.networks) == 1
    area = shapely.box(6.4, 2.5, 6.4 + 8 * 0.13, 2.5 + 8 * 0.13).buffer(0.02, join_style="mitre")
    assert street.networks.area_m2[0] == pytest.approx(area.area, rel=0.12)
    assert street.networks.kinds(NetworkOptions()) == ["alligator"]
    assert street.networks.cell_m[0] == pytest.approx(0.13, rel=0.25)


def test_gaps_are_counted(street):
    number, _ = street.crack("long with gaps")
    assert street.chains.gap_m[number] == pytest.approx(0.03 + 0.12 + 0.22, abs=0.02)
    assert street.chains.length_m(street.outside)[number] == pytest.approx(LONG.length, rel=0.02)


def test_widths_are_those_drawn(street):
    """Also of two cracks that are 5 cm apart."""
    owner = street.chains.of_branch
    mask_width = np.array([b.mask_width_m for one in street.pieces for b in one.branches]) / GSD
    sums = width_sums(drawn_light(), street.pixels, mask_width, WIDTH_OPTIONS)
    free = WidthSums(*(getattr(sums, f.name)[street.free] for f in fields(WidthSums)))
    whole = free.group(owner, len(street.chains))
    mm = widths_mm(whole, depths(whole, WIDTH_OPTIONS), 1000 * GSD)
    found = {name: mm[street.crack(name)[0]] for name in WHOLE}
    assert found == pytest.approx(dict.fromkeys(WHOLE, 1000 * WIDTH_M), abs=1.0)


def test_types_follow_the_road(street):
    chains = street.chains
    kinds = crack_types(
        chains.orientation_deg(street.outside),
        chains.length_m(street.outside),
        np.full(len(chains), 90.0),
        TypeOptions(),
    )
    named = {name: kinds[street.crack(name)[0]] for name in WHOLE[:7]}
    assert named == {
        "long with gaps": "longitudinal",
        "parallel": "longitudinal",
        "beside it": "longitudinal",
        "stem of the T": "transverse",
        "bar of the T": "longitudinal",
        "X along": "longitudinal",
        "X across": "transverse",
    }


def test_all_line_and_all_pixels_belong_to_one_crack_or_network(street):
    total = street.branches.lengths.sum() / 1e6
    parts = street.chains.line_m(street.outside).sum() + street.networks.crack_length_m.sum()
    assert parts == pytest.approx(total, rel=1e-9)
    places = [pixels_of(one.geometry) for one in street.pieces]
    owner = np.repeat(np.arange(len(places)), [len(place) for place in places])
    branch = branch_of_pixels(np.concatenate(places), owner, street.pixels, street.piece)
    assert (street.piece[branch] == owner).all()
    inside = street.networks.of_branch[branch] >= 0
    assert inside.sum() + (~inside).sum() == street.mask.sum()
    line = street.networks.crack_length_m[0]
    assert 0.8 < inside.sum() * GSD**2 / line / WIDTH_M < 1  # crossings are counted once


@pytest.mark.parametrize("block", [97, 401])
def test_the_cut_into_blocks_changes_nothing(street, block):
    cut = Map(block)
    assert cut.chains.order.tolist() == street.chains.order.tolist()
    assert cut.chains.starts.tolist() == street.chains.starts.tolist()
    assert cut.chains.gap_um.tolist() == street.chains.gap_um.tolist()
    assert cut.networks.of_branch.tolist() == street.networks.of_branch.tolist()
    assert shapely.to_wkb(cut.networks.outlines).tolist() == (
        shapely.to_wkb(street.networks.outlines).tolist()
    )
    assert cut.branches.vertices.tolist() == street.branches.vertices.tolist()
