"""A graph that is rewritten computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wpcrack.inference.graph import load_graph
from wpcrack.inference.machine import is_installed, openvino, openvino_core
from wpcrack.inference.openvino_engine import fused_graph
from wpcrack.inference.rewrite import rewrite_graph

if not is_installed("openvino"):
    pytest.skip("needs openvino", allow_module_level=True)

RNG = np.random.default_rng(0)


def values(graph: Any, pixels: Any) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino_core().compile_model(graph, "CPU", settings)(pixels)[0]


def holes(graph: Any) -> list[int]:
    """Heights of the pictures that convolutions with holes look at."""
    found = [each for each in graph.get_ops() if each.get_type_name() == "GroupConvolution"]
    return [
        each.input(0).get_shape()[2]
        for each in found
        if list(each.get_attributes()["dilations"]) == [2, 2]
    ]


@pytest.mark.parametrize(
    ("count", "height", "width", "left"),
    [(1, 64, 96, 0), (2, 32, 64, 0), (3, 64, 192, 0), (3, 96, 64, 5), (3, 160, 160, 5)],
)
def test_the_shipped_model_sees_the_same(count: int, height: int, width: int, left: int) -> None:
    graph = fused_graph(load_graph(None), count)
    graph.reshape([1, height, width, 3])
    before = len(graph.get_ops()), holes(graph)
    faster = rewrite_graph(graph)
    assert (len(graph.get_ops()), holes(graph)) == before
    assert len(holes(graph)) >= 5 * count
    assert len(holes(faster)) == left  # of the scale with an odd number of cells
    kinds = {each.get_type_name() for each in faster.get_ops()}
    assert "ReduceMax" not in kinds
    pixels = RNG.integers(0, 256, (1, height, width, 3), np.uint8)
    assert np.abs(values(faster, pixels) - values(graph, pixels)).max() < 1e-6


def convolutions(count: int, *, per_cell: bool) -> Any:
    """A graph of convolutions with holes; between them single cells, or their neighbors, too."""
    op = openvino().opset13
    pixels = op.parameter([1, 4, 12, 16], np.float32)
    x = pixels
    for _ in range(count):
        kernel = RNG.normal(size=(4, 1, 1, 3, 3)).astype(np.float32)
        y = op.group_convolution(x, op.constant(kernel), [1, 1], [2, 2], [2, 2], [2, 2])
        y = op.add(y, op.constant(RNG.normal(size=(1, 4, 1, 1)).astype(np.float32)))
        y = op.clamp(y, -0.5, 6.0)
        size, pad = (1, 0) if per_cell else (3, 1)
        kernel = RNG.normal(size=(4, 4, size, size)).astype(np.float32)
        y = op.convolution(y, op.constant(kernel), [1, 1], [pad, pad], [pad, pad], [1, 1])
        x = op.add(y, x)
    return openvino().Model([op.relu(x)], [pixels], "convolutions")


@pytest.mark.parametrize(
    ("count", "per_cell", "left"), [(4, True, 0), (2, True, 2), (4, False, 4), (0, True, 0)]
)
def test_quarters_are_made_where_they_save_time(count: int, per_cell: bool, left: int) -> None:
    graph = convolutions(count, per_cell=per_cell)
    faster = rewrite_graph(graph)
    assert len(holes(faster)) == left
    pixels = RNG.normal(size=(1, 4, 12, 16)).astype(np.float32)
    assert np.allclose(values(faster, pixels), values(graph, pixels), rtol=1e-5, atol=1e-4)
