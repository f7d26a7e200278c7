"""A small city: three streets over abutting tiles, with exact truth as vectors and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float64
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.noise import Frame
from wpcrack.synthetic.street import Street, StreetConfig, TrueCrack, draw_street, paint, true_mask
from wpcrack.synthetic.surface import Material


@dataclass(frozen=True)
class CityConfig:
    """Layout of the city: a main street along the top, two side streets that leave it downwards."""

    tile_px: int = 1024
    gsd_m: float = 0.005
    main_tiles: int = 10
    side_tiles: int = 7
    """Tiles of each side street below the main street's row."""
    side_columns: tuple[int, ...] = (3, 9)
    """Tile columns of the side streets: a T junction and an L corner."""
    width_m: float = 4.4
    bend_m: float = 0.12
    """Winding of the streets; a street and its winding fit into the tile's width."""
    materials: tuple[Material, ...] = ("asphalt", "worn asphalt", "concrete")
    """Surface of the main street, then of the side streets."""
    street: StreetConfig = field(default_factory=StreetConfig)


@dataclass(frozen=True)
class TrueStreet:
    """A road for the map: centerline_px (N, 2) x, y in plane pixels, width of the carriageway."""

    street_id: int
    name: str
    centerline_px: Float64
    width_m: float


@dataclass(frozen=True)
class TileDrawing:
    """One tile: pixels (r, c) lie at plane pixel (row_off + r, col_off + c); image 0 = no data."""

    name: str
    row: int
    col: int
    row_off: int
    col_off: int
    image: npt.NDArray[np.uint8]  # (tile_px, tile_px, 3) RGB
    valid: npt.NDArray[np.bool_]  # (tile_px, tile_px)
    mask: npt.NDArray[np.bool_]  # (tile_px, tile_px)


@dataclass(frozen=True)
class City:
    """A drawn city; tiles are painted when they are asked for, one at a time.

    Attributes:
        config: Its layout.
        places: (row, column) of the tiles that exist.
        drawn: The streets as they are painted.
    """

    config: CityConfig
    places: tuple[tuple[int, int], ...]
    drawn: tuple[Street, ...]

    @property
    def gsd_m(self) -> float:
        """Meters per pixel."""
        return self.config.gsd_m

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in pixels of the whole canvas that holds all tiles."""
        rows, cols = np.array(self.places).max(axis=0) + 1
        return int(rows) * self.config.tile_px, int(cols) * self.config.tile_px

    @property
    def cracks(self) -> tuple[TrueCrack, ...]:
        """All true cracks, one record per branch."""
        return tuple(crack for street in self.drawn for crack in street.cracks)

    @property
    def streets(self) -> tuple[TrueStreet, ...]:
        """The roads with their centerlines."""
        return tuple(
            TrueStreet(k, s.name, s.axis.centerline(), s.axis.width_m)
            for k, s in enumerate(self.drawn, start=1)
        )

    def tiles(self) -> Iterator[TileDrawing]:
        """Paint the tiles in row-major order."""
        for row, col in self.places:
            size = self.config.tile_px
            frame = Frame(row * size, col * size, size, size)
            image, valid = paint(self.drawn, frame)
            mask = true_mask(self.drawn, frame) & valid
            name = f"tile_{row:02d}_{col:02d}"
            yield TileDrawing(name, row, col, frame.row_off, frame.col_off, image, valid, mask)

    def paint(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Return the imagery of any frame of the canvas, (H, W, 3) uint8, 0 = no data."""
        return paint(self.drawn, frame)[0]

    def mask(self, frame: Frame) -> npt.NDArray[np.bool_]:
        """Return the true crack pixels of any frame of the canvas, (H, W) bool."""
        return true_mask(self.drawn, frame)

    def valid(self, frame: Frame) -> npt.NDArray[np.bool_]:
        """Return the pixels of any frame of the canvas that hold imagery, (H, W) bool."""
        return np.asarray(np.any([street.inside(frame) for street in self.drawn], axis=0))


def draw_city(config: CityConfig, seed: int) -> City:
    """Draw a city; the same seed gives the same city."""
    names = ("Mill Street", "Harbor Lane", "Station Road", "Garden Row", "North Alley")
    children = np.random.SeedSequence(seed).spawn(1 + len(config.side_columns))
    drawn: list[Street] = []
    next_id = 1
    for k, child in enumerate(children):
        rng = np.random.default_rng(child)
        axis = _axis(rng, config, config.side_columns[k - 1] if k else None)
        street = draw_street(
            rng,
            axis,
            config.street,
            name=names[k % len(names)],
            first_crack_id=next_id,
            material=config.materials[k % len(config.materials)],
        )
        next_id = max([next_id, *(crack.crack_id + 1 for crack in street.cracks)])
        drawn.append(street)
    main = [(0, col) for col in range(config.main_tiles)]
    sides = [(row, col) for row in range(1, config.side_tiles + 1) for col in config.side_columns]
    return City(config, tuple(sorted(main + sides)), tuple(drawn))


def _axis(rng: np.random.Generator, config: CityConfig, column: int | None) -> StreetAxis:
    """Return the main street (column None) or the side street in a tile column."""
    tile = config.tile_px
    if column is None:
        along, across, length = 0.0, tile / 2, float(config.main_tiles * tile)
    else:
        along, across, length = tile / 2, (column + 0.5) * tile, (config.side_tiles + 0.5) * tile
    return StreetAxis(
        horizontal=column is None,
        along_px=along,
        across_px=across,
        length_m=length * config.gsd_m,
        width_m=config.width_m,
        gsd_m=config.gsd_m,
        bend_m=config.bend_m,
        bend_period_m=float(rng.uniform(18.0, 30.0)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
