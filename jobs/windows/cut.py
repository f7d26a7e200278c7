"""Writing windows: pixels, what lies around them, and what a model thinks of each."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo.addresses import without_secrets
from geo.imagery.mosaic import Mosaic
from geo.imagery.samples import Candidate
from jobs.runtime.terminal import say
from jobs.windows.photographs import Photographs
from wpcrack.data.images import write_jpeg, write_png
from wpcrack.data.manifest import COLUMNS, LABEL_COLUMNS, TILE_COLUMNS, Row, window_name
from wpcrack.data.surroundings import AROUND, MARGIN_SHARE, surroundings_name
from wpcrack.errors import ConfigError
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import WindowPredictor, fill_invalid, predict_image
from wpcrack.inference.teaching import crack_probability, describe
from wpcrack.model import find_model, run_name

WORLD_DIGITS, GUESS_DIGITS = 3, 3
"""Decimals in the manifest, of x and y (millimeters) and of the model's guess."""

CONTEXT_SHARE = 4
"""The model sees this part of a window's side around it: as much as 32 pixels of 128."""

LONGEST_SOURCE = 150
"""Bytes of the name of a tile or photograph that are kept in names of windows."""

SAY_EVERY = 500
"""Windows between two lines about the progress."""


@dataclass(frozen=True)
class WindowsOptions:
    """What is cut, and whether a model orders it.

    Attributes:
        count: how many windows, spread over places and brightness.
        window: side in pixels.
        seed: another one gives other windows.
        ordered: list those first that the model is unsure of, and note what the model thinks.
        model: run folder; None: the shipped model.
        surroundings: also keep a picture of what lies around each window.
    """

    count: int = 2000
    window: int = 128
    seed: int = 0
    ordered: bool = True
    model: Path | None = None
    surroundings: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range."""
        if self.count < 1 or self.window < 1 or self.seed < 0:
            raise ConfigError(
                f"count is {self.count}, window {self.window}, seed {self.seed}; give positive "
                "numbers (seed: 0 or up)"
            )


@dataclass(frozen=True, eq=False)
class Cut:
    """A window that was written: its line of the manifest, and what a model thinks of it."""

    row: Row
    candidate: Candidate
    surroundings: str
    guess: float
    described: NDArray[np.float32]


class Cutter:
    """Writes windows, and asks a model about each."""

    def __init__(
        self,
        ground: Mosaic | Photographs,
        folder: Path,
        options: WindowsOptions,
    ) -> None:
        """Prepare the folder and load the model, if one is asked.

        Args:
            ground: what windows are cut from.
            folder: to write to.
            options: what is cut.

        Raises:
            WpcrackError: the model cannot be read.
        """
        self._ground, self._folder, self._options = ground, folder, options
        self._sources: Mapping[int, str] = {}
        self._predictor: WindowPredictor | None = None
        if options.ordered:
            gsd_mm = 1000 * ground.grid.gsd_m if isinstance(ground, Mosaic) else None
            self._predictor = load_predictor(options.model, gsd_mm=gsd_mm)
        if options.surroundings:
            (folder / AROUND).mkdir()

    def cut(self, chosen: Sequence[Candidate]) -> list[Cut]:
        """Write windows, place by place; return them in the order in which they are given."""
        if self._options.ordered:
            say(f"asking {run_name(find_model(self._options.model))} about {len(chosen)} windows")
        self._sources = _sources(_paths(self._ground), chosen)
        found: dict[int, Cut] = {}
        for k in sorted(range(len(chosen)), key=lambda k: (chosen[k].place.tile, chosen[k].window)):
            found[k] = self._one(chosen[k])
            if self._options.ordered and len(found) % SAY_EVERY == 0:
                say(f"{len(found)} of {len(chosen)}")
        return [found[k] for k in range(len(chosen))]

    def _one(self, item: Candidate) -> Cut:
        place, window = item.place, item.window
        tile = self._ground.windows[place.tile]
        row, col = window.row_off - tile.row_off, window.col_off - tile.col_off
        source = self._sources[place.tile]
        if isinstance(self._ground, Mosaic) and place.window != tile:
            source = f"{source}.y{place.row}x{place.col}"
        file = window_name(source, row, col)
        wide = window.pad(window.height // MARGIN_SHARE)
        seen = self._ground.read(wide)
        core = window.slices_in(wide)
        image = np.ascontiguousarray(seen.image[core])
        write_png(self._folder / file, image)
        surroundings = ""
        if self._options.surroundings:
            surroundings = surroundings_name(file)
            write_jpeg(self._folder / surroundings, fill_invalid(seen.image, seen.valid))
        entry = Row(file, None, source, row, col, window.height, window.width, None)
        cut = Cut(entry, item, surroundings, 0.0, np.zeros((2, 0), np.float32))
        if self._predictor is None:
            return cut
        near = window.pad(window.height // CONTEXT_SHARE)
        part = near.slices_in(wide)
        shown = fill_invalid(seen.image[part], seen.valid[part])
        levels = predict_image(shown, self._predictor, Lattice())[window.slices_in(near)]
        probability = levels.astype(np.float32) / 255
        guess = crack_probability(probability)
        return replace(cut, guess=guess, described=describe(image, probability))


def _paths(ground: Mosaic | Photographs) -> list[str]:
    if isinstance(ground, Mosaic):
        return [without_secrets(tile.path) for tile in ground.tiles]
    return [path.name for path in ground.paths]


def _sources(paths: Sequence[str], chosen: Sequence[Candidate]) -> dict[int, str]:
    """Name each tile: its stem, with as much of its folder as makes it the only one."""
    used = sorted({item.place.tile for item in chosen})
    parts = {tile: _plain(paths[tile]) for tile in used}
    names, depth = {tile: known[-1] for tile, known in parts.items()}, 1
    while len(set(names.values())) < len(names) and depth < max(map(len, parts.values())):
        depth += 1
        times = Counter(names.values())
        names = {
            tile: name if times[name] == 1 else "-".join(parts[tile][-depth:])
            for tile, name in names.items()
        }
    short = {
        tile: name.encode()[-LONGEST_SOURCE:].decode(errors="ignore")
        for tile, name in names.items()
    }
    times = Counter(short.values())
    return {t: name if times[name] == 1 else f"{name}.{t}" for t, name in short.items()}


def _plain(path: str) -> list[str]:
    """Return folders and stem of a path, of characters that every file system takes."""
    stem, _ = os.path.splitext(path)
    return [re.sub(r"[^\w.-]", "_", part) for part in stem.split("/") if part]


def write_manifest(path: Path, ground: Mosaic | Photographs, cut: Sequence[Cut]) -> None:
    """Write the manifest of windows, in their order; labels are still to come."""
    has_guess = any(item.described.size for item in cut)
    mapped = TILE_COLUMNS if isinstance(ground, Mosaic) else ()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *mapped, *LABEL_COLUMNS))
        for item in cut:
            guess = round(item.guess, GUESS_DIGITS) if has_guess else None
            where = _where(ground, item.candidate) if isinstance(ground, Mosaic) else ()
            writer.writerow((*astuple(item.row), *where, guess, item.surroundings))


def _where(mosaic: Mosaic, item: Candidate) -> tuple[object, ...]:
    """Return the tile, and x, y of the window's corner."""
    corner = np.array([[float(item.window.col_off), float(item.window.row_off)]])
    x, y = (round(float(value), WORLD_DIGITS) for value in mosaic.grid.to_world(corner)[0])
    return without_secrets(mosaic.tiles[item.place.tile].path), x, y
