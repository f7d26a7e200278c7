"""The accuracy of a map, kept in its layer run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyogrio

from geo import packages
from geo.files import output_errors
from geo.layers.schema import RUN
from geo.paths import literal
from geo.review.estimate import Accuracy


def write_accuracy(package: Path, accuracy: Accuracy) -> None:
    """Write what people found into the layer run.

    A map that nobody has edited is sealed anew; in an edited one the edits stay visible, so that it
    is kept when another map takes its place.

    Raises:
        OutputError: it is open in another program, or cannot be written.
    """
    packages.require_closed(package)
    is_edited = bool(packages.additions(package))
    with output_errors(package, sqlite3.Error):
        with closing(sqlite3.connect(package)) as base, base:
            text = json.dumps(accuracy.values(), ensure_ascii=False)
            base.execute(f'UPDATE "{RUN.name}" SET accuracy = ?', (text,))
        if not is_edited:
            packages.seal(package)


def read_accuracy(package: Path) -> Accuracy | None:
    """Return what people found of a map; None if nobody has judged it."""
    return parse_accuracy(
        pyogrio.read_dataframe(literal(package), layer=RUN.name).iloc[0]["accuracy"]
    )


def parse_accuracy(text: str | None) -> Accuracy | None:
    """Return the accuracy that a cell of the layer run holds; None if it holds none."""
    try:
        return Accuracy.of_values(json.loads(text or "null"))
    except (LookupError, TypeError, AttributeError, ValueError):
        return None
