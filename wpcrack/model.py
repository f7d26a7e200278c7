"""Models on disk: `model.safetensors` (weights) + `config.yaml` (how to build the networks).

A model folder never holds pickled code. It is replaced as a whole, so a reader finds the old one
or the new one, never half of each. Finding a model and reading its description needs no torch;
only weights do. A model that only predicts, like the one that ships with the package, holds one
encoder and the detector at half precision.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError
from safetensors import SafetensorError, safe_open

from wpcrack.config import ModelConfig
from wpcrack.config_block import Block
from wpcrack.errors import CheckpointError, StorageError, first_line
from wpcrack.files import set_aside, whole_file, whole_folder
from wpcrack.plain_yaml import load_plain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wpcrack.networks import Networks

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
MODEL_FOLDER = "model"
"""Name of the model folder inside a run folder."""

SHIPPED = Path(__file__).with_name("weights")
"""Where a model that ships with the package lies; an installation need not hold one."""

SHIPPED_NAME = "shipped"
"""Name of that model in maps."""

PARTS = ("encoder", "detector")
"""Parts of a model that only predicts: prefixes of its tensors."""

SECOND_ENCODER = "reconstructor.encoder."
"""Prefix of the tensors that a model with one encoder for both inputs of the detector lacks."""


def _whole_fraction(scale: float) -> float:
    if round(1 / scale) not in (1, 2, 4) or scale * round(1 / scale) != 1:
        raise ValueError(f"{scale:g} is not 1, 0.5 or 0.25")
    return scale


Scale = Annotated[float, Field(gt=0, le=1), AfterValidator(_whole_fraction)]


class ModelInfo(Block):
    """Content of a model's config.yaml."""

    format: Literal[1] = 1
    """Version of this layout."""
    model: ModelConfig
    """Networks."""
    gsd_mm: Annotated[float, Field(gt=0)] | None = None
    """Pixel size of the training images on the ground; null: photographs, never resample."""
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (1.0,)
    """Sizes of an image that prediction looks at, whole fractions of its own: 1, 1/2, 1/4."""
    fusion_power: Annotated[float, Field(ge=1, le=8)] = 2.0
    """Exponent of the power mean that fuses the probabilities of the scales: 1 is their mean, 2 the
    root of their mean square. The higher, the more a single sure scale finds and marks."""
    coarsest_mm: Annotated[float, Field(gt=0)] | None = None
    """Where the pixel size of the ground is known, scales at which a pixel is larger are left out:
    thin cracks do not show there. null: all scales are looked at."""
    trained: dict[str, Any] = Field(default_factory=dict)
    """How it came to be: epoch, stage, scores, seed, versions."""

    def scales_at(self, gsd_mm: float | None) -> tuple[Scale, ...]:
        """Return the scales to look at for a pixel size, None where it is not known.

        >>> info = ModelInfo(model=ModelConfig(), scales=(1.0, 0.5, 0.25), coarsest_mm=8.0)
        >>> info.scales_at(5.0), info.scales_at(2.0), info.scales_at(None)
        ((1.0,), (1.0, 0.5, 0.25), (1.0, 0.5, 0.25))
        """
        if gsd_mm is None or self.coarsest_mm is None:
            return self.scales
        first, *others = self.scales
        return (first, *(scale for scale in others if gsd_mm / scale <= self.coarsest_mm))


@dataclass(frozen=True)
class Model:
    """Networks with trained weights, in eval mode, and what is known about them."""

    networks: Networks
    info: ModelInfo
    folder: Path


def find_model(path: Path | None) -> Path:
    """Return the model folder that a run folder or model folder stands for; None: the shipped one.

    Where a save was killed between its two renames, this is the old model that was set aside.

    Raises:
        CheckpointError: There is no complete model.
    """
    path = SHIPPED if path is None else path
    inside = path / MODEL_FOLDER
    for folder in (inside, path, set_aside(inside), set_aside(path)):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if path == SHIPPED:
        raise CheckpointError(
            "this installation holds no model; give model=RUN, the run folder of a `wpcrack train` "
            "or of `wpcrack pretrain`, which needs no label"
        )
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
    if folder == SHIPPED.absolute():
        return SHIPPED_NAME
    inside = folder.parent / MODEL_FOLDER
    return folder.parent.name if folder in (inside, set_aside(inside)) else folder.name


def read_info(folder: Path) -> ModelInfo:
    """Read the description of a model folder, without its weights.

    Raises:
        CheckpointError: It cannot be read, or a key is unknown or out of range.
    """
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        return ModelInfo.model_validate(load_plain(text))
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"] == ("format",):
            raise CheckpointError(
                f"model {folder} is of format {problem['input']!r}, this version of wpcrack reads "
                "format 1; use the version that wrote it, or train again"
            ) from error
        key = ".".join(map(str, problem["loc"])) or CONFIG
        raise _unreadable(folder, f"{key}: {problem['msg']}") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unreadable(folder, first_line(error)) from error


def load_model(path: Path | None) -> Model:
    """Read a model from a run folder or model folder; None: the shipped one.

    Raises:
        CheckpointError: Missing, unreadable, or of another architecture; tensors are named.
    """
    from safetensors.torch import load_file

    from wpcrack.networks import Networks

    folder = find_model(path)
    info = read_info(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, first_line(error)) from error
    networks = Networks(info.model.model_copy(update={"pretrained": "none"}))
    if _has_parts_alone(tensors):
        path_only = _inference_path(networks)
        _require_fit(tensors, path_only.state_dict(), folder)
        path_only.load_state_dict(tensors)  # copies: half precision becomes single
        networks.share_encoder()
    else:
        if not _has_second_encoder(tensors):
            networks.share_encoder()
        _require_fit(tensors, _tensors_of(networks), folder)
        networks.load_state_dict(tensors, strict=False)  # all that is kept is there
    return Model(networks.eval().requires_grad_(False), info, folder)


def has_one_encoder(folder: Path) -> bool:
    """Return whether a model folder holds one encoder for both inputs; reads no weights.

    Raises:
        CheckpointError: Its file of weights cannot be read.
    """
    return not _has_second_encoder(_names(folder))


def only_predicts(folder: Path) -> bool:
    """Return whether a model folder holds what computes a prediction alone; reads no weights.

    Raises:
        CheckpointError: Its file of weights cannot be read.
    """
    return _has_parts_alone(_names(folder))


def _names(folder: Path) -> list[str]:
    try:
        with safe_open(folder / WEIGHTS, "numpy") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, first_line(error)) from error


def _has_parts_alone(names: Iterable[str]) -> bool:
    return all(name.partition(".")[0] in PARTS for name in names)


def _has_second_encoder(names: Iterable[str]) -> bool:
    return any(name.startswith(SECOND_ENCODER) for name in names)


def _tensors_of(networks: Networks) -> dict[str, Tensor]:
    """Return the tensors of a model that is kept whole; a shared encoder stands there once."""
    found = networks.state_dict()
    if networks.shares_encoder:
        found = {name: v for name, v in found.items() if not name.startswith(SECOND_ENCODER)}
    return found


def _umask() -> int:
    """Return which permissions the user takes from new files; it is set for a moment."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_model(
    folder: Path, networks: Networks, info: ModelInfo, *, predicts_only: bool = False
) -> None:
    """Write a model folder; an existing one is replaced at the end.

    Args:
        folder: the model folder.
        networks: whose weights.
        info: its description.
        predicts_only: keep only the classifier's encoder, for both inputs of the detector, and the
            detector, at half precision: about a sixth of the size.

    Raises:
        StorageError: The folder cannot be written (no space, no permission).
    """
    from safetensors.torch import save_file

    kept = _inference_path(networks).state_dict() if predicts_only else _tensors_of(networks)
    tensors = {k: v.detach().cpu().contiguous() for k, v in kept.items()}
    if predicts_only:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        with whole_folder(folder) as part:
            save_file(tensors, part / WEIGHTS)
            os.chmod(part / WEIGHTS, 0o666 & ~_umask())  # safetensors makes it for its owner alone
            (part / CONFIG).write_text(_text(info), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error


def describe_anew(folder: Path, info: ModelInfo) -> None:
    """Replace the description of a model folder; its weights stay.

    Raises:
        StorageError: The folder cannot be written (no space, no permission).
    """
    try:
        with whole_file(folder / CONFIG) as fresh:
            fresh.write_text(_text(info), encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _text(info: ModelInfo) -> str:
    return yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False)


def _unwritable(folder: Path, error: Exception) -> StorageError:
    return StorageError(
        f"the model cannot be written to {folder} ({error}); free space or choose another folder"
    )


def _inference_path(networks: Networks) -> nn.Module:
    """Return what computes a prediction with one encoder, under the names of PARTS."""
    from torch import nn

    parts = networks.classifier.encoder, networks.detector
    return nn.ModuleDict(dict(zip(PARTS, parts, strict=True)))


def _unreadable(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"model {folder} cannot be read ({reason}); train or copy it again")


def _require_fit(found: dict[str, Tensor], wanted: dict[str, Tensor], folder: Path) -> None:
    """Name the first missing, unknown or misshapen tensor."""
    from wpcrack.tensor_files import compare

    odd = compare(found, wanted)
    problems = [f"{name} is missing" for name in odd.missing]
    problems += [f"{name} is unknown" for name in odd.unknown] + odd.misshapen
    if problems:
        raise CheckpointError(
            f"the weights of {folder} do not fit its {CONFIG}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; keep both files of one model together"
        )
