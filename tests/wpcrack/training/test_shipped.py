"""The shipped model: one call makes it, it is small, and it predicts what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from factories import TINY_MODEL

import wpcrack.model
from wpcrack.config import ModelConfig
from wpcrack.errors import CheckpointError
from wpcrack.inference.graph import DELIVERED
from wpcrack.model import WEIGHTS, ModelInfo, find_model, load_model, run_name, save_model
from wpcrack.networks import Networks
from wpcrack.training.drawn import Progress
from wpcrack.training.drawn_windows import DrawnTrainConfig, WindowShape
from wpcrack.training.shipped import SCORES, ShippedConfig, make_shipped
from wpcrack.training.streets import StreetTrainConfig

LARGEST_FILE = 8e6
WHOLE = ModelConfig(pretrained="none")
TINY = ShippedConfig(
    train=DrawnTrainConfig(
        model=ModelConfig(**TINY_MODEL),
        steps=2,
        batches=(WindowShape(side=64, count=1),),
        warmup_steps=1,
    ),
    streets=StreetTrainConfig(steps=2, share=0.5),
    score_windows=4,
    score_side=64,
)


INFO = ModelInfo(model=TINY.train.model, scales=TINY.scales)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    make_shipped(TINY, folder)
    return folder


def test_a_finished_training_is_not_repeated_and_has_its_graph(folder: Path) -> None:
    seen: list[Progress] = []
    shipped = make_shipped(TINY, folder, seen.append)
    assert not seen, "nothing was left to train"
    assert {file.name for file in (shipped.model / DELIVERED).iterdir()} >= {"model.xml"}


def test_scores_of_every_scale_are_shares(folder: Path) -> None:
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    assert set(scores) == {"1", "0.5", "0.25", "fused"}
    for score in scores.values():
        assert all(0 <= value <= 1 for value in score.values())


def test_a_model_that_only_predicts_is_small_and_gives_the_probability_of_the_whole_one(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    nets = Networks(WHOLE).eval()
    nets.reconstructor.encoder.load_state_dict(nets.classifier.encoder.state_dict())
    info = ModelInfo(model=WHOLE, scales=TINY.scales)
    save_model(tmp_path / "model", nets, info, predicts_only=True)
    assert (tmp_path / "model" / WEIGHTS).stat().st_size < LARGEST_FILE
    back = load_model(tmp_path).networks
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (torch.sigmoid(n(image)) for n in (nets, back))
    assert (a - b).abs().max() < 0.01
    assert back.reconstructor.encoder is back.classifier.encoder


def test_weights_of_another_architecture_are_refused(folder: Path, tmp_path: Path) -> None:
    wide = INFO.model.model_copy(update={"detector_channels": 16})
    save_model(tmp_path, Networks(wide), INFO, predicts_only=True)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(tmp_path)


def test_a_shipped_model_is_found_without_a_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wpcrack.model, "SHIPPED", folder / "model")
    assert find_model(None) == folder / "model"
    assert run_name(find_model(None)) == "shipped"


def test_without_a_shipped_model_the_sentence_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wpcrack.model, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match=r"give model=RUN.*wpcrack pretrain"):
        find_model(None)
