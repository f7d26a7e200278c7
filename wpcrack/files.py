"""Files and folders that appear whole or not at all: filled beside their place, then renamed.

A reader finds what was there before or what is new, never half of it. The caller translates
`OSError` into its own sentence.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; rename it to `path` if the block ends well.

    Args:
        path: of the file; an older one is replaced.

    Yields:
        Where to write. After an exception nothing is left there, and `path` is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # what a killed process left, or a link that leads elsewhere
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder` to fill; it takes its place if the block ends well.

    An older folder lies in `set_aside(folder)` between the two renames. Where a process was killed
    there, the next call puts it back first.

    Args:
        folder: to make or to replace; its parents are made.

    Yields:
        The folder to write into. After an exception it is gone, and `folder` is as it was.
    """
    part, old = folder.with_name(f".{folder.name}.part"), set_aside(folder)
    _restore(folder, old)
    for leftover in (part, old):
        if leftover.is_symlink():
            leftover.unlink()
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    finally:
        _restore(folder, old)
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Name where an older folder lies while the new one takes its place."""
    folder = folder.absolute()  # also of ., which has no name
    return folder.parent / f".{folder.name}.old"


def _restore(folder: Path, old: Path) -> None:
    if old.exists() and not folder.exists():
        os.replace(old, folder)
