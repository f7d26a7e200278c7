"""What run folders have in common: whose they are, one writer at a time, files written whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

FREE_KEYS = ("resume", "run_dir", "scaling")
"""Keys that may change between two starts of one run: they do not decide what is learned."""


@dataclass(frozen=True)
class FolderKind:
    """What a run folder is for.

    Attributes:
        noun: what lies in it, for messages.
        verb: what a process does in it, for messages.
        own: names of its entries; hidden ones are its own too.
        free_keys: dotted keys that may change between two starts.
    """

    noun: str
    verb: str
    own: frozenset[str]
    free_keys: tuple[str, ...] = FREE_KEYS


def write_text(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
