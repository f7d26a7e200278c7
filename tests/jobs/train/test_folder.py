"""The run folder: whose it is, what may be continued, what a crash may leave behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from factories import image_level_set

from jobs.train.folder import (
    METRICS,
    REPORT,
    differences,
    open_run,
    read_data,
    read_metrics,
    sole_writer,
    truncate_metrics,
)
from jobs.train.job import TrainJob
from jobs.train.split import SPLIT, keep_split, share_split
from wpcrack.errors import CheckpointError, ConfigError, DataError, TrainingError


def job(run_dir: Path, **changes: object) -> TrainJob:
    return TrainJob.model_validate({"data": {"root": "set"}, "run_dir": run_dir, **changes})


def test_a_new_run_leaves_its_resolved_config(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run", seed=3)) as root:
        values = yaml.safe_load((root / "config.yaml").read_text())
    assert values["seed"] == 3
    assert TrainJob.model_validate(values).optim == job(tmp_path).optim


def test_another_config_in_the_same_folder_is_refused_and_names_the_key(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run", seed=3)):
        pass
    with pytest.raises(ConfigError, match=r"seed: 3 -> 4.*resume=force"):
        open_run(job(tmp_path / "run", seed=4)).__enter__()


def test_passwords_of_addresses_are_not_kept_and_change_nothing(tmp_path: Path) -> None:
    told = {"mlflow": "https://anna:s3cret@city.org/flow?token=s3cret"}
    for _ in range(2):
        with open_run(job(tmp_path / "run", tracking=told)) as root:
            pass
    assert "s3cret" not in (root / "config.yaml").read_text()
    assert "https://city.org/flow" in (root / "config.yaml").read_text()


def test_workers_and_place_may_change_between_two_starts(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run")):
        pass
    (tmp_path / "run").rename(tmp_path / "moved")
    with open_run(job(tmp_path / "moved", scaling={"num_workers": 2})) as root:
        assert root.name == "moved"


@pytest.mark.parametrize("uri", ["http://flow:5000", "file:///flow", "sqlite:////flow.db"])
def test_a_job_for_another_working_folder_keeps_its_places(tmp_path: Path, uri: str) -> None:
    """Ray Tune gives each trial a working folder of its own, and drops it with its session."""
    scaling, here = {"num_workers": 1, "storage_path": "states"}, Path.cwd()
    for given, wanted in (
        ("flow", f"{here}/flow"),
        ("file:./flow", f"file:{here}/flow"),
        ("sqlite:///flow.db", f"sqlite:///{here}/flow.db"),
        (uri, uri),
    ):
        found = job(tmp_path, scaling=scaling, tracking={"mlflow": given}).absolute()
        assert found.scaling.storage_path == f"{here}/states"
        assert found.tracking.mlflow == wanted
    assert job(tmp_path).absolute().scaling.storage_path is None


def test_force_continues_with_the_new_config_and_reopens_a_finished_run(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run", seed=3)) as root:
        (root / REPORT).write_text("{}")
        (root / METRICS).write_text('{"epoch": 0}\n')
    with open_run(job(tmp_path / "run", seed=4, resume="force")) as root:
        assert not (root / REPORT).exists()
        assert (root / METRICS).exists()


@pytest.mark.parametrize("resume", ["force", "auto"])
def test_a_start_that_is_refused_after_all_leaves_the_run_as_it_was(
    tmp_path: Path, resume: str
) -> None:
    seeds = {"force": (3, 4), "auto": (3, 3)}[resume]
    with open_run(job(tmp_path / "run", seed=seeds[0])) as root:
        for name in (METRICS, REPORT, SPLIT):
            (root / name).write_text("{}")
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    other = job(tmp_path / "run", seed=seeds[1], resume=resume, scaling={"num_workers": 2})

    def start(job: TrainJob, do: Callable[[], object]) -> None:
        with open_run(job):
            do()
            raise CheckpointError("the last checkpoint does not fit these settings")

    with pytest.raises(CheckpointError):
        start(other, lambda: (root / SPLIT).write_text("[]"))
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before
    with pytest.raises(CheckpointError):
        start(other, lambda: truncate_metrics(root, 0))  # a worker has loaded the checkpoint
    assert yaml.safe_load((root / "config.yaml").read_text())["scaling"]["num_workers"] == 2
    with pytest.raises(CheckpointError):
        start(job(tmp_path / "new"), lambda: None)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_never_starts_in_an_emptied_folder(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run", seed=3)) as root:
        (root / "checkpoints" / "epoch_00000").mkdir(parents=True)
        (root / METRICS).write_text('{"epoch": 0}\n')
    with open_run(job(tmp_path / "run", seed=4, resume="never")) as root:
        assert sorted(p.name for p in root.iterdir()) == [".lock", "config.yaml"]


@pytest.mark.parametrize(
    "model", [{"init": "run"}, {"pretrained": "file", "weights_file": "run/model/a.pth"}]
)
def test_a_folder_that_holds_what_the_training_starts_from_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job(tmp_path / "run", model=model)
    job(tmp_path / "other", model=model, resume="never")
    with pytest.raises(ValueError, match="lies in run_dir, which resume=never empties first"):
        job(tmp_path / "run", model=model, resume="never")


@pytest.mark.parametrize("resume", ["auto", "never", "force"])
def test_a_folder_with_foreign_files_is_never_touched(tmp_path: Path, resume: str) -> None:
    (tmp_path / "thesis.docx").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.docx"):
        open_run(job(tmp_path, resume=resume)).__enter__()
    assert (tmp_path / "thesis.docx").read_text() == "precious"


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with open_run(job(tmp_path / "run")), pytest.raises(ConfigError, match="another process"):
        open_run(job(tmp_path / "run")).__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        open_run(job(tmp_path / "run")).__enter__()


def test_a_run_dir_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        open_run(job(tmp_path / "file" / "run")).__enter__()


def test_a_worker_of_a_killed_driver_is_waited_for(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path),
        pytest.raises(TrainingError, match="still writes"),
        sole_writer(tmp_path, patience_s=0.3),
    ):
        pass
    with sole_writer(tmp_path, patience_s=0):
        pass


def test_epochs_that_run_again_and_half_lines_are_dropped(tmp_path: Path) -> None:
    lines = [json.dumps({"epoch": k, "stage": "warmup"}) for k in range(3)]
    (tmp_path / METRICS).write_text("\n".join(lines) + '\n{"epoch": 3, "tra')
    assert [line["epoch"] for line in read_metrics(tmp_path / METRICS)] == [0, 1, 2]
    truncate_metrics(tmp_path, 2)
    assert [line["epoch"] for line in read_metrics(tmp_path / METRICS)] == [0, 1]


def test_differences_name_nested_keys() -> None:
    a = {"train": {"steps": {"warmup": 1}}, "seed": 0}
    b = {"train": {"steps": {"warmup": 2}}, "seed": 0}
    assert differences(a, b) == ["train.steps.warmup: 1 -> 2"]


def test_a_batch_that_workers_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 3"):
        job(Path("run"), scaling={"num_workers": 3})
    with pytest.raises(ValueError, match="some of 20 workers would get nothing"):
        job(Path("run"), scaling={"num_workers": "2..20"})


def test_a_seed_that_generators_do_not_take_is_refused() -> None:
    assert job(Path("run"), seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ValueError, match="less than 9223372036854775808"):
        job(Path("run"), seed=2**63)


def test_a_range_of_workers_has_two_ends_the_smaller_first() -> None:
    scaling = job(Path("run"), scaling={"num_workers": "2..3"}).scaling
    assert (scaling.least, scaling.num_workers, scaling.is_elastic) == (2, 3, True)
    again = job(Path("run"), scaling=scaling.model_dump()).scaling
    assert again == scaling
    assert not job(Path("run"), scaling={"num_workers": "2..2"}).scaling.is_elastic
    assert job(Path("run"), scaling={"num_workers": 0}).scaling.least == 0
    with pytest.raises(ValueError, match="less than min_workers=4; write the smaller number first"):
        job(Path("run"), scaling={"num_workers": "4..2"})
    with pytest.raises(ValueError, match="valid integer"):
        job(Path("run"), scaling={"num_workers": "2..x"})


def test_a_run_keeps_its_split_when_images_are_added(tmp_path: Path) -> None:
    root = image_level_set(tmp_path / "set")
    again = job(tmp_path / "run", data={"root": root})
    with open_run(again) as folder:
        first = read_data(again)
        keep_split(folder, first)
    for k in range(40):
        (root / "crack" / f"new{k}.png").write_bytes(
            (root / "crack/street0_r0_c40.png").read_bytes()
        )
    later = read_data(again)
    assert {name: later.sides[name] for name in first.sides} == first.sides
    assert len(later.items) == len(first.items) + 40
    share_split(tmp_path / "run", tmp_path / "trial")
    assert read_data(job(tmp_path / "trial", data={"root": root})).sides == later.sides
    (tmp_path / "run" / SPLIT).write_text("{")
    with pytest.raises(ConfigError, match="resume=never"):
        read_data(again)
    assert read_data(again, anew=True).items
