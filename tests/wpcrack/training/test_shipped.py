"""The shipped weight file: one call makes it, it is small, and it holds what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wpcrack.config import ModelConfig
from wpcrack.training.drawn import (
    DrawnTrainConfig,
    Progress,
    WindowShape,
    from_half_tensors,
    half_tensors,
)
from wpcrack.training.shipped import SCORES, ShippedConfig, make_shipped

LARGEST_FILE = 8e6
TINY = ShippedConfig(
    train=DrawnTrainConfig(
        model=ModelConfig(pretrained="none"),
        steps=2,
        batches=(WindowShape(side=64, count=1),),
        warmup_steps=1,
    ),
    score_windows=4,
    score_side=64,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    make_shipped(TINY, folder)
    return folder


def test_the_file_is_small_and_gives_the_trained_networks_back(folder: Path) -> None:
    seen: list[Progress] = []
    shipped = make_shipped(TINY, folder, seen.append)
    assert not seen, "nothing was left to train"
    assert shipped.weights.stat().st_size < LARGEST_FILE
    tensors = load_file(shipped.weights)
    again = half_tensors(from_half_tensors(tensors, TINY.train.model))
    assert set(again) == set(tensors)
    assert all(torch.equal(again[k], tensors[k]) for k in tensors)


def test_scores_of_every_scale_are_shares(folder: Path) -> None:
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    assert set(scores) == {"1", "0.5", "0.25", "fused"}
    for score in scores.values():
        assert all(0 <= value <= 1 for value in score.values())


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    shipped = make_shipped(TINY, folder)
    tensors = load_file(shipped.weights)
    with pytest.raises(RuntimeError, match="size mismatch"):
        from_half_tensors(tensors, ModelConfig(pretrained="none", detector_channels=8))
