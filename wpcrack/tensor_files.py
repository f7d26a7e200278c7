"""Tensors from files of others: safetensors, state dicts, Lightning checkpoints; never code.

Reading them by name, and comparing what a file holds with what networks need.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wpcrack.errors import CheckpointError, first_few, first_line

RESAVE = (
    "where it can be loaded, re-save only its tensors: "
    "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
)
SAFETENSORS = ".safetensors"
LISTED = 3
"""An error names at most this many types or tensors of a kind."""


class InertDict(dict[str, Any]):
    """Stand-in for the dictionaries with attributes in which trainers keep hyper-parameters."""


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
    (PurePosixPath, "pathlib._local.PosixPath"),  # written by Python 3.13
    (PureWindowsPath, "pathlib.WindowsPath"),
    (PureWindowsPath, "pathlib._local.WindowsPath"),
    (InertDict, "lightning_fabric.utilities.data.AttributeDict"),
    (InertDict, "lightning.fabric.utilities.data.AttributeDict"),
    (InertDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
)
"""Types beside tensors and Python's own that a checkpoint may hold: data without behavior."""


DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    AssertionError,
    MemoryError,  # a few bytes can claim any size
    struct.error,
)
"""What torch raises, beside its own refusals, for a file that is cut short or has other bytes."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a weight file by name, on the CPU.

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
            content = load_file(path) if path.suffix == SAFETENSORS else load_pickled(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds objects that are not read ({unpickling_cause(error)}); {RESAVE}"
        ) from None
    except (SafetensorError, *DAMAGE) as error:
        raise CheckpointError(
            f"{path} is not a weight file ({first_line(error)}); copy or download it again"
        ) from error
    return tensors_in(content, path)


@dataclass(frozen=True)
class Mismatch:
    """Tensors of a file that do not fit networks, by name in alphabetical order."""

    missing: list[str]
    unknown: list[str]
    misshapen: list[str]
    """As sentences with both shapes."""


def compare(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mismatch:
    """Compare names and shapes of the tensors of a file with those that networks have."""
    return Mismatch(
        sorted(wanted.keys() - found.keys()),
        sorted(found.keys() - wanted.keys()),
        [
            f"{k} is {tuple(found[k].shape)} but must be {tuple(wanted[k].shape)}"
            for k in sorted(found.keys() & wanted.keys())
            if found[k].shape != wanted[k].shape
        ],
    )


def load_pickled(path: Path) -> Any:
    """Read the content of a file of torch.save without running code.

    Raises:
        ValueError: It does not begin like one; torch would blame the types in it.
    """
    with path.open("rb") as file:
        begins = file.read(1)
    if begins != b"\x80" and not is_zip(path):  # a pickle, as before torch 1.6; an archive
        raise ValueError("neither a zip archive nor a pickle")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state(path: Path, remedy: str) -> dict[str, Any]:
    """Read a state that a training left to go on from: tensors, numbers and texts, never code.

    Args:
        path: a file that this program wrote.
        remedy: what to do if it is damaged.

    Raises:
        CheckpointError: it is.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, *DAMAGE) as error:
        raise CheckpointError(f"{path} is damaged ({first_line(error)}); {remedy}") from error


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state that `read_state` reads.

    Raises:
        OSError: The disk does not take it; torch's writer hides that behind a RuntimeError.
        KeyboardInterrupt: The user ends the program; it hides that, too.
    """
    try:
        with path.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (OSError, KeyboardInterrupt)):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from error


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive with its end, as `torch.save` writes it."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of an end that is damaged in some ways
        return False


def refuse_foreign_types(path: Path) -> None:
    """Name the types that reading would need, before anything is read.

    Raises:
        CheckpointError: There are such types.
    """
    if path.suffix == SAFETENSORS or not is_zip(path):
        return
    foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    if foreign:
        raise CheckpointError(
            f"{path} needs the type {first_few(foreign, LISTED)}, and files of others are "
            f"read without running their code; {RESAVE}"
        )


def tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Take the state dict out of what was read.

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
    """Find the type or operation that torch refused in its long advice."""
    found = re.search(r"GLOBAL ([\w.]+)|WeightsUnpickler error: ([^\n]+)", str(error))
    return next(group for group in found.groups() if group) if found else first_line(error)
