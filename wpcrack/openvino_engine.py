"""Windows -> crack probability with OpenVINO, the fastest engine on a CPU.

The whole path from 8-bit pixels to probability is one graph. It is made from the torch networks
once and kept beside the model in `openvino-<hash>/`, so a worker that starts later needs no torch
network at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wpcrack.checkpoint import CONFIG, WEIGHTS, find_model, load_model
from wpcrack.networks import Networks
from wpcrack.networks.folded import fold
from wpcrack.torch_engine import native_bfloat16

log = logging.getLogger(__name__)

Precision = Literal["f32", "bf16"]

GRAPH = "model.xml"
SHAPES_KEPT = 4
"""Window shapes that stay compiled; another one costs about .2 s and some 100 MB."""


def is_installed() -> bool:
    """Whether the package openvino can be imported."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoPredictor:
    """A `wpcrack.predict.WindowPredictor`.

    Windows run one after the other through a graph compiled for their shape: that is faster than
    one graph for all shapes (measured: 38 against 48 ms) or a batch at once, and the result does
    not depend on what else is in the batch, bit for bit.
    """

    def __init__(
        self, graph: Any, threads: int | None = None, precision: Precision | None = None
    ) -> None:
        """Prepares a graph; it is compiled when the first window of a shape arrives.

        Args:
            graph: Result of `convert` or `cached_graph`; must not be used elsewhere.
            threads: Cores to use; None: as many as torch would, which follows OMP_NUM_THREADS.
            precision: None: bf16 where this CPU multiplies it natively, else f32.
        """
        self.precision: Precision = precision or ("bf16" if native_bfloat16() else "f32")
        self._graph = graph
        self._core = openvino().Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # pinned workers of one machine share the first cores
        }
        self._requests: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Windows (N, H, W, 3) uint8 RGB -> crack probability (N, H, W) float32 in [0, 1]."""
        count, height, width = windows.shape[:3]
        probability = np.empty((count, height, width), np.float32)
        request = self._request(height, width)
        for window, result in zip(windows, probability, strict=True):
            request.infer([np.ascontiguousarray(window)[None]], share_inputs=True)
            result[...] = request.get_output_tensor().data[0, 0]
        return probability

    def _request(self, height: int, width: int) -> Any:
        shape = height, width
        if shape not in self._requests:
            self._graph.reshape([1, height, width, 3])
            compiled = self._core.compile_model(self._graph, "CPU", self._settings)
            self._requests[shape] = compiled.create_infer_request()
            if len(self._requests) > SHAPES_KEPT:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


def convert(networks: Networks) -> Any:
    """The inference path as an `openvino.Model`: (1, H, W, 3) uint8 -> (1, 1, H, W) float32."""
    ov = openvino()
    example = torch.zeros(1, 3, 64, 96)
    with warnings.catch_warnings():  # torch.jit.trace, which the converter uses, is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = ov.convert_model(
            _Probability(fold(networks)).cpu(),
            example_input=example,
            input=[ov.PartialShape([1, 3, -1, -1])],
        )
    steps = ov.preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return steps.build()


class _Probability(nn.Module):
    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.networks(image))


def cached_graph(path: Path) -> Any:
    """The graph of a run folder or model folder: read if it is there, else made and kept.

    A model folder that cannot be written to is no obstacle.

    Raises:
        CheckpointError: The model is missing, unreadable or of another architecture.
    """
    folder = find_model(path)
    place = folder / f"openvino-{_fingerprint(folder)}"
    if (place / GRAPH).is_file():
        try:
            return openvino().Core().read_model(place / GRAPH)
        except RuntimeError as error:
            log.warning("%s cannot be read (%s); converting the model again", place, error)
            shutil.rmtree(place, ignore_errors=True)
    graph = convert(load_model(folder).networks)
    _keep(graph, place)
    return graph


def _keep(graph: Any, place: Path) -> None:
    """Writes a graph under a name of its own, then moves it: readers see all of it or nothing."""
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir()
        openvino().save_model(graph, fresh / GRAPH, compress_to_fp16=False)
        os.rename(fresh, place)
    except (OSError, RuntimeError) as error:  # read-only, full, or another worker was faster
        log.info("the OpenVINO graph was not kept in %s (%s)", place, error)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fingerprint(folder: Path) -> str:
    """Of everything that the graph follows from: weights, config, code, versions."""
    sources = [*Path(__file__).with_name("networks").glob("*.py"), Path(__file__)]
    digest = hashlib.sha256(
        f"{openvino().get_version()} {torch.__version__} {timm.__version__}".encode()
    )
    for file in (folder / WEIGHTS, folder / CONFIG, *sorted(sources)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def openvino() -> Any:
    """The module openvino, imported when it is needed (.4 s) and without its telemetry."""
    with _telemetry_hidden():
        import openvino as module
    return module


@contextmanager
def _telemetry_hidden() -> Iterator[None]:
    """Makes openvino_telemetry look absent, so that openvino takes its own silent stand-in.

    Otherwise each import and conversion is reported to a web service and ~/intel is written to,
    unless the user has opted out.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
