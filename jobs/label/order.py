"""Which window comes next, whose it is, and how long the rest will take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from jobs.label.answers import Answer
from wpcrack.errors import ConfigError

MIN_GAP = 20
"""Answers between the first and the second look at a window, so that it is judged anew."""


@dataclass(frozen=True)
class Part:
    """Every `of`-th window, from the `number`-th on; numbers count from 1."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/3`.

        >>> Part.parse("2/3").indices(8)
        range(1, 8, 3)

        Raises:
            ConfigError: it is written otherwise, or there is no such part.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or not 1 <= part.number <= part.of:
            raise ConfigError(f"--part {text} is not a part; write 1/3, 2/3 or 3/3 for thirds")
        return part

    def indices(self, count: int) -> range:
        """Return which of `count` windows belong to the part.

        Parts are interleaved: each holds as many of the first windows, which teach most.
        """
        return range(self.number - 1, count, self.of)

    def text(self) -> str:
        """Return it for people, empty for the whole."""
        return f"part {self.number} of {self.of}" if self.of > 1 else ""


@dataclass(frozen=True)
class Standing:
    """Where the labeling stands for one person.

    Attributes:
        queue: files of the person's part, in their order.
        taken: files that need no answer: somebody gave one, or the manifest had a label.
        seen: files that somebody answered here.
        mine: this person's answers that stand, oldest first.
        share: of the labeled windows that are shown a second time, in [0, 1].
        seed: word that decides which ones, such as the person's name.
    """

    queue: Sequence[str]
    taken: Collection[str]
    seen: Collection[str]
    mine: Sequence[Answer]
    share: float = 0.0
    seed: str = ""


@dataclass(frozen=True)
class Choice:
    """The window to show; `again`: for a second look."""

    file: str
    again: bool = False


def next_window(now: Standing) -> Choice | None:
    """Choose the window to show next; None when nothing is left.

    New ones come in the order of the queue. Second looks are strewn among them, unannounced and at
    least `MIN_GAP` answers after the first; those that are still missing come at the end.
    """
    new = next((file for file in now.queue if file not in now.taken), None)
    if _due(now, len(_list_labeled(now))) > 0:
        if new is None:
            return Choice(min(_free(now), key=lambda file: _draw(now, file)), again=True)
        recent = {answer.file for answer in now.mine[-MIN_GAP:]}
        free = [file for file in _free(now) if file not in recent]
        if free and _since_last_repeat(now) * now.share >= 1:
            return Choice(min(free, key=lambda file: _draw(now, file)), again=True)
    return None if new is None else Choice(new)


def count_left(now: Standing) -> int:
    """Count the answers that are still to be given, second looks included."""
    new = sum(file not in now.taken for file in now.queue)
    return new + max(_due(now, len(_list_labeled(now)) + new), 0)


def _list_labeled(now: Standing) -> list[str]:
    return [file for file in now.queue if file in now.seen]


def _due(now: Standing, labeled: int) -> int:
    """Count the second looks that `labeled` windows call for, less those that were taken."""
    return int(now.share * labeled + 1e-9) - len(_second_looks(now))


def _second_looks(now: Standing) -> set[str]:
    own = set(now.queue)
    return {answer.file for answer in now.mine if answer.again and answer.file in own}


def _since_last_repeat(now: Standing) -> int:
    newest_first = reversed(now.mine)
    return next((k for k, answer in enumerate(newest_first) if answer.again), len(now.mine))


def _free(now: Standing) -> list[str]:
    """Return the labeled windows that had no second look."""
    repeated = _second_looks(now)
    return [file for file in _list_labeled(now) if file not in repeated]


def _draw(now: Standing, file: str) -> bytes:
    """Return a number by which second looks are drawn: the same at every start."""
    return hashlib.sha256(f"{now.seed}\0{file}".encode()).digest()
