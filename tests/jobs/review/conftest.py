"""A map of a drawn street, made without Ray: two cracks, one network of nothing, its tiles."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
from factories import EAST, NORTH, darkness, in_process, infer_job, street, write_tile
from shapely.geometry import LineString

from jobs.infer import run as infer
from jobs.review.run import ReviewOptions, draw_plan
from jobs.review.session import open_session
from jobs.review.source import MapRun, Scenes, open_imagery

OPTIONS = ReviewOptions(count=60, window=32)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Folder with tiles/, roads.gpkg and map/cracks.gpkg of a run; tests copy it."""
    folder = tmp_path_factory.mktemp("drawn")
    lines = tuple((((20, 40 + 90 * k), (580, 60 + 90 * k)), 4 + k % 2) for k in range(6))
    image, _ = street(600, lines)
    image[400:420, 300:310] = np.uint8(20)  # a stain, which the stand-in takes for a crack
    write_tile(folder / "tiles" / "a.tif", image)
    ends = [(EAST, NORTH - 1.5), (EAST + 3, NORTH - 1.5)]
    roads = geopandas.GeoDataFrame(
        {"id": ["A7"], "lanes": [1]}, geometry=[LineString(ends)], crs=25832
    )
    roads.to_file(folder / "roads.gpkg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "compute", in_process)
        given = {"path": folder / "roads.gpkg", "lanes": "lanes", "section_m": 1.0}
        formats = ["gpkg", "parquet", "pmtiles", "pdf"]
        out = folder / "map" / "cracks.gpkg"
        job = infer_job(folder / "tiles", out, roads=given, formats=formats)
        infer.run_inference(job, darkness)
    return folder


@pytest.fixture
def package(drawn, tmp_path) -> Path:
    """A copy of the map alone; its run layer names the tiles."""
    import shutil

    shutil.copytree(drawn / "map", tmp_path / "map")
    return tmp_path / "map" / "cracks.gpkg"


@pytest.fixture
def opened():
    """Open the session of a review, as the command does."""

    def open_(package, options=OPTIONS):
        run = MapRun.read(package)
        mosaic = open_imagery(package, run, ())
        plan = draw_plan(package, run, options, mosaic)
        scenes = Scenes(package, mosaic, options.window)
        return open_session(package.with_suffix(".review"), plan, scenes)

    return open_
