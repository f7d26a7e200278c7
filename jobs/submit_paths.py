"""Paths of a job that runs elsewhere: what the cluster can see, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wpcrack.errors import ConfigError

TEXT_KEYS = frozenset({"tiles", "storage_path"})
"""Keys that name files although they are text: they may also be globs and URLs."""

Place = Callable[[str, str], str]
"""Gets a key and the path that it holds; returns the path for the cluster."""


def with_places(job: BaseModel, place: Place, prefix: str = "") -> dict[str, Any]:
    """The values of a job as plain data, each path replaced by what `place` makes of it."""
    values = job.model_dump(mode="json")
    for name in type(job).model_fields:
        value, key = getattr(job, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            values[name] = with_places(value, place, f"{key}.")
        elif isinstance(value, tuple | list):
            values[name] = [
                place(key, str(item)) if _is_path(name, item) else plain
                for item, plain in zip(value, values[name], strict=True)
            ]
        elif _is_path(name, value):
            values[name] = place(key, str(value))
    return values


def on_this_machine(key: str, text: str) -> str:
    """A path as seen from anywhere on this machine; URLs stay as they are."""
    return text if is_address(text) else str(Path(text).expanduser().absolute())


def on_the_cluster(key: str, text: str) -> str:
    """A path that means the same on other machines.

    Raises:
        ConfigError: A path that is relative to this machine's folders.
    """
    if is_address(text) or Path(text).is_absolute():
        return text
    raise ConfigError(
        f"{key}={text} is relative to a folder of this machine, which the cluster cannot see; "
        "give an absolute path on storage that every node mounts, or for tiles an s3:// or "
        "https:// address"
    )


def is_address(text: str) -> bool:
    """Whether a text is a URL or a path of GDAL's virtual file systems."""
    return "://" in text or text.startswith("/vsi")


def _is_path(name: str, value: object) -> bool:
    return isinstance(value, Path) or (name in TEXT_KEYS and isinstance(value, str))
