"""Files that appear complete or not at all, and what writers that were killed leave behind."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geo.errors import OutputError

PARTS = ".parts"
"""Ending of a folder of parts that are made for one map."""


def no_utf8(encoding: str) -> str:
    """Say what is wrong with a name that is not UTF-8, by the encoding that Python expects here.

    >>> no_utf8("ascii")
    'has a name that Python takes for ascii here; set PYTHONUTF8=1, and give the same command again'
    """
    if encoding.lower() == "utf-8":
        return "has a name that is not UTF-8; rename the file, or the folder where the name is"
    return (
        f"has a name that Python takes for {encoding} here; set PYTHONUTF8=1, and give the same "
        "command again"
    )


NOT_UTF8 = no_utf8(sys.getfilesystemencoding())

SIDECARS = ("-journal", "-wal", "-shm")
"""Endings of what SQLite may leave beside a file."""

NETWORKS = (
    *("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "fuse."),
    *("glusterfs", "ncpfs", "orangefs", "pvfs2", "virtiofs"),
)
"""How the names of file systems begin whose files lie elsewhere."""

MOUNTS, STATUS = Path("/proc/self/mountinfo"), Path("/proc/self/status")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file; what is written there takes its place at the end.

    After an error the temporary file is removed, and an earlier file is as it was.

    Args:
        path: the file; its folder exists.

    Yields:
        A name with the same ending, which holds the process: see `remove_leftovers`.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def built_locally(path: Path) -> Iterator[Path]:
    """Give a name on a local disk for a file of SQLite; it is copied to its place at the end.

    SQLite writes small pieces all over a file and trusts locks: over a network that is slow, and
    on some servers wrong. Where the place itself is local, or no local disk is known, it is given.

    Args:
        path: the place, see `whole_file`; its folder exists.

    Yields:
        A name with the same ending, in the folder for temporary files (TMPDIR).
    """
    local = _local_disk() if is_on_network(path.parent) else None
    if local is None:
        yield path
        return
    remove_leftovers(local / path.name)
    with folder_of_parts(local / path.name) as folder:
        built = Path(folder) / path.name
        yield built
        if built.exists():
            shutil.copyfile(built, path)
            sync(path)


def _local_disk() -> Path | None:
    """Return the folder for temporary files, unless there is none or it is on a network, too."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written, as in a container that is read-only
        return None
    return None if is_on_network(folder) else folder


def is_on_network(folder: Path) -> bool:
    """Return whether a folder lies on a file system of another machine, as Linux tells."""
    number = folder.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    try:
        mounts = MOUNTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    kinds = (
        after.split()[0]
        for head, _, after in (line.partition(" - ") for line in mounts)
        if head.split()[2] == wanted
    )
    return any(kind.startswith(NETWORKS) for kind in kinds)


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a text file, line ends as they are.

    Raises:
        OutputError: it cannot be written.
    """
    with output_errors(path), whole_file(path) as temporary:
        temporary.write_text(text, encoding=encoding, newline="")


@contextmanager
def output_errors(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of the disk, and of other kinds, into one that names the file.

    Raises:
        OutputError: in place of them.
    """
    expected: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except expected as error:
        raise OutputError(
            f"{path} could not be written ({error}); check the folder and the free space, "
            "what was there before is unchanged"
        ) from error


def readable(path: str | Path) -> str:
    r"""Return a path as text that can be printed and stored: bytes that are no UTF-8 escaped.

    >>> readable(os.fsdecode(b"a\xdf.tif"))
    'a\\xdf.tif'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_utf8(path: str | Path) -> bool:
    """Return whether a path can be given to GDAL, and be stored in a GeoPackage."""
    return readable(path) == str(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_as_usual(path: Path) -> None:
    """Give a file the permissions of other new files, as far as the system tells and allows.

    SQLite keeps the user's group from writing, whatever the umask says.
    """
    with suppress(OSError):
        told = STATUS.read_text("utf-8")
        if found := re.search(r"^Umask:\s*([0-7]+)$", told, re.MULTILINE):
            os.chmod(path, 0o666 & ~int(found[1], 8))


def remove_leftovers(out: Path) -> None:
    """Remove what processes that have ended left when they were writing a file.

    Temporary names hold the process: `.cracks.<pid>.tmp.gpkg`, `.cracks.<pid>.<any>.parts`. Those
    of living processes stay.

    Args:
        out: the file.
    """
    endings = "|".join(SIDECARS)
    ending = rf"tmp{re.escape(out.suffix)}({endings})?|\w+{re.escape(PARTS)}"
    pattern = re.compile(rf"\.{re.escape(out.stem)}\.(?P<pid>\d+)\.(?:{ending})")
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
    """Make a hidden folder beside a map, which goes with its context or by `remove_leftovers`.

    Its name begins with the root: pyarrow takes a path that begins with `s3:` for an address.
    """
    prefix, beside = f".{out.stem}.{os.getpid()}.", out.parent.absolute()
    return tempfile.TemporaryDirectory(prefix=prefix, suffix=PARTS, dir=beside)


def _remove(path: Path) -> None:
    """Remove a file, if there is one, with what SQLite left beside it."""
    for ending in ("", *SIDECARS):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.with_name(path.name + ending).unlink()


def _lives(pid: int) -> bool:
    """Return whether a process of this machine has the number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
