"""One picture of a job: the imagery reduced, with cracks and networks by severity over it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from scipy.ndimage import binary_dilation

from geo.files import output_errors, whole_file
from geo.grid import Grid
from geo.imagery.overview import Overview
from geo.layers.run_rows import MapTerms
from geo.layers.schema import CRACK, GEOMETRY, NETWORK, Layer
from geo.layers.style import CASING, OVERVIEW_BLANK, SEVERITY_HEADING, Entry, rgb, severity_legend
from geo.outputs import seal_png
from geo.page.letters import drawable
from geo.paths import literal

WEBP_METHOD = 1
"""Of 0 to 6. It takes a third of the time of 4, the usual one, and no more bytes of pavement."""

OVERVIEW_PX = 2000
"""Longest side of the picture."""

CAPTION_PX = (146, 640)
"""Height and least width of what stands below the picture."""

SMALL = 15
"""Size of letters."""

LEGEND_COLUMNS, LEGEND_STEP_PX = 3, 190

LONGEST_BAR_PX = 200
NORTH_PX = 24
"""Of the scale bar, and of half the north arrow."""

KM = 1000.0

LINE_SHARE = 0.0015
"""Width of a drawn crack as a share of the longest side: seen when the picture fits a screen."""

SEVERITY = "severity_d6433"

FEATURES_AT_ONCE = 20_000
"""Cracks drawn from memory at a time."""


def draw_overview(overview: Overview, package: Path, out: Path) -> None:
    """Write the picture of a map: reduced imagery with the cracks of a GeoPackage, by severity.

    Cracks are lines in a dark casing, networks areas in which the imagery shows through; where
    several meet, the most severe one is seen. Below stand title, legend, scale bar and north
    arrow. Memory is bounded by the picture's size, not by the map's.

    Raises:
        OutputError: the picture cannot be written.
    """
    image = np.where(
        overview.valid[..., None], overview.image, np.array(rgb(OVERVIEW_BLANK), np.uint8)
    )
    terms, grid = MapTerms.read(package), overview.grid
    legend = severity_legend(terms.rules.severity)[::-1]  # the most severe one comes last
    for entry, area in zip(legend, _burn(package, NETWORK, legend, grid), strict=True):
        image[area] = (image[area].astype(np.uint16) + rgb(entry.color)) // 2
    radius = max(1, round(max(image.shape[:2]) * LINE_SHARE / 2))
    lines = [_thicken(marked, radius) for marked in _burn(package, CRACK, legend, grid)]
    every = np.logical_or.reduce(lines)
    image[_thicken(every, 1) & ~every] = rgb(CASING)
    for entry, line in zip(legend, lines, strict=True):
        image[line] = rgb(entry.color)
    strip = caption(grid, terms, max(image.shape[1], CAPTION_PX[1]))
    wide = np.full((len(image), strip.shape[1], 3), rgb(OVERVIEW_BLANK), np.uint8)
    wide[:, : image.shape[1]] = image
    _write_png(out, np.vstack((wide, strip)))


def caption(grid: Grid, terms: MapTerms, width: int) -> NDArray[np.uint8]:
    """Draw what tells how to read a picture: title, legend, scale bar, north arrow.

    Args:
        grid: of the picture.
        terms: of the map.
        width: of the strip in pixels.

    Returns:
        (CAPTION_PX[0], width, 3) pixels.
    """
    strip = Image.new("RGB", (width, CAPTION_PX[0]), "white")
    pen = ImageDraw.Draw(strip)
    large, small = ImageFont.load_default(24), ImageFont.load_default(SMALL)
    pen.line((0, 0, width, 0), fill="black")
    pen.text((16, 10), "Crack map", "black", large)
    length_m = scale_length(LONGEST_BAR_PX * grid.gsd_m)
    right = width - 90
    left = right - round(length_m / grid.gsd_m)
    text, font = drawable(_origin(terms, lambda text: _length(text) < left - 32), SMALL)
    pen.text((16, 42), text, "black", font)
    pen.text((16, 68), SEVERITY_HEADING, "black", small)
    entries = (*severity_legend(terms.rules.severity), Entry("", "no imagery", OVERVIEW_BLANK))
    for number, entry in enumerate(entries):
        row, column = divmod(number, LEGEND_COLUMNS)
        edge, top = 16 + LEGEND_STEP_PX * column, 94 + 22 * row
        pen.rectangle((edge, top + 2, edge + 32, top + 12), entry.color, CASING)
        pen.text((edge + 40, top - 2), entry.label, "black", small)
    pen.rectangle((left, 72, right, 80), "black")
    text = f"{length_m:g} m" if length_m < KM else f"{length_m / KM:g} km"
    pen.text((left, 50), text, "black", small)
    _north(pen, (width - 40, 50), grid)
    return np.asarray(strip)


def _origin(terms: MapTerms, fits: Callable[[str], bool]) -> str:
    """Name model and run; of a long model the beginning, so that the run can be read."""
    names = (terms.model, *(f"{terms.model[:k]}..." for k in range(len(terms.model) - 1, 0, -1)))
    texts = [", ".join(filter(None, (name, terms.run_id))) for name in names]
    return next(filter(fits, texts), texts[-1]) or "model and run are not known"


def _length(text: str) -> float:
    """Return the pixels that a text takes."""
    shown, font = drawable(text, SMALL)
    return font.getlength(shown)


def scale_length(most: float) -> float:
    """Return the longest length of 1, 2 or 5 with zeros that is not above another.

    >>> scale_length(37.0), scale_length(0.06)
    (20.0, 0.05)
    """
    ten = 10.0 ** np.floor(np.log10(most))
    return float(f"{max(step * ten for step in (1, 2, 5) if step * ten <= most):.3g}")


def _north(pen: ImageDraw.ImageDraw, center: tuple[float, float], grid: Grid) -> None:
    """Draw an arrow to grid north, with an N."""
    origin, up = grid.to_pixel(np.array([[0.0, 0.0], [0.0, 1.0]]))
    along = (up - origin) / np.hypot(*(up - origin))
    across = np.array([-along[1], along[0]])
    tip, base = center + NORTH_PX * along, center - NORTH_PX * along / 2
    sides = (base + NORTH_PX * across / 2, base - NORTH_PX * across / 2)
    pen.polygon([*map(tuple, (tip, sides[0], center, sides[1]))], "black")
    font = ImageFont.load_default(SMALL)
    pen.text(tuple(center - 1.2 * NORTH_PX * along), "N", "black", font, anchor="mm")


def _burn(
    package: Path, layer: Layer, legend: Sequence[Entry], grid: Grid
) -> list[NDArray[np.bool_]]:
    """Mark for each class the pixels of the reduced grid that its features touch.

    What people wrote into the map may be no class: it counts as the first one.
    """
    burned = [np.zeros(grid.shape, np.uint8) for _ in legend]
    keys = [entry.key for entry in legend]
    for shapes, written in _shapes(package, layer):
        severities = np.where(np.isin(written, keys), written, keys[0])
        for entry, marked in zip(legend, burned, strict=True):
            in_pixels = shapely.transform(shapes[severities == entry.key], grid.to_pixel)
            if len(in_pixels):
                rasterize(((shape, 1) for shape in in_pixels), out=marked, all_touched=True)
    return [marked.astype(bool) for marked in burned]


def _thicken(marked: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Mark every pixel within ``radius`` of a marked one."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(binary_dilation(marked, x * x + y * y <= radius * radius + 1))


def _shapes(
    package: Path, layer: Layer
) -> Iterator[tuple[NDArray[np.object_], NDArray[np.object_]]]:
    """Yield the geometries of a layer and their severities, a bounded number at a time."""
    with pyogrio.open_arrow(
        literal(package),
        layer=layer.name,
        columns=[SEVERITY],
        batch_size=FEATURES_AT_ONCE,
        use_pyarrow=True,
    ) as (_, reader):
        for batch in reader:
            geometry, severity = (
                batch[name].to_numpy(zero_copy_only=False) for name in (GEOMETRY, SEVERITY)
            )
            yield shapely.from_wkb(geometry), severity


def _write_png(out: Path, image: NDArray[np.uint8]) -> None:
    with output_errors(out), whole_file(out) as temporary:
        temporary.write_bytes(seal_png(encode_picture(image.transpose(2, 0, 1), "PNG")))


def encode_picture(bands: NDArray[np.uint8], driver: str, **options: int) -> bytes:
    """Encode a picture (bands, H, W) as a file of GDAL's driver."""
    count, height, width = bands.shape
    profile = {"driver": driver, "height": height, "width": width, "count": count} | options
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a picture, not a map
        with memory.open(**profile, dtype="uint8") as picture:
            picture.write(bands)
        return bytes(memory.read())
