"""Files that appear whole or not at all, and what processes that were killed left of them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTS = ".parts"
"""Ending of a folder of parts that are made for one map."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place at the end, or goes after an error.

    >>> with whole_file(Path("answer.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("42")
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, as a whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(out: Path) -> None:
    """Remove what processes that have ended left when they were writing a file.

    Temporary names hold the process: `.cracks.<pid>.tmp.gpkg`, `.map.html.<pid>.tmp`,
    `.cracks.<pid>.<any>.parts`. Those of living processes stay.

    Args:
        out: the file.
    """
    names = "|".join(re.escape(name) for name in {out.stem, out.name})
    ending = rf"tmp({re.escape(out.suffix)}(-journal|-wal|-shm)?)?|\w+{re.escape(PARTS)}"
    pattern = re.compile(rf"\.(?:{names})\.(?P<pid>\d+)\.(?:{ending})")
    if not out.parent.is_dir():
        return
    for path in out.parent.iterdir():
        found = pattern.fullmatch(path.name)
        if found is None or _lives(int(found["pid"])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def folder_of_parts(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder beside a map, which goes with its context or by `remove_leftovers`."""
    prefix = f".{out.stem}.{os.getpid()}."
    return tempfile.TemporaryDirectory(prefix=prefix, suffix=PARTS, dir=out.parent)


def _lives(pid: int) -> bool:
    """Whether a process of this machine has the number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
