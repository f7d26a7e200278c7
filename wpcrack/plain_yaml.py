"""YAML of strangers: data alone, and no more of it than was written."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 100_000
"""That a text may hold with its aliases written out: a few lines of them can claim any number."""


def load_plain(text: str, loader: type[yaml.SafeLoader | yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """Return what a text holds; no code in it is run.

    Args:
        text: YAML.
        loader: how scalars are read.

    Raises:
        yaml.YAMLError: it is no YAML, nested too deeply, or holds too much.
    """
    try:
        values = yaml.load(text, Loader=loader)
        count = _count(values, {})
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:  # of a number or a date that cannot be
        raise yaml.YAMLError(str(error)) from None
    if count > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES} values")
    return values


def _count(value: Any, known: dict[int, int]) -> int:
    """Return how many values there are, those that stand in several places once for each."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in inner)
    return known[id(value)]
