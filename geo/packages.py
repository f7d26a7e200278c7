"""A GeoPackage that is to be replaced: is it ours, is it open, did somebody add to it?

A finished map carries a seal: a digest of each table, in `gpkg_metadata`. Whatever differs from it
later was done by people: an edited row, a table, a column, a style, a project of a desktop GIS.
Such a file is kept under another name when the next map takes its place.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from geo.errors import OutputError
from geo.files import SIDECARS

SEAL = "urn:wpcrack:seal"
"""`md_standard_uri` of the seal."""

OPEN = "is open in another program ({}); close it there, then the same command continues"

ROWS_AT_ONCE = 1000

_PLAIN = 0
"""Version of marshal that writes values alone: equal rows are equal bytes in every Python."""

_OURS = {"not_claimed", "started", "finished"}
"""Columns of the layer run of every map, also of those without a seal."""

_METADATA = """
CREATE TABLE IF NOT EXISTS gpkg_metadata (
    id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL, md_scope TEXT NOT NULL DEFAULT 'dataset',
    md_standard_uri TEXT NOT NULL, mime_type TEXT NOT NULL DEFAULT 'text/xml',
    metadata TEXT NOT NULL DEFAULT '')"""


def seal(package: Path) -> None:
    """Note in a finished GeoPackage what it holds; an earlier seal is replaced.

    Raises:
        sqlite3.Error: the file cannot be read or written.
    """
    with closing(sqlite3.connect(package)) as base, base:
        base.execute(_METADATA)
        base.execute("DELETE FROM gpkg_metadata WHERE md_standard_uri = ?", (SEAL,))
        base.execute(
            "INSERT INTO gpkg_metadata (md_scope, md_standard_uri, mime_type, metadata) "
            "VALUES ('dataset', ?, 'application/json', ?)",
            (SEAL, json.dumps(_digests(base))),
        )


def is_own(package: Path) -> bool:
    """Return whether this program wrote a file, whatever was added to it since."""
    try:
        with closing(_reader(package)) as base:
            columns = {row[1] for row in base.execute("PRAGMA table_info(run)")}
            return columns >= _OURS or _seal_of(base) is not None
    except sqlite3.Error:
        return False


def additions(package: Path) -> list[str]:
    """Name what people changed in a map of ours; nothing if there is no such file.

    >>> additions(Path("missing.gpkg"))
    []
    """
    if not package.is_file() or not package.stat().st_size:
        return []
    with closing(_reader(package)) as base:
        sealed = _seal_of(base)
        if sealed is None:
            return ["a map of an earlier version"]
        found = _digests(base)
    return [
        f"{'table' if name not in sealed else 'changes in'} {name}"
        for name in sorted(found.keys() | sealed.keys())
        if found.get(name) != sealed.get(name)
    ]


def require_closed(package: Path) -> None:
    """Refuse a GeoPackage that another process has open; what it left beside it is taken in.

    A log that a program left (`-wal`, `-journal`) belongs to the old file: beside a new one it
    would make that unreadable. It is written into the old file; without a file it is removed.

    Raises:
        OutputError: another process has it open, or the log cannot be taken in.
    """
    if not package.exists():
        for ending in SIDECARS:
            package.with_name(package.name + ending).unlink(missing_ok=True)
        return
    if holder := _holder(package):
        raise OutputError(f"{package} {OPEN.format(holder)}")
    try:
        with closing(sqlite3.connect(package, timeout=0, isolation_level=None)) as base:
            base.execute("PRAGMA journal_mode = DELETE").fetchone()
            base.execute("BEGIN EXCLUSIVE")
            base.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OutputError(f"{package} {OPEN.format('which holds a lock')}") from error
        raise OutputError(f"{package} cannot be written ({error}); check its folder") from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{package} is not a GeoPackage ({error}); move it or choose another out"
        ) from error


def make_way(package: Path) -> Path | None:
    """Prepare a GeoPackage for its replacement; call right before the new one takes its place.

    Returns:
        The name under which the old file is kept, as somebody has changed it; None: it need not be.

    Raises:
        OutputError: another process has it open.
        OSError: it cannot be kept.
    """
    require_closed(package)
    if not additions(package):
        return None
    kept = kept_name(package)
    with suppress(OSError):
        os.link(package, kept)  # at no moment is there no map
        return kept
    os.rename(package, kept)
    return kept


def kept_name(package: Path) -> Path:
    """Return the first free name of `cracks.kept.gpkg`, `cracks.kept-2.gpkg`, ..."""
    numbered = (f"-{number}" if number > 1 else "" for number in range(1, 10_000))
    names = (package.with_name(f"{package.stem}.kept{n}{package.suffix}") for n in numbered)
    return next(name for name in names if not os.path.lexists(name))


def _reader(package: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{package.absolute().as_uri()}?mode=ro", uri=True, timeout=0)


def _seal_of(base: sqlite3.Connection) -> dict[str, str] | None:
    try:
        row = base.execute(
            "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?", (SEAL,)
        ).fetchone()
        content = json.loads(row[0]) if row else None
    except (sqlite3.OperationalError, ValueError, TypeError):
        return None
    return content if isinstance(content, dict) else None


def _digests(base: sqlite3.Connection) -> dict[str, str]:
    """Return name -> digest of each table and view, but those that SQLite and GDAL keep."""
    names = base.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'gpkg\\_%' ESCAPE '\\' AND name NOT LIKE 'rtree\\_%' ESCAPE '\\' "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    return {name: _digest(base, name) for (name,) in names}


def _digest(base: sqlite3.Connection, table: str) -> str:
    quoted = '"' + table.replace('"', '""') + '"'
    digest = hashlib.sha256()
    with suppress(sqlite3.OperationalError):  # a view of functions that only its program has
        for row in base.execute(f"PRAGMA table_info({quoted})"):
            digest.update(repr(row[1:3]).encode())
        rows = base.execute(f"SELECT * FROM {quoted}")
        while some := rows.fetchmany(ROWS_AT_ONCE):
            digest.update(marshal.dumps(some, _PLAIN))
    return digest.hexdigest()[:16]


def _holder(package: Path) -> str | None:
    """Name a process of this machine that has a file or its logs open; None: none is seen.

    Processes of other users, and systems without /proc, do not tell.
    """
    real = os.path.realpath(package)
    wanted = {real + ending for ending in ("", *SIDECARS)}
    for process in _others():
        with suppress(OSError):
            for file in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(file) in wanted:
                        return f"{(process / 'comm').read_text().strip()}, process {process.name}"
    return None


def _others() -> Iterator[Path]:
    own = str(os.getpid())
    with suppress(OSError):
        yield from (p for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != own)
