"""An OpenVINO graph whose shapes are known, rewritten to compute the same in less time.

Values stay equal to float32 rounding (1e-7). `python -m benchmarks.inference.shipped --side 768
--precision bf16`: .85 of the time with bf16 on AMX; .96 with f32 on AVX-512.

Shape letters: B images, C channels, H W cells, S scales.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpcrack.inference.machine import openvino

QUARTERS = 4
PER_CELL = frozenset({"Relu", "Clamp", "Sigmoid", "Swish", "HSwish", "HSigmoid", "FakeQuantize"})
"""Operations that look at a cell of their first input alone; other inputs are single numbers."""


def rewrite_graph(graph: Any) -> Any:
    """Return a graph that computes the same in less time; the one that was given is not changed.

    Args:
        graph: As by `wpcrack.inference.openvino_engine.fused_graph`, after `reshape`.
    """
    faster = graph.clone()
    for operation in faster.get_ordered_ops():
        if operation.get_type_name() in ("ReduceMax", "ReduceMean") and not _leave_out(operation):
            _sum_up(operation)
    faster.validate_nodes_and_infer_types()
    quarters = faster.clone()
    if not _Quarters(quarters).take():
        return faster
    quarters.validate_nodes_and_infer_types()
    return quarters


def _leave_out(reduction: Any) -> bool:
    """Replace a maximum or mean over axes of one value each; return whether it is such a one."""
    given, shape = reduction.input_value(0), list(reduction.get_output_shape(0))
    if np.prod(given.get_shape()) != np.prod(shape):
        return False
    reshaped = openvino().opset13.reshape(given, np.array(shape), False)
    reduction.output(0).replace(reshaped.output(0))
    return True


def _sum_up(mean: Any) -> None:
    """Fuse scales by a sum of their powers, in place of their mean behind a join (B, S, H, W)."""
    op = openvino().opset13
    power = mean.input_value(0).get_node()
    joined = power.input_value(0).get_node() if power.get_type_name() == "Power" else power
    if joined.get_type_name() != "Concat":
        return
    batch, count, *size = joined.get_output_shape(0)
    if count != joined.get_input_size() or list(mean.get_output_shape(0)) != [batch, 1, *size]:
        return
    scales = [_enlarge(scale) for scale in joined.input_values()]
    if power is joined:
        pass
    elif _is_two(power.input_value(1)):  # faster than a power
        scales = [op.multiply(scale, scale) for scale in scales]
    else:
        scales = [op.power(scale, power.input_value(1)) for scale in scales]
    total = reduce(op.add, scales)
    share = np.full((1, 1, 1, 1), 1 / len(scales), np.float32)
    mean.output(0).replace(op.multiply(total, op.constant(share)).output(0))


def _is_two(exponent: Any) -> bool:
    node = exponent.get_node()
    if node.get_type_name() == "Convert":  # from the half precision of the file
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and bool(np.all(node.data == 2))


def _enlarge(scale: Any) -> Any:
    """Return (B, 1, H, W) as it is, but enlarged by a convolution where it is by a resize.

    A resize of one channel by a whole factor f is a convolution with f x f outputs per cell, each
    with the weights of its place between the cells.
    """
    op = openvino().opset13
    resize = scale.get_node()
    if resize.get_type_name() != "Interpolate":
        return scale
    small, how = resize.input_value(0), resize.get_attributes()
    height, width = small.get_shape()[2:]
    factor = scale.get_shape()[2] // height
    if (
        list(scale.get_shape())[1:] != [1, factor * height, factor * width]
        or how["mode"] not in ("linear_onnx", "linear")
        or how["coordinate_transformation_mode"] != "half_pixel"
    ):
        return scale
    border = np.array([0, 0, 1, 1])
    kernel = op.constant(bilinear_kernel(factor))
    edged = op.pad(small, border, border, "edge")
    places = op.convolution(edged, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    return op.depth_to_space(places, "blocks_first", factor).output(0)


def bilinear_kernel(factor: int) -> NDArray[np.float32]:
    """Return (factor^2, 1, 3, 3): the weights of each place in a cell that is enlarged.

    >>> bilinear_kernel(2)[0, 0] * 16
    array([[1., 3., 0.],
           [3., 9., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    offset = (np.arange(factor) + 0.5) / factor - 0.5
    weights = np.stack([np.maximum(-offset, 0), 1 - abs(offset), np.maximum(offset, 0)], 1)
    squares: NDArray[np.float64] = np.einsum("yi,xj->yxij", weights, weights)
    return squares.reshape(-1, 1, 3, 3).astype(np.float32)


class _Quarters:
    """Depthwise convolutions with holes as plain ones on the four quarters of a picture.

    A kernel with a hole between any two weights sees every second row and column alone. So the
    picture is split into the cells of even and odd rows and columns, (B, C, H, W) -> (4 B, C, H/2,
    W/2), once in front of the first such convolution, and joined behind the last: what stands
    between them looks at single cells. Engines have faster code for plain convolutions.
    """

    def __init__(self, graph: Any) -> None:
        self.operations = graph.get_ordered_ops()
        self.cells = {each.get_name(): _cells_of(each) for each in self.operations}
        self.holed = {each.get_name() for each in self.operations if _has_holes(each)}
        self.inside: set[str] = set()
        """Names of operations whose output is in quarters."""
        self.splits: dict[tuple[str, int], Any] = {}
        self.joins: dict[str, Any] = {}

    def take(self) -> bool:
        """Change the graph; return False if it would be no faster: then it must not be used."""
        for operation in self.operations:
            inputs = self.cells[operation.get_name()]
            if operation.get_name() in self.holed:
                self._enter(operation, [0])
                for name in ("pads_begin", "pads_end"):
                    half = [pad // 2 for pad in operation.get_attributes()[name]]
                    operation.set_attribute(name, half)
                operation.set_attribute("dilations", [1, 1])
                operation.validate_and_infer_types()
            elif any(_source(operation, i).get_name() in self.inside for i in inputs):
                self._enter(operation, inputs)
            else:
                for place in operation.inputs():
                    if place.get_source_output().get_node().get_name() in self.inside:
                        place.replace_source_output(self._join(place.get_source_output()))
        return 0 < len(self.splits) + len(self.joins) < len(self.holed)

    def _enter(self, operation: Any, inputs: list[int]) -> None:
        """Let an operation work in quarters."""
        for number in inputs:
            place, source = operation.input(number), _source(operation, number)
            if source.get_name() in self.inside:
                continue
            is_narrower = operation.get_type_name() == "Convolution"  # than what it gives
            alone = len(source.output(0).get_target_inputs()) == 1
            if alone and not is_narrower and self.cells[source.get_name()] == [0]:
                self._enter(source, [0])
            else:
                place.replace_source_output(self._split(place.get_source_output()))
        operation.validate_and_infer_types()
        self.inside.add(operation.get_name())

    def _split(self, whole: Any) -> Any:
        op, key = openvino().opset13, (whole.get_node().get_name(), whole.get_index())
        if key not in self.splits:
            parts = [
                op.strided_slice(
                    whole, [0, 0, y, x], [0] * 4, [1, 1, 2, 2], [1, 1, 0, 0], [1] * 4
                ).output(0)
                for y in (0, 1)
                for x in (0, 1)
            ]
            self.splits[key] = op.concat(parts, 0).output(0)
        return self.splits[key]

    def _join(self, quarters: Any) -> Any:
        op, name = openvino().opset13, quarters.get_node().get_name()
        if name not in self.joins:
            parts = op.concat(op.split(quarters, 0, QUARTERS).outputs(), 1)
            self.joins[name] = op.depth_to_space(parts, "blocks_first", 2).output(0)
        return self.joins[name]


def _source(operation: Any, number: int) -> Any:
    return operation.input_value(number).get_node()


def _has_holes(operation: Any) -> bool:
    """Return whether it is a depthwise convolution with one hole between any two weights."""
    if operation.get_type_name() != "GroupConvolution":
        return False
    how = operation.get_attributes()
    pads = [*how["pads_begin"], *how["pads_end"]]
    sides = operation.input(0).get_shape()[2:]
    return (
        list(how["dilations"]) == [2, 2]
        and list(how["strides"]) == [1, 1]
        and not any(length % 2 for length in (*sides, *pads))
    )


def _cells_of(operation: Any) -> list[int]:
    """Return which inputs are pictures, of an operation that looks at single cells; else none."""
    kind = operation.get_type_name()
    if kind in PER_CELL:
        return [0]
    if kind == "Convolution":
        how, kernel = operation.get_attributes(), operation.input(1).get_shape()
        is_single = list(kernel[2:]) == list(how["strides"]) == [1, 1]
        return [0] if is_single and not any([*how["pads_begin"], *how["pads_end"]]) else []
    if kind in ("Add", "Multiply"):
        first, second = (list(operation.input(i).get_shape()) for i in (0, 1))
        if first == second and len(first) == 4:
            return [0, 1]
        return [0] if len(second) == 4 and second[0] == 1 and second[2:] == [1, 1] else []
    return []
