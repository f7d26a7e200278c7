"""Errors that a user can mend: each message says what is wrong, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable

NAMED_AT_MOST = 5
"""How many file names an error lists before it only counts."""


class WpcrackError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class DataError(WpcrackError):
    """A data set, image, mask or manifest cannot be used as it is."""


class ConfigError(WpcrackError):
    """A configuration value is unknown, of the wrong type or out of range."""


class CheckpointError(WpcrackError):
    """A model folder or weight file is missing, incomplete or of another architecture."""


class TrainingError(WpcrackError):
    """Training cannot go on (a loss that is not finite, ranks that differ)."""


class StorageError(WpcrackError):
    """What was made cannot be written: no space, no permission. What was there before is kept."""


class NotFiniteError(TrainingError):
    """A loss term or a gradient is infinite or no number; `term` is one of its loss terms."""

    def __init__(self, message: str, term: str) -> None:
        super().__init__(message)
        self.term = term


def first_line(error: BaseException) -> str:
    r"""Return the first line of a message without its period, or the kind of a silent error.

    >>> first_line(ValueError("Too large.\nBy far.")), first_line(MemoryError())
    ('Too large', 'MemoryError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def first_few(names: Iterable[str], most: int = NAMED_AT_MOST) -> str:
    """Join the first names of a list, in order, and count the rest.

    >>> first_few(["b", "a", "c"], most=2)
    'a, b and 1 more'
    """
    ordered = sorted(names)
    rest = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")
