"""The folder of a built set: it appears whole or not at all, and replaces nothing of others."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wpcrack.data import manifest
from wpcrack.data.surroundings import surroundings_name
from wpcrack.errors import DataError
from wpcrack.files import whole_file, whole_folder

MARKER = "dataset.json"
"""Says that `wpcrack dataset` made the folder, with which options, from what."""

_MADE_BY = "wpcrack dataset"
_DIGEST = "manifest_sha256"


@contextmanager
def replace_set(out: Path, *, keep: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `out` to fill; it takes the place of `out` at the end.

    Args:
        out: where the set is to stand: nothing there yet, an empty folder, or an older set that
            holds nothing but what its build wrote.
        keep: refuse an older set, too.

    Yields:
        The folder to write into; after an exception `out` is as it was.

    Raises:
        DataError: `out` holds anything else, another process is filling it, or its parent folder
            cannot be written.
    """
    out = out.resolve()
    _require_replaceable(out, keep=keep)
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_sole_builder(out))
            part = stack.enter_context(whole_folder(out))
        except OSError as error:
            raise DataError(
                f"cannot write in {out.parent} ({error.strerror}); choose another output folder"
            ) from error
        try:
            yield part
            _require_replaceable(out, keep=keep)  # edited meanwhile?
            stack.close()  # the renames, whose errors are this set's, too
        except OSError as error:
            raise DataError(
                f"cannot write {out} ({error.strerror or error}); check space and permissions"
            ) from error


@contextmanager
def _sole_builder(out: Path) -> Iterator[None]:
    """Hold a lock file beside `out`, which goes with the lock."""
    path = out.with_name(f".{out.name}.lock")
    with path.open("a") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(file.fileno()), path.stat())  # else removed meanwhile
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise DataError(
                f"another process builds {out}; wait for it or choose another output folder"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_marker(folder: Path, facts: Mapping[str, object]) -> None:
    """Note in the folder that this command built it, with the facts a reader may want to know."""
    text = json.dumps({"made_by": _MADE_BY, **facts, _DIGEST: _digest(folder)}, indent=2)
    with whole_file(folder / MARKER) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _digest(folder: Path) -> str:
    """Hash the manifest: who edits it, as the manual allows, must not lose that."""
    return hashlib.sha256((folder / manifest.NAME).read_bytes()).hexdigest()


def _require_replaceable(out: Path, *, keep: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file; choose another output folder")
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    if not files:
        return
    facts = _marker(out)
    if keep or facts is None:
        built = "" if keep else " and was not built here"
        raise DataError(f"{out} is not empty{built}; choose another output folder")
    listed = {row.file for row in manifest.read_manifest(out / manifest.NAME)}
    listed |= {surroundings_name(file) for file in listed}
    foreign = sorted(files - listed - {MARKER, manifest.NAME})
    if foreign:
        raise DataError(
            f"{out} holds {len(foreign)} files that its build did not write (such as {foreign[0]}) "
            "and that a new build would delete; move them or choose another output folder"
        )
    if facts.get(_DIGEST, _digest(out)) != _digest(out):  # earlier versions noted none
        raise DataError(
            f"{out / manifest.NAME} was edited since it was built, and a new one would replace it; "
            "choose another output folder"
        )


def _marker(out: Path) -> dict[str, object] | None:
    """Return what the build of a folder noted; None: it was not built here."""
    try:
        facts = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("made_by") == _MADE_BY else None
