"""The authors' checkpoint: every kind of file gives the same networks, none runs code."""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import tiny_released
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

import jobs.cli
import jobs.import_weights
from geo.errors import OutputError
from jobs.import_weights import run_import
from jobs.predict import run_predict
from wpcrack.data.images import read_rgb, write_png
from wpcrack.errors import CheckpointError
from wpcrack.model import load_model
from wpcrack.networks import Networks
from wpcrack.released_weights import import_released, is_ours, released_name

TINY = tiny_released()
State = dict[str, Tensor]


class Callback:
    """A type that only the authors' program knows."""


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(3)
    return Networks(TINY).eval()


@pytest.fixture
def released(networks: Networks) -> State:
    """The same tensors under the names of the authors' checkpoint, with its unused ones."""
    state = {released_name(k): v for k, v in networks.state_dict().items() if not is_ours(k)}
    unused = {
        k.replace("net_recon.", "net_main."): torch.zeros_like(v)
        for k, v in state.items()
        if k.startswith(("net_recon.genUnet.", "net_recon.dr", "net_recon.fc_recon."))
    }
    return {**state, **unused}


def lightning(state: State) -> dict[str, Any]:
    """What Lightning stores beside the tensors."""
    return {
        "epoch": 199,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": OrderedDict(state),
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5), "dir": Path("logs")}},
        "hyper_parameters": {"args": argparse.Namespace(lr=1e-3, path=Path("x"))},
        "lr_schedulers": [{"last": np.float64(0.1), "row": np.arange(3)}],
    }


def with_paths_of(module: bytes, state: State, path: Path) -> None:
    """Write a checkpoint whose paths have the name that a Python gives them."""
    torch.save(lightning(state), path, _use_new_zipfile_serialization=False)
    named = re.compile(rb"cpathlib(\._local)?\n(?=PosixPath)")
    path.write_bytes(named.sub(b"c" + module + b"\n", path.read_bytes()))


WRITERS: dict[str, Callable[[State, Path], None]] = {
    "lightning.ckpt": lambda state, path: torch.save(lightning(state), path),
    "state.pth": torch.save,
    "old.pth": functools.partial(with_paths_of, b"pathlib"),
    "python3.13.pth": functools.partial(with_paths_of, b"pathlib._local"),
    "state.safetensors": save_file,
    "half.pth": lambda state, path: torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_networks(
    name: str, released: State, networks: Networks, tmp_path: Path
) -> None:
    WRITERS[name](released, tmp_path / name)
    imported, info = import_released(tmp_path / name, TINY)
    tolerance, found = 1e-3 if name.startswith("half") else 0, imported.state_dict()
    for key, tensor in networks.state_dict().items():
        assert found[key].dtype == tensor.dtype
        torch.testing.assert_close(found[key], tensor, rtol=tolerance, atol=tolerance)
    assert info.model == TINY
    assert info.trained["imported"] == name


@pytest.fixture
def tiny_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        jobs.import_weights, "import_released", functools.partial(import_released, config=TINY)
    )


@pytest.mark.usefixtures("tiny_import", "uninstalled")
def test_the_run_folder_is_one_that_predict_accepts(
    released: State, networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run, photo = tmp_path / "a.ckpt", tmp_path / "run", tmp_path / "photo.png"
    torch.save(lightning(released), file)
    result = CliRunner().invoke(jobs.cli.app, ["import-weights", str(file), "--out", str(run)])
    assert result.exit_code == 0, result.output
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    write_png(photo, image)
    run_predict(run, tmp_path / "out", [photo])
    found = read_rgb(tmp_path / "out" / "photo_prob.png")[..., 0] / 255
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        wanted = torch.sigmoid(networks(x))[0, 0].numpy()
    assert np.abs(found - wanted).max() < 0.02  # 8 bits, and bfloat16 where the CPU has it
    assert (run / "MODEL_CARD.md").read_text().count("a.ckpt") == 1
    assert load_model(run).info.trained["wpcrack"]


@pytest.mark.usefixtures("tiny_import")
def test_a_folder_with_content_is_not_overwritten(released: State, tmp_path: Path) -> None:
    torch.save(released, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="is not empty; choose another --out"):
        run_import(tmp_path / "a.pth", tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        run_import(tmp_path / "nothing.pth", tmp_path / "file" / "run")


def refusal(content: object, tmp_path: Path) -> str:
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        import_released(path, TINY)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_unknown_misshapen_and_broken_tensors_are_named(
    released: State, tmp_path: Path
) -> None:
    del released["net_main.fc8.weight"]
    released["net_aux.conv.weight"] = torch.zeros(1)
    released["seg_decoder.conv1.bias"] = torch.zeros(2)
    released["net_recon.conv1a.weight"] = torch.full((4, 3, 3, 3), torch.nan)
    message = refusal({"state_dict": released}, tmp_path)
    assert "missing: net_main.fc8.weight;" in message
    assert "unknown: net_aux.conv.weight;" in message
    assert "misshapen: seg_decoder.conv1.bias is (2,) but must be (32,)" in message
    assert "not finite: net_recon.conv1a.weight" in message


def test_many_missing_tensors_are_counted(released: State, tmp_path: Path) -> None:
    kept = {k: v for k, v in released.items() if not k.startswith("seg_decoder.")}
    missing = len([k for k in released if k.startswith("seg_decoder.")])
    assert f"and {missing - 3} more" in refusal(kept, tmp_path)


def test_missing_tensors_of_the_unused_unet_do_not_matter(released: State, tmp_path: Path) -> None:
    kept = {k: v for k, v in released.items() if not k.startswith("net_main.genUnet.")}
    torch.save(kept, tmp_path / "a.pth")
    torch.save(released, tmp_path / "b.pth")
    without, whole = (
        import_released(tmp_path / n, TINY)[0].state_dict() for n in ("a.pth", "b.pth")
    )
    assert without.keys() == whole.keys()
    assert all(torch.equal(without[k], whole[k]) for k in whole)


def test_a_file_that_needs_another_type_is_refused_with_its_name_and_the_remedy(
    released: State, tmp_path: Path
) -> None:
    message = refusal({**lightning(released), "callbacks": Callback()}, tmp_path)
    assert f"needs the type {Callback.__module__}.Callback" in message
    assert "re-save only its tensors: torch.save(" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(released: State, tmp_path: Path, zipped: bool) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    path = tmp_path / "a.ckpt"
    content = {**lightning(released), "callbacks": Attack()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"posix\.mkdir.*re-save only its tensors"):
        import_released(path, TINY)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {}, {"a": 1}])
def test_a_file_without_tensors_is_refused(content: object, tmp_path: Path) -> None:
    assert "give a checkpoint with 'state_dict'" in refusal(content, tmp_path)


OF_MANY_DISKS = b"PK\6\7" + bytes(12) + b"\2\0\0\0PK\5\6" + bytes(18)
"""End of a zip archive at which `zipfile.is_zipfile` raises."""


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
@pytest.mark.parametrize(
    "data",
    [b"", b"no weights at all", b"{\n}", b"PK\x03\x04 cut off", b"\x80\x02X\x04", OF_MANY_DISKS],
)
def test_a_file_that_is_something_else_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name} is not a weight file"):
        import_released(tmp_path / name, TINY)


def test_a_truncated_checkpoint_is_refused(released: State, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(released, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"a\.ckpt is not a weight file"):
        import_released(path, TINY)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        import_released(tmp_path / "a.ckpt", TINY)
