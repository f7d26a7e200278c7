"""Size and date of files on a web server, so that a changed file is noticed."""

from __future__ import annotations

import urllib.request
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from geo.tile import NO_STAMP

TIMEOUT_S = 10.0
"""A server that does not answer by then has files without a stamp."""


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
