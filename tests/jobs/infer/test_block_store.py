"""Blocks in object storage: nodes share no folder, and a driver elsewhere goes on with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from factories import Pool, darkness, infer_job, layer, street, write_tile

from geo.errors import OutputError
from jobs.infer import run as infer
from jobs.infer.attempts import MOST_DEATHS, Attempts, WorkerDied
from jobs.infer.block_store import BlockStore
from jobs.infer.job import InferJob
from jobs.infer.report import InferReport
from wpcrack.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    write_tile(tmp_path / "tiles" / "a.tif", street(256)[0])
    return tmp_path / "tiles"


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    """A folder that pyarrow treats as it does object storage."""
    return BlockStore(f"file://{tmp_path}/store")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(infer, "compute", pool)
    return pool


def run(tiles: Path, machine: Path, **more: Any) -> InferReport:
    """Map with the work folder on one machine's own disk."""
    return infer.run_inference(job_of(tiles, machine, **more), darkness)


def job_of(tiles: Path, machine: Path, **more: Any) -> InferJob:
    return infer_job(tiles, machine / "map.gpkg", **more)


def same(one: Path, other: Path, name: str = "crack") -> bool:
    """Return whether a layer of two maps is the same, but for what each run has of its own."""
    maps = (layer(place / "map.gpkg", name, ("run_id", "seconds")) for place in (one, other))
    return bool(next(maps).equals(next(maps)))


def test_a_driver_on_another_machine_goes_on_with_the_blocks(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool
) -> None:
    pool.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tiles, tmp_path / "one", parts=store.address)
    begun, pool.computed, pool.stop_after = set(pool.computed), [], None
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "store" / "parts" / "strange.parquet").touch()
    run(tiles, tmp_path / "two", parts=store.address)
    assert len(begun) == 2
    assert begun.isdisjoint(pool.computed)
    assert pool.computed
    assert not (tmp_path / "two" / "map.work" / "parts" / "strange.parquet").exists()
    run(tiles, tmp_path / "alone")
    for name in ("crack", "inspected"):
        assert same(tmp_path / "two", tmp_path / "alone", name)


def test_the_storage_holds_what_the_work_folder_holds(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool
) -> None:
    run(tiles, tmp_path / "one", parts=store.address, probability="keep")
    work = tmp_path / "one" / "map.work"
    assert store.names("parts", "probability") == {
        str(path.relative_to(work))
        for folder in ("parts", "probability")
        for path in (work / folder).iterdir()
        if path.suffix != ".vrt"
    }
    with pytest.raises(ConfigError, match="holds blocks of another run"):
        run(tiles, tmp_path / "two", parts=store.address, threshold=0.9)
    assert store.names("probability")
    run(tiles, tmp_path / "three", parts=store.address, threshold=0.9, resume="force")
    assert not store.names("probability")
    assert store.names("parts")
    assert not store.names("begun")


def test_a_driver_elsewhere_delivers_in_place_of_the_first(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool
) -> None:
    """A third, with blocks of its own, does not."""
    (tmp_path / "maps").mkdir()
    out: Any = f"file://{tmp_path}/maps/map.gpkg"

    def deliver(work: str, parts: str | None) -> int:
        job = infer_job(tiles, out, work=str(tmp_path / work), parts=parts)
        return len(infer.run_inference(job, darkness).copies)

    assert deliver("one", store.address)
    assert deliver("two", store.address)
    with pytest.raises(OutputError, match="the map of another job"):
        deliver("three", None)


@pytest.mark.parametrize("resume", ["auto", "force", "never"])
def test_blocks_of_another_map_are_neither_mixed_in_nor_removed(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool, resume: str
) -> None:
    run(tiles, tmp_path / "one", parts=store.address)
    there = store.names("parts")
    write_tile(tmp_path / "others" / "a.tif", 255 - street(256)[0])
    run(tmp_path / "others", tmp_path / "two")
    with pytest.raises(ConfigError, match=r"holds the blocks of another map \(map\.gpkg of tiles="):
        run(tmp_path / "others", tmp_path / "two", parts=store.address, resume=resume)
    assert store.names("parts") == there


@pytest.mark.parametrize("resume", ["auto", "force", "never"])
def test_what_no_job_wrote_is_not_removed(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool, resume: str
) -> None:
    theirs = tmp_path / "store" / "parts" / "wheel.step"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with pytest.raises(ConfigError, match=r"holds parts/wheel\.step, but no job\.jsonl"):
        run(tiles, tmp_path / "one", parts=store.address, resume=resume)
    assert theirs.exists()
    assert pool.computed == []


def test_a_damaged_storage_is_one_sentence(
    tiles: Path, tmp_path: Path, store: BlockStore, pool: Pool
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "job.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"store/job\.jsonl is damaged .*give another address"):
        run(tiles, tmp_path / "one", parts=store.address)


def test_work_that_kills_its_worker_is_given_up_wherever_it_is_tried(store: BlockStore) -> None:
    for _ in range(MOST_DEATHS):
        store.add("a")
    store.add("b")
    with (
        pytest.raises(WorkerDied, match="3 times"),
        Attempts(store).begin("a", "the block"),
    ):
        pytest.fail("it was begun again")
    assert (store.count("a"), store.count("b"), store.is_busy()) == (0, 1, True)


def test_a_storage_that_refuses_costs_no_work(tiles: Path, tmp_path: Path, pool: Pool) -> None:
    (tmp_path / "file").write_text("no folder")
    refusing = BlockStore(f"file://{tmp_path}/file/store")
    with pytest.raises(OutputError, match="cannot be read or written"):
        run(tiles, tmp_path / "one", parts=refusing.address)
    assert not refusing.is_busy()  # the line about waiting goes on
    assert pool.computed == []


@pytest.mark.ray
def test_workers_that_share_nothing_but_s3_make_the_same_map(
    tiles: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = f"s3://city/blocks/a?{server}"
    dark = darkness()  # as a value: no worker imports the modules of tests
    job = job_of(tiles, tmp_path / "one", parts=parts)
    infer.run_inference(job, lambda: dark, local=True)
    store = BlockStore(parts)
    assert len(store.names("parts")) == len(list((tmp_path / "one/map.work/parts").iterdir())) == 4
    begun = {name for name in store.names("begun") if not name.startswith("begun/model-")}
    assert not begun  # a worker may be about to load its model when the last block is done
    log = (tmp_path / "one" / "map.work" / "job.jsonl").read_text()
    assert "s3://city/blocks/a" in log
    assert "endpoint" not in log
    pool = Pool()
    monkeypatch.setattr(infer, "compute", pool)
    run(tiles, tmp_path / "two", parts=parts)
    assert pool.computed == []
    run(tiles, tmp_path / "alone")
    assert same(tmp_path / "one", tmp_path / "two")
    assert same(tmp_path / "one", tmp_path / "alone")


def test_parts_that_are_no_address_are_refused(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give an address like s3://bucket/blocks/city"):
        job_of(tiles, tmp_path, parts="work/parts")
