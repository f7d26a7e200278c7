"""Errors that a user can mend: each message names the file, what was found and the remedy."""


class GeoError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class InputError(GeoError):
    """No usable raster, or an input of a kind that is refused."""


class OutputError(GeoError):
    """The output cannot be written where the user asked for it."""


def first_line(error: Exception | str) -> str:
    """Return the first line of a message without its period, or the kind of a silent error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def reason_of(error: Exception) -> str:
    """Return what is wrong with a path that the message names already.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.tif"))
    'No such file or directory'
    """
    system = error.strerror if isinstance(error, OSError) else None
    return system or first_line(error)


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count_of(1, "crack"), count_of(0, "crack")
    ('1 crack', '0 cracks')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
