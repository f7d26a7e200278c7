"""Tensors from files of others: safetensors, state dicts, Lightning checkpoints; never code."""

from __future__ import annotations

import argparse
import collections
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wpcrack.errors import CheckpointError

RESAVE = (
    "where it can be loaded, re-save only its tensors: "
    "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
)
LISTED = 3
"""An error names at most this many types."""


class InertDict(dict[str, Any]):
    """Stands for the dictionaries with attributes in which trainers keep hyper-parameters."""


SCALAR, ARRAY = np.float64().__reduce__()[0], np.zeros(0).__reduce__()[0]
"""What makes a numpy number and an array when they are read."""

ALLOWED: tuple[Any, ...] = (
    argparse.Namespace,
    collections.defaultdict,
    collections.deque,
    np.dtype,
    np.ndarray,
    type(np.dtype("f4")),
    type(np.dtype("f8")),
    type(np.dtype("i8")),
    (SCALAR, "numpy._core.multiarray.scalar"),  # written by numpy 2
    (SCALAR, "numpy.core.multiarray.scalar"),  # written by numpy 1
    (ARRAY, "numpy._core.multiarray._reconstruct"),
    (ARRAY, "numpy.core.multiarray._reconstruct"),
    (PurePosixPath, "pathlib.PosixPath"),
    (PureWindowsPath, "pathlib.WindowsPath"),
    (InertDict, "lightning_fabric.utilities.data.AttributeDict"),
    (InertDict, "lightning.fabric.utilities.data.AttributeDict"),
    (InertDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
)
"""Types beside tensors and Python's own that a checkpoint may hold: data without behavior."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads every tensor of a weight file by name, on the CPU.

    Args:
        path: *.safetensors, a state dict of `torch.save`, or a Lightning checkpoint (a dictionary
            whose "state_dict" holds the tensors beside other objects).

    Raises:
        CheckpointError: No such file, not a weight file, or one that needs types outside
            `ALLOWED`; they are named with the way to re-save it.
    """
    if not path.is_file():
        raise CheckpointError(f"weight file {path} does not exist; check the path")
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            refuse_foreign_types(path)
            content = load_file(path) if is_safetensors(path) else load_pickled(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds objects that are not read ({unpickling_cause(error)}); {RESAVE}"
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no weight file ({first_sentence(error)}); copy or download it again"
        ) from error
    return tensors_in(content, path)


def is_safetensors(path: Path) -> bool:
    """By its name."""
    return path.suffix == ".safetensors"


def load_pickled(path: Path) -> Any:
    """Content of a file of torch.save, read without running code.

    Raises:
        ValueError: It begins like none, which torch would blame on the types in it.
    """
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # a zip archive; a pickle, as before torch 1.6
            raise ValueError("neither a zip archive nor a pickle")
    return torch.load(path, map_location="cpu", weights_only=True)


def refuse_foreign_types(path: Path) -> None:
    """Names types that reading would need, before anything is read.

    Raises:
        CheckpointError: There are such types.
    """
    if is_safetensors(path) or not zipfile.is_zipfile(path):
        return
    foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    if foreign:
        more = f" and {len(foreign) - LISTED} more" if len(foreign) > LISTED else ""
        raise CheckpointError(
            f"{path} needs the type {', '.join(foreign[:LISTED])}{more}, and files of others are "
            f"read without running their code; {RESAVE}"
        )


def tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict of what was read.

    Raises:
        CheckpointError: There is none.
    """
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path} holds {type(content).__name__} without a state dict; give a checkpoint with "
            "'state_dict', or a dictionary of tensors"
        )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {name} is {type(value).__name__}, not a tensor; give a checkpoint with "
                "'state_dict', or a dictionary of tensors"
            )
    return {str(name): tensor for name, tensor in state.items()}


def unpickling_cause(error: Exception) -> str:
    """The type or operation that torch refused, out of its long advice."""
    found = re.search(r"GLOBAL ([\w.]+)|WeightsUnpickler error: ([^\n]+)", str(error))
    return next(group for group in found.groups() if group) if found else first_sentence(error)


def first_sentence(error: Exception) -> str:
    """First line of a message, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
