"""The command that adapts a model: to photographs or tiles, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factories import street, tiny_model, write_tile
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app

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


def test_photographs_and_tiles_give_a_model_with_its_card(place: Path) -> None:
    base, out = place / "base", place / "photographs"
    words = ["adapt", "--images", place / "photos", "--model", base, "--out", out, *QUICK]
    code, text = wpcrack(*words)
    assert code == 0, text
    assert f"adapted model in {out / 'model'}" in text
    assert (out / "model" / "openvino" / "model.xml").is_file()
    assert "`base`, adapted to 3 unlabeled pictures" in (out / "MODEL_CARD.md").read_text("utf-8")
    code, text = wpcrack(*words, "--json", place / "again.json")
    assert (code, "finished already" in text) == (0, True)
    assert json.loads((place / "again.json").read_text("utf-8"))["pictures"] == 3
    tiles = [f"tiles={place / 'tiles'}", "--model", base, "--out", place / "of-tiles", *QUICK]
    code, text = wpcrack("adapt", *tiles)
    assert code == 0, text
    assert list((place / "of-tiles" / "windows").glob("*.png"))


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
