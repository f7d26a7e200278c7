"""Score whole cracks on drawn cities: type, severity, width, wholeness, count, networks.

Run from the repository root:
    python benchmarks/whole_cracks.py [--seeds 0 1 2] [--mask perfect|spoiled|FILE] [--json FILE]

The mask is the drawn one (perfect), the drawn one with the errors of a detector (spoiled, see
mask_errors.py; no network has a part in it), or a file of probabilities over the canvas of the
city of one seed (one band, 8 bits or 0 to 1). From it follow pieces, branches, networks, cracks,
types and widths as in a map, and a table of figures beside their targets. FILE may hold {seed}.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from city_truth import CityTruth, Figures, Predicted, score
from mask_errors import with_errors
from rasterio.crs import CRS

from geo.cracks.branches import BranchSet
from geo.cracks.chains import Chains, chain
from geo.cracks.linking import LinkOptions, link
from geo.cracks.networks import NetworkOptions, find_networks
from geo.cracks.pieces import pieces
from geo.cracks.width import Picture, WidthOptions, width_sums
from geo.grid import Grid, Window
from geo.layers.classes import crack_types
from geo.layers.crack_width import crack_widths
from geo.options import TypeOptions
from wpcrack.synthetic import City, CityConfig, draw_city

Mask = npt.NDArray[np.bool_]
Gray = npt.NDArray[np.uint8]

THRESHOLD = 0.5

TARGETS = {
    "type": (0.92, 0.88),
    "severity": (0.92, 0.85),
    "width_mae_mm": (0.5, 1.8),
    "whole_cracks": (0.85, 0.55),
    "count": ("0.97-1.03", "0.95-1.10"),
    "network_iou": (0.85, 0.80),
}
"""With the perfect mask, and with a predicted one."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mask", default="perfect", help="perfect, spoiled or a raster")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = {}
    for seed in options.seeds:
        started = time.perf_counter()
        canvas = Canvas.drawn(seed)
        mask = canvas.mask_of(options.mask, seed)
        drawn = time.perf_counter()
        figures[seed] = score(map_of(canvas, mask), CityTruth.of(canvas.city, canvas.grid))
        took = f"drawn in {drawn - started:.0f} s, mapped and scored in "
        print(f"seed {seed}: {took}{time.perf_counter() - drawn:.0f} s", flush=True)
    print(table(figures, perfect=options.mask == "perfect"))
    if options.json:
        values = {seed: asdict(figure) for seed, figure in figures.items()}
        options.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Canvas:
    """A drawn city as one picture: gray (H, W) with 0 = no imagery, and its true mask (H, W)."""

    city: City
    gray: Gray
    mask: Mask

    @classmethod
    def drawn(cls, seed: int) -> Canvas:
        """Return the city that `wpcrack demo` draws for a seed."""
        child = np.random.SeedSequence(seed).spawn(2)[1]
        city = draw_city(CityConfig(), int(child.generate_state(1)[0]))
        gray, mask = np.zeros(city.shape, np.uint8), np.zeros(city.shape, bool)
        size = city.config.tile_px
        for tile in city.tiles():
            here = np.s_[tile.row_off : tile.row_off + size, tile.col_off : tile.col_off + size]
            gray[here] = np.rint(tile.image.mean(axis=2, dtype=np.float32))
            mask[here] = tile.mask
        return cls(city, gray, mask)

    @property
    def grid(self) -> Grid:
        """The city's pixels in UTM."""
        gsd = self.city.gsd_m
        place = Affine(gsd, 0.0, 565_000.0, 0.0, -gsd, 5_935_000.0)
        return Grid(place, CRS.from_epsg(25832), (self.mask.shape[0], self.mask.shape[1]))

    def mask_of(self, kind: str, seed: int) -> Mask:
        """Return the perfect mask, that with errors, or a thresholded file."""
        if kind == "perfect":
            return self.mask
        if kind == "spoiled":
            valid = self.gray > 0
            return with_errors(self.mask, valid, self.city.cracks, self.city.gsd_m, 1000 + seed)
        with rasterio.open(kind.format(seed=seed)) as source:
            probability = source.read(1)
        if probability.shape != self.mask.shape:
            raise SystemExit(f"{kind} has {probability.shape} pixels, the city {self.mask.shape}")
        most = 255 if probability.dtype == np.uint8 else 1
        return np.asarray(probability >= THRESHOLD * most)


def map_of(canvas: Canvas, mask: Mask) -> Predicted:
    """Cracks and networks of a mask, with widths from the imagery and types from the roads."""
    grid, gsd_mm = canvas.grid, 1000 * canvas.city.gsd_m
    lines, nodes, mask_px = traced(mask, grid)
    counts = np.array([len(line) for line in lines])
    points = np.concatenate(lines)
    branches = BranchSet.of_meters(grid.to_world(points), counts, nodes)
    networks = find_networks(branches, NetworkOptions())
    free = np.flatnonzero(networks.of_branch < 0)
    outside = branches.take(free)
    chains = chain(outside, link(outside, LinkOptions()))
    in_pixels = BranchSet.of_meters(points, counts, nodes)
    picture = Picture(canvas.gray, valid=canvas.gray > 0)
    options = WidthOptions()
    sums = width_sums(picture, in_pixels, mask_px, options)
    owner = networks.of_branch + len(chains)
    owner[free] = chains.of_branch
    total = len(chains) + len(networks)
    widths = crack_widths(sums, owner, total, np.full(len(branches), gsd_mm), options)
    truth = CityTruth.of(canvas.city, grid)
    return Predicted(
        lines=np.split(branches.vertices / 1e6, branches.starts[1:-1]),
        owner=owner,
        n_cracks=len(chains),
        length_m=chains.length_m(outside),
        gap_m=chains.gap_m,
        networks=networks.outlines,
        types=types_of(outside, chains, truth),
        widths=widths,
    )


def traced(
    mask: Mask, grid: Grid
) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Centerlines in pixels, their nodes, and the width of the mask along each in pixels."""
    found = pieces(mask, mask * np.uint8(200), Window(0, 0, *mask.shape), grid)
    lines, nodes, widths, before = [], [], [], 0
    for piece in found:
        assert piece.measures is not None, "nothing is cut"
        branches = piece.measures.branches
        lines += [branch.line for branch in branches]
        nodes += [(branch.from_node + before, branch.to_node + before) for branch in branches]
        widths += [branch.width_mean_m / grid.gsd_m for branch in branches]
        before = 1 + max(max(pair) for pair in nodes[-len(branches) :])
    return lines, np.array(nodes), np.array(widths)


def types_of(branches: BranchSet, chains: Chains, truth: CityTruth) -> npt.NDArray[np.object_]:
    """Types of cracks by the direction of the nearest road."""
    middle = chains.order[(chains.starts[:-1] + chains.starts[1:]) // 2]
    places = branches.at(2 * middle, branches.lengths[middle] // 2) / 1e6
    return crack_types(
        chains.orientation_deg(branches),
        chains.length_m(branches),
        np.zeros(len(chains)),
        truth.road_deg(places),
        TypeOptions(),
    )


def table(figures: dict[int, Figures], *, perfect: bool) -> str:
    """All figures by seed, their mean, and the target."""
    names = list(asdict(next(iter(figures.values()))))
    head = "".join(f"{'seed ' + str(seed):>10}" for seed in figures)
    lines = [f"{'':28}{head}{'mean':>10}{'target':>12}"]
    for name in names:
        values = [getattr(figure, name) for figure in figures.values()]
        target = TARGETS.get(name, ("", ""))[0 if perfect else 1]
        row = "".join(f"{value:10.3f}" for value in values)
        lines.append(f"{name:28}{row}{np.mean(values):10.3f}{target!s:>12}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
