"""What a person has answered, kept in a journal that loses nothing.

A journal holds one JSON object a line: an answer, or `{"undo": true, "time": ...}` for one taken
back. Lines are only ever added. Each is on disk before the page hears of it, so a kill or a power
cut costs at most the answer under way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from geo.files import sync
from jobs.runtime.folder import open_no_link, try_lock
from wpcrack.errors import DataError

A = TypeVar("A")


@dataclass(frozen=True)
class Undo:
    """The last answer of this journal that still stands is taken back; seconds since 1970."""

    time_s: float


@dataclass(frozen=True)
class Codec(Generic[A]):
    """How an answer is written as JSON.

    Attributes:
        read: values of a line -> answer; None, ValueError, KeyError or TypeError: it is none.
        write: answer -> values of its line.
        busy: what to do where another process writes the journal.
    """

    read: Callable[[Mapping[str, Any]], A | None]
    write: Callable[[A], Mapping[str, object]]
    busy: str


def read_events(path: Path, codec: Codec[A]) -> list[A | Undo]:
    """Read a journal; a last line that a kill has cut off does not count.

    Raises:
        DataError: not readable, or another line is no event.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); mend or move it") from error
    return _events(path, content, codec)


def replay(events: Sequence[A | Undo]) -> list[A]:
    """Return the answers of one person that stand, oldest first."""
    standing: list[A] = []
    for event in events:
        if not isinstance(event, Undo):
            standing.append(event)
        elif standing:
            standing.pop()
    return standing


class Journal(Generic[A]):
    """The journal of the person who answers now; made by `open_journal`."""

    def __init__(self, path: Path, file: BinaryIO, events: list[A | Undo], codec: Codec[A]) -> None:
        self.path = path
        self.events = events
        self._file, self._codec = file, codec

    def add(self, event: A | Undo) -> None:
        """Write an event to disk, then count it.

        Raises:
            DataError: it cannot be written, or the file is no longer there; the journal is as it
                was before.
        """
        if not self._is_there():
            raise DataError(
                f"{self.path} was moved, removed or replaced; press Ctrl-C in the terminal, and "
                "start the program again with the folder as it is now"
            )
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(_line(event, self._codec))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise DataError(
                f"{self.path.name} cannot be written ({error.strerror}); check the space on disk"
            ) from error
        self.events.append(event)

    def _is_there(self) -> bool:
        """Return whether the path still leads to the file that is written."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def take_back(self) -> A | None:
        """Take back the last answer that stands; return it, None if there is none.

        Raises:
            DataError: as `add` does.
        """
        answers = replay(self.events)
        if not answers:
            return None
        self.add(Undo(time.time()))
        return answers[-1]


@contextmanager
def open_journal(path: Path, codec: Codec[A]) -> Iterator[Journal[A]]:
    """Open a journal for this process alone, and remove a line that was cut off.

    Raises:
        DataError: another process writes it, it cannot be written, or it holds anything else.
    """
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        file = os.fdopen(open_no_link(str(path), flags), "a+b", buffering=0)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); check the permissions of the folder"
        ) from error
    with file:
        if not try_lock(file):
            raise DataError(f"another process writes {path.name}; {codec.busy}")
        content = path.read_bytes()
        events = _events(path, content, codec)
        _end_last_line(file, content, codec)
        sync(path.parent)  # the name of a new file
        yield Journal(path, file, events, codec)


def _events(path: Path, content: bytes, codec: Codec[A]) -> list[A | Undo]:
    lines = content.split(b"\n")
    events: list[A | Undo] = []
    for number, line in enumerate(lines, start=1):
        event = _event(line, codec)
        if event is not None:
            events.append(event)
        elif line.strip() and number < len(lines):
            raise DataError(f"{path} line {number} is not an answer; remove the line")
    return events


def _end_last_line(file: BinaryIO, content: bytes, codec: Codec[A]) -> None:
    last = content.rpartition(b"\n")[2]
    if last and _event(last, codec) is not None:
        file.write(b"\n")
    elif last:
        file.truncate(len(content) - len(last))


def _event(line: bytes, codec: Codec[A]) -> A | Undo | None:
    try:
        values = json.loads(line)
        if values.get("undo") is True:
            return Undo(float(values["time"]))
        return codec.read(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _line(event: A | Undo, codec: Codec[A]) -> bytes:
    if isinstance(event, Undo):
        values: dict[str, object] = {"undo": True, "time": round(event.time_s, 3)}
    else:
        values = dict(codec.write(event))
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"
