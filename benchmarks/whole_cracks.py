"""Score whole cracks on drawn cities: type, severity, width, wholeness, count, networks.

Run from the repository root:
    python -m benchmarks.whole_cracks [--seeds 0 1 2] [--mask perfect|spoiled|FILE] [--json FILE]

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
from tempfile import TemporaryDirectory

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import shapely

import geo
from benchmarks.mask_errors import with_errors
from geo.grid import Grid
from geo.options import AssembleOptions, MapRules, RoadOptions
from jobs.demo.draw import city_grid
from jobs.demo.truth import CityTruth, TruthFigures, score_truth
from wpcrack.synthetic import City, CityConfig, draw_city

Mask = npt.NDArray[np.bool_]
Gray = npt.NDArray[np.uint8]

THRESHOLD = 0.5

TARGETS = {
    "type_accuracy": (0.92, 0.88),
    "severity_accuracy": (0.92, 0.85),
    "width_mae_mm": (0.5, 1.8),
    "whole_cracks": (0.85, 0.55),
    "count_error": ("-.03-.03", "-.05-.10"),
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
        with TemporaryDirectory() as folder:
            package = map_of(canvas, mask, Path(folder))
            figures[seed] = score_truth(package, CityTruth.of(canvas.city, canvas.grid))
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
        return city_grid(self.city)

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


def map_of(canvas: Canvas, mask: Mask, folder: Path) -> Path:
    """Make the map of a mask, with widths from the imagery and types from the roads."""
    package, roads = folder / "cracks.gpkg", folder / "roads.gpkg"
    streets = canvas.city.streets
    lines = [shapely.LineString(canvas.grid.to_world(s.centerline_px)) for s in streets]
    columns = {"width": [s.width_m for s in streets]}
    geopandas.GeoDataFrame(columns, geometry=lines, crs=canvas.grid.crs).to_file(roads)
    rules = AssembleOptions.of(
        MapRules(), roads=RoadOptions(path=roads, width="width", section_m=10.0)
    )
    grid, valid = canvas.grid, canvas.gray > 0
    geo.make_map(
        *(np.where(mask, 0.8, 0.0).astype(np.float32), grid.transform, grid.crs, package),
        valid=valid,
        image=canvas.gray,
        options=rules,
    )
    return package


def table(figures: dict[int, TruthFigures], *, perfect: bool) -> str:
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
