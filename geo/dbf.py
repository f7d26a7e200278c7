"""How text is encoded in the table of a Shapefile: its .cpg says it, or the table, or nobody.

GDAL takes text of which nobody says it for ISO-8859-1, as it once was; today it is mostly UTF-8, or
what Windows writes in a country, of which nothing can be known.
"""

from __future__ import annotations

import codecs
from pathlib import Path

UTF8, UNKNOWN = "UTF-8", "unknown"

_LANGUAGE_AT, _SAYS_NOTHING = 29, (0, 0x57)
"""Where a .dbf names its language, and what is no name of one: 0x57 is that of any Windows."""

_ROWS_AT = slice(8, 10)
"""Where it says where its rows begin."""

_HEAD_BYTES = 32
_CHUNK_BYTES = 2**20


def unsaid_encoding(shapefile: Path) -> str | None:
    """Return UTF8 or UNKNOWN for a Shapefile that does not say it; None: it does, or has ASCII.

    Args:
        shapefile: its .shp; of other files None is returned.

    Raises:
        OSError: its table cannot be read.
    """
    if shapefile.suffix.lower() != ".shp" or _beside(shapefile, ".cpg"):
        return None
    table = _beside(shapefile, ".dbf")
    if table is None:
        return None
    with table.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or head[_LANGUAGE_AT] not in _SAYS_NOTHING:
            return None
        stream.seek(int.from_bytes(head[_ROWS_AT], "little"))
        decoder, is_ascii = codecs.getincrementaldecoder(UTF8)(), True
        while chunk := stream.read(_CHUNK_BYTES):
            is_ascii &= chunk.isascii()
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return UNKNOWN
    return None if is_ascii else UTF8


def doubt_about_text(shapefile: Path) -> str | None:
    """Say what to do where the text of a Shapefile may come out wrong; None: it does not."""
    try:
        if unsaid_encoding(shapefile) != UNKNOWN:
            return None
    except OSError:
        return None  # reading says more
    name = shapefile.with_suffix(".cpg").name
    return (
        f"{shapefile} does not say how its text is encoded, and it is not UTF-8; if names come out "
        f"wrong, write the encoding, such as CP1251, into a file {name} beside it, and give the "
        "same command again"
    )


def _beside(shapefile: Path, ending: str) -> Path | None:
    names = (shapefile.with_suffix(one) for one in (ending, ending.upper()))
    return next((path for path in names if path.is_file()), None)
