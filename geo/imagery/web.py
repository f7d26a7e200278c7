"""Rasters on web servers: who may be asked, and what a server says of a file before GDAL reads it.

An address that a list or index names may lie inside the user's own network, where a stranger has
no access: such servers are asked only if the user allows it. Each hop of a redirection counts.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import unquote, urlsplit

from geo.options import ReadOptions

WEB = ("http://", "https://")

HEAD_BYTES = 16

NO_STAMP = (0, 0)
"""Of a file whose size and time are not known."""


class PrivateAddress(ValueError):
    """A server in the user's own network that was not allowed."""


@dataclass(frozen=True)
class WebFile:
    """What a server says of a file: its first bytes, and (bytes, mtime in ns), 0 if not known."""

    head: bytes
    stamp: tuple[int, int]


def look_at(url: str, options: ReadOptions) -> WebFile:
    """Ask a web server for the first bytes of a file.

    Raises:
        PrivateAddress: the server, or one to which it redirects, lies in a private network.
        OSError: the server does not give them, with its reason (which GDAL does not pass on).
    """
    _require_public(url, options)
    request = _request(url)
    opener = urllib.request.build_opener(_PublicRedirects(options))
    try:
        with opener.open(request, timeout=options.timeout_s) as answer:
            return WebFile(answer.read(HEAD_BYTES), _stamp(answer.headers))
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(str(error)) from error
    except HTTPException as error:
        raise OSError(f"the server gives no valid HTTP answer: {type(error).__name__}") from error


def _request(url: str) -> urllib.request.Request:
    """Make the request for the first bytes; user and password go as a header, to no other server.

    GDAL does the same with the addresses that it reads.
    """
    parts = urlsplit(url)
    login, _, server = parts.netloc.rpartition("@")
    request = urllib.request.Request(
        parts._replace(netloc=server).geturl(), headers={"Range": f"bytes=0-{HEAD_BYTES - 1}"}
    )
    if login:
        code = base64.b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {code}")
    return request


def _stamp(headers: Message) -> tuple[int, int]:
    try:
        size = int((headers.get("Content-Range") or "/0").rpartition("/")[2])
        date = headers.get("Last-Modified")
        return size, round(parsedate_to_datetime(date).timestamp() * 1e9) if date else 0
    except ValueError:
        return NO_STAMP


class _PublicRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, options: ReadOptions) -> None:
        self._options = options

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        with ExitStack() as stack:
            stack.callback(fp.close)
            _require_public(newurl, self._options)
            stack.pop_all()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_public(url: str, options: ReadOptions) -> None:
    if options.allow_private:
        return
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return  # no server has this name, which the request itself will say
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        if not address.is_global:
            raise PrivateAddress(
                f"{host} is {address}, an address inside a private network; set "
                "allow_private=true to ask it"
            )
