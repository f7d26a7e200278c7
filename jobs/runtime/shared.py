"""A folder that all nodes of a cluster share: whoever works proves first that it sees the same one.

A node without the shared mount has at best an empty folder of the same name. What is written there
is lost, and nobody is told. So the driver leaves a file of a name that nobody can guess, and no
process makes the folder itself.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wpcrack.errors import WpcrackError

TOKEN = ".shared-"
"""First letters of the file's name."""

NEW_NAME_S = 10.0
"""A client of NFS asks the server at once for a name that it has not looked for before."""

PATIENCE_S = 90.0
"""It may take names for missing for that long that it has looked for (acdirmax 60 s)."""

POLL_S = 0.2


class NotShared(WpcrackError):
    """A node does not see the files that the driver sees."""


@dataclass(frozen=True)
class SharedFolder:
    """What a worker must see before it works.

    Attributes:
        root: of the job's files; None: they are not shared.
        token: name of the driver's file in it.
        others: further files and folders that the driver sees, like those of the tiles.
    """

    root: Path | None
    token: str
    others: tuple[Path, ...] = ()

    @classmethod
    def of(cls, others: Iterable[Path]) -> SharedFolder:
        """Return what workers must see that share no folder with the driver: what they read."""
        return cls(None, "", tuple(path.absolute() for path in others if path.exists()))

    def require(self) -> None:
        """Look whether this node sees what the driver sees.

        Raises:
            NotShared: It does not, for NEW_NAME_S.
        """
        own = () if self.root is None else (self.root / self.token,)
        for path in (*own, *self.others):
            if not is_seen(path, NEW_NAME_S):
                shown = self.root if path.name == self.token else path
                raise NotShared(
                    f"node {socket.gethostname()} does not see {shown} as the driver does; mount "
                    "the shared folder there at the same path, or take that node out of the "
                    "cluster, then give the same command again: what is finished is kept"
                )


@contextmanager
def share(root: Path, others: Iterable[Path] = ()) -> Iterator[SharedFolder]:
    """Leave the driver's file in a folder while others work there.

    Args:
        root: exists.
        others: what the workers read; what the driver does not see itself is left out.
    """
    for old in root.glob(f"{TOKEN}*"):  # of a driver that was killed
        old.unlink(missing_ok=True)
    token = root / f"{TOKEN}{secrets.token_hex(8)}"
    token.touch()
    try:
        seen = SharedFolder.of(others).others
        yield SharedFolder(root.absolute(), token.name, seen)
    finally:
        token.unlink(missing_ok=True)


def is_seen(
    path: Path, patience_s: float = PATIENCE_S, seen: Callable[[], bool] | None = None
) -> bool:
    """Return whether a file that another node has written is there, now or soon.

    Args:
        path: the file.
        patience_s: of waiting.
        seen: decides in place of the file's existence.
    """
    end = time.monotonic() + patience_s
    while not (seen or path.exists)():
        if time.monotonic() > end:
            return False
        _refresh(path.parent)
        time.sleep(POLL_S)
    return True


def _refresh(folder: Path) -> None:
    """Have a client of NFS ask anew: it trusts its memory of a folder until it changes it."""
    probe = folder / f".look-{secrets.token_hex(4)}.tmp"
    try:
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError:
        pass  # no folder, or one that may only be read
