"""The command that adapts a model: to photographs or tiles, and what it says."""

from __future__ import annotations

import errno
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import describe_model, street, tiny_model, tiny_released, write_tile
from PIL import Image
from rays import shared_ray
from typer.testing import CliRunner

from jobs.adapt.job import AdaptOptions
from jobs.adapt.plan import memory_bytes, plan_adapt
from jobs.adapt.run import run_adapt
from jobs.cli import app
from jobs.runtime import memory
from jobs.settings.load import load
from wpcrack.errors import CheckpointError
from wpcrack.model import WEIGHTS, load_model, save_model

QUICK = [
    *("rounds=1", "steps=1", "batch.side=64", "batch.count=2", "window=96", "pictures=4"),
    *("check.windows=2", "check.side=64", "check.agreement=0", "check.lost_iou=1"),
    "check.more_false=1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    tiny_model(folder / "base" / "model")
    (folder / "photos").mkdir()
    image, _ = street(256)
    write_tile(folder / "tiles" / "a.tif", image)
    for k in range(3):
        Image.fromarray(np.roll(image, 40 * k, 0)).save(folder / "photos" / f"{k}.png")
    return folder


def wpcrack(*words: str | Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(word) for word in words])
    return found.exit_code, found.output


@pytest.mark.usefixtures("uninstalled")
def test_photographs_and_tiles_give_a_model_with_its_card(place: Path) -> None:
    base, out = place / "base", place / "photographs"
    words = ["adapt", "--images", place / "photos", "--model", base, "--out", out, *QUICK]
    code, text = wpcrack(*words)
    assert code == 0, text
    assert f"adapted model in {out / 'model'}" in text
    assert (out / "model" / "openvino" / "model.xml").is_file()
    card = (out / "MODEL_CARD.md").read_text("utf-8")
    assert "`base`, adapted to 3 unlabeled pictures" in card
    assert "* 1 round of 1 update, 50% drawn windows" in card
    code, text = wpcrack(*words, "--json", place / "again.json")
    assert (code, "finished already" in text) == (0, True)
    assert json.loads((place / "again.json").read_text("utf-8"))["pictures"] == 3
    tiles = [f"tiles={place / 'tiles'}", "--model", base, "--out", place / "of-tiles", *QUICK]
    code, text = wpcrack("adapt", *tiles)
    assert code == 0, text
    assert list((place / "of-tiles" / "windows").glob("*.png"))


@pytest.mark.ray
def test_a_worker_on_ray_adapts_as_the_command_itself_does(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What two of them do: tests/wpcrack/training/test_distributed.py."""
    settings = ["steps=3", "batch.side=64", "batch.count=4", "window=96", *QUICK[6:]]
    for name, workers in (("alone", 0), ("on-ray", 1)):
        config = load(AdaptOptions, overrides=[*settings, f"scaling.num_workers={workers}"])
        with shared_ray() if workers else nullcontext():
            run_adapt(config, tmp_path / name, model=place / "base", images=place / "photos")
        assert "step 3 of 3: pixel" in capsys.readouterr().err
    alone, on_ray = (tmp_path / name / "model" / WEIGHTS for name in ("alone", "on-ray"))
    assert alone.read_bytes() == on_ray.read_bytes()
    assert alone.read_bytes() != (place / "base" / "model" / WEIGHTS).read_bytes()
    assert not list(tmp_path.glob("*/round-*"))


def test_workers_that_cannot_share_a_batch_are_refused(place: Path, tmp_path: Path) -> None:
    words = ["--images", place / "photos", "--out", tmp_path / "a", "scaling.num_workers=5"]
    code, text = wpcrack("adapt", *words)
    assert code == 1
    assert "batch.count is 12, which 5 workers cannot share equally" in text
    code, text = wpcrack("adapt", *words[:-1], "scaling.use_gpu=true", "--plan")
    assert (code, "torch sees 0" in text) == (1, True), text
    code, text = wpcrack("adapt", *words[:-1], "scaling.num_workers=3", "--plan")
    assert (code, "3 workers on Ray share each update" in text) == (0, True), text


def test_tiles_or_photographs_must_be_given_and_not_both(place: Path) -> None:
    for words in (["--out", place / "x"], ["--out", place / "x", "--images", "p", "tiles=t"]):
        code, text = wpcrack("adapt", *words)
        assert code == 2
        assert "one of both" in text


def test_a_folder_of_something_else_is_refused(place: Path) -> None:
    code, text = wpcrack(
        "adapt", "--images", place / "photos", "--model", place / "base", "--out", place
    )
    assert code == 1
    assert "does not belong to an adaption" in text


def test_a_plan_says_what_will_be_done_and_writes_nothing(place: Path) -> None:
    words = ["--model", place / "base", "--out", place / "planned", "--plan", *QUICK]
    code, text = wpcrack("adapt", "--images", place / "photos", *words)
    assert code == 0, text
    assert "starts in" in text
    assert "3 of 3, no label is read" in text
    assert "1 round of 1 update with 2 windows of 64 px" in text
    code, text = wpcrack("adapt", f"tiles={place / 'tiles'}", *words, "--json", "-")
    assert code == 0, text
    assert '"pictures": 4' in text
    assert not (place / "planned").exists()


def test_a_plan_counts_both_encoders_of_a_model(place: Path, tmp_path: Path) -> None:
    two, config = place / "base" / "model", AdaptOptions()
    model = load_model(two)
    save_model(tmp_path / "one", model.networks, model.info, predicts_only=True)
    shapes = [(256, 256)] * 2
    kept = [memory_bytes(config, base, shapes) for base in (tmp_path / "one", two)]
    windows = 4 * 3 * config.batch.count * config.batch.side**2
    assert kept[1] > kept[0] + windows
    one, both = (
        plan_adapt(config, tmp_path / "out", model=base, images=place / "photos").minutes
        for base in (tmp_path / "one", place / "base")
    )
    assert both == pytest.approx(1.65 * one)
    (tmp_path / "one" / WEIGHTS).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        memory_bytes(config, tmp_path / "one", shapes)


@pytest.mark.parametrize("planned", [["--plan"], []])
def test_what_an_adaption_refuses_its_plan_refuses(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: list[str]
) -> None:
    words = ["--model", place / "base", *QUICK, *planned]
    images = ["--images", place / "photos"]
    code, text = wpcrack("adapt", *words, *images, "--out", place / "base")
    assert (code, "does not belong to an adaption" in text) == (1, True), text
    code, text = wpcrack("adapt", *words, *images, "--out", tmp_path / "a", "--json", tmp_path)
    assert (code, "is a folder" in text) == (1, True), text
    (tmp_path / "photos").mkdir()
    for path in (place / "photos").iterdir():
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes()[:9000])
    code, text = wpcrack("adapt", *words, "--images", tmp_path / "photos", "--out", tmp_path / "a")
    assert (code, "damaged or truncated" in text) == (1, True), text
    monkeypatch.setattr(memory, "usable_memory", lambda: memory.Memory(10**8, 10**8))
    code, text = wpcrack("adapt", *words, *images, "--out", tmp_path / "b")
    assert (code, "0.1 of 0.1 GB are free here; set fewer pictures" in text) == (1, True), text
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("planned", [["--plan"], []])
def test_a_model_with_the_detector_of_the_paper_is_refused(
    place: Path, tmp_path: Path, planned: list[str]
) -> None:
    describe_model(tmp_path / "released" / "model", model=tiny_released().model_dump(mode="json"))
    words = ["--model", tmp_path / "released", "--out", tmp_path / "a", *QUICK, *planned]
    code, text = wpcrack("adapt", "--images", place / "photos", *words)
    assert (code, "which an adaption cannot teach; give a model" in text) == (1, True), text
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_named_and_a_damaged_state_too(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", place / "base", "--images", place / "photos", "--out", tmp_path / "a"]
    with monkeypatch.context() as patched:
        patched.setattr("torch.save", lambda *_: _raise_full())
        code, text = wpcrack("adapt", *words, *QUICK)
    assert (code, "No space left" in text, "the same command continues" in text) == (1, True, True)
    state = tmp_path / "a" / "round-0" / "state.pt"
    assert not state.exists()
    torch.save({"config": "other"}, state)
    for planned in (["--plan"], []):
        code, text = wpcrack("adapt", *words, *QUICK, *planned)
        assert (code, "belongs to a training with another config" in text) == (1, True), text


def _raise_full() -> None:
    """Fail as torch's writer does when the disk is full."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904
