"""What a web server says of a file beyond what GDAL tells: its date, or why it is not given."""

from __future__ import annotations

import urllib.request
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from geo.tile import NO_STAMP

TIMEOUT_S = 10.0
"""A server that does not answer by then has files without a stamp."""

HEAD_BYTES = 16


def first_bytes(url: str, timeout_s: float) -> bytes:
    """The first bytes of a file on a web server.

    Raises:
        OSError: the server does not give them, with its reason (which GDAL does not pass on).
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes=0-{HEAD_BYTES - 1}"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            head: bytes = answer.read(HEAD_BYTES)
            return head
    except HTTPException as error:
        raise OSError(f"the server does not speak HTTP: {type(error).__name__}") from error


def stamp_of_url(url: str) -> tuple[int, int]:
    """(bytes, mtime in ns) that a server states for a file; zeros where it states none."""
    if not url.startswith(("http://", "https://")):
        return NO_STAMP
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            date = answer.headers.get("Last-Modified")
        return size, round(parsedate_to_datetime(date).timestamp() * 1e9) if date else 0
    except (OSError, HTTPException, ValueError):  # URLError is an OSError
        return NO_STAMP
