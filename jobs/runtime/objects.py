"""Files in object storage (s3://, gs://, abfs://), through pyarrow's file systems."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from geo.addresses import without_secrets
from geo.errors import OutputError, first_line

CHUNK_BYTES = 16 * 2**20


LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def as_uri(address: str) -> str:
    """Return an address as pyarrow takes it: letters that cannot stand in one are escaped.

    >>> as_uri("s3://city/maps 2/100%/a#b?region=x"), as_uri("s3://city/maps%202")
    ('s3://city/maps%202/100%25/a%23b?region=x', 's3://city/maps%202')
    """
    path, mark, query = address.partition("?")
    return quote(LONE_PERCENT.sub("%25", path), safe="%/:@!$&'()*+,;=") + mark + query


@contextmanager
def open_storage(address: str, again: str, shown: str | None = None) -> Iterator[tuple[Any, str]]:
    """Give pyarrow's file system of an address, and the folder in it.

    Args:
        address: of a folder.
        again: what the user is told of a second try.
        shown: the address for messages; None: itself, without what lets one in.

    Raises:
        OutputError: In place of what the storage says.
    """
    from pyarrow.fs import FileSystem

    try:
        files, inner = FileSystem.from_uri(address)
        if files.type_name == "local":
            files.create_dir(inner)
        yield files, inner
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{shown or without_secrets(address)} cannot be read or written "
            f"({without_secrets(first_line(error))}); check the address, its rights and the "
            f"network; {again}"
        ) from error


def copy_up(files: Any, path: Path, target: str) -> None:
    """Copy a file to an object, which is whole or does not appear.

    Raises:
        OSError: It cannot be written, or is not all there.
    """
    if files.type_name == "local":
        files.create_dir(target.rpartition("/")[0])
    with path.open("rb") as source, files.open_output_stream(target) as stream:
        shutil.copyfileobj(source, stream, CHUNK_BYTES)
    if (size := files.get_file_info(target).size) != path.stat().st_size:
        raise OSError(f"{path.name} has {size} bytes there, not {path.stat().st_size}")


def copy_down(files: Any, source: str, path: Path) -> None:
    """Copy an object to a file.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: It cannot be read.
    """
    with files.open_input_stream(source) as stream, path.open("wb") as target:
        shutil.copyfileobj(stream, target, CHUNK_BYTES)
