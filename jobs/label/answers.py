"""What a person has answered, kept in a journal that loses nothing.

A journal holds one JSON object a line: `{"file": "a_r0_c0.png", "label": "crack", "time": ...}` for
an answer, `{"undo": true, "time": ...}` for one taken back. Lines are only ever added. Each is on
disk before the page hears of it, so a kill or a power cut costs at most the answer under way.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from jobs.runtime.folder import open_no_link
from wpcrack.data.manifest import LABELS, Label
from wpcrack.errors import ConfigError, DataError

Verdict = Literal["crack", "road", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

JOURNAL = re.compile(r"labels(?:-(?P<name>\w[\w.-]*))?\.jsonl")
"""Names of journals: `labels.jsonl` of a person without a name, `labels-anna.jsonl` of anna."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    `time_s` counts from 1970. `again` marks the second look at a window that had an answer.
    `before` is the label that stood in the manifest before anybody answered here.
    """

    file: str
    verdict: Verdict
    time_s: float
    again: bool = False
    before: Label | None = None


@dataclass(frozen=True)
class Undo:
    """The last answer of this journal that still stands is taken back."""

    time_s: float


Event = Answer | Undo


def journal_name(name: str) -> str:
    """Return the file name of a person's journal.

    >>> journal_name(""), journal_name("anna")
    ('labels.jsonl', 'labels-anna.jsonl')

    Raises:
        ConfigError: the name would not do as part of a file name.
    """
    file = f"labels-{name}.jsonl" if name else "labels.jsonl"
    if not JOURNAL.fullmatch(file):
        raise ConfigError(
            f"--name {name!r} cannot be part of a file name; use letters, digits, dot, - and _"
        )
    return file


def find_journals(root: Path) -> dict[str, Path]:
    """Return the journals in a folder by the person's name, in the order of the names."""
    found = ((JOURNAL.fullmatch(path.name), path) for path in root.glob("labels*.jsonl"))
    return dict(sorted((match["name"] or "", path) for match, path in found if match))


def read_events(path: Path) -> list[Event]:
    """Read a journal; a last line that a kill has cut off does not count.

    Raises:
        DataError: not readable, or another line is no event.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); mend or move it") from error
    return _events(path, content)


def replay(events: Sequence[Event]) -> list[Answer]:
    """Return the answers of one person that stand, oldest first."""
    standing: list[Answer] = []
    for event in events:
        if isinstance(event, Answer):
            standing.append(event)
        elif standing:
            standing.pop()
    return standing


class Journal:
    """The journal of the person who labels now; made by `open_journal`."""

    def __init__(self, path: Path, file: BinaryIO, events: list[Event]) -> None:
        self.path = path
        self.events = events
        self._file = file

    def add(self, event: Event) -> None:
        """Write an event to disk, then count it.

        Raises:
            DataError: it cannot be written; the journal is as it was before.
        """
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(_line(event))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise DataError(
                f"{self.path.name} cannot be written ({error.strerror}); check the space on disk"
            ) from error
        self.events.append(event)


@contextmanager
def open_journal(root: Path, name: str) -> Iterator[Journal]:
    """Open a person's journal for this process alone, and remove a line that was cut off.

    Raises:
        ConfigError: the name cannot be part of a file name.
        DataError: another process writes it, it cannot be written, or it holds anything else.
    """
    path = root / journal_name(name)
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        file = os.fdopen(open_no_link(str(path), flags), "a+b", buffering=0)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); check the permissions of the folder"
        ) from error
    with file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"another `wpcrack label` writes {path.name}; give each person a --name"
            ) from None
        content = path.read_bytes()
        events = _events(path, content)
        _end_last_line(file, content)
        _sync_folder(root)
        yield Journal(path, file, events)


def _events(path: Path, content: bytes) -> list[Event]:
    lines = content.split(b"\n")
    events: list[Event] = []
    for number, line in enumerate(lines, start=1):
        event = _event(line)
        if event is not None:
            events.append(event)
        elif line.strip() and number < len(lines):
            raise DataError(f"{path} line {number} is no answer; remove the line")
    return events


def _end_last_line(file: BinaryIO, content: bytes) -> None:
    last = content.rpartition(b"\n")[2]
    if last and _event(last) is not None:
        file.write(b"\n")
    elif last:
        file.truncate(len(content) - len(last))


def _event(line: bytes) -> Event | None:
    try:
        values = json.loads(line)
        if values.get("undo") is True:
            return Undo(float(values["time"]))
        file, verdict, before = values["file"], values["label"], values.get("before")
        if not isinstance(file, str) or verdict not in VERDICTS or before not in (None, *LABELS):
            return None
        again = values.get("again") is True
        return Answer(file, verdict, float(values["time"]), again, before)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _line(event: Event) -> bytes:
    values: dict[str, object]
    if isinstance(event, Undo):
        values = {"undo": True}
    else:
        values = {"file": event.file, "label": event.verdict}
        values |= {"again": True} if event.again else {}
        values |= {"before": event.before} if event.before else {}
    values["time"] = round(event.time_s, 3)
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def _sync_folder(root: Path) -> None:
    """Put the name of a new file on disk, too."""
    folder = os.open(root, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
