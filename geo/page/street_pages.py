"""One page per district and per street as PDF, for the people who decide: map, figures, legend.

The imagery is the reduced one that lies behind every map; cracks, networks and segments are drawn
as lines over it. A map without roads gets one page for all of it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import cm
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfgen.canvas import Canvas

from geo.errors import count_of
from geo.files import output_errors, whole_file
from geo.imagery.overview import Overview
from geo.layers.run_rows import MapTerms
from geo.layers.schema import CRACK, INSPECTED, NETWORK, ROAD_SEGMENT
from geo.layers.style import CASING, RANK_TITLES, SEVERITY_HEADING, priority_legend, severity_legend
from geo.outputs import seal_pdf
from geo.page.letters import BOLD, FONT, is_unwritable, letters_for, shorten
from geo.page.preview import KM, scale_length
from geo.page.report import ground_m2, street_of
from geo.paths import layer_names, literal

MAX_PAGES = 500
"""Districts, and streets, with a page: the worst ones."""

MAX_ROWS = 22
"""Lines in the table of a page: the worst ones."""

MARGIN = 2 * cm
MAP_WIDTH, MAP_HEIGHT = A4[0] - 2 * MARGIN, 12 * cm
PICTURE_PX = 900
"""Width of the imagery on a page."""

AROUND_M = 3.0
"""Ground that is shown beyond the borders of a street."""

NOTE_SIZE, NOTE_BOTTOM = 6, 0.9 * cm
NOTE = "Not claimed, of the whole map:"
"""Of what is not claimed, at the foot of a page."""

COLUMNS = (
    ("rank", "rank", 0, 0.0),
    ("label", "", 0, 0.06),
    ("coverage_pct", "seen %", 0, 0.28),
    ("by", "", 1, 0.36),
    ("crack_length_m", "cracks m", 1, 0.46),
    ("network_area_m2", "netw. m²", 2, 0.55),
    ("low_m", "low m", 1, 0.65),
    ("medium_m", "medium m", 1, 0.72),
    ("high_m", "high m", 1, 0.82),
    ("not_measurable_m", "no width m", 1, 0.9),
)
"""Column, title and digits of the table, and where it begins as a share of the width."""

CELL_SIZE, NAME_WIDTH = 7.5, 0.21 * MAP_WIDTH
"""Points of the letters of the table, and of the widest name: the next column stays free."""

TITLE_SIZES, TITLE_HEIGHT = (18, 12, 9), 40
"""Points: a title that is too long for one size is written in the next one, in several lines."""

LINE = 1.2
"""Distance of lines in sizes of their letters."""

SUMS = (
    *("surveyed_area_m2", "crack_length_m", "network_area_m2"),
    *("low_m", "medium_m", "high_m", "not_measurable_m"),
)
"""Columns of which a street has the sum of its segments."""


@dataclass(frozen=True, eq=False)
class Page:
    """A street, a district, or the whole map.

    Attributes:
        title: of the page.
        segments: shown and added up.
        table: what stands in the table, the worst first, with the columns label and by.
        of, by: what a line of the table is, and the figure by which they are ranked.
    """

    title: str
    segments: geopandas.GeoDataFrame
    table: pd.DataFrame
    of: str = "segment"
    by: str = ""


@dataclass(frozen=True, eq=False)
class Layers:
    """What is drawn, of a whole map; segments may be empty."""

    cracks: geopandas.GeoDataFrame
    networks: geopandas.GeoDataFrame
    segments: geopandas.GeoDataFrame
    inspected: pd.DataFrame
    terms: MapTerms


@dataclass(frozen=True)
class Frame:
    """Ground shown on a page: its lower left corner and points of paper per unit of the CRS."""

    x: float
    y: float
    scale: float
    bottom: float

    def on_paper(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, 2) points on the page of (N, 2) x, y."""
        return np.asarray((places - [self.x, self.y]) * self.scale + [MARGIN, self.bottom])


def write_street_pages(package: Path, out: Path, backdrop: Overview) -> int:
    """Write a PDF with one page per district, then one per street, the worst first.

    Returns:
        Number of pages.

    Raises:
        OutputError: the file cannot be written.
    """
    none = geopandas.GeoDataFrame({"rank": [], "geometry": []})
    layers = Layers(
        geopandas.read_file(literal(package), layer=CRACK.name),
        geopandas.read_file(literal(package), layer=NETWORK.name),
        geopandas.read_file(literal(package), layer=ROAD_SEGMENT.name)
        if ROAD_SEGMENT.name in layer_names(package)
        else none,
        pyogrio.read_dataframe(
            literal(package), layer=INSPECTED.name, columns=["survey_date"], read_geometry=False
        ),
        MapTerms.read(package),
    )
    document = io.BytesIO()
    canvas = Canvas(document, A4, invariant=1)
    canvas.setTitle("Crack map")
    pages = _pages(layers.segments, layers.terms.rules.segments.rank_by)
    for page in pages:
        _draw_page(canvas, page, layers, backdrop)
        canvas.showPage()
    canvas.save()
    with output_errors(out), whole_file(out) as temporary:
        temporary.write_bytes(seal_pdf(document.getvalue()))
    return len(pages)


def places(package: Path) -> tuple[list[str], list[str]]:
    """Return names of districts and of streets; the worst MAX_PAGES of either have a page each."""
    if ROAD_SEGMENT.name not in layer_names(package):
        return [], []
    table = pyogrio.read_dataframe(literal(package), layer=ROAD_SEGMENT.name, read_geometry=False)
    return sorted(table["district"].dropna().unique()), sorted(street_of(table).unique())


def _pages(segments: geopandas.GeoDataFrame, rank_by: str) -> list[Page]:
    """Return the pages: districts, then streets, each by its worst segment."""
    if segments.empty:
        return [Page("Crack map", segments, segments)]
    ranked = segments.sort_values(["rank", "segment_id"], na_position="last")
    ranked["label"], ranked["by"] = ranked["segment_id"], ranked[rank_by]
    by = RANK_TITLES[rank_by]
    street = street_of(ranked)
    road = street.map(dict(zip(street, ranked["road_id"], strict=True)))
    street = street.where(~street.map(is_unwritable), "road " + road + ": " + street)
    districts = [
        Page(str(name), rows, _by_street(rows, street[rows.index]), "street", by)
        for name, rows in ranked.groupby(ranked["district"], sort=False)
    ]
    by_street = ranked.groupby(street, sort=False)
    streets = [Page(str(name), rows, rows, by=by) for name, rows in by_street]
    return districts[:MAX_PAGES] + streets[:MAX_PAGES]


def _by_street(segments: geopandas.GeoDataFrame, street: pd.Series) -> pd.DataFrame:
    """Add up segments, street by street; percents are of the surveyed and of the whole ground."""
    seen, by = segments["surveyed_area_m2"], segments["by"]
    sums = {"ground": ground_m2(segments), "known": seen.where(by.notna()), "sum": by * seen}
    rows = segments.assign(**sums).groupby(street, sort=False)
    found = rows[[*SUMS, *sums]].sum()
    found["rank"] = rows["rank"].min()
    found["coverage_pct"] = 100.0 * found["surveyed_area_m2"] / found["ground"]
    found["by"] = found["sum"] / found["known"]
    found["label"] = found.index
    return found


def _draw_page(canvas: Canvas, page: Page, layers: Layers, backdrop: Overview) -> None:
    segments = page.segments
    top = A4[1] - MARGIN + 8
    _title(canvas, top, page.title)
    known = layers.terms.origin(layers.inspected, layers.cracks)
    origin = ", ".join(f"{what} {value}" for what, value in known)
    _text(canvas, MARGIN, top - 16, origin, 8)
    _text(canvas, MARGIN, top - 28, _figures(segments, layers), 9)
    frame = _frame(segments, layers, backdrop, top - 36 - MAP_HEIGHT)
    canvas.saveState()
    window = canvas.beginPath()
    window.rect(MARGIN, frame.bottom, MAP_WIDTH, MAP_HEIGHT)
    canvas.clipPath(window, stroke=0, fill=0)
    _draw_picture(canvas, frame, backdrop)
    _draw_layers(canvas, frame, segments, layers)
    canvas.restoreState()
    canvas.setStrokeColor("black", 1)
    canvas.setLineWidth(0.5)
    canvas.rect(MARGIN, frame.bottom, MAP_WIDTH, MAP_HEIGHT, stroke=1, fill=0)
    _scale_and_north(canvas, frame, backdrop)
    below = _legend(canvas, frame.bottom - 14, layers)
    _table(canvas, below - 20, page)
    lines = simpleSplit(f"{NOTE} {layers.terms.not_claimed}", FONT, NOTE_SIZE, MAP_WIDTH)
    for number, line in enumerate(reversed(lines)):
        _text(canvas, MARGIN, NOTE_BOTTOM + LINE * NOTE_SIZE * number, line, NOTE_SIZE)


def _title(canvas: Canvas, bottom: float, title: str) -> None:
    """Draw a title in the largest letters in which all of it can be read, its last line below."""
    text, font = letters_for(title, BOLD)
    for size in TITLE_SIZES:
        lines, most = simpleSplit(text, font, size, MAP_WIDTH), int(TITLE_HEIGHT / (LINE * size))
        if len(lines) <= most:
            break
    canvas.setFillColor("black", 1)
    canvas.setFont(font, size)
    for number, line in enumerate(reversed(lines[:most])):
        canvas.drawString(MARGIN, bottom + LINE * size * number, line)


def _figures(segments: geopandas.GeoDataFrame, layers: Layers) -> str:
    """Say how much was found on a street, or on the whole map."""
    if segments.empty:
        cracks, areas = layers.cracks["length_m"], layers.networks["area_m2"]
        return f"{cracks.sum():.1f} m of cracks, {areas.sum():.2f} m² of networks."
    sums = segments[["length_m", "crack_length_m", "network_area_m2"]].sum()
    return (
        f"{sums['length_m']:.0f} m of road in {count_of(len(segments), 'segment')}: "
        f"{sums['crack_length_m']:.1f} m of cracks, {sums['network_area_m2']:.2f} m² of networks."
    )


def _frame(
    segments: geopandas.GeoDataFrame, layers: Layers, backdrop: Overview, bottom: float
) -> Frame:
    """Fit a street, or the whole map, into the place of the map."""
    grid = backdrop.grid
    bounds = np.array(grid.footprint().bounds)
    if not segments.empty:
        around = (AROUND_M + float(segments["width_m"].max()) / 2) / grid.unit_m
        bounds = segments.total_bounds + np.array([-1, -1, 1, 1]) * around
    width, height = bounds[2:] - bounds[:2]
    scale = min(MAP_WIDTH / width, MAP_HEIGHT / height)
    x, y = (bounds[:2] + bounds[2:]) / 2 - np.array([MAP_WIDTH, MAP_HEIGHT]) / (2 * scale)
    return Frame(float(x), float(y), float(scale), bottom)


def _draw_picture(canvas: Canvas, frame: Frame, backdrop: Overview) -> None:
    """Draw the imagery of the frame, pixel by pixel, whatever the turn of its grid."""
    rows = round(PICTURE_PX * MAP_HEIGHT / MAP_WIDTH)
    x = frame.x + (np.arange(PICTURE_PX) + 0.5) / PICTURE_PX * MAP_WIDTH / frame.scale
    y = frame.y + (rows - np.arange(rows) - 0.5) / rows * MAP_HEIGHT / frame.scale
    ground = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    col, row = np.floor(backdrop.grid.to_pixel(ground)).astype(np.int64).T
    height, width = backdrop.valid.shape
    inside = (row >= 0) & (col >= 0) & (row < height) & (col < width)
    pixels = np.full((len(ground), 3), 255, np.uint8)
    seen = np.flatnonzero(inside)
    seen = seen[backdrop.valid[row[seen], col[seen]]]
    pixels[seen] = backdrop.image[row[seen], col[seen]]
    picture = Image.fromarray(pixels.reshape(rows, PICTURE_PX, 3))
    canvas.drawImage(ImageReader(picture), MARGIN, frame.bottom, MAP_WIDTH, MAP_HEIGHT)


def _draw_layers(
    canvas: Canvas, frame: Frame, segments: geopandas.GeoDataFrame, layers: Layers
) -> None:
    rules = layers.terms.rules
    priority = {entry.key: entry.color for entry in priority_legend(rules.segments)}
    severity = {entry.key: entry.color for entry in severity_legend(rules.severity)}
    box = shapely.box(
        *(frame.x, frame.y),
        *(frame.x + MAP_WIDTH / frame.scale, frame.y + MAP_HEIGHT / frame.scale),
    )
    for shape, key in zip(segments.geometry, segments.get("priority", []), strict=True):
        _lines(canvas, frame, [shape], (priority.get(key or "", priority[""]), 3.0, 0.6))
    for frame_of, width in ((layers.networks, 0.7), (layers.cracks, 0.9)):
        near = frame_of.iloc[np.sort(frame_of.sindex.query(box, "intersects"))]
        for shape, key in zip(near.geometry, near["severity_d6433"], strict=True):
            parts = list(shapely.get_parts(shape))
            color = severity.get(key, severity["not_measurable"])
            if frame_of is layers.networks:
                _lines(canvas, frame, [part.exterior for part in parts], (color, width, 1.0))
                continue
            _lines(canvas, frame, parts, (CASING, width + 0.8, 1.0))
            _lines(canvas, frame, parts, (color, width, 1.0))


def _lines(
    canvas: Canvas,
    frame: Frame,
    lines: list[shapely.Geometry],
    look: tuple[str, float, float],
) -> None:
    """Draw lines in a color, width in points and opacity."""
    color, width, opacity = look
    path = canvas.beginPath()
    for line in lines:
        first, *others = frame.on_paper(shapely.get_coordinates(line)).tolist()
        path.moveTo(*first)
        for place in others:
            path.lineTo(*place)
    canvas.setStrokeColor(color, opacity)
    canvas.setLineWidth(width)
    canvas.drawPath(path, stroke=1, fill=0)


def _scale_and_north(canvas: Canvas, frame: Frame, backdrop: Overview) -> None:
    points_per_m = frame.scale / backdrop.grid.unit_m
    length_m = scale_length(4 * cm / points_per_m)
    left, bottom = MARGIN + 8, frame.bottom + 8
    canvas.setStrokeColor("black", 1)
    canvas.setFillColor("white", 0.8)
    canvas.rect(left - 4, bottom - 4, 4 * cm + 46, 24, stroke=0, fill=1)
    canvas.setFillColor("black", 1)
    canvas.rect(left, bottom, length_m * points_per_m, 3, stroke=0, fill=1)
    text = f"{length_m:g} m" if length_m < KM else f"{length_m / KM:g} km"
    _text(canvas, left, bottom + 7, text, 8)
    arrow = canvas.beginPath()  # pages are drawn with grid north up
    east = left + 4 * cm + 20
    arrow.moveTo(east, bottom + 17)
    arrow.lineTo(east - 5, bottom)
    arrow.lineTo(east, bottom + 4)
    arrow.lineTo(east + 5, bottom)
    canvas.drawPath(arrow, stroke=0, fill=1)
    _text(canvas, east + 8, bottom + 3, "N", 8)


def _legend(canvas: Canvas, top: float, layers: Layers) -> float:
    """Draw the legend in two columns; returns its lower edge."""
    rules = layers.terms.rules
    groups = [(SEVERITY_HEADING, severity_legend(rules.severity))]
    if not layers.segments.empty:
        groups.append(("Road segments", priority_legend(rules.segments)))
    for number, (title, entries) in enumerate(groups):
        left = MARGIN + number * MAP_WIDTH / 2
        _text(canvas, left, top, title, 9, BOLD)
        for line, entry in enumerate(entries, start=1):
            canvas.setStrokeColor(CASING, 1)
            canvas.setLineWidth(0.5)
            canvas.setFillColor(entry.color, 1)
            canvas.rect(left, top - 12 * line, 16, 6, stroke=1, fill=1)
            _text(canvas, left + 22, top - 12 * line, entry.label, 8)
    return top - 12 * max(len(entries) for _, entries in groups)


def _table(canvas: Canvas, top: float, page: Page) -> None:
    """Draw the figures of segments or streets, the worst first."""
    if page.table.empty:
        return
    for name, title, _, place in COLUMNS:
        text = title or {"label": page.of, "by": page.by}[name]
        _text(canvas, MARGIN + place * MAP_WIDTH, top, text, CELL_SIZE, BOLD)
    for line, (_, row) in enumerate(page.table.head(MAX_ROWS).iterrows(), start=1):
        for name, _, digits, place in COLUMNS:
            cell = _cell(row[name], digits + (name == "by" and "%" not in page.by))  # m/m²: finer
            _text(canvas, MARGIN + place * MAP_WIDTH, top - 12 * line, cell, CELL_SIZE)
    rest = len(page.table) - MAX_ROWS
    if rest > 0:
        text = f"and {rest} more {page.of}s (see the table of segments)"
        _text(canvas, MARGIN, top - 12 * (MAX_ROWS + 1), text, CELL_SIZE)


def _cell(value: object, digits: int) -> str:
    """Return what stands in the table; of a long name the beginning and the end.

    >>> _cell("{3f2504e0-4f89-11d3-9a0c-0305e82c3301}-007", 0)
    '{3f2504e0-4f89…3301}-007'
    """
    if isinstance(value, str):
        return shorten(value, FONT, CELL_SIZE, NAME_WIDTH)
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def _text(canvas: Canvas, x: float, y: float, text: str, size: float, font: str = FONT) -> None:
    text, font = letters_for(text, font)
    canvas.setFillColor("black", 1)
    canvas.setFont(font, size)
    canvas.drawString(x, y, text)
