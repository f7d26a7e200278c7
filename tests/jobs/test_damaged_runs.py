"""Damaged folders of trainings, sweeps and adaptions: one sentence that names the file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from jobs.tune.plan import plan_sweep
from wpcrack.errors import CheckpointError, ConfigError
from wpcrack.tensor_files import read_state

folders = importlib.import_module("benchmarks.fuzz.folders")

TEXTS = (b"{", b"[1]", b"\xff\xfe", b"[" * 9000)


def damage_each(root: Path, names: list[str], read) -> None:
    """Put each text into each file in turn; reading says which file is damaged."""
    for path in (root / name for name in names):
        sound = path.read_bytes()
        for text in TEXTS:
            path.write_bytes(text + b"\n")
            with pytest.raises(ConfigError, match=rf"{path.name} is damaged .*; ") as told:
                read(path)
            assert "\n" not in str(told.value)
        path.write_bytes(sound)
    read(root / names[0])


def test_each_damaged_file_of_a_training_is_named(tmp_path):
    folders.draw_training(tmp_path)
    names = ["config.yaml", "split.json", "metrics.jsonl", "report.json"]
    damage_each(tmp_path / "run", names, folders.read_training)


def test_each_damaged_file_of_a_sweep_is_named(tmp_path):
    folders.draw_sweep(tmp_path)
    names = ["config.yaml", "trials.jsonl", "trials/00000/metrics.jsonl"]
    damage_each(tmp_path / "run", names, folders.read_sweep)


def test_a_trial_of_settings_that_no_training_has_is_named(tmp_path):
    folders.draw_sweep(tmp_path)
    path = tmp_path / "run" / "trials.jsonl"
    path.write_text(path.read_text().replace("encoder_lr", "encoder_1r"))
    with pytest.raises(ConfigError, match=r"trials.jsonl is damaged"):
        folders.read_sweep(path)


@pytest.mark.parametrize("file", ["config.yaml", "split.json", "trials.jsonl", "report.json"])
def test_a_plan_of_a_sweep_refuses_what_the_sweep_would_refuse(tmp_path, file):
    folders.draw_sweep(tmp_path)
    job = folders.sweep_of(tmp_path)
    assert plan_sweep(job).trials == 3
    (tmp_path / "run" / file).write_text("{\n")
    with pytest.raises(ConfigError, match="damaged"):
        plan_sweep(job)
    plan_sweep(job.model_copy(update={"resume": "never"}))


def test_a_damaged_report_of_an_adaption_is_named(tmp_path):
    folders.draw_adaption(tmp_path)
    damage_each(tmp_path / "run", ["report.json"], folders.read_adaption)


def test_an_epoch_that_none_could_have_is_refused(tmp_path):
    folders.draw_training(tmp_path)
    path = tmp_path / "run" / "metrics.jsonl"
    for change in ({"stage": "end"}, {"epoch": 1.5}, {"val/score": "1"}, {"seconds": None}):
        path.write_text(json.dumps(folders.EPOCHS[2] | change) + "\n")
        with pytest.raises(ConfigError, match=r"metrics.jsonl is damaged"):
            folders.read_training(path)


@pytest.mark.parametrize("key", ["best", "val/score", "seconds"])
def test_an_epoch_that_lacks_a_figure_is_refused(tmp_path, key):
    line = json.dumps({name: x for name, x in folders.EPOCHS[2].items() if name != key}) + "\n"
    folders.draw_sweep(tmp_path / "sweep")
    path = tmp_path / "sweep" / "run" / "trials" / "00000" / "metrics.jsonl"
    if key == "best":  # which only a training reads
        folders.draw_training(tmp_path)
        path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(line)
    read = folders.read_training if key == "best" else folders.read_sweep
    with pytest.raises(ConfigError, match=r"metrics.jsonl is damaged"):
        read(path)


def test_a_weight_file_with_other_bytes_is_refused_in_a_sentence(tmp_path):
    path = folders.draw_weights(tmp_path)[1]
    content = path.read_bytes()
    place = content.index(b"cpu") - 10  # the number of a storage
    path.write_bytes(content[:place] + b"x" + content[place + 1 :])
    with pytest.raises(CheckpointError, match=r"is not a weight file"):
        folders.read_weights(path)


def test_a_state_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"step": 3, "weights": torch.zeros(9)}, path)
    assert read_state(path, "")["step"] == 3
    for content in (path.read_bytes()[:-40], b"", b"PK\3\4", b"\x80\x02]."):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state.pt is damaged .*; remove it"):
            read_state(path, "remove it")
