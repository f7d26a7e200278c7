"""Windows of drawn streets for the second part of the shipped model's training."""

from __future__ import annotations

import pytest
import torch

from wpcrack.config import ModelConfig
from wpcrack.training.drawn_windows import DrawnTrainConfig, WindowShape
from wpcrack.training.shipped import ShippedConfig
from wpcrack.training.streets import StreetBatches, StreetTrainConfig

FIRST = DrawnTrainConfig(
    model=ModelConfig(pretrained="none"),
    batches=(WindowShape(side=64, count=3), WindowShape(side=96, count=1)),
)


def test_a_batch_of_a_street_depends_on_seed_and_step_alone() -> None:
    config = StreetTrainConfig(share=1.0)
    a, b = (StreetBatches(config, config.after(FIRST)) for _ in range(2))
    image, mask, faint = a[4]
    assert image.shape == (3, 64, 64, 3)
    assert not (faint & ~mask).any()
    for first, again in zip(a[5], b[5], strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(a[5][0], a[7][0])


def test_only_windows_that_are_meant_to_show_a_crack_show_one() -> None:
    for crack_share, shown in ((0.0, False), (1.0, True)):
        config = StreetTrainConfig(share=1.0, crack_share=crack_share)
        _, mask, _ = StreetBatches(config, config.after(FIRST))[0]
        assert bool(mask.flatten(1).any(1).all()) == bool(mask.any()) == shown


def test_the_share_decides_between_streets_and_pavement() -> None:
    config = StreetTrainConfig(share=0.0)
    batches = StreetBatches(config, config.after(FIRST))
    for part, same in zip(batches[3], batches.pavement[3], strict=True):
        assert torch.equal(part, same)


def test_a_seed_that_shows_the_windows_of_the_first_part_again_is_refused() -> None:
    config = StreetTrainConfig(seed=FIRST.seed, share=0.0)
    first, again = StreetBatches(config, FIRST).pavement[2], StreetBatches(config, FIRST)[2]
    assert torch.equal(first[0], again[0])
    with pytest.raises(ValueError, match=r"are both 0.*; set streets\.seed=1"):
        ShippedConfig(train=FIRST, streets=config)


def test_the_second_part_learns_as_the_first_but_slower() -> None:
    second = StreetTrainConfig(rate=0.25).after(FIRST)
    assert second.encoder_lr == FIRST.encoder_lr / 4
    assert second.head_lr == FIRST.head_lr / 4
    assert second.seed != FIRST.seed
    assert second.batches == FIRST.batches
