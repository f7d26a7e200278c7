"""Windows -> crack probability with OpenVINO, the fastest engine on a CPU.

The whole path from 8-bit pixels to probability is one graph. It is made from the torch networks
once and kept beside the model in `openvino-<hash>/`, so a worker that starts later needs no torch
network at all. The networks are first folded into a form of equal values that takes fewer passes
over memory (measured with bf16 on one window of 512x512 and one thread: 54.5 -> 37.3 ms).

Shape letters: B images, C channels, h w cells.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wpcrack.inference.scales import ScaledProbability
from wpcrack.inference.torch_engine import native_bfloat16
from wpcrack.model import CONFIG, WEIGHTS, find_model, load_model
from wpcrack.networks import Detector, Features, Networks
from wpcrack.networks.detector import ChannelNorm, DirectionalConv, Mix, PathAttention

log = logging.getLogger(__name__)

Precision = Literal["f32", "bf16"]

GRAPH = "model.xml"
SHAPES_KEPT = 4
"""Window shapes that stay compiled; another one costs about .2 s and some 100 MB."""


def is_installed() -> bool:
    """Return whether the package openvino can be imported."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoPredictor:
    """A `wpcrack.inference.predict.WindowPredictor`.

    Windows run one after the other through a graph compiled for their shape: that is faster than
    one graph for all shapes (measured: 38 against 48 ms) or a batch at once, and the result does
    not depend on what else is in the batch, bit for bit.
    """

    def __init__(
        self, graph: Any, threads: int | None = None, precision: Precision | None = None
    ) -> None:
        """Prepare a graph; it is compiled when the first window of a shape arrives.

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
        """Turn windows (N, H, W, 3) uint8 RGB into probability (N, H, W) float32 in [0, 1]."""
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


def convert(networks: Networks, scales: Sequence[float] = (1.0,)) -> Any:
    """Return the `openvino.Model` of networks: (1, H, W, 3) uint8 -> (1, 1, H, W) float32."""
    ov = openvino()
    example = torch.zeros(1, 3, 64, 96)
    with warnings.catch_warnings():  # torch.jit.trace, which the converter uses, is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = ov.convert_model(
            ScaledProbability(fold(networks), scales).cpu(),
            example_input=example,
            input=[ov.PartialShape([1, 3, -1, -1])],
        )
    steps = ov.preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return steps.build()


def cached_graph(path: Path | None) -> Any:
    """Return the graph of a run folder or model folder: read if it is there, else made and kept.

    None stands for the shipped model.

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
    model = load_model(folder)
    graph = convert(model.networks, model.info.scales)
    _keep(graph, place)
    return graph


def _keep(graph: Any, place: Path) -> None:
    """Write a graph under a name of its own, then moves it: readers see all of it or nothing."""
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
    """Hash everything that the graph follows from: weights, config, code, versions."""
    sources = [*Path(__file__).parents[1].joinpath("networks").glob("*.py"), Path(__file__)]
    digest = hashlib.sha256(
        f"{openvino().get_version()} {torch.__version__} {timm.__version__}".encode()
    )
    for file in (folder / WEIGHTS, folder / CONFIG, *sorted(sources)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def openvino() -> Any:
    """Return the module openvino, imported when it is needed (.4 s) and without its telemetry."""
    with _hide_telemetry():
        import openvino as module
    return module


@contextmanager
def _hide_telemetry() -> Iterator[None]:
    """Make openvino_telemetry look absent, so that openvino takes its own silent stand-in.

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


def fold(networks: Networks) -> Networks:
    """Return a copy for inference that computes the same logits (to float32 rounding) in less time.

    Three parts are rewritten, the encoders are left to the engine:
    the channel norm after a convolution (its mean moves into the weights), the directional kernels
    (each becomes as narrow as its line), and the last doubling (a convolution instead of a resize).

    Args:
        networks: Trained networks; not changed.

    Returns:
        Networks in eval mode without gradients.
    """
    folded = copy.deepcopy(networks).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, Mix):
            module.norm = CenteredNorm(module.norm)  # type: ignore[assignment]
            center_outputs(module.conv)
        elif isinstance(module, PathAttention) and module.config.spatial:
            module.direction = LineFilters(module.direction)  # type: ignore[assignment]
    if isinstance(folded.detector, Detector) and folded.detector.low_levels[-1:] == (2,):
        folded.detector = DoublingDetector(folded.detector)  # type: ignore[assignment]
    return folded


def center_outputs(conv: nn.Conv2d) -> None:
    """Make the outputs of a convolution without bias sum to zero at every pixel.

    mean_c(W_c * x) = mean_c(W_c) * x, so a norm behind it need not subtract the mean.
    """
    assert conv.bias is None
    conv.weight.sub_(conv.weight.mean(0, keepdim=True))


class CenteredNorm(nn.Module):
    """`ChannelNorm` of an input whose channels have mean zero: no transposition, no mean."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.norm.weight[:, None, None], requires_grad=False)
        self.bias = nn.Parameter(norm.norm.bias[:, None, None], requires_grad=False)
        self.epsilon = norm.norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        variance = (x * x).mean(1, keepdim=True)
        return x * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias


class LineFilters(nn.Module):
    """`DirectionalConv` and the maximum over its directions; horizontal and vertical are 1D."""

    def __init__(self, direction: DirectionalConv) -> None:
        super().__init__()
        kernels = direction.weight * direction.mask[:, None]  # (4, C, L, L): 0 45 90 135 degrees
        center = slice(direction.length // 2, direction.length // 2 + 1)
        lines = kernels[0][:, center], kernels[1], kernels[2][:, :, center], kernels[3]
        self.kernels = nn.ParameterList(
            nn.Parameter(line[:, None].clone(), requires_grad=False) for line in lines
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, C, h, w): the strongest response."""
        first, *others = self.responses(x)
        for other in others:
            first = torch.maximum(first, other)
        return first[:, None]

    def responses(self, x: Tensor) -> Iterator[Tensor]:
        """(B, C, h, w) along each direction."""
        for kernel in self.kernels:
            height, width = kernel.shape[-2:]
            yield F.conv2d(x, kernel, padding=(height // 2, width // 2), groups=kernel.shape[0])


class DoublingDetector(nn.Module):
    """`Detector` whose pyramid ends at stride 2; a 3x3 convolution gives 2x2 pixels per cell.

    With half-pixel centers a doubled line is .25 left + .75 here, .75 here + .25 right; beyond the
    edge the nearest cell counts.
    """

    phases: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        line = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        phases = torch.einsum("ik,jl->ijkl", line, line).reshape(4, 1, 3, 3)
        self.register_buffer("phases", phases)

    def forward(self, classifier: Features, reconstructor: Features, size: Sequence[int]) -> Tensor:
        """(B, 1, H, W) crack logits of the features of both encoders; size = (H, W)."""
        logits = self.detector.logit(self.detector.pyramid(classifier, reconstructor))
        cells = F.pad(logits, (1, 1, 1, 1), mode="replicate")
        return F.pixel_shuffle(F.conv2d(cells, self.phases), 2)
