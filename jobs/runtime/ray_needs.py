"""What a Ray of our own needs of this machine: open files, a folder with room for its files."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Sequence

from jobs.runtime.cpus import usable_cpus
from wpcrack.errors import WpcrackError

LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Of Ray, below its folder for temporary files."""

MOST_FOLDER_BYTES = 107 - len(LONGEST_SOCKET)
"""Of a folder for temporary files, so that Ray's sockets in it have names that Unix allows."""

LEAST_FREE_BYTES = 20_000_000
"""For the logs of a Ray of our own; without space for its first file it hangs as it starts."""

SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""For the files of a Ray of our own, where TMPDIR is too long."""

OPEN_FILES, OPEN_FILES_PER_CPU = 192, 32
"""That a process of a Ray of our own may need; 70 were open with two CPUs."""


class RayStartError(WpcrackError):
    """A Ray of our own does not start on this machine."""


def require_open_files() -> None:
    """Let this process and Ray's open as many files as they may, and refuse too few of them.

    Raises:
        RayStartError: The limit of this shell is lower than what Ray needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES + OPEN_FILES_PER_CPU * usable_cpus()
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RayStartError(
            f"this shell allows {hard} open files, and Ray needs {wanted}; give the same command "
            f"after `ulimit -n {wanted}`, in a new shell if that is refused"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def usual_folder() -> str:
    """Return where Ray puts its files if nobody tells it otherwise."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def require_space(folder: str) -> None:
    """Refuse a full disk for the files of a Ray of our own, whose start would hang there for good.

    Args:
        folder: it need not exist; then the nearest one above it counts.

    Raises:
        RayStartError: There is too little space.
    """
    free = shutil.disk_usage(_nearest(folder)).free
    if free < LEAST_FREE_BYTES:
        raise RayStartError(
            f"{folder}, where the files of Ray go, has {free / 1e6:.0f} MB free, and Ray needs "
            f"{LEAST_FREE_BYTES / 1e6:.0f}; free space there, or set RAY_TMPDIR to a short folder "
            "on another local disk"
        )


def short_folder(candidates: Sequence[str] = SHORT_FOLDERS) -> str | None:
    """Return a folder for the files of a Ray of our own; None: that which Ray takes will do.

    Names of Unix sockets may have 107 characters, and Ray's own part takes most of them. A TMPDIR
    of Slurm is longer than the rest.

    One that is gone, as after the end of a job, may lie where nobody can make it again.

    Args:
        candidates: folders that are tried in its place.

    Raises:
        RayStartError: None of them can be used.
    """
    usual = usual_folder()
    if len(os.fsencode(usual)) <= MOST_FOLDER_BYTES and _can_be_made(usual):
        return None
    for folder in candidates:
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return os.path.join(folder, f"ray-{os.getuid()}")
    raise RayStartError(
        f"TMPDIR={usual} is too long for the sockets of Ray ({MOST_FOLDER_BYTES} bytes at most), "
        f"or cannot be written, and none of {', '.join(candidates)} can; set RAY_TMPDIR to a short "
        "folder on a local disk"
    )


def _can_be_made(folder: str) -> bool:
    found = _nearest(folder)
    return os.path.isdir(found) and os.access(found, os.W_OK | os.X_OK)


def _nearest(folder: str) -> str:
    """Return a folder, or the first one above it that exists."""
    found = os.path.abspath(folder)
    while not os.path.exists(found):
        found = os.path.dirname(found)
    return found
