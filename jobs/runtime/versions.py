"""Versions of the software, for the record of a run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

OWN, CHECKOUT = "wpcrack", "checkout"
"""This program, and what stands for it where it is imported without being installed."""

NOT_INSTALLED = "not installed"
"""Stands for another package that is missing, as torch may be where only maps are made."""

LEFT_OUT_TO_MAP = ("torch", "torchvision", "timm", "optuna", "tensorboard")
"""Packages of pyproject.toml that an installation for maps alone does without."""


def own_version() -> str:
    """Return the version of this program, or that it is a checkout."""
    return versions((OWN,))[OWN]


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the version of Python and of each named distribution."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = CHECKOUT if name == OWN else NOT_INSTALLED
    return found
