"""Windows -> crack probability with OpenVINO, the fastest engine on a CPU; needs no torch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wpcrack.errors import ConfigError
from wpcrack.inference.eight_bits import quantize, ranges_of
from wpcrack.inference.machine import default_threads, native_bfloat16, openvino, openvino_core
from wpcrack.inference.rewrite import rewrite_graph

Precision = Literal["f32", "bf16", "int8"]
"""Numbers that convolutions take; int8: the large ones 8-bit numbers, all others f32."""

SHAPES_KEPT = 4
"""Window shapes that stay compiled; another one costs about .2 s and some 100 MB."""


class OpenVinoPredictor:
    """A `wpcrack.inference.predict.WindowPredictor`.

    Windows run one after the other through a graph compiled for their shape: that is faster than
    one graph for all shapes (measured: 38 against 48 ms) or a batch at once, and the result does
    not depend on what else is in the batch, bit for bit.
    """

    def __init__(
        self,
        graph: Any,
        threads: int | None = None,
        precision: Precision | None = None,
        *,
        scales: int | None = None,
    ) -> None:
        """Prepare a graph; it is compiled when the first window of a shape arrives.

        Args:
            graph: Result of `wpcrack.inference.graph.load_graph`; it is changed, and must not be
                used elsewhere.
            threads: Cores to use; None: see `wpcrack.inference.machine.default_threads`.
            precision: None: bf16 where this CPU multiplies it natively, else int8 if the graph has
                the ranges for it, else f32.
            scales: How many of the model's scales to look at, from the finest on; None: all.

        Raises:
            ConfigError: int8 is asked of a graph without ranges.
        """
        self._ranges = ranges_of(graph)
        without: Precision = "int8" if self._ranges else "f32"
        self.precision: Precision = precision or ("bf16" if native_bfloat16() else without)
        if self.precision == "int8" and not self._ranges:
            raise ConfigError(
                "precision is int8, and the graph of this model was delivered without the ranges "
                "for it; set f32, or train the model again, which measures them"
            )
        self._graph = fused_graph(graph, len(graph.outputs) if scales is None else scales)
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads or default_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # pinned workers of one machine share the first cores
        }
        self._requests: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._turn = threading.Lock()

    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Turn windows (N, H, W, 3) uint8 RGB into probability (N, H, W) float32 in [0, 1].

        Threads take turns: another one would write its result in the place of this one's.
        """
        count, height, width = windows.shape[:3]
        probability = np.empty((count, height, width), np.float32)
        for window, result in zip(windows, probability, strict=True):
            with self._turn:
                request = self._request(height, width)
                request.infer([np.ascontiguousarray(window)[None]], share_inputs=True)
                result[...] = request.get_output_tensor().data[0, 0]
        return probability

    def _request(self, height: int, width: int) -> Any:
        shape = height, width
        if shape not in self._requests:
            self._graph.reshape([1, height, width, 3])
            rounded = self.precision == "int8"
            graph = quantize(self._graph, self._ranges) if rounded else self._graph
            faster = rewrite_graph(graph)
            compiled = openvino_core().compile_model(faster, "CPU", self._settings)
            self._requests[shape] = compiled.create_infer_request()
            if len(self._requests) > SHAPES_KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


def fused_graph(graph: Any, count: int) -> Any:
    """Return the part of a graph that computes the fusion of the first `count` scales alone.

    The scales are joined to one tensor, of which each fusion takes its share, so all scales would
    be computed for the first alone: a slice of joined scales becomes a join of those in it.

    Args:
        graph: As by `wpcrack.inference.convert.convert`; it is changed, its values are not.
        count: From 1 to the number of its outputs.
    """
    for cut in graph.get_ops():
        if cut.get_type_name() != "Slice":
            continue
        joined, kept = cut.input_value(0).get_node(), cut.get_output_partial_shape(0)[1].max_length
        if joined.get_type_name() == "Concat" and 0 < kept <= joined.get_input_size():
            scales = joined.input_values()[:kept]
            part = scales[0] if kept == 1 else openvino().opset13.concat(scales, axis=1).output(0)
            cut.output(0).replace(part)
    return openvino().Model([graph.outputs[count - 1]], graph.get_parameters(), "probability")
