"""Addresses of rasters, without what lets one in: passwords, signatures, tokens.

They stand in the request alone. Maps, pages, reports, logs and work folders are passed on, so they
get the address without user, password and query.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

_ADDRESS = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})(?:[^\s/@'\"<>]*@)?"
    r"(?P<place>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?"
)


_IN_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How a path begins that was made of an address."""

_WEB = re.compile(r"(https?://[^/]*)(.*)", re.DOTALL)
"""Server, and what it is asked for."""

_LOCAL = "file://"
"""How the address of a file of this machine begins."""


def meant_by(text: str) -> str:
    """Return what a name means: the path of a file:// address; on the web, what can be asked for.

    >>> meant_by("file:///data/a%20b.tif"), meant_by("/data/a%20b.tif")
    ('/data/a b.tif', '/data/a%20b.tif')
    >>> meant_by("https://city.org/a%20b ü.tif?sig=x y")
    'https://city.org/a%20b%20%C3%BC.tif?sig=x%20y'
    """
    if match := _WEB.fullmatch(text):
        return match[1] + quote(match[2], safe=string.punctuation)
    if not text.startswith(_LOCAL):
        return text
    return unquote(text.removeprefix(_LOCAL).removeprefix("localhost"))


def address_in(path: Path) -> str | None:
    """Return the address that a path was made of, which cost it a slash; None: it is a path.

    >>> address_in(Path("s3://city/run")), address_in(Path("/data/run")), address_in(Path("s3:x/a"))
    ('s3://city/run', None, None)
    """
    text = str(path)
    return text.replace(":/", "://", 1) if _IN_PATH.match(text) else None


def without_secrets(text: str) -> str:
    """Return a text in which all addresses have lost user, password, query and fragment.

    >>> without_secrets("https://anna:pw@city.org/a.tif?sig=x1 is no GeoTIFF")
    'https://city.org/a.tif is no GeoTIFF'
    >>> without_secrets("/data/what? a#b.tif")
    '/data/what? a#b.tif'
    """
    return _ADDRESS.sub(r"\g<scheme>\g<place>", text) if ":/" in text else text


def all_without_secrets(values: Any) -> Any:
    """Return plain data with `without_secrets` of all its texts."""
    if isinstance(values, str):
        return without_secrets(values)
    if isinstance(values, dict):
        return {key: all_without_secrets(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [all_without_secrets(value) for value in values]
    return values
