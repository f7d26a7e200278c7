"""Convolutions of an OpenVINO graph with 8-bit numbers: for processors that do not have bfloat16.

What costs most are convolutions between many channels: only these take 8-bit numbers. The rest
(first and last convolution, filters along lines, norms, sums, resizes) keeps single precision,
without which faint cracks are lost. `python -m benchmarks.inference.shipped --images DIR --masks
DIR` prints what it saves and costs.

Activations have one scale a tensor, from their extremes on drawn pavement. Weights have one scale
an output channel and 7 bits, since AVX2 adds pairs of products in 16 bits, which two of 8 times 8
bits overflow.

Shape letters: C channels, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpcrack.inference.machine import openvino, openvino_core

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest value of tensors, by the name of the operation that gives it and the number
of its output."""

CHANNELS = 16
"""Fewest channels on either side of a convolution that takes 8-bit numbers."""

LEVELS, WEIGHT_LEVELS, LARGEST_WEIGHT = 256, 255, 63
"""Of activations; of weights, of which those beyond the largest, in steps, stay unused."""


_PLACE = ["wpcrack", "ranges"]
"""Of the ranges among the notes of a graph."""


def attach_ranges(graph: Any, ranges: Ranges) -> None:
    """Let a graph carry its ranges."""
    graph.set_rt_info(json.dumps(ranges), _PLACE)


def ranges_of(graph: Any) -> Ranges:
    """Return the ranges that a graph carries; none if it was given none."""
    if not graph.has_rt_info(_PLACE):
        return {}
    ranges: Ranges = json.loads(graph.get_rt_info(_PLACE).astype(str))
    return ranges


def measure_ranges(graph: Any, windows: Iterable[NDArray[np.uint8]]) -> Ranges:
    """Return the extremes of what `quantize` needs, over windows.

    Args:
        graph: As by `wpcrack.inference.graph.load_graph`; not changed.
        windows: (H, W, 3) RGB, all of one size.
    """
    extremes: dict[str, tuple[float, float]] = {}
    request, names = None, list[str]()
    for window in windows:
        if request is None:
            watched = graph.clone()
            watched.reshape([1, *window.shape])
            inputs = {_name(taken): taken for taken in _inputs(watched)}
            if not inputs:
                break
            names = list(inputs)
            watched = openvino().Model([*inputs.values()], watched.get_parameters(), "ranges")
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            request = openvino_core().compile_model(watched, "CPU", exact).create_infer_request()
        request.infer([np.ascontiguousarray(window)[None]])
        for number, name in enumerate(names):
            values = request.get_output_tensor(number).data
            low, high = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = min(low, float(values.min())), max(high, float(values.max()))
    return extremes


def quantize(graph: Any, ranges: Ranges) -> Any:
    """Return a graph whose large convolutions take 8-bit numbers; the one given is not changed.

    Args:
        graph: As for `measure_ranges`, of one size and before it is rewritten; it may have fewer
            scales.
        ranges: Of that model; a convolution whose input has none stays as it is.
    """
    quantized = graph.clone()
    rounded: dict[str, Any] = {}
    for convolution in list(_large_convolutions(quantized)):
        taken = convolution.input_value(0)
        name = _name(taken)
        if name not in ranges:
            continue
        if name not in rounded:
            rounded[name] = _round_activations(taken, *ranges[name])
        convolution.input(0).replace_source_output(rounded[name])
        weights = _round_weights(convolution.input_value(1))
        convolution.input(1).replace_source_output(weights)
    quantized.validate_nodes_and_infer_types()
    return quantized


def _large_convolutions(graph: Any) -> Iterator[Any]:
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "Convolution":
            outputs, inputs = operation.input(1).get_shape()[:2]
            if min(outputs, inputs) >= CHANNELS:
                yield operation


def _inputs(graph: Any) -> Iterator[Any]:
    for convolution in _large_convolutions(graph):
        yield convolution.input_value(0)


def _name(output: Any) -> str:
    return f"{output.get_node().get_friendly_name()}:{output.get_index()}"


def _round_activations(values: Any, low: float, high: float) -> Any:
    """Return values rounded to a grid that holds zero, and cut off at its ends.

    Engines count its 256 levels from 0 or from -128: zero must be one of them in either.
    """
    if low >= 0:
        return _round_to(values, 0.0, high, LEVELS)
    step = max(-low / 128, high / 127)
    return _round_to(values, -128 * step, 127 * step, LEVELS)


def _round_weights(weights: Any) -> Any:
    """Return weights (C', C, h, w) rounded to 7 bits, each output channel to steps of its own."""
    constant = weights.get_node()
    while constant.get_type_name() == "Convert":  # from the half precision of the file
        constant = constant.input_value(0).get_node()
    exact = np.asarray(constant.data, np.float32)
    largest = np.abs(exact).max((1, 2, 3), keepdims=True)
    step = np.maximum(largest, np.finfo(np.float32).tiny * 2**16) / LARGEST_WEIGHT
    on_grid = openvino().opset13.constant(round_rows(exact / step) * step).output(0)
    end = step * (WEIGHT_LEVELS // 2)  # twice as far as the weights reach: hence 7 bits
    return _round_to(on_grid, -end, end, WEIGHT_LEVELS)


def round_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return whole numbers (C', ...) next to values, whose sum in each row is next to theirs, too.

    Rounded one by one, errors of the hundreds of weights of a channel add up to a shift of all its
    outputs, which are sums over inputs that are mostly positive. So each row is rounded down, and
    as many are raised as its sum asks for, those with the largest rests first (largest remainder).

    >>> round_rows(np.array([[0.4, 0.4, 0.3, -0.1]], np.float32))
    array([[1., 0., 0., 0.]], dtype=float32)
    """
    rows = values.reshape(len(values), -1)
    below = np.floor(rows)
    rests = rows - below
    raised = np.rint(rests.sum(1, keepdims=True))
    rank = np.argsort(np.argsort(-rests, 1, kind="stable"), 1, kind="stable")
    whole: NDArray[np.float32] = (below + (rank < raised)).reshape(values.shape).astype(np.float32)
    return whole


def _round_to(values: Any, low: Any, high: Any, levels: int) -> Any:
    op = openvino().opset13
    ends = [op.constant(np.asarray(end, np.float32)) for end in (low, high, low, high)]
    return op.fake_quantize(values, *ends, levels).output(0)
