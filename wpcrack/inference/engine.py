"""Which engine computes the inference path, and loading a trained model into it.

torch is imported only where it is chosen or asked for a GPU: an installation without it maps with
the OpenVINO graph of a model.
"""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Literal, get_args

from wpcrack.errors import ConfigError
from wpcrack.inference.graph import load_graph
from wpcrack.inference.machine import has_device_file, is_installed
from wpcrack.inference.openvino_engine import OpenVinoPredictor
from wpcrack.inference.predict import Engine, WindowPredictor
from wpcrack.model import find_model, load_model, read_info

MOST_THREADS = 1024
"""With many more torch ends the process."""


def load_predictor(
    path: Path | None,
    engine: Engine = "auto",
    threads: int | None = None,
    *,
    gsd_mm: float | None = None,
) -> WindowPredictor:
    """Load the predictor of a run folder or model folder.

    Args:
        path: Run folder or model folder; None: the shipped model.
        engine: auto: torch on a GPU; on a CPU openvino, or torch where that is not installed.
        threads: CPU cores to use; None: torch's number, which follows OMP_NUM_THREADS, or where it
            is not installed all cores. With torch this holds for the whole process.
        gsd_mm: Pixel size of the images on the ground, by which scales are chosen; None: unknown.

    Raises:
        CheckpointError: The model is missing, unreadable or of another architecture; or it has no
            graph for an installation without torch.
        ConfigError: The engine is unknown or not installed, or the threads are no number of cores.
    """
    if threads is not None and not _counts_cores(threads):
        raise ConfigError(
            f"threads is {threads!r}; give a number of CPU cores, from 1 to {MOST_THREADS}"
        )
    if choose(engine) == "openvino":
        scales = len(read_info(find_model(path)).scales_at(gsd_mm))
        return OpenVinoPredictor(load_graph(path), threads, scales=scales)
    import torch

    from wpcrack.inference.torch_engine import TorchPredictor

    if threads is not None:
        torch.set_num_threads(int(threads))
    model = load_model(path)
    return TorchPredictor(
        model.networks, scales=model.info.scales_at(gsd_mm), power=model.info.fusion_power
    )


def _counts_cores(threads: int) -> bool:
    is_whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    return is_whole and 1 <= threads <= MOST_THREADS


def choose(engine: Engine, *, gpu: bool | None = None) -> Literal["torch", "openvino"]:
    """Return the engine that is meant.

    Args:
        engine: what the user asks for.
        gpu: whether there is a GPU; None: as this process sees it.

    Raises:
        ConfigError: It is unknown or not installed.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine is {engine!r}; give {', '.join(get_args(Engine))}")
    if engine == "auto":
        has_gpu = gpus_here() > 0 if gpu is None else gpu
        engine = "torch" if has_gpu or not is_installed("openvino") else "openvino"
    if not is_installed(engine):
        other = "openvino" if engine == "torch" else "torch"
        raise ConfigError(
            f"engine={engine} needs the package {engine}, which is not installed; "
            f"pip install {engine}, or set engine={other}"
        )
    return engine


def gpus_here() -> int:
    """Return how many GPUs torch can use here; 0 without torch."""
    if not is_installed("torch") or not has_device_file():
        return 0  # without the seconds that torch takes
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
