"""Finished blocks in object storage, for nodes that share no folder: parts=s3://bucket/blocks/city.

Each worker writes a block in a folder of its own node and copies it here; the driver copies it on
into its work folder, from which the map is made. The storage holds the same as the work folder, so
a driver on another machine, with an empty work folder, goes on with it.

    job.jsonl      the job, without the lines of blocks: their parts say the same
    .owner         see `jobs.infer.delivery`
    parts/, probability/
    begun/NAME/    an object for each begin of a block that has not ended
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo.addresses import without_secrets
from geo.errors import OutputError, first_line
from geo.files import whole_file
from geo.imagery.mosaic import Block
from jobs.infer.delivery import OWNER
from jobs.infer.job import InferJob
from jobs.infer.job_log import DAMAGED, LOG, JobLog, JobRecord
from jobs.infer.plan import PARTS, PROBABILITY, Plan
from jobs.infer.probability import ground_file, probability_file
from jobs.runtime.objects import copy_down, copy_up, open_storage
from wpcrack.errors import ConfigError

BEGUN = "begun"

AT_ONCE = 8
"""Objects under way at a time."""


@dataclass(frozen=True)
class BlockStore:
    """Where finished blocks are copied to; names are those of files in a work folder.

    Attributes:
        address: of the folder, as pyarrow reads it.
    """

    address: str

    @property
    def shown(self) -> str:
        """The address for messages."""
        return without_secrets(self.address)

    @classmethod
    def of(cls, job: InferJob) -> BlockStore | None:
        """Return the storage of a job; None for one whose nodes share a folder."""
        return None if job.parts is None else cls(job.parts)

    def names(self, *folders: str) -> set[str]:
        """Return the names of what lies in folders of the storage.

        Raises:
            OutputError: It cannot be read.
        """
        from pyarrow.fs import FileSelector

        with self._open() as (files, inner):
            found: list[Any] = []
            for folder in folders:
                place = FileSelector(f"{inner}/{folder}", allow_not_found=True, recursive=True)
                found += files.get_file_info(place)
            return {info.path[len(inner) :].lstrip("/") for info in found if info.is_file}

    def put(self, root: Path, names: Iterable[str]) -> None:
        """Copy files of a folder here, each whole or not at all.

        Raises:
            OutputError: They cannot be written.
        """
        with self._open() as (files, inner):
            for name in names:
                copy_up(files, root / name, f"{inner}/{name}")

    def fetch(self, root: Path, names: Iterable[str]) -> None:
        """Copy what is here into a folder; what is not here is left out.

        Raises:
            OutputError: It cannot be read.
        """

        def one(name: str) -> None:
            path = root / name
            path.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError), whole_file(path) as temporary:
                copy_down(files, f"{inner}/{name}", temporary)

        with self._open() as (files, inner):
            _each(one, names)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are none.

        Raises:
            OutputError: They cannot be removed.
        """

        def one(name: str) -> None:
            with suppress(FileNotFoundError):
                files.delete_file(f"{inner}/{name}")

        with self._open() as (files, inner):
            _each(one, names)

    def adopt(self, root: Path) -> None:
        """Give an empty work folder the job of the storage, if there is one.

        Raises:
            OutputError: The storage, or the folder, cannot be used.
            ConfigError: What is there is damaged.
        """
        if not (root / LOG).exists() and self.record() is not None:
            root.mkdir(parents=True, exist_ok=True)
            self.fetch(root, [OWNER])
            self.fetch(root, [LOG])  # last: with it the folder is adopted

    def record(self) -> JobRecord | None:
        """Return the job whose blocks these are; None if there is none.

        Raises:
            OutputError: The storage cannot be read.
            ConfigError: It is damaged, or of another version of this program.
        """
        with self._open() as (files, inner):
            try:
                with files.open_input_stream(f"{inner}/{LOG}") as stream:
                    content = stream.read()
            except FileNotFoundError:
                return None
        try:
            return JobRecord.of_text(content.decode())
        except DAMAGED as error:
            raise ConfigError(
                f"{self.shown}/{LOG} is damaged ({first_line(error)}); remove what is there, or "
                "give another address"
            ) from error

    def require_own(self, now: JobRecord) -> None:
        """Refuse what is not of this map: it could be mixed into it, or removed.

        Raises:
            OutputError: The storage cannot be read.
            ConfigError: It is another map's, nobody's that we know, or damaged.
        """
        there = self.record()
        if there is None and (found := self.names(PARTS, PROBABILITY, BEGUN)):
            raise ConfigError(
                f"parts={self.shown} holds {min(found)}, but no {LOG} of a job that wrote it; give "
                "another address"
            )
        if there is not None and _map_of(there) != _map_of(now):
            name, tiles = _map_of(there)
            raise ConfigError(
                f"parts={self.shown} holds the blocks of another map ({name} of tiles={tiles}); "
                "give another address"
            )

    def complete(self, root: Path, plan: Plan) -> None:
        """Copy the blocks into a work folder that it lacks, and forget the begun ones.

        Names are those of the plan: what else lies there could name files elsewhere.

        Raises:
            OutputError: The storage, or the folder, cannot be used.
            ConfigError: What is there is damaged.
        """
        self.remove(self.names(BEGUN))
        there, here = self.record(), JobLog.read(root)
        if there is not None and here is not None and not there.difference(here.record):
            wanted = {name for block in plan.blocks for name in names_of(plan, block)}
            there_is = wanted & self.names(PARTS, PROBABILITY)
            self.fetch(root, (name for name in there_is if not (root / name).exists()))

    def follow(self, root: Path) -> None:
        """Keep of the storage what the work folder holds, and note the job as it starts.

        Raises:
            OutputError: The storage cannot be written.
        """
        self.remove(x for x in self.names(PARTS, PROBABILITY) if not (root / x).exists())
        record = (root / LOG).read_text("utf-8").partition("\n")[0] + "\n"
        with self._open() as (files, inner), files.open_output_stream(f"{inner}/{LOG}") as stream:
            stream.write(record.encode())

    # -- marks of what is begun, see `jobs.infer.attempts`

    def count(self, name: str) -> int:
        """Return how often some work was begun and not ended."""
        return len(self.names(f"{BEGUN}/{name}"))

    def add(self, name: str) -> None:
        """Note a begin."""
        with self._open() as (files, inner):
            path = f"{inner}/{BEGUN}/{name}/{secrets.token_hex(8)}"
            if files.type_name == "local":
                files.create_dir(path.rpartition("/")[0])
            with files.open_output_stream(path) as stream:
                stream.write(b".")

    def clear(self, name: str) -> None:
        """Note an end."""
        self.remove(self.names(f"{BEGUN}/{name}"))

    def is_busy(self) -> bool:
        """Return whether anything is known to be begun and not ended."""
        try:
            return bool(self.names(BEGUN))
        except OutputError:
            return False  # who writes or reads blocks says it

    def _open(self) -> AbstractContextManager[tuple[Any, str]]:
        again = "what is finished is kept, and the same command continues"
        return open_storage(self.address, again)


def _map_of(record: JobRecord) -> tuple[str, Any]:
    """Return the name of a job's map, and its tiles."""
    return Path(record.config["out"]).name, record.config["tiles"]


def names_of(plan: Plan, block: Block) -> list[str]:
    """Return the names of a block's files in the work folder."""
    paths = [plan.part(block)]
    if plan.probability is not None:
        paths += [file_of(plan.probability, block) for file_of in (probability_file, ground_file)]
    return [str(path.relative_to(plan.parts.parent)) for path in paths]


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, names))
