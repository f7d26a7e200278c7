"""One person's labeling of a folder: what is shown, what is answered, how far it is."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jobs.label.agreement import Agreement, People, agreement, last_words, merge
from jobs.label.answers import (
    Answer,
    Event,
    Verdict,
    find_journals,
    open_journal,
    read_events,
)
from jobs.label.order import Choice, Part, Standing, count_left, next_window
from jobs.label.table import Table, Window, inside, read_table, write_labels
from jobs.page.journal import Journal, replay
from jobs.page.pace import pace
from jobs.runtime.signals import ignore_signals
from wpcrack.data.images import read_shape
from wpcrack.data.manifest import CORNER, LABELS, Label
from wpcrack.errors import ConfigError, DataError

AHEAD = 3
"""Pictures that the page loads before they are shown."""

MAX_NEIGHBORS = 24
"""Neighboring windows that are drawn around one at most."""


@dataclass(frozen=True)
class Who:
    """The person who labels: their name, their part, and the share that they see twice."""

    name: str = ""
    part: Part = field(default_factory=Part)
    again: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.again <= 1:
            raise ConfigError(f"--again {self.again} is not a share; give a number from 0 to 1")


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn at (row, col) pixels from the corner of the window."""

    index: int
    kind: str
    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """A window as it is shown; `verdict` and `probability` only after one's own answer."""

    index: int
    again: bool
    source: str
    row: int
    col: int
    height: int
    width: int
    around: tuple[Picture, ...]
    verdict: Verdict | None
    probability: float | None
    label: Label | None


@dataclass(frozen=True)
class Last:
    """The last answer, with what the model thinks of that window."""

    index: int
    verdict: Verdict
    probability: float | None


@dataclass(frozen=True)
class Progress:
    """How far it is: windows of the part by label, answers left, per minute, seconds left."""

    total: int
    crack: int
    road: int
    unsure: int
    left: int
    per_minute: float | None
    rest_s: float | None
    agreement: Agreement


class Session:
    """The folder, the journals in it, and the questions that the page asks; by `open_session`."""

    def __init__(self, root: Path, table: Table, journal: Journal[Answer], who: Who) -> None:
        self.who = who
        self.left_out = [w.file for w in table.windows if inside(root, w.file) is None]
        self._root, self._journal = root, journal
        self._windows = table.windows
        self._places = {window.file: k for k, window in enumerate(table.windows)}
        self._others: dict[Path, tuple[tuple[int, int], list[Event]]] = {}
        self._by_source: dict[str, list[int]] = defaultdict(list)
        for k, window in enumerate(table.windows):
            self._by_source[window.source].append(k)
        hidden = set(self.left_out)
        part = who.part.indices(len(table.windows))
        self.queue = [self._windows[k].file for k in part if self._windows[k].file not in hidden]
        if not self.queue:
            raise DataError(
                f"none of the {len(part)} windows that {root / 'manifest.csv'} lists for "
                f"{who.part.text() or 'you'} is a picture in {root}; cut windows again"
            )
        self._before = {window.file: window.label for window in table.windows}
        for events in self.people().values():
            for event in events:
                if isinstance(event, Answer):
                    self._before[event.file] = event.before

    def people(self) -> People:
        """Return everybody's journal as it is now, in the order of the names."""
        found = {}
        for name, path in find_journals(self._root).items():
            own = path == self._journal.path
            found[name] = self._journal.events if own else self._events(path)
        return found

    def _events(self, path: Path) -> list[Event]:
        state = path.stat()
        stamp = (state.st_size, state.st_mtime_ns)
        known = self._others.get(path)
        if known is None or known[0] != stamp:
            known = self._others[path] = (stamp, read_events(path))
        return known[1]

    def labels(self) -> dict[str, Label | None]:
        """Return the label of each file that a journal names."""
        return merge(self.people())

    def write_manifest(self) -> None:
        """Bring the manifest up to date with every journal."""
        write_labels(self._root, self.labels)

    def answer(self, index: int, verdict: Verdict, *, again: bool = False) -> None:
        """Write an answer to disk.

        Raises:
            DataError: no such window, or the journal cannot be written.
        """
        file = self.window(index).file
        self._journal.add(Answer(file, verdict, time.time(), again, self._before.get(file)))

    def undo(self) -> int | None:
        """Take the last answer back; return its window, None if there was no answer.

        One about a window that the manifest no longer lists stays: nobody would see it undone.
        """
        answer = self._journal.take_back() if self.last() else None
        return None if answer is None else self.place(answer.file)

    def window(self, index: int) -> Window:
        """Return a line of the manifest.

        Raises:
            DataError: there is no such line.
        """
        if not 0 <= index < len(self._windows):
            raise DataError(f"there is no window {index}; reload the page")
        return self._windows[index]

    def path(self, index: int, kind: str) -> Path | None:
        """Return the file of a window or its surroundings, None if it may not be shown."""
        window = self.window(index)
        return inside(self._root, window.file if kind == "window" else window.surroundings)

    def choices(self) -> list[View]:
        """Return the next window to show and the new ones after it; none when all is done."""
        now = self._standing()
        choice = next_window(now)
        if choice is None:
            return []
        new = [file for file in now.queue if file not in now.taken and file != choice.file]
        return [self.view(c) for c in (choice, *map(Choice, new[:AHEAD]))]

    def place(self, file: str) -> int:
        """Return the number of a file in the manifest."""
        return self._places[file]

    def look(self, index: int) -> View:
        """Return a window as it is shown when one goes back to it."""
        return self.view(Choice(self.window(index).file))

    def view(self, choice: Choice) -> View:
        """Return a window as it is shown; one for a second look without the first answer."""
        index = self._places[choice.file]
        window = self._windows[index]
        height, width = self._size(window.height, window.width, self.path(index, "window"))
        own = None if choice.again else last_words(self._mine()).get(choice.file)
        return View(
            index=index,
            again=choice.again,
            source=PurePosixPath(window.source).stem if "/" in window.source else window.source,
            row=window.row,
            col=window.col,
            height=height,
            width=width,
            around=tuple(self._around(index, height, width)),
            verdict=own.verdict if own else None,
            probability=window.probability if own else None,
            label=None if choice.again else self._before.get(choice.file),
        )

    def last(self) -> Last | None:
        """Return this person's last answer."""
        mine = self._mine()
        if not mine or mine[-1].file not in self._places:
            return None
        index = self._places[mine[-1].file]
        return Last(index, mine[-1].verdict, self._windows[index].probability)

    def progress(self) -> Progress:
        """Return how far it is."""
        now = self._standing()
        labels = self._all_labels()
        counts = Counter(labels.get(file) for file in now.queue if file in now.taken)
        rate, rest = pace([answer.time_s for answer in now.mine]), count_left(now)
        return Progress(
            total=len(now.queue),
            crack=counts["crack"],
            road=counts["road"],
            unsure=counts[None],
            left=rest,
            per_minute=rate,
            rest_s=60 * rest / rate if rate else None,
            agreement=self.agreement(),
        )

    def agreement(self) -> Agreement:
        """Return how far second answers agree with first ones, on windows of the manifest."""
        people = {name: replay(events) for name, events in self.people().items()}
        return agreement(
            {name: [a for a in own if a.file in self._places] for name, own in people.items()}
        )

    def balance(self) -> Mapping[Label, int]:
        """Count the labels of the windows that the manifest lists."""
        counts = Counter(x for file, x in self._all_labels().items() if file in self._places)
        return {label: counts[label] for label in LABELS}

    def _all_labels(self) -> dict[str, Label | None]:
        return {**{file: label for file, label in self._before.items() if label}, **self.labels()}

    def _mine(self) -> list[Answer]:
        return replay(self._journal.events)

    def _standing(self) -> Standing:
        seen = {answer.file for events in self.people().values() for answer in replay(events)}
        labeled = {file for file, label in self._before.items() if label}
        return Standing(
            self.queue, seen | labeled, seen, self._mine(), self.who.again, self.who.name
        )

    def _around(self, index: int, height: int, width: int) -> Iterator[Picture]:
        """Yield its surroundings; without them the neighbors that were cut from the same image."""
        window = self._windows[index]
        path = self.path(index, "surroundings") if window.surroundings else None
        if path is not None:
            tall, wide = self._size(0, 0, path)
            corner = CORNER.search(PurePosixPath(window.surroundings).stem)
            row = int(corner[1]) - window.row if corner else (height - tall) // 2
            col = int(corner[2]) - window.col if corner else (width - wide) // 2
            yield Picture(index, "surroundings", row, col, tall, wide)
            return
        yield from self._neighbors(index, height, width)

    def _neighbors(self, index: int, height: int, width: int) -> list[Picture]:
        window = self._windows[index]
        found: list[Picture] = []
        for k in self._by_source[window.source]:
            other = self._windows[k]
            row, col = other.row - window.row, other.col - window.col
            near = abs(row) < 2 * height and abs(col) < 2 * width and (row, col) != (0, 0)
            if near and (path := self.path(k, "window")) is not None:
                tall, wide = self._size(other.height, other.width, path)
                found.append(Picture(k, "window", row, col, tall, wide))
        found.sort(key=lambda picture: picture.row**2 + picture.col**2)
        return found[:MAX_NEIGHBORS]

    @staticmethod
    def _size(height: int, width: int, path: Path | None) -> tuple[int, int]:
        """Return the noted size, or that of the file; 1 x 1 for one that cannot be read."""
        if height and width:
            return height, width
        try:
            return read_shape(path) if path else (1, 1)
        except DataError:
            return 1, 1


@contextmanager
def open_session(root: Path, who: Who) -> Iterator[Session]:
    """Open a folder for one person; the manifest is brought up to date first and at the end.

    Raises:
        ConfigError: the name cannot be part of a file name.
        DataError: no folder, no manifest, no window, or something cannot be written.
    """
    table = read_table(root)
    with open_journal(root, who.name) as journal:
        session = Session(root, table, journal, who)
        session.write_manifest()
        try:
            yield session
        finally:
            with ignore_signals():
                session.write_manifest()
