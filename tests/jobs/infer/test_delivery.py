"""A map in object storage is whole, its own job's, and not another's."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from factories import Pool, darkness, layer, street, write_tile
from pydantic import ValidationError

from geo.errors import OutputError
from jobs.assemble.job import AssembleJob
from jobs.infer import delivery
from jobs.infer import run as infer
from jobs.infer.job import InferJob
from jobs.infer.report import InferReport

SETTINGS = {
    **{"model": "none", "min_area_m2": 0, "block_strides": 2},
    "lattice": {"window": 96, "overlap": 32, "blend": 16},
}


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    pool = Pool()
    monkeypatch.setattr(infer, "compute", pool)
    return pool


def job_of(root: Path, address: str, work: str = "work", **more: Any) -> InferJob:
    if not (root / "tiles").exists():
        write_tile(root / "tiles" / "a.tif", street()[0])
    given = {"tiles": str(root / "tiles"), "out": address, "work": str(root / work)}
    return InferJob.model_validate(SETTINGS | given | more)


def run(root: Path, address: str, work: str = "work", **more: Any) -> InferReport:
    return infer.run_inference(job_of(root, address, work, **more), darkness)


def test_a_map_in_s3_is_the_one_that_was_made_with_all_its_files(tmp_path, server, capsys):
    out = "s3://city/maps/a.gpkg"
    report = run(tmp_path, f"{out}?{server}", formats=["gpkg", "parquet"], parquet_rows=1)
    assert report.copies[0] == out
    assert out in report.summary()
    assert server not in capsys.readouterr().err
    files, folder = pyarrow.fs.FileSystem.from_uri(f"s3://city/maps?{server}")
    place = pyarrow.fs.FileSelector(folder, recursive=True)

    def there() -> dict[str, str]:
        found = (x.path for x in files.get_file_info(place) if x.is_file)
        return {path.removeprefix(f"{folder}/"): path for path in found}

    found, work = there(), tmp_path / "work"
    paths = (path.relative_to(work) for path in work.rglob("*") if path.is_file())
    made = {str(path): work / path for path in paths if path.parts[0] != "a.work"}
    assert set(found) == {*made, "a.claim.json"}
    assert any(name.startswith("a_inspected.parquet/") for name in found)
    assert {"a.gpkg", "a.map.html", "a.overview.png", "a.report.md"} <= set(found)
    for name, path in made.items():
        with files.open_input_stream(found[name]) as stream:
            assert stream.read() == path.read_bytes()
    run(tmp_path, f"{out}?{server}")  # its own map is renewed, in fewer formats
    assert set(there()) == {name for name in found if ".parquet" not in name}
    with pytest.raises(OutputError, match=r"map of another job, of .*work/a\.work"):
        run(tmp_path, f"{out}?{server}", work="other")


def test_a_folder_of_any_name_is_the_one_that_was_typed(tmp_path, server, monkeypatch):
    monkeypatch.setattr(infer, "draw_map", lambda *_: None)
    out = f"s3://city/maps ü #2/100%/a.gpkg?{server}"
    assert run(tmp_path, out).copies == ("s3://city/maps%20%C3%BC%20%232/100%25/a.gpkg",)
    files, _ = pyarrow.fs.FileSystem.from_uri(f"s3://city?{server}")
    assert files.get_file_info("city/maps ü #2/100%/a.gpkg").is_file
    assert server not in (tmp_path / "work" / "a.work" / "job.jsonl").read_text()


@pytest.mark.parametrize("bucket", ["s3:///a.gpkg", "s3://us:secret@city//x/a.gpkg"])
def test_an_address_that_is_none_is_said_to_be_that(tmp_path, server, bucket):
    """No claim is damaged there, and no key stands in the sentence."""
    with pytest.raises(OutputError, match=r"cannot be read or written .*check the address") as told:
        run(tmp_path, f"{bucket}?{server}")
    assert "secret" not in str(told.value)


def test_what_lies_beside_a_map_is_not_listed_to_the_bottom(tmp_path, address, monkeypatch):
    """A bucket may hold millions of tiles."""
    asked = []

    def selector(folder: str, *, recursive: bool, allow_not_found: bool) -> Any:
        asked.append(recursive)
        return real(folder, recursive=recursive, allow_not_found=allow_not_found)

    real = pyarrow.fs.FileSelector
    monkeypatch.setattr(pyarrow.fs, "FileSelector", selector)
    run(tmp_path, address)
    assert asked
    assert not any(asked)


def test_a_server_that_refuses_costs_no_work(tmp_path, server, pool):
    with pytest.raises(OutputError, match=r"s3://nowhere/a\.gpkg cannot be read or written"):
        run(tmp_path, f"s3://nowhere/a.gpkg?{server}")
    assert pool.computed == []


@pytest.fixture
def address(tmp_path):
    """A folder that pyarrow treats as it does object storage."""
    (tmp_path / "maps").mkdir()
    return f"file://{tmp_path}/maps/a.gpkg"


def test_what_is_killed_while_it_copies_goes_on(tmp_path, address, monkeypatch, pool):
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "copy_up", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            run(tmp_path, address)
    blocks = list(pool.computed)
    run(tmp_path, address)
    assert pool.computed == blocks
    one, other = (layer(tmp_path / folder / "a.gpkg") for folder in ("work", "maps"))
    assert len(one) > 0
    assert one.equals(other)


def test_of_two_jobs_that_begin_together_the_one_whose_claim_is_gone_copies_nothing(
    tmp_path, address, monkeypatch
):
    def begin_other(*_):
        claim = tmp_path / "maps" / "a.claim.json"
        claim.write_text(json.dumps({"owner": "x", "place": "there:/w", "files": {}}))

    monkeypatch.setattr(infer, "draw_map", begin_other)
    with pytest.raises(OutputError, match="map of another job, of there:/w"):
        run(tmp_path, address)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["a.claim.json"]
    assert (tmp_path / "work" / "a.gpkg").exists()


@pytest.mark.parametrize("name", ["a.gpkg", "a.report.md"])
def test_what_people_changed_there_is_not_replaced(tmp_path, address, name):
    run(tmp_path, address)
    changed = tmp_path / "maps" / name
    changed.write_bytes(changed.read_bytes() + b" ")
    os.utime(changed, (1, 1))
    before = changed.read_bytes()
    for job in (run, lambda *given: infer.plan_inference(job_of(*given))):
        with pytest.raises(OutputError, match=f"{name} .*was changed"):
            job(tmp_path, address)
    assert changed.read_bytes() == before


@pytest.mark.parametrize("name", ["a.gpkg", "a.report.md", "a_crack.parquet/part.parquet"])
def test_what_others_wrote_there_is_not_replaced(tmp_path, address, name):
    theirs = tmp_path / "maps" / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(OutputError, match=f"{name} .*not written by this program"):
        run(tmp_path, address, formats=["gpkg", "parquet"])
    assert theirs.read_bytes() == b"theirs"


def test_an_address_takes_a_folder_to_work_in():
    values = {"tiles": "t", "out": "s3://city/maps/a.gpkg?region=x"}
    job = InferJob.model_validate(values | {"work": "/mnt/w"})
    assert (job.out, job.deliver_to) == (Path("/mnt/w/a.gpkg"), "s3://city/maps?region=x")
    assert InferJob.model_validate(job.model_dump()) == job  # as `submit` sends it
    for more, sentence in (
        ({}, "set work=FOLDER"),
        ({"work": "s3://city/w"}, "which object storage does not have"),
        ({"work": "/mnt/w", "out": "/mnt/a.gpkg"}, "lies elsewhere"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            InferJob.model_validate(values | more)
    with pytest.raises(ValidationError, match="give the path of a file"):
        AssembleJob.model_validate({"out": "s3://city/maps/a.gpkg"})
