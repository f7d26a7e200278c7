"""How often a piece of work was begun and never ended: a block that kills its worker is found.

A crash in a library or the end of the memory takes the whole process, and Ray begins its blocks
again in another. What is begun therefore leaves a mark beside the parts, which only a process that
lives can take away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_DEATHS = 3
"""Workers that may die of a block, or while they load the model, before it is given up."""

MARK = ".{name}.begun.tmp"
"""One byte for each begin; named like an unfinished file, which the start of a job removes."""


class WorkerDied(RuntimeError):
    """The process that works on something was killed each time."""


class Attempts:
    """Marks in a folder; may be used by the threads of one worker.

    What has killed a worker before is tried alone, so that it takes nothing else with it, neither
    a block nor its good name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._change = threading.Condition()
        self._running = 0
        self._is_alone = False

    @contextmanager
    def begin(self, name: str, what: str) -> Iterator[None]:
        """Mark some work as begun, and take the mark away at its end, an exception among them.

        Args:
            name: of the mark.
            what: the work, for the message.

        Raises:
            WorkerDied: Its workers were killed too often.
            OSError: The folder is missing or cannot be written.
        """
        mark = self._folder / MARK.format(name=name)
        with self._turn(alone=_size(mark) > 0):
            deaths = _size(mark)
            try:
                if deaths >= MOST_DEATHS:
                    raise WorkerDied(
                        f"{what} killed its worker {deaths} times (out of memory, or a crash in a "
                        "library)"
                    )
                with mark.open("ab") as stream:
                    stream.write(b".")
                yield
            finally:
                mark.unlink(missing_ok=True)

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        with self._change:
            self._change.wait_for(
                lambda: not self._is_alone and not (alone and self._running),
            )
            self._running += 1
            self._is_alone = alone
        try:
            yield
        finally:
            with self._change:
                self._running -= 1
                self._is_alone = False
                self._change.notify_all()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
