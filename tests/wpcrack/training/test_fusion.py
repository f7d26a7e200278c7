"""The power of the fusion is the one whose masks of drawn pavement are best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wpcrack.inference.scales import fuse
from wpcrack.training import fusion
from wpcrack.training.fusion import POWERS, choose_fusion

SCALES = (1.0, 0.5, 0.25)
Rule = Callable[[Tensor, float], Tensor]


class Seeing(nn.Module):
    """Takes the networks' place: a probability that follows from pixels and scale."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, image: Tensor) -> Tensor:
        return torch.logit(self.rule(image[:, :1], image.shape[-1] / fusion.SIDE), eps=1e-6)


def dark_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows with a black line, and all white ones, in place of drawn pavement."""
    mask = np.zeros((fusion.SIDE, fusion.SIDE), bool)
    mask[64:96] = True
    line = torch.from_numpy(~mask).float().expand(3, -1, -1)
    pairs = [(line, mask), (torch.ones_like(line), np.zeros_like(mask))]
    monkeypatch.setattr(fusion, "_draw", lambda count: pairs[:count])


def test_a_model_that_is_sure_at_one_scale_alone_needs_a_high_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dark_line(monkeypatch)

    def only_at_its_own_size(gray: Tensor, scale: float) -> Tensor:
        return 0.9 * (1 - gray) * (scale == 1)

    found = choose_fusion(Seeing(only_at_its_own_size), SCALES, windows=2)  # type: ignore[arg-type]
    sure_once = torch.tensor([0.9, 0, 0]).view(1, 3, 1, 1)
    enough = [power for power in POWERS if fuse(sure_once, power).item() >= 0.5]
    assert found.power == min(enough) > POWERS[0]
    assert found.drawn_iou == {power: float(power in enough) for power in POWERS}


def test_a_model_that_sees_too_much_at_one_scale_needs_a_low_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dark_line(monkeypatch)

    def alarmed_when_small(gray: Tensor, scale: float) -> Tensor:
        return torch.where(gray < 0.5, 0.9, 0.8 * (scale == 0.25))

    found = choose_fusion(Seeing(alarmed_when_small), SCALES, windows=2)  # type: ignore[arg-type]
    assert found.power == POWERS[0]
    assert found.drawn_iou[POWERS[0]] == 1.0
    assert found.drawn_iou[3.0] < 0.2


def test_windows_without_a_crack_count(monkeypatch: pytest.MonkeyPatch) -> None:
    dark_line(monkeypatch)

    def alarmed_by_plain_road(gray: Tensor, scale: float) -> Tensor:
        plain = gray.amin(dim=(2, 3), keepdim=True) > 0.5
        return torch.where(plain | (gray < 0.5), 0.9, 0.0)

    seeing = Seeing(alarmed_by_plain_road)
    alone = choose_fusion(seeing, SCALES, windows=1)  # type: ignore[arg-type]
    both = choose_fusion(seeing, SCALES, windows=2)  # type: ignore[arg-type]
    assert alone.drawn_iou[POWERS[0]] > 0.9
    assert both.drawn_iou[POWERS[0]] < 0.2


def test_the_drawn_windows_are_always_the_same_and_every_other_one_is_free_of_cracks() -> None:
    first, again = (list(fusion._draw(4)) for _ in range(2))
    assert [mask.any() for _, mask in first] == [False, True, False, True]
    for (image, mask), (same, other) in zip(first, again, strict=True):
        assert torch.equal(image, same)
        assert np.array_equal(mask, other)
        assert image.shape == (3, fusion.SIDE, fusion.SIDE)
