"""Convolutions and norms that learn fast: the same weights, outputs and gradients as timm's own."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.networks import encoder as encoders
from wpcrack.networks.encoder import Encoder
from wpcrack.networks.fast_learning import (
    FoldableNorm,
    FoldedConv2d,
    gradient_is_slow,
    kernel_gradient,
)


@pytest.mark.parametrize(
    ("kernel", "d", "h", "w"),
    [
        ((5, 5), 2, 16, 12),
        ((3, 3), 2, 15, 17),
        ((5, 5), 1, 16, 9),
        ((7, 7), 3, 11, 20),
        ((1, 9), 1, 4, 5),
        ((5, 5), 2, 2, 2),
        ((5, 5), 2, 1, 3),
        ((3, 3), 4, 3, 5),
    ],
)
def test_gradient_of_kernels_is_that_of_torch(
    kernel: tuple[int, int], d: int, h: int, w: int
) -> None:
    torch.manual_seed(0)
    x, given = torch.rand(2, 2, 6, h, w, dtype=torch.double)
    weight = torch.rand(6, 1, *kernel, dtype=torch.double, requires_grad=True)
    margins = tuple(d * (side // 2) for side in kernel)
    F.conv2d(x, weight, None, 1, margins, d, 6).backward(given)
    assert weight.grad is not None
    found = kernel_gradient(x, given, weight.detach(), d)
    torch.testing.assert_close(found, weight.grad)


def pair(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Encoder, Encoder]:
    """Make an encoder, and one with timm's own layers and the same weights, statistics not 0, 1."""
    torch.manual_seed(0)
    fast = Encoder(name, "none")
    for module in fast.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    monkeypatch.setattr(encoders, "learn_fast", lambda body: None)
    plain = Encoder(name, "none")
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def freeze(encoder: Encoder) -> None:
    """Keep the statistics of all norms, as trainings do with those of a pretrained encoder."""
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def learned(encoder: Encoder, image: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return feature maps, and the gradients of a loss that weighs each of their cells apart."""
    features = encoder(image)
    maps = [features.stride2, features.stride4, features.stride8, features.deep]
    weights = (torch.linspace(-1, 1, m.numel()).view(m.shape) for m in maps)
    torch.stack(
        [(m * weight).mean() for m, weight in zip(maps, weights, strict=True)]
    ).sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    return maps, gradients


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2", "resnet18"])
@pytest.mark.parametrize("side", [64, 72])
def test_encoder_learns_as_with_the_layers_of_timm(
    name: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, plain = pair(name, monkeypatch)
    image = torch.rand(2, 3, side, 96).contiguous(memory_format=torch.channels_last)
    results = []
    for encoder in (copy.deepcopy(fast), plain):  # a copy has norms of its own
        freeze(encoder)
        results.append(learned(encoder, image))
    (maps, gradients), (wanted_maps, wanted) = results
    for found, map_ in zip(maps, wanted_maps, strict=True):
        torch.testing.assert_close(found, map_, rtol=1e-3, atol=1e-4)
    assert list(gradients) == list(wanted)
    for key, gradient in wanted.items():
        distance = (gradients[key] - gradient).norm() / gradient.norm()
        assert distance < 0.01, key


def test_layers_are_replaced_where_that_pays() -> None:
    body = Encoder("tf_efficientnet_lite0", "none").body
    layers = [module for module in body.modules() if isinstance(module, nn.Conv2d)]
    assert all(isinstance(layer, FoldedConv2d) for layer in layers)
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(isinstance(norm, FoldableNorm) for norm in norms)
    assert sum(gradient_is_slow(layer) for layer in layers) == 6  # 5 dilated, one 5 x 5 beside


def predict(encoder: Encoder, image: Tensor) -> Tensor:
    """Compute without gradients."""
    with torch.no_grad():
        return encoder(image).deep


def under_autocast(encoder: Encoder, image: Tensor) -> Tensor:
    """Compute with bfloat16 where torch wants it."""
    with torch.autocast("cpu", torch.bfloat16):
        return encoder(image).deep


def with_moving_statistics(encoder: Encoder, image: Tensor) -> Tensor:
    """Compute with the statistics of the batch, which the running ones follow."""
    encoder.train()
    deep: Tensor = encoder(image).deep
    return torch.cat([deep.flatten(), *(b.flatten().float() for b in encoder.buffers())])


@pytest.mark.parametrize("compute", [predict, under_autocast, with_moving_statistics])
def test_elsewhere_the_layers_do_exactly_what_timm_does(
    compute: Callable[[Encoder, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, plain = (encoder.eval() for encoder in pair("tf_efficientnet_lite0", monkeypatch))
    image = torch.rand(2, 3, 64, 72)
    assert torch.equal(compute(fast, image), compute(plain, image))


def test_weights_keep_their_names_and_stay_parameters_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, plain = pair("tf_efficientnet_lite0", monkeypatch)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in plain.named_parameters()]
