"""The trained model of an inference job: its files, their hash, and loading it in an actor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import yaml

from wpcrack.errors import CheckpointError
from wpcrack.predict import Engine, WindowPredictor

CONFIG = "config.yaml"
"""Of a model folder; read here without torch, which the driver does not need."""

READ_BYTES = 2**20
"""Files are hashed in pieces of this size."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies and what identifies it.

    Attributes:
        folder: Of the model's files.
        name: Of the run.
        sha256: Of the files.
        gsd_mm: Pixel size of the training images; None: photographs.
    """

    folder: Path
    name: str
    sha256: str
    gsd_mm: float | None = None

    @classmethod
    def stand_in(cls) -> ModelFiles:
        """For a predictor that is no trained model."""
        return cls(Path(), "stand-in", "0" * 64)

    @property
    def label(self) -> str:
        """For the attribute `model`."""
        return model_label(self.name, self.sha256)


def model_label(name: str, sha256: str) -> str:
    """Name and hash of a model in a few characters."""
    return f"{name}@{sha256[:12]}"


def model_files(model: Path) -> ModelFiles:
    """Finds the model in a run folder (`RUN/model/`) or in that folder itself, and hashes it.

    Raises:
        CheckpointError: There is no model.
    """
    inner = model / "model"
    folder = (inner if inner.is_dir() else model).absolute()
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.yaml"))
    if not any(file.suffix == ".safetensors" for file in files):
        found = "holds no *.safetensors" if model.exists() else "does not exist"
        raise CheckpointError(f"model {model} {found}; give the run folder of `wpcrack train`")
    named = folder.parent if folder.name == "model" else folder
    return ModelFiles(folder, named.name, _hash(files), _gsd_mm(folder))


def load_model(folder: Path, threads: int, engine: Engine = "auto") -> WindowPredictor:
    """Loads the network and gives it its share of the machine; runs inside an actor."""
    import torch

    from wpcrack.engine import load_predictor

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    return load_predictor(folder, engine, threads)


def _gsd_mm(folder: Path) -> float | None:
    """Pixel size in the model's config; a config that is broken is named when it is loaded."""
    try:
        content = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    value = content.get("gsd_mm") if isinstance(content, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while piece := stream.read(READ_BYTES):
                digest.update(piece)
    return digest.hexdigest()
