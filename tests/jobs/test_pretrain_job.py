"""The job that makes the shipped model says what it made."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from factories import TINY_MODEL

from geo.errors import OutputError
from jobs.pretrain import CARD, model_card, run_pretrain
from jobs.settings.load import load
from wpcrack.config import ModelConfig
from wpcrack.errors import ConfigError
from wpcrack.model import SHIPPED, read_info
from wpcrack.training.drawn_windows import DrawnTrainConfig, WindowShape
from wpcrack.training.shipped import DrawnScore, Shipped, ShippedConfig
from wpcrack.training.streets import StreetTrainConfig


@pytest.mark.usefixtures("uninstalled")
def test_the_card_names_training_and_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ShippedConfig(
        train=DrawnTrainConfig(
            model=ModelConfig(**TINY_MODEL),
            steps=1,
            batches=(WindowShape(side=64, count=1),),
            gsd_mm=(1.0, 4.0),
            seed=7,
        ),
        streets=StreetTrainConfig(steps=1),
        score_windows=2,
        score_side=64,
    )
    shipped = run_pretrain(config, tmp_path)
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "seed 7" in card
    assert "1 to 4 mm" in card
    assert "weights at random" in card
    assert "* License: Apache-2.0, like the program and what it draws\n" in card
    for name, score in shipped.scores.items():
        assert f"| {name} | {score.iou:.3f} |" in card
    assert str(shipped.model) in capsys.readouterr().out


def test_the_card_of_the_shipped_model_says_what_the_command_writes() -> None:
    text = (SHIPPED / CARD).read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    scores = {
        row[0][2:]: DrawnScore(*(float(cell.strip(" |")) for cell in row[1:])) for row in rows
    }
    config, trained = ShippedConfig(), read_info(SHIPPED).trained
    assert trained["steps"] == config.train.steps + config.streets.steps
    card = model_card(config, Shipped(SHIPPED, scores))
    assert text == re.sub(r"wpcrack [^;]+;", "wpcrack 0.1.0;", card)


def test_an_interrupted_training_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.pretrain.make_shipped", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_pretrain(ShippedConfig(), tmp_path)
    told = f"interrupted: what is finished is kept in {tmp_path}; the same command continues\n"
    assert capsys.readouterr().err == told


def test_a_folder_that_may_only_be_read_is_not_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may do all
    with pytest.raises(OutputError, match="is read-only"):
        run_pretrain(ShippedConfig(), tmp_path / "new")


def test_a_model_of_another_command_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("of somebody else")
    with pytest.raises(ConfigError, match="does not belong to a model of drawn pavement"):
        run_pretrain(ShippedConfig(), tmp_path)
    assert (tmp_path / "model" / "model.safetensors").read_text() == "of somebody else"


def test_the_detector_of_the_paper_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"^train\.model: detector=released is the paper's"):
        load(ShippedConfig, None, ["train.model.detector=released"])
