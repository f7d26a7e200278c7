"""manifest.csv as a table: every column is kept as it is, only labels are filled in.

`wpcrack.data.manifest` reads what a training needs; here further columns count, too:

* `probability`: what a model thinks of the window, 0 (road) to 1 (crack).
* `surroundings`: a picture of more ground, at the same scale. The corner at the end of its name
  (`_r<row>_c<col>`) is in the same pixels as `row` and `col`; without one it is centered.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.page.server import PICTURES
from jobs.runtime.folder import open_no_link, wait_for_lock
from wpcrack.data.manifest import (
    NAME,
    Label,
    Row,
    name_cells,
    read_row,
    read_sheet,
    refuse_cell,
    require_columns,
    require_listed_once,
)
from wpcrack.errors import DataError
from wpcrack.files import whole_file

LOCK = ".labels.lock"
"""Held by the process that writes the manifest."""


@dataclass(frozen=True)
class Window(Row):
    """A line of the manifest, and what helps to label it."""

    probability: float | None
    surroundings: str


@dataclass(frozen=True)
class Table:
    """The manifest: its windows, and the cells as they were read."""

    windows: tuple[Window, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    delimiter: str
    encoding: str

    def text(self, labels: Mapping[str, Label | None]) -> str:
        """Return the file with the given labels; other windows keep theirs."""
        columns = self.columns if "label" in self.columns else (*self.columns, "label")
        place = columns.index("label")
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.delimiter, lineterminator="\n")
        writer.writerow(columns)
        for window, cells in zip(self.windows, self.cells, strict=True):
            filled = [*cells, *[""] * (len(columns) - len(cells))]
            if window.file in labels:
                filled[place] = labels[window.file] or ""
            writer.writerow(filled)
        return out.getvalue()


def read_table(root: Path) -> Table:
    """Read the manifest of a folder.

    Raises:
        DataError: no folder, no manifest, no window in it, a file listed twice, a column that is
            missing or misspelt, or a cell that cannot be understood.
    """
    path = root / NAME
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one that `wpcrack windows` wrote")
    if not path.exists():
        raise DataError(f"{root} has no {NAME}; give a folder that `wpcrack windows` wrote")
    sheet = read_sheet(path)
    require_columns(path, sheet.columns, ("file",))
    if not sheet.lines:
        raise DataError(f"{path} lists no window; cut windows again")
    windows = tuple(_window(where, sheet.columns, cells) for where, cells in sheet.lines)
    require_listed_once(path, (window.file for window in windows))
    rows = tuple(cells for _, cells in sheet.lines)
    return Table(windows, sheet.columns, rows, sheet.delimiter, sheet.encoding)


def write_labels(root: Path, labels: Callable[[], Mapping[str, Label | None]]) -> None:
    """Fill labels into the manifest as it now is on disk, which is replaced whole.

    Several processes may do so: each asks for the labels only when it is its turn.

    Raises:
        DataError: the manifest cannot be read or written.
    """
    path = root / NAME
    try:
        with _turn(root):
            table = read_table(root)
            text = table.text(labels())
            if text != path.read_text(encoding=table.encoding):
                with whole_file(path) as fresh:
                    fresh.write_text(text, encoding=table.encoding)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); check permissions and space; answers "
            "so far are in the journals beside it"
        ) from error


def inside(root: Path, file: str) -> Path | None:
    """Return the path of a picture of the folder; None if there is none that may be shown.

    A path that leads out of the folder, also by a link, may not.
    """
    if PurePosixPath(file).suffix.lower() not in PICTURES:
        return None
    try:
        path = (root / file).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return path if path.is_file() and path.is_relative_to(root.resolve()) else None


@contextmanager
def _turn(root: Path) -> Iterator[None]:
    with open(root / LOCK, "a", opener=open_no_link) as file:
        wait_for_lock(file)
        yield


def _window(where: str, columns: tuple[str, ...], cells: tuple[str, ...]) -> Window:
    values = name_cells(where, columns, cells)
    return Window(
        **vars(read_row(where, values)),
        probability=_probability(where, values.get("probability", "")),
        surroundings=values.get("surroundings", "").replace("\\", "/"),
    )


def _probability(where: str, value: str) -> float | None:
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        refuse_cell(where, "probability", value, "use a number from 0 to 1")
    return number
