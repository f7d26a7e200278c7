"""`wpcrack windows`: windows of a city's own tiles, to be labeled by hand and trained on.

    wpcrack windows tiles=tiles/ --count 2000 --out windows

Sort the pictures into windows/crack/ and windows/road/, or write crack or road into the column
label of windows/manifest.csv; `wpcrack train data.root=windows` takes either.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from geo.addresses import without_secrets
from geo.imagery.find import scan, summary
from geo.imagery.mosaic import Mosaic
from geo.imagery.samples import Candidate, sample_windows
from geo.imagery.suspect import suspicions
from jobs.runtime.terminal import say
from jobs.settings.map import Imagery
from wpcrack.data.folder import replace_set
from wpcrack.data.images import write_png
from wpcrack.data.manifest import COLUMNS, NAME, TILE_COLUMNS, Row, window_name
from wpcrack.errors import ConfigError

WORLD_DIGITS = 3
"""Decimals of x and y in the manifest: millimeters."""


@dataclass(frozen=True)
class WindowsReport:
    """What was cut: number of windows, of tiles with one, pixel size in mm, tiles left out."""

    out: Path
    n_windows: int
    n_tiles: int
    gsd_mm: float
    left_out: str

    def summary(self, wanted: int) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{self.n_windows} windows from {self.n_tiles} tiles in {self.out}"]
        if self.n_windows < wanted:
            lines.append(f"warning: the imagery holds no more than that; {wanted} were wanted")
        if self.left_out:
            lines.append(f"left out: {self.left_out}")
        lines.append(
            f"next: sort them into {self.out}/crack and {self.out}/road (or fill the column label "
            f"of {NAME}), then: wpcrack train data.root={self.out} data.gsd_mm={self.gsd_mm:.3g}"
        )
        return "\n".join(lines)


def run_windows(
    imagery: Imagery, out: Path, *, count: int = 2000, window: int = 128, seed: int = 0
) -> WindowsReport:
    """Cut windows out of tiles, as PNG files with a manifest whose label column is empty.

    Args:
        imagery: The tiles.
        out: A folder that does not exist yet or is empty: labels are never overwritten.
        count: How many windows, spread over tiles and brightness.
        window: Side in pixels.
        seed: Another one gives other windows.

    Raises:
        WpcrackError, GeoError: No usable tile, a folder in use, a number out of range.
    """
    if count < 1 or window < 1 or seed < 0:
        raise ConfigError(
            f"count is {count}, window {window}, seed {seed}; give positive numbers (seed: 0 or up)"
        )
    say("reading the headers of the tiles")
    mosaic = imagery.limit(imagery.mosaic(scan(imagery.tiles, imagery.patience)))
    for sentence in suspicions(mosaic):
        say(f"warning: {sentence}")
    with replace_set(out) as folder:
        say("choosing windows")
        chosen = sample_windows(mosaic, count, window, seed)
        sources = _sources(mosaic, chosen)
        rows = [_write(folder, mosaic, item, sources[item.place.tile]) for item in chosen]
        _write_manifest(folder / NAME, rows)
    return WindowsReport(
        out=out,
        n_windows=len(chosen),
        n_tiles=len({item.place.tile for item in chosen}),
        gsd_mm=1000 * mosaic.grid.gsd_m,
        left_out=summary(mosaic.problems),
    )


def _write(folder: Path, mosaic: Mosaic, item: Candidate, stem: str) -> tuple[object, ...]:
    """Write one window; return its line of the manifest."""
    place, window = item.place, item.window
    tile = mosaic.windows[place.tile]
    row, col = window.row_off - tile.row_off, window.col_off - tile.col_off
    source = f"{stem}.y{place.row}x{place.col}" if _is_cut(mosaic, item) else stem
    file = window_name(source, row, col)
    write_png(folder / file, mosaic.read(window).image)
    corner = mosaic.grid.to_world(np.array([[float(window.col_off), float(window.row_off)]]))[0]
    entry = Row(file, None, source, row, col, window.height, window.width, None)
    x, y = (round(float(value), WORLD_DIGITS) for value in corner)
    return (*astuple(entry), without_secrets(mosaic.tiles[place.tile].path), x, y)


def _is_cut(mosaic: Mosaic, item: Candidate) -> bool:
    return item.place.window != mosaic.windows[item.place.tile]


def _sources(mosaic: Mosaic, chosen: Sequence[Candidate]) -> dict[int, str]:
    """Name each tile: its stem, with as much of its folder as makes it the only one."""
    used = sorted({item.place.tile for item in chosen})
    paths = {tile: _plain(without_secrets(mosaic.tiles[tile].path)) for tile in used}
    names, depth = {tile: parts[-1] for tile, parts in paths.items()}, 1
    while len(set(names.values())) < len(names) and depth < max(map(len, paths.values())):
        depth += 1
        times = Counter(names.values())
        names = {
            tile: name if times[name] == 1 else "-".join(paths[tile][-depth:])
            for tile, name in names.items()
        }
    return names


def _plain(path: str) -> list[str]:
    """Return folders and stem of a path, of characters that every file system takes."""
    stem, _ = os.path.splitext(path)
    return [re.sub(r"[^\w.-]", "_", part) for part in stem.split("/") if part]


def _write_manifest(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *TILE_COLUMNS))
        writer.writerows(rows)
