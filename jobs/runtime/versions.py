"""Versions of the software, for the record of a run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "checkout"
"""Stands for a package that is imported from a checkout without being installed."""


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the version of Python and of each named distribution."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found
