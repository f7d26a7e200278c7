"""Many blocks are joined on Ray, region by region: the same map, and work that kills is found."""

from __future__ import annotations

import functools
import os
import signal
import sys

import numpy as np
import pytest
from factories import darkness, in_process, infer_job, layer, write_tile

from geo.cracks.regions import Region
from geo.grid import Window
from jobs.infer import run as infer
from jobs.infer import spread
from jobs.runtime.capacity import Request
from jobs.runtime.ray_session import ray_session
from jobs.runtime.shared import NotShared, is_seen
from wpcrack.errors import WpcrackError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with ray_session(Request("task", 2, {"CPU": 1.0}), local=True):
        yield


def test_a_map_of_regions_is_the_map(tmp_path, monkeypatch, capsys):
    image = np.full((300, 420, 3), 150, np.uint8)
    image[100:104, 20:400] = image[20:280, 200:204] = image[200:203, 30:90] = 20
    write_tile(tmp_path / "tiles" / "a.tif", image)
    monkeypatch.setattr(infer, "compute", in_process)
    small = {"lattice": {"window": 64, "overlap": 24, "blend": 8}, "block_strides": 1}

    def cracks(name):
        job = infer_job(tmp_path / "tiles", tmp_path / f"{name}.gpkg", **small)
        return layer(infer.run_inference(job, darkness).package)

    whole = cracks("whole")
    assert len(whole) > 1
    monkeypatch.setattr(spread, "SPREAD_FROM", 2)
    monkeypatch.setattr(spread, "REGION_BLOCKS", 4)
    assert cracks("regions").equals(whole)
    assert "linked and measured 6/6 regions" in capsys.readouterr().err
    assert not (tmp_path / "regions.work" / "assembly").exists()


def work(folder, region):
    """Die in one region always, in another the first time."""
    fallen = folder / f"{region.name}.fallen"
    if region.name == "evil" or (region.name == "weak" and not fallen.exists()):
        fallen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / region.name).touch()


def test_a_region_that_kills_its_worker_is_named_and_others_are_done(tmp_path):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    names = ("good", "weak", "evil")
    regions = [Region(name, Window(0, 0, 1, 1), ()) for name in names]

    folder = tmp_path / "results"

    def run(chosen):
        todo, last = functools.partial(work, folder), lambda region: folder / region.name
        spread.spread_on_ray(folder, lambda run_all: run_all(todo, chosen, last), local=True)

    with pytest.raises(WpcrackError, match="region evil killed its worker 3 times"):
        run(regions)
    assert (folder / "good").exists()  # kept for the next try
    run(regions[:2])
    assert not folder.exists()


def test_a_region_whose_files_the_driver_does_not_see_is_not_taken_for_done(tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "is_seen", functools.partial(is_seen, patience_s=0.0))
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    todo = functools.partial(work, tmp_path)  # as if on a node with a folder of its own
    regions = [Region("good", Window(0, 0, 1, 1), ())]

    def run(run_all):
        run_all(todo, regions, lambda region: tmp_path / "results" / region.name)

    with pytest.raises(NotShared, match=r"region good was finished on a node.*mount the folder"):
        spread.spread_on_ray(tmp_path / "results", run, local=True)
