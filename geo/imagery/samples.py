"""Windows to be labeled by hand: spread over the imagery and over its brightness."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geo.errors import InputError
from geo.grid import Window

CANDIDATES = 3
"""Windows that are looked at for each one that is chosen."""

BRIGHTNESS_BINS = 8
"""Steps of mean brightness, from shadow to paint, that are filled alike."""

SOURCE_PX = 2048
"""A tile larger than this is several places: neighboring windows must not end up on both sides of
a split, but a city in one file has to be split too."""


class Pixels(Protocol):
    """Pixels of a window."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(H, W); False where there is no image."""


class Ground(Protocol):
    """What windows are cut from: a mosaic, or pictures that lie side by side."""

    @property
    def windows(self) -> Sequence[Window]:
        """Where each tile or picture lies."""

    def read(self, window: Window, /) -> Pixels:
        """Read a window, which may reach beyond what there is."""

    def inside(self, window: Window, /) -> NDArray[np.bool_]:
        """Return which pixels (H, W) may be taken."""


@dataclass(frozen=True)
class Place:
    """A part of a tile from which windows are cut; `row`, `col` count its cells in the tile."""

    tile: int
    row: int
    col: int
    window: Window


@dataclass(frozen=True)
class Candidate:
    """A window of the mosaic, where it comes from and its mean brightness (0-255)."""

    place: Place
    window: Window
    brightness: float


def sample_windows(ground: Ground, count: int, side: int, seed: int) -> list[Candidate]:
    """Choose windows without overlap inside a place, wholly covered by imagery.

    Dark and bright windows are as welcome as common ones, and places take turns.

    Args:
        ground: the imagery; of an area only windows inside it are taken.
        count: how many.
        side: of a window in pixels.
        seed: another one gives another choice.

    Returns:
        At most ``count`` windows, fewer if there are no more; the first ones are as spread as all.

    Raises:
        InputError: no window fits.
    """
    rng = np.random.default_rng(seed)
    places = _places(ground, side)
    looked_at = _look(ground, _cells(places, side, rng, CANDIDATES * count))
    if not looked_at:
        raise InputError(f"no window of {side} pixels lies wholly on imagery; choose smaller ones")
    return _take_turns(looked_at, count)


def _places(ground: Ground, side: int) -> list[Place]:
    """Return the tiles, or cells of large tiles, that can hold a window."""
    places = []
    for number, tile in enumerate(ground.windows):
        for row in range(max(1, round(tile.height / SOURCE_PX))):
            for col in range(max(1, round(tile.width / SOURCE_PX))):
                cell = _cell(tile, row, col)
                if min(cell.height, cell.width) >= side:
                    places.append(Place(number, row, col, cell))
    return places


def _cell(tile: Window, row: int, col: int) -> Window:
    rows = np.linspace(0, tile.height, max(1, round(tile.height / SOURCE_PX)) + 1).astype(int)
    cols = np.linspace(0, tile.width, max(1, round(tile.width / SOURCE_PX)) + 1).astype(int)
    return Window(
        tile.row_off + int(rows[row]),
        tile.col_off + int(cols[col]),
        int(rows[row + 1] - rows[row]),
        int(cols[col + 1] - cols[col]),
    )


def _cells(
    places: Sequence[Place], side: int, rng: np.random.Generator, most: int
) -> list[tuple[Place, Window]]:
    """Lay windows side by side in each place, at a random offset, in random order, in turns."""
    order = [places[index] for index in rng.permutation(len(places))][:most]
    share = -(-most // max(len(order), 1))
    queues = []
    for place in order:
        rows, cols = place.window.height // side, place.window.width // side
        slack = place.window.height - rows * side, place.window.width - cols * side
        top, left = (int(rng.integers(0, free + 1)) for free in slack)
        picked = rng.permutation(rows * cols)[:share]
        corners = (
            (top + int(cell) // cols * side, left + int(cell) % cols * side) for cell in picked
        )
        queues.append(
            [
                (place, Window(place.window.row_off + r, place.window.col_off + c, side, side))
                for r, c in corners
            ]
        )
    turns = max(map(len, queues), default=0)
    mixed = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
    return mixed[:most]


def _look(ground: Ground, windows: Sequence[tuple[Place, Window]]) -> list[Candidate]:
    """Read windows, tile by tile; those that are not wholly inside the imagery are left out."""
    found: dict[int, Candidate] = {}
    for index in sorted(range(len(windows)), key=lambda i: (windows[i][0].tile, windows[i][1])):
        place, window = windows[index]
        seen = ground.read(window)
        if seen.valid.all() and ground.inside(window).all():
            found[index] = Candidate(place, window, float(seen.image.mean()))
    return [found[index] for index in sorted(found)]


def _take_turns(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Fill the steps of brightness alike, each time from the place that was taken least so far."""
    heaps: dict[int, list[tuple[int, int]]] = defaultdict(list)  # (times taken, candidate)
    for index, step in enumerate(_steps(candidates)):
        heaps[int(step)].append((0, index))
    queue = deque(heaps[step] for step in sorted(heaps))
    taken: dict[Place, int] = defaultdict(int)
    chosen: list[Candidate] = []
    while queue and len(chosen) < count:
        heap = queue.popleft()
        times, index = heapq.heappop(heap)
        place = candidates[index].place
        if times < taken[place]:  # others of the place were taken since; look again
            heapq.heappush(heap, (taken[place], index))
            queue.appendleft(heap)
            continue
        chosen.append(candidates[index])
        taken[place] += 1
        if heap:
            queue.append(heap)
    return chosen


def _steps(candidates: Sequence[Candidate]) -> NDArray[np.int64]:
    """Return the step of brightness of each candidate; the steps are equally wide."""
    brightness = np.array([candidate.brightness for candidate in candidates])
    low, high = np.percentile(brightness, (1, 99))
    edges = np.linspace(low, high, BRIGHTNESS_BINS + 1)[1:-1]
    steps: NDArray[np.int64] = np.digitize(brightness, edges).astype(np.int64)
    return steps
