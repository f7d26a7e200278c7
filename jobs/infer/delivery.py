"""The files of a finished map, copied to object storage: s3://bucket/maps and the like.

No map can be made in place there, as SQLite rewrites what it has written, and there are no locks.
A claim, one small object beside the map, says whose the map is. A second job refuses to begin where
it finds another's claim. Of two that begin at the same moment the later claim stays, and the job
that finds it gone copies nothing.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geo.addresses import without_secrets
from geo.errors import OutputError
from geo.files import write_text
from jobs.infer.job import InferJob
from jobs.runtime.objects import copy_up, open_storage

OWNER = ".owner"
"""File in the work folder with the name by which its claims are known."""

CLAIM = "claim.json"
"""Ends the name of a claim."""


@dataclass(frozen=True)
class Claim:
    """Whose a map is.

    Attributes:
        owner: name of a work folder.
        place: where that lies, for people.
        files: object -> when it was written, of the last map; None while one is being copied.
    """

    owner: str
    place: str
    files: dict[str, str] | None = field(default_factory=dict)


@dataclass(frozen=True)
class Delivery:
    """Where the files of a job's map are copied to.

    Attributes:
        folder: address of the folder, as pyarrow reads it.
        package: name of the GeoPackage.
        work: work folder of the job.
        names: of all files, or folders, that the map will have.
    """

    folder: str
    package: str
    work: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, job: InferJob, made: Sequence[Path]) -> Delivery | None:
        """Return the delivery of a job; None for one whose map stays where it is made."""
        if job.deliver_to is None:
            return None
        names = tuple(path.name for path in made)
        return cls(job.deliver_to, job.out.name, job.work_folder.absolute(), names)

    @property
    def address(self) -> str:
        """Of the GeoPackage, without what lets one in."""
        return f"{without_secrets(self.folder)}/{self.package}"

    def check(self) -> Claim | None:
        """Look, before any work, whether the map may lie there; changes nothing.

        Returns:
            The claim of this job, if it has one.

        Raises:
            OutputError: There is another job's map, one that was changed, or the storage refuses.
        """
        with self._storage() as (files, inner):
            claim, there = self._read(files, inner), self._objects(files, inner)
            if claim is not None:
                self._require_own(claim)
            known = {} if claim is None else claim.files
            if known is not None:  # None: a copy was under way
                strange = [x for x in there if x not in known and x.split("/")[0] in self.names]
                if strange:
                    raise OutputError(
                        f"{min(strange)} beside {self.address} was not written by this program; "
                        "move it away, or choose another out"
                    )
            if claim is None:
                return None
            changed = [
                name for name, at in (claim.files or {}).items() if there.get(name, at) != at
            ]
            if changed:
                raise OutputError(
                    f"{changed[0]} beside {self.address} was changed since it was copied there; "
                    "move it away, or choose another out"
                )
            return claim

    def claim(self) -> None:
        """Claim the place for this work folder, whose lock is held.

        Raises:
            OutputError: See `check`.
        """
        claim = self.check() or Claim(self._owner(), f"{socket.gethostname()}:{self.work}")
        with self._storage() as (files, inner):
            self._write(files, inner, claim)

    def deliver(self, paths: Sequence[Path]) -> list[str]:
        """Copy the files of a map, each whole or not at all, the GeoPackage last.

        Args:
            paths: of the files; those that are not there are left out.

        Returns:
            The addresses of the copies.

        Raises:
            OutputError: The place is another job's now, or the storage refuses.
        """
        ordered = _files(paths, self.package)
        with self._storage() as (files, inner):
            claim = self._read(files, inner)
            if claim is None:
                raise OutputError(f"the claim of {self.address} was removed; {self._again()}")
            self._require_own(claim)
            self._write(files, inner, Claim(claim.owner, claim.place, None))
            for name, path in ordered.items():
                copy_up(files, path, f"{inner}/{name}")
            for name in (claim.files or {}).keys() - ordered.keys():
                with suppress(FileNotFoundError):
                    files.delete_file(f"{inner}/{name}")  # of a map with other formats
            there = self._objects(files, inner)
            written = {name: there[name] for name in ordered}
            self._write(files, inner, Claim(claim.owner, claim.place, written))
        return [f"{without_secrets(self.folder)}/{name}" for name in reversed(ordered)]

    def _require_own(self, claim: Claim) -> None:
        if claim.owner != self._owner():
            raise OutputError(
                f"{self.address} is the map of another job, of {claim.place}; choose another out, "
                f"or, if that job is given up, remove the object {self._claim_name()} beside it"
            )

    def _owner(self) -> str:
        """Return the name of the work folder, which is made where there is none."""
        path = self.work / OWNER
        if not path.exists():
            if not self.work.is_dir():
                return ""
            write_text(path, secrets.token_hex(8))
        return path.read_text("utf-8")

    def _claim_name(self) -> str:
        return f"{Path(self.package).stem}.{CLAIM}"

    def _read(self, files: Any, inner: str) -> Claim | None:
        try:
            with files.open_input_stream(f"{inner}/{self._claim_name()}") as stream:
                content = stream.read()
        except FileNotFoundError:
            return None
        try:
            return Claim(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{self._claim_name()} beside {self.address} is damaged; remove it, if no job "
                "works for this map"
            ) from error

    def _write(self, files: Any, inner: str, claim: Claim) -> None:
        with files.open_output_stream(f"{inner}/{self._claim_name()}") as stream:
            stream.write(json.dumps(asdict(claim)).encode())

    def _objects(self, files: Any, inner: str) -> dict[str, str]:
        """Return name -> time of writing of what lies in the folder under the map's name."""
        from pyarrow.fs import FileSelector

        def there(folder: str, recursive: bool) -> list[Any]:
            place = FileSelector(folder, allow_not_found=True, recursive=recursive)
            return list(files.get_file_info(place))

        stem = Path(self.package).stem
        found = [x for x in there(inner, False) if x.base_name.startswith(stem)]
        for folder in [x.path for x in found if not x.is_file]:
            found += there(folder, True)
        return {x.path[len(inner) :].lstrip("/"): str(x.mtime_ns) for x in found if x.is_file}

    def _storage(self) -> AbstractContextManager[tuple[Any, str]]:
        return open_storage(self.folder, self._again(), self.address)

    def _again(self) -> str:
        return f"what is finished is kept in {self.work}, and the same command continues"


def _files(paths: Sequence[Path], last: str) -> dict[str, Path]:
    """Return name -> file of what is there, also in folders, in the order of copying."""
    found = {}
    for path in sorted(filter(Path.exists, paths), key=lambda path: path.name == last):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            found[str(file.relative_to(path.parent))] = file
    return found
