"""A model folder: what is saved comes back, whole or not at all; each defect is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
import yaml
from factories import TINY_MODEL, tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from wpcrack import files
from wpcrack.config import ModelConfig
from wpcrack.errors import CheckpointError, StorageError
from wpcrack.model import (
    CONFIG,
    WEIGHTS,
    ModelInfo,
    describe_anew,
    find_model,
    load_model,
    read_info,
    run_name,
    save_model,
)
from wpcrack.networks import Networks

INFO = ModelInfo(model=ModelConfig(**TINY_MODEL), gsd_mm=2.5, trained={"epoch": 3, "score": 0.5})


def networks(seed: int = 0) -> Networks:
    torch.manual_seed(seed)
    return Networks(INFO.model).to(memory_format=torch.channels_last)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "run" / "model", networks(), INFO)
    return tmp_path / "run" / "model"


def same(a: Networks, b: Networks) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def change_weights(folder: Path, **changes: Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, folder / WEIGHTS)


def test_a_model_comes_back_as_it_was_saved(folder: Path) -> None:
    model, want = load_model(folder.parent), networks()
    assert same(model.networks, want)
    assert model.info == INFO
    assert model.folder == folder
    assert not model.networks.training
    assert not any(p.requires_grad for p in model.networks.parameters())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.networks(image), want.eval()(image))


def test_a_model_is_found_by_its_run_folder_or_its_own(folder: Path) -> None:
    assert find_model(folder.parent) == folder
    assert find_model(folder) == folder


def test_the_folder_in_which_one_is_may_be_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert find_model(Path()).samefile(folder)
    monkeypatch.chdir(folder)
    assert find_model(Path()).samefile(folder)
    with pytest.raises(CheckpointError, match="holds no model"):
        find_model(Path("/"))


def test_loading_needs_neither_pretrained_weights_nor_network(tmp_path: Path) -> None:
    for pretrained in ("timm", "package"):
        update = {"encoder": "tf_efficientnet_lite0", "pretrained": pretrained}
        config = INFO.model.model_copy(update=update)
        nets = Networks(config.model_copy(update={"pretrained": "none"}))
        save_model(tmp_path / pretrained, nets, INFO.model_copy(update={"model": config}))
        assert same(load_model(tmp_path / pretrained).networks, nets)


def test_saving_again_replaces_the_model_and_leaves_nothing_else(folder: Path) -> None:
    save_model(folder, networks(1), INFO)
    assert same(load_model(folder).networks, networks(1))
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("dies_at", [0, 1])
def test_an_interrupted_save_keeps_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    replace, calls = os.replace, []

    def killed(a: Path, b: Path) -> None:
        calls.append(b)
        if len(calls) > dies_at:
            raise KeyboardInterrupt
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_model(folder, networks(1), INFO)
    for path in (folder, folder.parent):
        assert same(load_model(path).networks, networks(0))
        assert run_name(find_model(path)) == "run"
    save_model(folder, networks(2), INFO)
    assert same(load_model(folder).networks, networks(2))
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_save_that_dies_while_writing_keeps_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"No space left on device.*free space"):
        save_model(folder, networks(1), INFO)
    assert same(load_model(folder).networks, networks(0))


def test_a_new_description_leaves_the_weights_and_fails_as_a_save_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    info = read_info(folder)
    describe_anew(folder, info.model_copy(update={"fusion_power": 2.5}))
    assert read_info(folder) == info.model_copy(update={"fusion_power": 2.5})
    assert (folder / "model.safetensors").read_bytes() == weights

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match=r"No space left on device.*free space"):
        describe_anew(folder, info)
    assert read_info(folder).fusion_power == 2.5


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change_weights(folder, **{"detector.logit.bias": None})
    with pytest.raises(CheckpointError, match=r"detector\.logit\.bias is missing; keep both"):
        load_model(folder)


def test_an_extra_tensor_is_named(folder: Path) -> None:
    change_weights(folder, surplus=torch.zeros(1))
    with pytest.raises(CheckpointError, match="surplus is unknown"):
        load_model(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes_and_others_are_counted(folder: Path) -> None:
    change_weights(
        folder, **{"detector.logit.bias": torch.zeros(2), "classifier.head.score.bias": None}
    )
    expected = r"classifier\.head\.score\.bias is missing \(and 1 more\)"
    with pytest.raises(CheckpointError, match=expected):
        load_model(folder)
    change_weights(folder, **{"classifier.head.score.bias": torch.zeros(2)})
    expected = r"detector\.logit\.bias is \(2,\) but must be \(1,\)"
    with pytest.raises(CheckpointError, match=expected):
        load_model(folder)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (WEIGHTS, b"\x00" * 20, "cannot be read"),
        (WEIGHTS, b"", "cannot be read"),
        (CONFIG, b"", "config.yaml"),
        (CONFIG, b"model: {encoder: [", "cannot be read"),
        (CONFIG, b"model: " + 2000 * b"[", "nested too deeply"),
        (CONFIG, b"trained: {day: 2026-13-45}", "month must be"),
        (CONFIG, b"format: 2\nmodel: {}", "is of format 2.*use the version that wrote it"),
        (CONFIG, b"model: {encodr: x}", "model.encodr: Extra inputs"),
        (CONFIG, b"\xff\xfe\xff", "cannot be read"),
    ],
)
def test_a_damaged_model_is_refused(folder: Path, file: str, content: bytes, reason: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        load_model(folder)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no model/model\.safetensors"):
        load_model(tmp_path)


def test_a_description_is_read_without_weights_and_names_its_run(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")
    assert read_info(find_model(folder.parent)) == INFO
    assert run_name(folder) == "run"
    assert run_name(folder.rename(folder.with_name("other"))) == "other"


def test_a_model_holds_no_code(folder: Path) -> None:
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".yaml"}
    text = (folder / CONFIG).read_text(encoding="utf-8")
    assert yaml.safe_load(text)["trained"] == {"epoch": 3, "score": 0.5}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_umask_decides_who_may_read_a_model(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = tiny_model(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert set(modes.values()) == {0o666 & ~mask}, modes
