"""What a person has said of windows: a line of their journal, and where the journals lie.

An answer is a line such as `{"file": "a_r0_c0.png", "label": "crack", "time": ...}`; how journals
are kept says `jobs.page.journal`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jobs.page import journal
from jobs.page.journal import Codec, Journal, Undo
from wpcrack.data.manifest import LABELS, Label
from wpcrack.errors import ConfigError

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
    """Read a journal; see `jobs.page.journal.read_events`."""
    return journal.read_events(path, _CODEC)


def open_journal(root: Path, name: str) -> AbstractContextManager[Journal[Answer]]:
    """Open a person's journal for this process alone.

    Raises:
        ConfigError: the name cannot be part of a file name.
        DataError: another process writes it, it cannot be written, or it holds anything else.
    """
    return journal.open_journal(root / journal_name(name), _CODEC)


def _read(values: Mapping[str, Any]) -> Answer | None:
    file, verdict, before = values["file"], values["label"], values.get("before")
    if not isinstance(file, str) or verdict not in VERDICTS or before not in (None, *LABELS):
        return None
    return Answer(file, verdict, float(values["time"]), values.get("again") is True, before)


def _write(answer: Answer) -> Mapping[str, object]:
    values: dict[str, object] = {"file": answer.file, "label": answer.verdict}
    values |= {"again": True} if answer.again else {}
    values |= {"before": answer.before} if answer.before else {}
    return values | {"time": round(answer.time_s, 3)}


_CODEC = Codec(_read, _write, "give each person a --name")
