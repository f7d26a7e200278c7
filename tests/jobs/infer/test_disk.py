"""Kept probabilities, and disks that are full; a stand-in network, no Ray."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import rasterio
from factories import Pool, darkness, infer_job, write_tile

from geo.errors import OutputError
from geo.layers import geopackage
from jobs.infer import run as infer
from jobs.infer import worker as infer_worker

SIDE = 200


@pytest.fixture
def tile(tmp_path):
    image = np.full((SIDE, SIDE, 3), 150, np.uint8)
    image[100:104] = 20
    return write_tile(tmp_path / "tiles" / "a.tif", image)


@pytest.fixture(autouse=True)
def computed(monkeypatch):
    pool = Pool()
    monkeypatch.setattr(infer, "compute", pool)
    return pool.computed


def run(tile, factory=darkness, **values):
    job = infer_job(tile, tile.parents[1] / "o.gpkg", block_strides=1, **values)
    return infer.run_inference(job, factory)


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(1), raster.transform, raster.crs, raster.profile


def test_kept_probabilities_are_one_raster_in_the_place_of_the_tiles(tile):
    run(tile, probability="keep")
    folder = tile.parents[1] / "o.work" / "probability"
    values, transform, crs, _ = read(folder / "probability.vrt")
    expected = np.full((SIDE, SIDE), round(0.1 * 255), np.uint8)
    expected[100:104] = round(0.9 * 255)
    np.testing.assert_allclose(values, expected, atol=1)  # blending rounds
    _, tile_transform, tile_crs, _ = read(tile)
    assert tuple(transform) == pytest.approx(tuple(tile_transform))
    assert crs == tile_crs
    files = sorted(folder.glob("*.tif"))
    assert len(files) == 16
    assert not list(folder.glob(".*"))
    with rasterio.open(files[0]) as cog:
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert cog.dtypes == ("uint8",)


def test_probabilities_that_were_not_kept_are_computed_when_they_are_wanted(tile, computed):
    run(tile)
    work = tile.parents[1] / "o.work"
    assert not (work / "probability").exists()
    assert len(computed) == 16
    run(tile, probability="keep")
    assert len(computed) == 32
    next((work / "probability").glob("*.tif")).unlink()
    run(tile, probability="keep")
    assert len(computed) == 33
    run(tile)
    assert len(computed) == 33


def test_starting_anew_empties_the_probabilities(tile):
    run(tile, probability="keep")
    run(tile, resume="never")
    assert not (tile.parents[1] / "o.work" / "probability").exists()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("writer", ["write_part", "write_probability"])
def test_a_full_disk_is_named_and_finished_blocks_are_kept(tile, computed, monkeypatch, writer):
    original, calls = getattr(infer_worker, writer), []

    def filling(*arguments):
        calls.append(1)
        return (full if len(calls) > 5 else original)(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(infer_worker, writer, filling)
        with pytest.raises(OutputError, match=r"No space left.*free space.*blocks are kept"):
            run(tile, probability="keep")
    assert len(computed) == 5
    assert not (tile.parents[1] / "o.gpkg").exists()
    assert run(tile, probability="keep").exit_code == 0
    assert len(computed) == 16


def test_a_disk_too_full_for_the_map_keeps_all_blocks(tile, computed, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(geopackage, "_write_layer", full)
        with pytest.raises(OutputError, match=r"No space left.*free space"):
            run(tile)
    assert len(computed) == 16
    assert not list(tile.parents[1].glob(".*"))
    run(tile)
    assert len(computed) == 16
