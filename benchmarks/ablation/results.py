"""The results file of the ablation, one JSON line per finished cell, and its table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ablation.cells import CELL_MINUTES, Cell
from benchmarks.machine import machine
from jobs.runtime.folder import hold_lock
from wpcrack.errors import ConfigError

Line = Mapping[str, Any]


class Results:
    """Lines by key of their cell. A line is complete or absent, also after a kill."""

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, read_lines(path)

    @classmethod
    @contextmanager
    def filling(cls, path: Path) -> Iterator[Results]:
        """Keep other processes from filling the same file.

        Raises:
            ConfigError: another process is at work, or the file holds something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = ConfigError(f"another process fills {path}; wait for it or choose another --out")
        with hold_lock(path.with_name(f".{path.name}.lock"), busy):
            path.touch()
            yield cls(path)

    def of(self, cell: Cell) -> Line | None:
        """Return the finished line of a cell, whatever row measured it."""
        return self._lines.get(cell.key)

    def add(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Append a finished cell; on disk before this returns."""
        line = {
            "key": cell.key,
            "row": cell.row,
            "collection": cell.collection.name,
            "seed": cell.config.seed,
            "steps": cell.config.train.steps.model_dump(),
            "machine": machine(),
            "changed": changed_settings(cell),
            **outcome,
        }
        append_line(self.path, line)
        self._lines[cell.key] = line


def append_line(path: Path, line: Line) -> None:
    """Append a line to a file that is there; it is on disk before this returns."""
    with path.open("r+b") as file:
        content = file.read()
        file.seek(content.rfind(b"\n") + 1)  # over a line that a kill left unfinished
        file.truncate()
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def changed_settings(cell: Cell) -> dict[str, Any]:
    """Return what differs from the defaults, for readers of the file."""
    values: dict[str, Any] = cell.config.model_dump(mode="json", exclude_defaults=True)
    return values


def read_lines(path: Path) -> dict[str, Line]:
    """Read lines by key; what a kill left of an unfinished last line does not count.

    Raises:
        ConfigError: a line is not a result.
    """
    lines: dict[str, Line] = {}
    texts = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines[line["key"]] = line
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(
                f"{path}, line {number}, is not a result of an ablation; choose another --out"
            ) from None
    return lines


def leading(cells: Mapping[str, Sequence[Cell]], results: Results) -> list[str]:
    """Name the measured rows by falling mean IoU; of rows that are one cell, the last."""
    distinct = {tuple(cell.key for cell in members): name for name, members in cells.items()}
    measured = {
        name: mean([line["scores"]["native"]["iou"] for line in lines])
        for keys, name in distinct.items()
        if len(lines := lines_of(cells[name], results)) == len(keys)
    }
    return sorted(measured, key=lambda name: -measured[name])


def lines_of(cells: Sequence[Cell], results: Results) -> list[Line]:
    """Return finished lines of cells."""
    return [line for cell in cells if (line := results.of(cell)) is not None]


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def render(cells: Sequence[Cell], results: Results, command: str) -> str:
    """Write in Markdown a table for each collection, mean (lowest - highest) over seeds."""
    parts = []
    for collection in dict.fromkeys(cell.collection for cell in cells):
        mine = [cell for cell in cells if cell.collection == collection]
        rows = dict.fromkeys(cell.row for cell in mine)
        columns = COLUMNS | resized_columns(collection.resize)
        table = [
            ["row", "steps", "seeds", *columns, "minutes"],
            ["---"] * (len(columns) + 4),
            *(table_row(row, [c for c in mine if c.row == row], results, columns) for row in rows),
        ]
        lines = ["| " + " | ".join(cells) + " |" for cells in table]
        parts.append(f"**{collection.name}**, windows of {collection.window} px\n")
        parts.append("\n".join(lines) + "\n")
    found = {line["key"]: line for line in lines_of(cells, results)}
    seconds = [line["seconds"] for line in found.values()]
    longest = f", the longest {max(seconds) / 60:.1f} minutes" if seconds else ""
    machines = ", ".join(sorted({line["machine"] for line in found.values()}))
    parts.append(
        f"`{command}`: {len(found)} of {len({c.key for c in cells})} cells, "
        f"{sum(seconds) / 3600:.1f} hours{longest} (planned: {CELL_MINUTES}). {machines}"
    )
    return "\n".join(parts)


COLUMNS: dict[str, Callable[[Line], float | None]] = {
    "IoU": lambda scores: scores["native"]["iou"],
    "F1": lambda scores: scores["native"]["f1"],
    "F1 2 px": lambda scores: scores["native"]["f1_tol2"],
    "false area": lambda scores: scores["fp_area_share"],
}
"""Heading and figure, of the keys of `evaluate --json`."""


def resized_columns(side: int | None) -> dict[str, Callable[[Line], float | None]]:
    """Return figures at a square size, if the collection has one."""
    if side is None:
        return {}
    return {
        f"IoU {side}": lambda scores: scores[f"resize_{side}"]["iou"],
        f"F1 {side}": lambda scores: scores[f"resize_{side}"]["f1"],
    }


def table_row(
    row: str,
    cells: Sequence[Cell],
    results: Results,
    columns: Mapping[str, Callable[[Line], float | None]],
) -> list[str]:
    """Return one line of the table; a dash where nothing is measured."""
    lines = lines_of(cells, results)
    steps = " + ".join(str(n) for n in cells[0].config.train.steps.model_dump().values())
    figures = [spread([get(line["scores"]) for line in lines]) for get in columns.values()]
    minutes = f"{mean([line['seconds'] for line in lines]) / 60:.1f}" if lines else "-"
    return [row, steps, f"{len(lines)} of {len(cells)}", *figures, minutes]


def spread(values: Sequence[float | None]) -> str:
    """Return mean, and lowest and highest of several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{mean(known):.4f}" if max(known) < 0.01 else f"{mean(known):.3f}"
    return text if len(known) == 1 else f"{text} ({min(known):.3f} - {max(known):.3f})"
