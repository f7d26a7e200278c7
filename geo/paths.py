"""Paths of users as they stand, for pyogrio, which takes some for addresses.

It looks for an archive before each `!`, and drops the end of a name from `;` on and every line end.
Such a file is given to it by links from a folder for temporary files, which has no such name.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pyogrio
from pyogrio.util import vsi_path

_UNUSUAL = re.compile(r"[^\w.-]")
"""What the name of a link has not."""

_DIGEST = 16
"""Characters of a digest."""


def literal(path: Path) -> Path:
    """Return a path by which pyogrio finds a file, or makes it, whatever its name is.

    Args:
        path: a single file, or the first file of a Shapefile that is there.

    >>> literal(Path("/maps/2026/cracks.gpkg")).as_posix()
    '/maps/2026/cracks.gpkg'
    """
    path = path.absolute()
    if _is_taken(path):
        return path
    folder = _links() / _digest(path.parent)
    _link(folder, path.parent)
    if _is_taken(folder / path.name):
        return folder / path.name
    folder = _links() / _digest(path)
    folder.mkdir(exist_ok=True)
    for one in (path, *path.parent.glob("*")):
        if one.stem == path.stem:  # a Shapefile is several files
            _link(folder / _UNUSUAL.sub("_", one.name), one)
    return folder / _UNUSUAL.sub("_", path.name)


def layer_names(file: Path) -> set[str]:
    """Return the names of the layers and tables of a vector file."""
    return {str(name) for name, _ in pyogrio.list_layers(literal(file))}


def _is_taken(path: Path) -> bool:
    return bool(vsi_path(path) == str(path))


@cache
def _links() -> Path:
    """Make the folder of links, which goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="wpcrack-links-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _link(link: Path, target: Path) -> None:
    with suppress(FileExistsError):
        link.symlink_to(target)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:_DIGEST]
