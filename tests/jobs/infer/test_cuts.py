"""However imagery is cut and shared out, the cracks are the same; a stand-in network, no Ray."""

from __future__ import annotations

import itertools
import json
import random

import geopandas
import numpy as np
import pytest
import rasterio
from factories import EAST, GSD_M, NORTH, describe_model, infer_job, layer, street, write_tile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.infer import run as infer
from jobs.infer.worker import BlockWorker

SIDE = 224
IMAGE, _ = street(
    SIDE, ((((5, 10), (110, 90), (215, 200)), 3), (((10, 215), (120, 70), (210, 20)), 3))
)


class MixedPool:
    """Takes Ray's place: some workers, each with its own model, take blocks in a random order."""

    def __init__(self):
        self.workers, self.seed = 1, 0

    def __call__(self, job, plan, todo, factory, *, local=False):
        workers = [BlockWorker(plan, factory()) for _ in range(self.workers)]
        order, chance = list(todo), random.Random(self.seed)
        chance.shuffle(order)
        yield from (chance.choice(workers).run(index) for index in order)


@pytest.fixture
def pool(monkeypatch):
    made = MixedPool()
    monkeypatch.setattr(infer, "compute", made)
    monkeypatch.setattr(infer, "draw_map", lambda *_: None)
    return made


def shaded():
    """A network whose answer at a pixel depends on the whole window around it."""

    def predict(windows):
        gray = windows.astype(np.float32).mean(-1)
        ramp = np.linspace(-8, 8, windows.shape[1], dtype=np.float32)[:, None]
        limit = gray.mean((1, 2), keepdims=True) * 0.55
        return 1 / (1 + np.exp((gray + ramp - limit) / 8, dtype=np.float32))

    return predict


def job_of(tiles, out, **values):
    small = {"lattice": {"window": 64, "overlap": 24, "blend": 8}}
    return infer_job(tiles, out, **small | values)


def edges(data):
    """Where a side is cut into tiles."""
    inner = data.draw(st.sets(st.integers(1, SIDE - 1), max_size=2))
    return [0, *sorted(inner), SIDE]


@settings(
    deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_files_blocks_batches_order_and_workers_change_no_crack(pool, tmp_path_factory, data):
    folder, image = tmp_path_factory.mktemp("cut"), IMAGE
    pool.workers, pool.seed = 1, 0
    whole = job_of(write_tile(folder / "whole.tif", image), folder / "whole.gpkg", block_strides=6)
    expected = layer(infer.run_inference(whole, shaded).package)
    assert len(expected)
    rows, cols = edges(data), edges(data)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(cols):
            part = image[max(top - 5, 0) : bottom, left:right]  # rows overlap
            write_tile(folder / "t" / f"{top}_{left}.tif", part, max(top - 5, 0), left)
    pool.workers, pool.seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 9))
    strides, batch = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    cut = job_of(folder / "t", folder / "cut.gpkg", block_strides=strides, batch=batch)
    assert layer(infer.run_inference(cut, shaded).package).equals(expected)


def test_islands_in_nodata_are_inspected_and_nothing_else(pool, tmp_path):
    image, island = IMAGE.copy(), np.zeros((SIDE, SIDE), bool)
    island[20:90, 30:100] = island[150:210, 120:220] = True
    image[~island] = 0
    report = infer.run_inference(
        job_of(write_tile(tmp_path / "a.tif", image, nodata=0), tmp_path / "o.gpkg"), shaded
    )
    assert report.exit_code == 0
    assert report.surveyed_mpx == pytest.approx(island.sum() / 1e6)
    found = geopandas.read_file(report.package, layer="crack")
    rows, cols = np.nonzero(island)
    assert len(found)
    bounds = found.total_bounds
    assert bounds[0] >= EAST + (cols.min() - 1) * GSD_M  # lines end where cracks do, to a pixel
    assert bounds[2] <= EAST + (cols.max() + 2) * GSD_M
    assert bounds[3] <= NORTH - (rows.min() - 1) * GSD_M
    assert found.touches_nodata.any()


@pytest.mark.parametrize("shape", [(SIDE, 1), (10, SIDE), (1, 1)])
def test_the_thinnest_tile_is_a_tile(pool, tmp_path, shape):
    image = IMAGE[: shape[0], : shape[1]]
    report = infer.run_inference(
        job_of(write_tile(tmp_path / "a.tif", image), tmp_path / "o.gpkg"), shaded
    )
    assert (report.exit_code, report.failures) == (0, ())
    assert report.surveyed_mpx * 1e6 == pytest.approx(shape[0] * shape[1])


def test_the_engine_is_part_of_what_a_job_depends_on(pool, tmp_path):
    tile, loaded = write_tile(tmp_path / "a.tif", IMAGE), []

    def load(folder, threads, engine, gsd_mm):
        assert gsd_mm == pytest.approx(1000 * GSD_M)
        loaded.append((threads, engine))
        return shaded()

    job = job_of(tile, tmp_path / "o.gpkg", model=describe_model(tmp_path / "run"), engine="torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "load_model", load)
        patch.setattr("jobs.infer.actors.gpus_here", lambda: 1)
        first = infer.run_inference(job)
        other = job.model_copy(update={"engine": "openvino", "resume": "never"})
        assert infer.run_inference(other).run_id != first.run_id
        auto = job.model_copy(update={"engine": "auto"})
        assert infer.run_inference(auto).run_id == infer.run_inference(other).run_id
        elsewhere = auto.model_copy(update={"out": tmp_path / "gpu.gpkg", "gpus_per_actor": 1.0})
        infer.run_inference(elsewhere)  # chosen once, by the driver, for all actors
    assert loaded == [(1, name) for name in ("torch", "openvino", "openvino", "torch")]
    (log,) = {(tmp_path / "gpu.work" / "job.jsonl").read_text().splitlines()[0]}
    assert json.loads(log)["config"]["engine"] == "torch"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "crs"), [("roads_image.tif", "EPSG:326"), ("village_rgb.tif", "EPSG:32737")]
)
def test_real_rasters_are_mapped_on_a_metric_grid(pool, tmp_path, shared_data, name, crs):
    values = {"roads": {"path": str(shared_data / "geo" / "roads.geojson"), "buffer_m": 8}}
    has_roads = name == "roads_image.tif"
    asked = values if has_roads else {}
    asked |= {"lattice": {"window": 256, "overlap": 64, "blend": 32}}
    job = job_of(shared_data / "geo" / name, tmp_path / "o.gpkg", **asked)
    report = infer.run_inference(job, shaded)
    assert (report.exit_code, report.failures) == (0, ())
    with rasterio.open(shared_data / "geo" / name) as tiff:
        share = report.surveyed_mpx * 1e6 / (tiff.width * tiff.height)
    assert 0.01 < share < 0.5 if has_roads else share > 0.5
    inspected = geopandas.read_file(report.package, layer="inspected")
    assert inspected.crs.to_string().startswith(crs)
    if has_roads:
        assert len(geopandas.read_file(report.package, layer="road_segment"))
