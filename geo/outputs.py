"""What an output may replace: a file that this program wrote, as it left it, and no input.

Pictures, texts and tables carry a seal, a digest of their content: who edits a report or corrects a
mask by hand breaks it, and the file is never replaced again. GeoPackages have their own:
`geo.packages`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio

from geo import packages
from geo.errors import OutputError
from geo.paths import literal

NEVER = "move it away, or choose another output"

_TEXT_SEAL = "<!-- written by wpcrack {} -->\n"
_TEXT_SEALED = re.compile(r"<!-- written by wpcrack ([0-9a-f]{16}) -->\n\Z")

_PNG_HEAD = 33
"""Bytes of a PNG before its second chunk: signature and header."""

_PNG_SEAL = b"tEXtSoftware\0wpcrack "
_PDF_SEAL = b"%% written by wpcrack %s\n"
TILES_SEAL = "written by wpcrack: "
"""Begins the description of vector tiles, which nobody edits by hand."""

FIGURES_INDENT, REPORT_INDENT = 1, 2
"""Of JSON: by it figures, which may be replaced by others, are told from reports."""

_DIGEST = 16
"""Characters of a digest."""


def require_replaceable(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Refuse outputs that would replace an input, or a file that is not this program's own.

    Call it before any work, and by a plan alike. Outputs that do not exist yet may be written.

    Raises:
        OutputError: the first such file, with the reason; or a GeoPackage that is open elsewhere.
    """
    used = {_identity(path): path for path in inputs}
    for path in outputs:
        if (named := used.get(_identity(path))) is not None:
            raise OutputError(f"{path} would replace the input {named}; choose another output")
        if not os.path.lexists(path):
            continue
        if path.is_dir() and not _is_own_folder(path):
            raise OutputError(f"{path} is a folder; {NEVER}")
        if path.exists() and not os.access(path, os.R_OK):
            raise OutputError(
                f"{path} may not be read, so whose it is cannot be told; have its permissions "
                "changed, or choose another output"
            )
        if not path.is_dir() and not is_own(path):
            raise OutputError(
                f"{path} was not written by this program, or was changed since; {NEVER}"
            )
        if path.suffix.lower() == ".gpkg":
            packages.require_closed(path)


def is_own(path: Path) -> bool:
    """Return whether this program wrote a file and nobody changed it; an empty file is nobody's.

    GeoPackages count whatever was added to them: they are kept aside (`geo.packages.make_way`).
    """
    try:
        if not path.stat().st_size:
            return True
        return _KINDS.get(path.suffix.lower(), _is_own_json)(path)
    except (OSError, ValueError, pa.ArrowException):
        return False


def is_figures(path: Path) -> bool:
    """Return whether a file holds figures of `--json`, which have an indent of 1 and stand alone.

    Reports of maps, runs and sweeps, and what else this program reads again, have another one.
    """
    try:
        return not path.stat().st_size or _is_json(path, (FIGURES_INDENT,))
    except (OSError, ValueError):
        return False


def seal_text(text: str) -> str:
    """Add a comment, invisible in Markdown and HTML, by which an edited file is known.

    >>> seal_text("")[:24]
    '<!-- written by wpcrack '
    """
    return text + _TEXT_SEAL.format(_digest(text.encode()))


def markdown_text(text: str) -> str:
    r"""Make text of users that is no link, table or markup in Markdown.

    >>> print(markdown_text("[A|B](javascript:x) <b>"))
    \[A\|B\](javascript:x) &lt;b>
    """
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`|\[\]])", r"\\\1", one_line)


def seal_png(data: bytes) -> bytes:
    """Add a text chunk to a PNG by which an edited file is known."""
    content = _PNG_SEAL + _digest(data).encode()
    size, check = len(content) - 4, zlib.crc32(content)
    chunk = size.to_bytes(4, "big") + content + check.to_bytes(4, "big")
    return data[:_PNG_HEAD] + chunk + data[_PNG_HEAD:]


def seal_pdf(data: bytes) -> bytes:
    """Add a comment to the end of a PDF by which an edited file is known."""
    return data + _PDF_SEAL % _digest(data).encode()


def seal_csv(text: str) -> str:
    r"""Put those names of columns in quotes that the bits of a digest name: readers see no change.

    An edited table, or one that a spreadsheet has saved, has other quotes.

    >>> seal_csv("rank,id\r\n1,a\r\n").splitlines()
    ['"rank",id', '1,a']
    """
    head, end, rows = text.partition("\r\n")
    digest = int(_digest(text.encode()), 16)
    names = (f'"{x}"' if digest >> k & 1 else x for k, x in enumerate(head.split(",")))
    return ",".join(names) + end + rows


def _identity(path: Path) -> object:
    """Return what two names of one file have in common."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST]


def _is_sealed_text(path: Path) -> bool:
    with path.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    found = _TEXT_SEALED.search(text)
    return found is not None and found[1] == _digest(text[: found.start()].encode())


def _is_sealed_png(path: Path) -> bool:
    data = path.read_bytes()
    size = len(_PNG_SEAL) + _DIGEST + 8  # with length and checksum
    chunk, rest = data[_PNG_HEAD : _PNG_HEAD + size], data[:_PNG_HEAD] + data[_PNG_HEAD + size :]
    return chunk[4:-4] == _PNG_SEAL + _digest(rest).encode()


def _is_sealed_pdf(path: Path) -> bool:
    data = path.read_bytes()
    size = len(_PDF_SEAL % (b" " * _DIGEST))
    return seal_pdf(data[:-size]) == data


def _is_own_json(path: Path) -> bool:
    return _is_json(path, (FIGURES_INDENT, REPORT_INDENT))


def _is_json(path: Path, indents: Iterable[int]) -> bool:
    """Return whether a file has one of our forms, which other writers do not happen to have."""
    text = path.read_text(encoding="utf-8")
    values = json.loads(text)
    if not isinstance(values, dict) or "type" in values:  # as GeoJSON and STAC have it
        return False
    forms = (json.dumps(values, indent=indent, ensure_ascii=False) + "\n" for indent in indents)
    return text in forms


def _is_sealed_csv(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    head, end, rows = text.partition("\r\n")
    return bool(end) and seal_csv(head.replace('"', "") + end + rows) == text


def _is_own_parquet(path: Path) -> bool:
    names = pq.read_schema(path.absolute()).names
    return {"geom", "bbox"} <= set(names) and names[0].endswith("_id")


def _is_own_folder(path: Path) -> bool:
    """Return whether all in a folder are files of a large layer, see `geo.layers.partitions`."""
    inside = list(path.iterdir())
    return (
        path.suffix == ".parquet"
        and bool(inside)
        and all(x.suffix == ".parquet" and x.is_file() and is_own(x) for x in inside)
    )


def _is_own_tiles(path: Path) -> bool:
    try:
        about = pyogrio.read_info(literal(path))["dataset_metadata"] or {}
    except RuntimeError:  # pyogrio's for what is no vector file
        return False
    return str(about.get("description", "")).startswith(TILES_SEAL)


_KINDS: dict[str, Callable[[Path], bool]] = {  # figures may have any name: they are JSON
    ".gpkg": packages.is_own,
    ".png": _is_sealed_png,
    ".pdf": _is_sealed_pdf,
    ".html": _is_sealed_text,
    ".md": _is_sealed_text,
    ".csv": _is_sealed_csv,
    ".parquet": _is_own_parquet,
    ".pmtiles": _is_own_tiles,
}
ENDINGS = frozenset(_KINDS)
"""Of outputs that are no JSON."""
