"""Archives among tiles: not opened, but named, so that no imagery in one is missed unsaid."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

ZIP = ".zip"
ONE_FILE = (".gz", ".bz2", ".xz", ".zst")
"""Of a single file, which may be an archive of many."""

SHORT = (".tgz", ".tbz", ".tbz2", ".txz", ".tzst")
"""For an archive that is compressed besides."""

SUFFIXES = frozenset({ZIP, ".7z", ".rar", ".tar", *SHORT, *ONE_FILE})

_BEGINNINGS = {
    b"PK\3\4": "ZIP file",
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"Rar!\x1a\x07": "RAR archive",
    b"\x1f\x8b": "file compressed by gzip",
    b"BZh": "file compressed by bzip2",
    b"\xfd7zXZ\0": "file compressed by xz",
    b"\x28\xb5\x2f\xfd": "file compressed by zstd",
}
_TAR, _TAR_AT = b"ustar", 257
"""What a tar archive has, and where."""


def archive_of(path: Path) -> str | None:
    """Return what kind of archive a file is, by its beginning; None: it is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_TAR_AT + len(_TAR))
    if head[_TAR_AT:] == _TAR:
        return "tar archive"
    return next((kind for begin, kind in _BEGINNINGS.items() if head.startswith(begin)), None)


def is_packed(archive: str, there: Set[str], wanted: Set[str]) -> bool:
    """Return whether an archive may hold imagery of which nothing lies unpacked.

    A ZIP archive says what it holds. What another one holds is not read: it counts as unpacked
    where a file or folder has its name.

    Args:
        archive: its path.
        there: names of the files and folders that lie about, and of files without their ending.
        wanted: endings of imagery.
    """
    name = os.path.basename(archive)
    stem, ending = os.path.splitext(name)
    if ending.lower() == ZIP:
        endings = tuple(wanted)
        held = {name for name in _names_in_zip(archive) if name.lower().endswith(endings)}
        return bool(held) and held.isdisjoint(there)
    if ending.lower() in ONE_FILE:
        inner, kind = os.path.splitext(stem)
        if kind.lower() in wanted:
            return stem not in there
        if kind.lower() != ".tar":
            return False  # a log, or points of a scanner
        stem = inner
    return stem not in there


def _names_in_zip(path: str) -> list[str]:
    """Return the names of the files in a ZIP archive, without their folders; none if damaged."""
    damage = (OSError, ValueError, zipfile.BadZipFile, NotImplementedError)
    with suppress(*damage), zipfile.ZipFile(path) as file:
        return [os.path.basename(name) for name in file.namelist()]
    return []
