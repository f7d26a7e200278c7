"""Folders of jobs: one process at a time, nothing foreign touched, errors in one sentence."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from geo.addresses import address_in, without_secrets
from geo.errors import OutputError
from jobs.runtime.terminal import say
from wpcrack.errors import ConfigError, first_line

LEASE_S = 90.0
"""A file server keeps the locks of a client that died for so long (NFS 4: its lease time)."""

ANYBODY = 0o666
"""Permissions of a lock that goes at the end: processes of all users ask for it."""

POLL_S = 0.1
"""Pause between two tries to get a lock."""

THEN_AGAIN = "and give the same command again"
"""What to do, after waiting, where no other output will do."""

SAME_COMMAND = "free space there, and the same command continues"
"""What to do where a disk is full."""

SQLITE = "sqlite:///"
"""What MLflow calls a store in a file; a fourth stroke begins an absolute path."""

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    yaml.YAMLError,
)
"""What reading a damaged file may raise."""


def how_to_continue(resume: str) -> str:
    """Say which command goes on with an interrupted job.

    Args:
        resume: as that command has it; `never` would empty the folder again.
    """
    command = "the same command" if resume != "never" else "the same command without resume=never"
    return f"{command} continues"


@contextmanager
def hold_lock(
    path: Path, busy: Exception, *, patience_s: float = 0.0, lasting: bool = True
) -> Iterator[None]:
    """Hold a lock file, which one process has at a time; it goes with the process that has it.

    The file names the machine of that process. A lock of another machine, which may have died, goes
    when the file server misses it: that is waited for with a line.

    Args:
        path: the lock file; made if need be.
        busy: raised if another process keeps the lock for longer than the patience.
        patience_s: seconds to wait for the other process.
        lasting: leave the file where it is.

    Raises:
        OSError: the file cannot be made.
    """
    here, is_said = socket.gethostname(), False
    end = time.monotonic() + patience_s
    with open(path, "a", opener=open_no_link) as lock:
        if not lasting:
            with suppress(PermissionError):  # it is another user's
                os.fchmod(lock.fileno(), ANYBODY)
        while not try_lock(lock):
            if time.monotonic() >= end:
                holder = path.read_text("utf-8").strip() if path.exists() else ""
                if is_said or holder in ("", here):
                    raise busy
                where = path.parent.absolute()
                say(f"{where} is held by {holder}; waiting {LEASE_S:.0f} s, in case it died")
                is_said, end = True, end - patience_s + max(patience_s, LEASE_S)
            time.sleep(POLL_S)
        if not lasting and not _is_at(lock.fileno(), path):
            raise busy  # until a moment ago, when it removed this file
        lock.truncate(0)
        lock.write(f"{here}\n")
        lock.flush()
        try:
            yield
        finally:
            if not lasting:
                with suppress(OSError):
                    path.unlink()


@contextmanager
def hold_output(out: Path, shown: str, remedy: str = "or choose another output") -> Iterator[None]:
    """Keep a GeoPackage and the files beside it for one process; the lock file goes at the end.

    Args:
        out: the GeoPackage; its folder is made if need be, and goes again if it stays empty.
        shown: what the user calls it, for the message.
        remedy: what the user can do besides waiting.

    Raises:
        OutputError: another process writes it, or its folder cannot be written.
    """
    busy = OutputError(f"another process writes {shown}; wait for its end {remedy}")
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        with ExitStack() as stack:
            with explain_write_errors(shown, "check its folder and the free space"):
                out.parent.mkdir(parents=True, exist_ok=True)
                lock = out.with_name(f".{out.stem}.lock")
                stack.enter_context(hold_lock(lock, busy, lasting=False))
            yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock file; one that is not there is held by nobody."""
    try:
        with path.open("rb") as lock:
            return not try_lock(lock, shared=True)
    except FileNotFoundError:
        return False


def be_present(path: Path) -> IO[bytes]:
    """Tell others that this process works, until it ends or closes the file that it gets.

    Raises:
        OSError: The file cannot be made.
    """
    stream = path.open("ab")
    fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
    return stream


def is_anybody_present(path: Path) -> bool:
    """Return whether a process that called `be_present` lives."""
    try:
        with path.open("ab") as stream:
            return not try_lock(stream)
    except OSError:
        return False


def refuse_address(given: object, name: str = "") -> None:
    """Refuse addresses, like s3://bucket/run, in the place of paths: a folder `s3:` is never meant.

    Args:
        given: a path, several of them, or settings by key, of which paths are looked at.
        name: key of the settings that is given.

    Raises:
        ConfigError: it is an address.
    """
    if isinstance(given, Mapping):
        for key, value in given.items():
            refuse_address(value, f"{name}.{key}" if name else key)
    elif isinstance(given, list | tuple):
        for one in given:
            refuse_address(one, name)
    elif isinstance(given, Path) and (address := address_in(given)):
        raise ConfigError(
            f"{f'{name}=' if name else ''}{without_secrets(address)} is an address, which is "
            "neither read nor written here; give a path of this machine or of a mounted storage"
        )


def from_anywhere(text: str) -> str:
    """Return a path, also of a database, as any working folder sees it; addresses stay."""
    path = text.removeprefix(SQLITE)
    if is_address(path):
        return text
    path = path.removeprefix("file:")
    return text.removesuffix(path) + str(Path(path).expanduser().absolute())


def is_address(text: str) -> bool:
    """Return whether a text is a URL or a path of GDAL's virtual file systems."""
    return "://" in text or text.startswith("/vsi")


def refuse_foreign(root: Path, own: Collection[str], name: str, owner: str) -> None:
    """Refuse to work, and above all to delete, in a folder that holds something else.

    Args:
        root: the folder; it need not exist.
        own: names of entries that may be there; hidden ones may always.
        name: what the user calls the folder, for the message.
        owner: what else lies there, like `a training run`.

    Raises:
        ConfigError: the folder is a file, or holds an entry of another name, a link or a device.
    """
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{name} {root} is a file; choose a folder")
    found = [path.name for path in root.iterdir()] if root.is_dir() else []
    strange = sorted(x for x in found if x not in own and not x.startswith("."))
    if strange:
        raise ConfigError(
            f"{name} {root} holds {strange[0]}, which does not belong to {owner}; "
            "choose another folder"
        )
    require_plain(root)


def require_no_model(folder: Path, owner: str) -> None:
    """Refuse to replace a model that another command may have made.

    Args:
        folder: of the model; nothing else beside it tells who made it.
        owner: what shall lie there.

    Raises:
        ConfigError: there is one.
    """
    if folder.exists():
        raise ConfigError(
            f"{folder} holds a model that does not belong to {owner}; choose another folder"
        )


def require_writable(folder: Path, name: str) -> None:
    """Refuse a folder in which no file can be made, before the work whose result it shall hold.

    Args:
        folder: it need not exist; then the nearest one above it counts.
        name: what the user calls it, for the message.

    Raises:
        OutputError: It, or what is above it, is a file or may not be written.
    """
    found = folder.absolute()
    while not os.path.lexists(found):
        found = found.parent
    if not found.is_dir():
        raise OutputError(f"{name} cannot be made ({found} is not a folder); choose another folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise OutputError(
            f"{name} cannot be written ({found} is read-only); choose another folder, or change "
            "its permissions"
        )


def require_plain(root: Path) -> None:
    """Refuse a folder of a job in which a link or a device lies: a write would go elsewhere.

    The folder may have come from somebody else. A folder that is not there is plain.

    Raises:
        ConfigError: an entry is neither a file nor a folder.
    """
    if not root.is_dir():
        return
    with os.scandir(root) as entries:
        odd = sorted(x.name for x in entries if x.is_symlink() or not (x.is_file() or x.is_dir()))
    if odd:
        raise ConfigError(
            f"{root} holds {odd[0]}, which is a link or a device and could lead elsewhere; replace "
            "it by a file or folder of its own, or choose another folder"
        )


def open_no_link(path: str, flags: int) -> int:
    """Open a file as the `opener` of `open`, but not by way of a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def is_plain_file(path: Path) -> bool:
    """Return whether there is a file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


@contextmanager
def explain_write_errors(
    what: str, remedy: str, kind: type[Exception] = OutputError
) -> Iterator[None]:
    """Turn what the file system refuses into a sentence.

    Args:
        what: file or folder, as the user calls it.
        remedy: what the user can do.
        kind: of the error.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{what} cannot be written ({error.strerror or error}); {remedy}") from error


@contextmanager
def explain_damage(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a damaged file of a job leads to into a sentence.

    Args:
        path: of the file that is read, and of nothing else.
        remedy: what the user can do.

    Raises:
        ConfigError: it cannot be read, or does not hold what the job wrote there.
    """
    try:
        yield
    except DAMAGE as error:
        raise ConfigError(f"{path} is damaged ({first_line(error)}); {remedy}") from error


def read_lines(path: Path, remedy: str) -> list[dict[str, Any]]:
    """Read the complete lines of a file of JSON objects; none if there is no file.

    Raises:
        ConfigError: a line is no JSON object.
    """
    if not path.exists():
        return []
    with explain_damage(path, remedy):
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [dict(json.loads(line)) for line in lines if line]


def _is_at(file: int, path: Path) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def try_lock(stream: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return False if another process has it.

    Args:
        stream: the file.
        shared: others may share the lock.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(stream: IO[Any]) -> None:
    """Lock an open file until it is closed, when no other process has it any more."""
    fcntl.flock(stream, fcntl.LOCK_EX)
