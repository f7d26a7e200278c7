"""What a review needs of a map: its imagery, what the run layer says, pictures of places."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import scan
from geo.imagery.mosaic import Mosaic
from geo.layers.schema import CRACK, INSPECTED, NETWORK, OUTLINE, RUN
from geo.layers.sound_map import require_map
from geo.paths import literal
from jobs.settings.load import load
from jobs.settings.map import Imagery

AROUND = 2
"""Side of what is shown, in places: one with its surroundings."""

NOT_NEEDED = ("roads", "aoi", "crs")
"""Settings of the run that say nothing of pixels, or that the map itself says."""


@dataclass(frozen=True)
class MapRun:
    """What the layer run says: its id, its settings, and the folder that keeps its imagery."""

    run_id: str
    config: dict[str, Any]
    inputs: dict[str, Any]

    @classmethod
    def read(cls, package: Path) -> MapRun:
        """Read the layer run.

        Raises:
            InputError: the file is not a map of `wpcrack infer`, or damaged.
        """
        require_map(package)
        try:
            row = pyogrio.read_dataframe(literal(package), layer=RUN.name).iloc[0]
            config, inputs = (json.loads(row[name] or "{}") for name in ("config", "inputs"))
            return cls(str(row["run_id"] or ""), dict(config), dict(inputs))
        except (DataLayerError, DataSourceError, LookupError, ValueError, TypeError) as error:
            raise InputError(
                f"{package} is not a map of `wpcrack infer` that can be read ({error}); give one"
            ) from error

    def work_folder(self, package: Path) -> Path:
        """Return the work folder of the run; it may be gone."""
        return Path(self.inputs.get("assembled_from") or package.with_suffix(".work"))


def open_imagery(package: Path, run: MapRun, settings: Sequence[str]) -> Mosaic:
    """Place the imagery of a map on its grid.

    Args:
        package: the map.
        run: its layer run, which names the tiles.
        settings: `key=value` that differ, such as tiles=.

    Raises:
        InputError: the tiles are not there.
    """
    crs = pyogrio.read_info(literal(package), layer=INSPECTED.name)["crs"]
    known = Imagery.model_fields.keys() - set(NOT_NEEDED)
    base = {key: value for key, value in run.config.items() if key in known}
    imagery = load(Imagery, overrides=list(settings), base=base | {"crs": crs})
    try:
        return imagery.mosaic(scan(imagery.tiles, imagery.patience))
    except InputError as error:
        raise InputError(
            f"{error}; say where the imagery of the map lies now: tiles=DIR"
        ) from error


@dataclass(frozen=True)
class Picture:
    """A place with its surroundings: pixels (H, W, 3), and which show imagery (H, W)."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]

    def inner(self, side: int) -> Picture:
        """Return the place alone."""
        part = slice((len(self.image) - side) // 2, (len(self.image) + side) // 2)
        return Picture(self.image[part, part], self.valid[part, part])


class Scenes:
    """Cuts places out of the imagery, and what the map says there."""

    def __init__(self, package: Path, mosaic: Mosaic, side: int) -> None:
        self._package, self._mosaic, self.side = package, mosaic, side
        self._file = package.stat()

    def window(self, x: float, y: float) -> Window:
        """Return the pixels of the place around a point of the world."""
        col, row = np.rint(self._mosaic.grid.to_pixel(np.array([[x, y]]))[0] - self.side / 2)
        return Window(int(row), int(col), self.side, self.side)

    def cut(self, x: float, y: float) -> Picture:
        """Read the place around a point, with its surroundings; white where nothing was seen."""
        seen = self._mosaic.read(self._around(x, y))
        image = np.where(seen.valid[..., None], seen.image, np.uint8(255))
        return Picture(image, seen.valid & self._mosaic.inside(self._around(x, y)))

    def marks(self, x: float, y: float) -> dict[str, str]:
        """Return what the map shows there, as paths of SVG in pixels of the picture.

        Raises:
            InputError: another map has taken its place, or it cannot be read.
        """
        self._require_same()
        window, grid = self._around(x, y), self._mosaic.grid
        frame = shapely.transform(window.polygon(), grid.to_world)
        found = {}
        for name in (OUTLINE.name, NETWORK.name, CRACK.name):
            try:
                table = pyogrio.read_dataframe(
                    literal(self._package), layer=name, columns=[], bbox=tuple(frame.bounds)
                )
            except (DataLayerError, DataSourceError) as error:
                raise InputError(f"{self._package} cannot be read ({error}); try again") from error
            shapes = shapely.transform(
                table.geometry.to_numpy(),
                lambda xy: grid.to_pixel(xy) - (window.col_off, window.row_off),
            )
            clip = shapely.clip_by_rect(shapes, 0, 0, window.width, window.height)
            found[name] = " ".join(_path(shape) for shape in clip)
        return found

    def _require_same(self) -> None:
        """Refuse to show what another map says: the places were drawn on this one."""
        with suppress(OSError):
            if os.path.samestat(self._file, self._package.stat()):
                return
        raise InputError(
            f"{self._package} was moved or replaced while it was reviewed; press Ctrl-C in the "
            "terminal: every answer that was counted is kept"
        )

    def _around(self, x: float, y: float) -> Window:
        return self.window(x, y).pad((AROUND - 1) * self.side // 2)


def _path(shape: shapely.Geometry) -> str:
    """Return a shape as a path of SVG.

    >>> _path(shapely.LineString([(0, 1), (2.04, 3)]))
    'M0 1L2 3'
    """
    lines = shapely.get_parts(
        shapely.get_parts(shapely.boundary(shape)) if shape.area else shapely.get_parts(shape)
    )
    lines = [line for line in lines if line.geom_type in ("LineString", "LinearRing")]
    return "".join(
        "M" + "L".join(f"{x:.6g} {y:.6g}" for x, y in shapely.get_coordinates(line).round(1))
        for line in lines
    )
