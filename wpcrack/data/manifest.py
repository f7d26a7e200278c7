"""manifest.csv: which file shows a crack, where it was cut from, and on which side it stands.

Whole frames are held out (`wpcrack.data.frames`), so that nothing that a validation image shows is
seen in training.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import zip_longest
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, NoReturn, TypeVar

import numpy as np

from wpcrack.data.images import LONGEST_STEM, is_named_too_long
from wpcrack.errors import ConfigError, DataError, first_few
from wpcrack.files import whole_file

NAME = "manifest.csv"
T = TypeVar("T")

Split = Literal["train", "val"]
Label = Literal["crack", "road"]
SPLITS: tuple[Split, Split] = ("train", "val")
LABELS: tuple[Label, Label] = ("crack", "road")

FEW_ITEMS = 50
"""A class with fewer items than this is worth a warning."""

MOST_SHOWN = 40
"""Characters of a wrong cell that a message repeats."""

ALIKE = 0.8
"""A foreign column whose name begins as that of an absent one, and is as much like it (`difflib`),
is misspelt; `weight` is another word than `height`."""

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""

MOST_DIGITS = 9
"""No picture has more pixels on a side than such a number says."""

CORNER = re.compile(r"_r(\d+)_c(\d+)$")
"""What a window's file stem ends in: the corner inside its source image, in pixels."""


@dataclass(frozen=True)
class Row:
    """One item of a set; the fields are the columns of the file, in this order.

    `file` is relative to the manifest's folder, `source` the stem of the image or tile that it was
    cut from at pixel (row, col). An empty label or split has not been decided yet, a size of 0 has
    not been noted.
    """

    file: str
    label: Label | None
    source: str
    row: int
    col: int
    height: int
    width: int
    split: Split | None


@dataclass(frozen=True)
class Sheet:
    """The cells of a manifest as they were read; a line comes with its place, for messages."""

    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    delimiter: str
    encoding: str


MARK = "\ufeff"
"""Byte-order mark, by which a spreadsheet knows a CSV file in UTF-8."""

COLUMNS = tuple(field.name for field in fields(Row))
TILE_COLUMNS = ("tile", "x", "y")
"""Further columns of windows cut from map tiles: the tile stands for the source, x y on the map."""
SURROUNDINGS = "surroundings"
LABEL_COLUMNS = ("probability", SURROUNDINGS)
"""Further columns that help to label by hand: a model's guess, a larger picture around."""
KNOWN_COLUMNS = (*COLUMNS, *TILE_COLUMNS, *LABEL_COLUMNS)


def window_name(source: str, row: int, col: int) -> str:
    """Name the PNG of a window: `<source>_r<row>_c<col>.png`."""
    return f"{source}_r{row}_c{col}.png"


def require_names(photographs: Iterable[Path]) -> None:
    """Raise DataError about names that a manifest cannot hold, or that are too long for windows."""
    known = list(photographs)
    if long := [path.name for path in known if is_named_too_long(path)]:
        raise DataError(
            f"names of more than {LONGEST_STEM} bytes ({len(long)}, such as {min(long)}) are too "
            "long for windows to be named after them; rename these files"
        )
    stems = [os.fsencode(path.stem) for path in known]
    odd = [stem.decode("utf-8", "backslashreplace") for stem in stems if not _is_utf8(stem)]
    if odd:
        raise DataError(f"names that are not UTF-8 ({first_few(odd)}); rename these files")


def _is_utf8(name: bytes) -> bool:
    return name.decode("utf-8", "ignore").encode() == name


def origin(stem: str) -> tuple[str, int, int]:
    """Undo `window_name` (without .png): source, row, col; a stem without a corner is a source.

    >>> origin("street_7_r64_c128"), origin("photo")
    (('street_7', 64, 128), ('photo', 0, 0))
    """
    found = CORNER.search(stem)
    if found is None or not found.start():
        return stem, 0, 0
    return stem[: found.start()], int(found[1]), int(found[2])


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows under their header, comma-separated UTF-8; None becomes an empty cell."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def read_surroundings(path: Path) -> dict[str, str]:
    """Return what the column `surroundings` says of files: a picture, relative to the manifest.

    Raises:
        DataError: see `read_manifest`.
    """
    sheet = read_sheet(path)
    if SURROUNDINGS not in sheet.columns:
        return {}
    found = {}
    for where, cells in sheet.lines:
        values = name_cells(where, sheet.columns, cells)
        if cell := values.get(SURROUNDINGS, "").replace("\\", "/"):
            found[read_row(where, values).file] = cell
    return found


def read_manifest(path: Path) -> list[Row]:
    """Read a manifest as written here, or as saved by a spreadsheet (; or tab, byte-order mark).

    `file` and `label` must be there; other columns may be missing and are then taken from the
    file's name (source, row, col) or left undecided. Foreign columns are passed over.

    Raises:
        DataError: not readable, missing or misspelt columns, an unknown label or split, a cell that
            is not a number, a file listed twice, or no row at all.
    """
    sheet = read_sheet(path)
    require_columns(path, sheet.columns, ("file", "label"))
    rows = [
        read_row(where, name_cells(where, sheet.columns, cells)) for where, cells in sheet.lines
    ]
    if not rows:
        raise DataError(f"{path} lists no file; build the set again")
    require_listed_once(path, (row.file for row in rows))
    return rows


def read_sheet(path: Path) -> Sheet:
    """Read the cells of a manifest, also as saved by a spreadsheet (; or tab, byte-order mark).

    Lines without a word are passed over.

    Raises:
        DataError: no file, not readable, or no CSV.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a manifest.csv as `wpcrack dataset` writes it")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it as CSV in UTF-8") from error
    encoding = "utf-8-sig" if text.startswith(MARK) else "utf-8"
    text = text.removeprefix(MARK)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = tuple(name.strip() for name in next(reader, []))
        lines = [
            (f"{path} line {reader.line_num}", tuple(cells))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num} is not CSV ({error}); save it as CSV in UTF-8"
        ) from error
    return Sheet(columns, tuple(lines), delimiter, encoding)


def require_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raise DataError about columns that are missing, named twice or misspelt; others are free."""
    times = Counter(columns)
    twice = [name for name in KNOWN_COLUMNS if times[name] > 1]
    if twice:
        raise DataError(f"{path} has two columns {first_few(twice)}; remove one of them")
    absent = [name for name in COLUMNS if name not in times]
    for name in (name[:MOST_SHOWN] for name in times if name not in KNOWN_COLUMNS):
        alike = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=ALIKE)
        meant = [one for one in alike if one[:1] == name[:1].lower()]
        if meant:
            raise DataError(
                f"{path} has no column {meant[0]}, but one named {name!r}; rename it to "
                f"{meant[0]}, or remove it"
            )
    missing = [name for name in needed if name in absent]
    if missing:
        raise DataError(
            f"{path} has no column {first_few(missing)}; its first line must name the columns, and "
            f"names {first_few(name[:MOST_SHOWN] for name in times if name) or 'none'}"
        )


def name_cells(where: str, columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Return column -> cell of a line; a cell that is not there is empty.

    Raises:
        DataError: there are more cells than columns, and not only a spreadsheet's empty ones.
    """
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise DataError(f"{where} has more cells than the header has columns; quote or remove them")
    found = zip_longest(columns, cells, fillvalue="")
    return {name: cell.strip() for name, cell in found if name}


def read_row(where: str, values: Mapping[str, str]) -> Row:
    """Read what a line says of its file; see `read_manifest` for cells that are empty or missing.

    Raises:
        DataError: no file is named, or not by a path from the manifest on; a number of pixels is
            none; an unknown label or split.
    """
    cell = values["file"].replace("\\", "/")
    if not cell:
        raise DataError(f"{where} names no file; fill in its path relative to the manifest")
    if PurePosixPath(cell).is_absolute() or PureWindowsPath(cell).is_absolute():
        refuse_cell(where, "file", cell, "give its path relative to the manifest")
    file = PurePosixPath(cell).as_posix()
    if "\0" in file or any(len(os.fsencode(name)) > LONGEST_NAME for name in file.split("/")):
        raise DataError(f"{where} names a file that no disk can hold; correct its path")
    source, row, col = origin(PurePosixPath(file).stem)
    return Row(
        file=file,
        label=_choice(where, "label", values.get("label", "").lower(), LABELS),
        source=values.get("source") or values.get("tile") or source,
        row=_whole(where, "row", values, row),
        col=_whole(where, "col", values, col),
        height=_whole(where, "height", values, 0),
        width=_whole(where, "width", values, 0),
        split=_choice(where, "split", values.get("split", "").lower(), SPLITS),
    )


def require_listed_once(path: Path, files: Iterable[str]) -> None:
    """Raise DataError naming files that a manifest lists twice."""
    twice = [file for file, times in Counter(files).items() if times > 1]
    if twice:
        raise DataError(f"{path} lists files twice ({first_few(twice)}); keep one line of each")


def hold_out(frames: Mapping[str, Collection[Label]], fraction: float, seed: int) -> frozenset[str]:
    """Draw the validation frames, seeded and independent of the order they are given in.

    Frames that show a crack and frames that show none are drawn apart, each kind with `fraction`
    rounded to whole ones, at least one and never all (a single one stays in training).

    Args:
        frames: labels that occur among the items of each frame.
        fraction: share of the frames to hold out, in (0, 1).
        seed: >= 0.

    Returns:
        Names of the validation frames.

    Raises:
        ConfigError: fraction or seed out of range.
    """
    check_fraction(fraction, seed)
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for cracked in (True, False):
        kind = [name for name, labels in frames.items() if ("crack" in labels) == cracked]
        kind.sort(key=os.fsencode)
        count = min(max(int(fraction * len(kind) + 0.5), 1), len(kind) - 1)
        held.update(kind[k] for k in rng.permutation(len(kind))[: max(count, 0)])
    return frozenset(held)


def check_fraction(fraction: float, seed: int) -> None:
    """Raise ConfigError unless 0 < fraction < 1 and seed >= 0."""
    if not 0 < fraction < 1:
        raise ConfigError(
            f"val={fraction} is not a share of the images; give a number between 0 and 1"
        )
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; give 0 or more")


def require_both_classes(
    counts: Mapping[tuple[Split, Label], int], where: str, *, is_given: bool = False
) -> None:
    """Raise DataError naming the first class that the set or a split lacks.

    Args:
        counts: number of items by split and class.
        where: the data set as the user knows it, for the message.
        is_given: whether a manifest says on which side each item stands.
    """
    for label in LABELS:
        if not any(counts.get((split, label), 0) for split in SPLITS):
            raise DataError(f"{where} has no {label} item; label pictures of both classes")
    remedy = (
        "give frames of its manifest that side, or empty the column split"
        if is_given
        else "whole frames go to one side (pictures that show one place), so add pictures of "
        "another place, or try another seed or val fraction"
    )
    for split in SPLITS:
        for label in LABELS:
            if not counts.get((split, label), 0):
                raise DataError(f"{where}: the {split} split has no {label} item; {remedy}")


def few_items_warnings(counts: Mapping[Label, int]) -> list[str]:
    """Warn about each class of fewer than 50 items."""
    return [
        f"only {count} {label} items; with fewer than {FEW_ITEMS}, scores mean little"
        for label, count in counts.items()
        if count < FEW_ITEMS
    ]


def _choice(where: str, column: str, value: str, known: tuple[T, ...]) -> T | None:
    if value and value not in known:
        refuse_cell(where, column, value, f"use {' or '.join(map(str, known))}, or leave it empty")
    return known[known.index(value)] if value else None


def _whole(where: str, column: str, values: Mapping[str, str], otherwise: int) -> int:
    value = values.get(column, "")
    if value and not (value.isdecimal() and len(value) <= MOST_DIGITS):
        refuse_cell(where, column, value, "use a whole number of pixels")
    return int(value) if value else otherwise


def refuse_cell(where: str, column: str, value: str, do: str) -> NoReturn:
    """Raise DataError about a cell: where it stands, what it holds, what to do."""
    raise DataError(f"{where}: {column} is {value[:MOST_SHOWN]!r}; {do}")
