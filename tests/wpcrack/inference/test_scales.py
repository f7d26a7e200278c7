"""Several scales of an image, fused to one probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import TINY_MODEL
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wpcrack.config import ModelConfig
from wpcrack.inference.convert import convert
from wpcrack.inference.graph import load_graph
from wpcrack.inference.machine import is_installed, openvino_core
from wpcrack.inference.openvino_engine import OpenVinoPredictor, fused_graph
from wpcrack.inference.scales import ScaledProbability, fuse
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.networks import Networks

SCALES = (1.0, 0.5, 0.25)


class Brightness(nn.Module):
    """A stand-in of the networks: the logit of a pixel is its brightness."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(1, keepdim=True)


def test_one_scale_is_the_network_alone() -> None:
    image = torch.rand(2, 3, 64, 32)
    wanted = torch.sigmoid(Brightness()(image))
    assert torch.equal(ScaledProbability(Brightness())(image), wanted)  # type: ignore[arg-type]


def test_every_scale_sees_the_mean_of_its_pixels() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = ScaledProbability(Brightness(), SCALES)  # type: ignore[arg-type]
    half = network.at_each_scale(image)[0, 1].numpy()
    small = image[0].mean(0).numpy().reshape(16, 2, 16, 2).mean((1, 3))
    coarse = 1 / (1 + np.exp(-small))
    assert half.shape == (32, 32)
    inner = coarse[3:5, 3:5].mean()  # between four cells, each weighs a quarter
    assert half[7:9, 7:9].mean() == pytest.approx(inner, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.sampled_from((1.0, 1.5, 2.0, 4.0)))
def test_fusion_is_the_power_mean_and_lies_between_mean_and_maximum(
    values: list[float], power: float
) -> None:
    found = fuse(torch.tensor(values).view(1, -1, 1, 1), power).item()
    assert found == pytest.approx(np.mean(np.array(values) ** power) ** (1 / power), abs=1e-5)
    assert np.mean(values) - 1e-5 <= found <= max(values) + 1e-5


@pytest.mark.skipif(not is_installed("openvino"), reason="needs openvino")
def test_a_scale_that_is_not_looked_at_is_not_computed() -> None:
    first, second, third = (compiled_convolutions(count) for count in (1, 2, 3))
    assert first > 0
    assert (second, third) == (2 * first, 3 * first)


def compiled_convolutions(count: int) -> int:
    """Count what is computed for the first scales of the shipped model."""
    graph = fused_graph(load_graph(None), count)
    graph.reshape([1, 128, 128, 3])
    compiled = openvino_core().compile_model(graph, "CPU").get_runtime_model()
    kinds = [op.get_rt_info()["layerType"].astype(str) for op in compiled.get_ops()]
    return sum("Convolution" in kind for kind in kinds)


@pytest.mark.skipif(not is_installed("openvino"), reason="needs openvino")
@pytest.mark.parametrize(("power", "counts"), [(2.0, (1, 2, 3)), (1.5, (3,))])
def test_both_engines_fuse_the_same_scales(power: float, counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    networks = Networks(ModelConfig(**TINY_MODEL)).eval().requires_grad_(False)
    networks.share_encoder()
    windows = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    graph = convert(networks, SCALES, power)
    for count in counts:
        cpu, chosen = torch.device("cpu"), SCALES[:count]
        predictor = TorchPredictor(networks, cpu, low_precision=False, scales=chosen, power=power)
        torch_ = predictor(windows)
        openvino = OpenVinoPredictor(graph.clone(), 1, "f32", scales=count)(windows)
        assert np.abs(torch_ - openvino).max() < 1e-3
    assert np.array_equal(OpenVinoPredictor(graph, 1, "f32")(windows), openvino)
