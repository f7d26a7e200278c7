"""One update: rates, clipping, what breaks it, and what freezing restores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wpcrack.config import OptimConfig
from wpcrack.errors import TrainingError
from wpcrack.training.optim import adamw, descend, frozen, one_cycle, set_learning_rate

CONFIG = OptimConfig(warmup_share=0.1, final_share=0.02)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_final_share() -> None:
    shares = [one_cycle(p, CONFIG) for p in np.linspace(0, 1, 1001)]
    assert shares[0] == pytest.approx(0.02)
    assert shares[100] == pytest.approx(1)
    assert shares[-1] == pytest.approx(0.02)
    assert np.all(np.diff(shares[:101]) >= 0)
    assert np.all(np.diff(shares[101:]) < 0)
    middle = 0.1 + 0.9 / 2
    assert one_cycle(middle, CONFIG) == pytest.approx(0.02 + 0.98 / 2)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_schedule_without_rise_or_without_fall_is_finite(share: float) -> None:
    config = OptimConfig(warmup_share=share)
    assert all(0 <= one_cycle(p, config) <= 1 for p in np.linspace(0, 1, 11))


def test_groups_have_their_own_rates_and_vectors_do_not_decay() -> None:
    encoder, head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
    optimizer = adamw([encoder], [head], CONFIG)
    set_learning_rate(optimizer, 0.5)
    found = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    assert found == {
        id(encoder.weight): (CONFIG.encoder_lr / 2, CONFIG.weight_decay),
        id(encoder.bias): (CONFIG.encoder_lr / 2, 0.0),
        id(head.weight): (CONFIG.head_lr / 2, CONFIG.weight_decay),
        id(head.bias): (CONFIG.head_lr / 2, 0.0),
    }


def test_descending_lowers_the_sum_of_the_terms() -> None:
    weight = nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def terms() -> dict[str, torch.Tensor]:
        return {"a": weight.square().sum(), "b": -weight.sum()}

    before = sum(terms().values())
    descend([terms()], optimizer, 5.0)
    assert sum(terms().values()) < before


def test_one_update_is_no_longer_than_the_clipped_gradient() -> None:
    weight = nn.Parameter(torch.zeros(4))
    descend([{"a": 1e6 * weight.sum()}], torch.optim.SGD([weight], lr=1.0), 0.5)
    assert weight.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_gradients_of_an_earlier_phase_do_not_leak_into_the_next() -> None:
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.full((1,), 100.0)
    descend([{"a": weight.sum()}], torch.optim.SGD([weight], lr=1.0), 1e9)
    assert weight.item() == -1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_loss_is_named_and_changes_nothing(bad: float) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = adamw([], [nn.ParameterList([weight])], CONFIG)
    terms = {"fine": weight.sum(), "rec_full": weight.sum() * bad}
    with pytest.raises(
        TrainingError, match=r"loss term rec_full is not finite \(fine=2, rec_full="
    ):
        descend([terms], optimizer, 5.0)
    assert torch.equal(weight.data, torch.ones(2))


def test_a_broken_gradient_of_a_finite_loss_changes_nothing() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(TrainingError, match=r"the gradient of a \+ b is not finite"):
        descend([{"a": weight.sum(), "b": weight.square().sum().sqrt()}], optimizer, 5.0)
    assert torch.equal(weight.data, torch.zeros(2))


def test_flags_are_restored_after_freezing_also_after_an_exception() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].bias.requires_grad_(False)
    flags = [p.requires_grad for p in net.parameters()]
    with frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == flags
    with pytest.raises(RuntimeError, match="does not require grad"), frozen(net):
        net(torch.ones(1, 2)).sum().backward()
    assert [p.requires_grad for p in net.parameters()] == flags


def test_gradients_flow_through_a_frozen_network() -> None:
    net, x = nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(p.grad is None for p in net.parameters())


def test_nested_freezing_restores_what_was() -> None:
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    with frozen(a):
        with frozen(a, b):
            assert not b.weight.requires_grad
        assert not a.weight.requires_grad
        assert b.weight.requires_grad
    assert a.weight.requires_grad
