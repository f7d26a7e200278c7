"""How often a piece of work was begun and never ended: a block that kills its worker is found.

A crash in a library or the end of the memory takes the whole process, and Ray begins its blocks
again in another. What is begun therefore leaves a mark beside the parts, which only a process that
lives can take away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MOST_DEATHS = 3
"""Workers that may die of a block, or while they load the model, before it is given up."""

MARK = ".{name}.begun.tmp"
"""One byte for each begin; named like an unfinished file, which the start of a job removes."""


class WorkerDied(RuntimeError):
    """The process that works on something was killed each time."""


class Marks(Protocol):
    """Where begins are marked; all workers see the marks of each."""

    def count(self, name: str) -> int:
        """Return how often some work was begun and not ended."""

    def add(self, name: str) -> None:
        """Mark a begin."""

    def clear(self, name: str) -> None:
        """Take the marks of some work away."""


@dataclass(frozen=True)
class FolderMarks:
    """Marks as files of a folder that all workers share."""

    folder: Path

    def count(self, name: str) -> int:
        """Return how often some work was begun and not ended."""
        try:
            return self._file(name).stat().st_size
        except FileNotFoundError:
            return 0

    def add(self, name: str) -> None:
        """Mark a begin."""
        with self._file(name).open("ab") as stream:
            stream.write(b".")

    def clear(self, name: str) -> None:
        """Take the marks of some work away."""
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / MARK.format(name=name)


class Attempts:
    """Marks what is begun; may be used by the threads of one worker.

    What has killed a worker before is tried alone, so that it takes nothing else with it, neither
    a block nor its good name.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
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
            OSError, OutputError: The marks cannot be read or written.
        """
        with self._turn(alone=self._marks.count(name) > 0):
            deaths = self._marks.count(name)
            try:
                if deaths >= MOST_DEATHS:
                    raise WorkerDied(
                        f"{what} killed its worker {deaths} times (out of memory, or a crash in a "
                        "library)"
                    )
                self._marks.add(name)
                yield
            finally:
                self._marks.clear(name)

    def forget(self, name: str) -> None:
        """Take the marks of some work away that is known to be finished."""
        self._marks.clear(name)

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
