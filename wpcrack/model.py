"""Models on disk: `model.safetensors` (weights) + `config.yaml` (how to build the networks).

A model folder never holds pickled code. It is replaced as a whole, so a reader finds the old one
or the new one, never half of each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wpcrack.config import Block, ModelConfig
from wpcrack.errors import CheckpointError
from wpcrack.networks import Networks

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
MODEL_FOLDER = "model"
"""Name of the model folder inside a run folder."""


class ModelInfo(Block):
    """Content of a model's config.yaml."""

    format: Literal[1] = 1
    """Version of this layout."""
    model: ModelConfig
    """Networks."""
    gsd_mm: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of the training images on the ground; null: photographs, never resample."""
    trained: dict[str, Any] = Field(default_factory=dict)
    """How it came to be: epoch, stage, scores, seed, versions."""


@dataclass(frozen=True)
class Model:
    """Networks with trained weights, in eval mode, and what is known about them."""

    networks: Networks
    info: ModelInfo
    folder: Path


def save_model(folder: Path, networks: Networks, info: ModelInfo) -> None:
    """Writes a model folder; an existing one is replaced at the end.

    Between the two renames the old model lies in a hidden folder, where `find_model` looks too.

    Raises:
        CheckpointError: The folder cannot be written (no space, no permission).
    """
    fresh, old = folder.with_name(f".{folder.name}.new"), set_aside(folder)
    try:
        if old.exists() and not folder.exists():  # an earlier save was killed between its renames
            os.replace(old, folder)
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        save_file(tensors_of(networks), fresh / WEIGHTS)
        text = yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False)
        (fresh / CONFIG).write_text(text, encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model cannot be written to {folder} ({error}); "
            "free space or choose another folder"
        ) from error


def set_aside(folder: Path) -> Path:
    """Where the old model lies while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def tensors_of(networks: Networks) -> dict[str, Tensor]:
    """Every tensor, contiguous, on the CPU, by name."""
    return {k: v.detach().cpu().contiguous() for k, v in networks.state_dict().items()}


def find_model(path: Path) -> Path:
    """The model folder that a run folder or model folder stands for.

    Raises:
        CheckpointError: There is no complete model.
    """
    inside = path / MODEL_FOLDER
    for folder in (inside, path, set_aside(inside), set_aside(path)):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if not path.exists():
        raise CheckpointError(
            f"model {path} does not exist; give the run folder of a finished `wpcrack train`"
        )
    raise CheckpointError(
        f"{path} holds no {MODEL_FOLDER}/{WEIGHTS} with its {CONFIG}; give the run folder of a "
        "`wpcrack train` that reached its adversarial stage"
    )


def run_name(folder: Path) -> str:
    """Return the name of the run that a found model folder belongs to, or the folder's own.

    >>> run_name(Path("runs/a/model")), run_name(Path("runs/a/.model.old")), run_name(Path("lite"))
    ('a', 'a', 'lite')
    """
    folder = folder.absolute()
    inside = folder.parent / MODEL_FOLDER
    return folder.parent.name if folder in (inside, set_aside(inside)) else folder.name


def read_info(folder: Path) -> ModelInfo:
    """Read the description of a model folder, without its weights.

    Raises:
        CheckpointError: It cannot be read, or a key is unknown or out of range.
    """
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        return ModelInfo.model_validate(yaml.safe_load(text))
    except (OSError, ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"model {folder} cannot be read ({first_line(error)}); train or copy it again"
        ) from error


def load_model(path: Path) -> Model:
    """Reads a model from a run folder or model folder.

    Raises:
        CheckpointError: Missing, unreadable, or of another architecture; tensors are named.
    """
    folder = find_model(path)
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        info = ModelInfo.model_validate(yaml.safe_load(text))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValidationError, yaml.YAMLError, UnicodeDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"model {folder} cannot be read ({first_line(error)}); train or copy it again"
        ) from error
    config = info.model.model_copy(update={"pretrained": "none"})
    networks = Networks(config)
    check_tensors(tensors, networks.state_dict(), folder)
    networks.load_state_dict(tensors)
    return Model(networks.eval().requires_grad_(False), info, folder)


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    """Names the first missing, extra or misshapen tensor.

    Raises:
        CheckpointError: The two do not agree.
    """
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{k} is {tuple(found[k].shape)}, needed is {tuple(wanted[k].shape)}"
        for k in sorted(set(found) & set(wanted))
        if found[k].shape != wanted[k].shape
    ]
    problems = [f"{k} is missing" for k in missing] + [f"{k} is unknown" for k in extra] + shapes
    if problems:
        raise CheckpointError(
            f"the weights of {folder} do not fit its {CONFIG}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; keep both files of one model together"
        )


def first_line(error: Exception) -> str:
    """First line of a message; of a config error the first problem, with its key."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc'])) or CONFIG}: {problem['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]
