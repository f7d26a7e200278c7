"""What a job tells its user: lines on stderr, numbers as people write them, errors."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from geo.addresses import without_secrets
from geo.errors import GeoError, OutputError
from wpcrack.errors import WpcrackError

USER_ERRORS = (WpcrackError, GeoError)
"""Roots of the errors that a user can mend; any other exception is a fault of the program."""

UNHEARD = (errno.EPIPE, errno.EIO)
"""Errors of a pipe that nobody reads any more, and of a terminal that was closed."""


class _Unheard(io.FileIO):
    """A stream to which may be written when nobody reads it any more."""

    is_needed = False
    """Whether it takes results: where the disk does not take them, that is an error, said once."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if not self.is_needed or error.errno in UNHEARD:
                return len(data)
            self.is_needed = False
            raise OutputError(
                f"standard output cannot be written ({error.strerror}); free space where it goes, "
                "or send it elsewhere"
            ) from error


def outlast_readers() -> None:
    """Let the work go on when nobody reads what it says, as after `| head -1` or `>&-`.

    What a command delivers are files; a closed pipe, a closed terminal, or a log on a full disk
    would end it between two of them. A standard stream that was closed is opened on nothing, else a
    file of the job would take its number and get what C libraries print. Streams that somebody has
    replaced are left alone.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed as Python began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Unheard(stream.fileno(), "w", closefd=False)
            raw.is_needed = name == "stdout"
            by_line = stream.line_buffering or stream.write_through  # -u, PYTHONUNBUFFERED
            text = io.TextIOWrapper(
                io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=by_line
            )
            setattr(sys, name, text)


def say(text: str) -> None:
    """Write one line for the user, without secrets; stdout stays free for results."""
    print(without_secrets(text), file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on.

    >>> clock(42), clock(3700)
    ('0:42', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def last_line(error: object) -> str:
    """Return the last line of a message, where Ray and Python say what went wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
