"""Which engine computes the inference path, and loading a trained model into it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from wpcrack.errors import ConfigError
from wpcrack.inference.openvino_engine import OpenVinoPredictor, cached_graph, is_installed
from wpcrack.inference.predict import Engine, WindowPredictor
from wpcrack.inference.torch_engine import TorchPredictor
from wpcrack.model import load_model


def load_predictor(
    path: Path | None, engine: Engine = "auto", threads: int | None = None
) -> WindowPredictor:
    """Load the predictor of a run folder or model folder.

    Args:
        path: Run folder or model folder; None: the shipped model.
        engine: auto: torch on a GPU; on a CPU openvino, or torch where that is not installed.
        threads: CPU cores to use; None: torch's number, which follows OMP_NUM_THREADS. With torch
            this holds for the whole process.

    Raises:
        CheckpointError: The model is missing, unreadable or of another architecture.
        ConfigError: The engine is not installed.
    """
    if choose(engine) == "openvino":
        return OpenVinoPredictor(cached_graph(path), threads)
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_model(path)
    return TorchPredictor(model.networks, scales=model.info.scales)


def choose(engine: Engine) -> Literal["torch", "openvino"]:
    """Return the engine that is meant.

    Raises:
        ConfigError: It is not installed.
    """
    if engine == "openvino" and not is_installed():
        raise ConfigError(
            "engine=openvino needs the package openvino, which is not installed; "
            "pip install openvino, or set engine=torch"
        )
    if engine == "auto":
        return "openvino" if is_installed() and not torch.cuda.is_available() else "torch"
    return engine
