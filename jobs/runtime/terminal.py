"""Lines for the user of a job."""

from __future__ import annotations

import sys


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "tile"), counted(0, "tile")
    ('1 tile', '0 tiles')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on.

    >>> clock(42), clock(3700)
    ('0:42', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(text: str) -> None:
    """One line for the user."""
    print(text, file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """Of its message."""
    return (str(error).strip().splitlines() or ["no message"])[0]
